//! Cookies: read from a request, written into an answer.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderValue};

/// More than a browser sends of ours.
const MOST: usize = 64;

/// How ours are named: with a prefix that a browser gives only to cookies that came over TLS from this very host, and for
/// all of its paths, so that no other host of the domain can set them. Plain http (on loopback) can't have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    secure: bool,
}

impl Style {
    pub(super) fn new(secure: bool) -> Self {
        Self { secure }
    }

    pub(super) fn name(self, name: &str) -> String {
        let prefix = if self.secure { "__Host-" } else { "" };
        format!("{prefix}bursar-{name}")
    }

    /// Not for scripts, and not sent with what other sites ask for, but for following their links.
    pub(super) fn set(self, name: &str, value: &str, life: Duration) -> Option<HeaderValue> {
        let (name, secure) = (self.name(name), if self.secure { "; Secure" } else { "" });
        let life = life.as_secs();
        // Names and values are of our making; what would end a header early is no value at all.
        HeaderValue::from_str(&format!(
            "{name}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}"
        ))
        .ok()
    }

    pub(super) fn remove(self, name: &str) -> Option<HeaderValue> {
        self.set(name, "", Duration::ZERO)
    }
}

/// Those of a request's cookies that are named as ours are; a host may have any number of others.
#[derive(Default)]
pub(super) struct Jar(Vec<(String, String)>);

impl Jar {
    pub(super) fn of(headers: &HeaderMap, style: Style) -> Self {
        let prefix = style.name("");
        let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let ours = pairs.filter(|(name, _)| name.starts_with(&prefix));
        Self(ours.take(MOST).map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Every value of this name: on plain http another port of the host may have set one, too.
    pub(super) fn values<'a>(&'a self, style: Style, name: &str) -> impl Iterator<Item = &'a str> {
        let name = style.name(name);
        self.0.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// What follows `prefix` in the names of ours that begin so, in the order in which the browser sends them: the oldest
    /// first.
    pub(super) fn beginning<'a>(&'a self, style: Style, prefix: &str) -> Vec<&'a str> {
        let prefix = style.name(prefix);
        self.0.iter().filter_map(|(name, _)| name.strip_prefix(prefix.as_str())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_this_host_alone_and_for_no_script() {
        let style = Style::new(true);
        let set = style.set("session", "abc", Duration::from_mins(1)).unwrap();
        assert_eq!(
            set.to_str().unwrap(),
            "__Host-bursar-session=abc; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
        );
        let plain = Style::new(false).set("session", "abc", Duration::from_mins(1)).unwrap();
        assert_eq!(plain.to_str().unwrap(), "bursar-session=abc; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        assert!(style.set("session", "a\r\nset-cookie: x=y", Duration::from_mins(1)).is_none());
    }

    #[test]
    fn cookies_are_found_by_name_and_only_those_of_the_right_kind() {
        let mut headers = HeaderMap::new();
        let line = "a=1; __Host-bursar-session=one; bursar-session=two; __Host-bursar-consent-x=3";
        headers.append(COOKIE, HeaderValue::from_static(line));
        headers.append(COOKIE, HeaderValue::from_static("__Host-bursar-consent-y=4;;=;"));
        let style = Style::new(true);
        let jar = Jar::of(&headers, style);
        assert_eq!(jar.values(style, "session").collect::<Vec<_>>(), ["one"]);
        assert_eq!(jar.beginning(style, "consent-"), ["x", "y"]);
    }

    #[test]
    fn others_cookies_do_not_crowd_out_ours() {
        let mut line: Vec<String> = (0..200).map(|number| format!("other{number}=1")).collect();
        line.push("__Host-bursar-session=one".to_owned());
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_str(&line.join("; ")).unwrap());
        let style = Style::new(true);
        assert_eq!(Jar::of(&headers, style).values(style, "session").count(), 1);
    }
}
