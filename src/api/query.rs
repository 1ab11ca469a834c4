//! A request's query, read strictly: what is unknown, twice or malformed is refused, by name.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode;

use crate::api::error::Problem;
use crate::model::{RoleName, ServiceName, UserName};
use crate::secret::Digest;

/// More than anybody needs, and little enough to look through.
const MOST_PARAMETERS: usize = 32;

/// The parameters, each at most once.
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads `query`, in which only `known` parameters may stand.
    ///
    /// # Errors
    /// `invalid_request`, naming the first parameter that is wrong.
    pub fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Self, Problem> {
        Self::parse_form(query.unwrap_or_default().as_bytes(), known)
    }

    /// The same for a form in a body.
    ///
    /// # Errors
    /// `invalid_request`, naming the first parameter that is wrong.
    pub fn parse_form(form: &'a [u8], known: &[&str]) -> Result<Self, Problem> {
        let mut parameters: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        let pairs = form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        for pair in pairs.take(MOST_PARAMETERS + 1) {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let (name, value) = (decode(parts.next()), decode(parts.next()));
            let name = name.unwrap_or(Cow::Borrowed("?"));
            if !known.contains(&name.as_ref()) {
                return Err(Problem::invalid_parameter(&name, "unknown parameter"));
            }
            if parameters.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Problem::invalid_parameter(&name, "given twice"));
            }
            let value = value.ok_or_else(|| Problem::invalid_parameter(&name, "not UTF-8"))?;
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// A parameter's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(parameter, _)| parameter == name).map(|(_, value)| value.as_ref())
    }

    /// A parameter that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn required(&self, name: &str) -> Result<&str, Problem> {
        self.get(name).ok_or_else(|| Problem::invalid_parameter(name, "missing"))
    }

    fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Option<T>,
        allowed: &str,
    ) -> Result<Option<T>, Problem> {
        self.get(name)
            .map(|value| read(value).ok_or_else(|| Problem::invalid_parameter(name, allowed)))
            .transpose()
    }

    /// `service`, if it is given.
    ///
    /// # Errors
    /// If it is no name.
    pub fn service(&self) -> Result<Option<ServiceName>, Problem> {
        self.read("service", ServiceName::parse, NAME)
    }

    /// `user`, if it is given.
    ///
    /// # Errors
    /// If it is no name.
    pub fn user(&self) -> Result<Option<UserName>, Problem> {
        self.read("user", UserName::parse, NAME)
    }

    /// `role`, if it is given.
    ///
    /// # Errors
    /// If it is no name.
    pub fn role(&self) -> Result<Option<RoleName>, Problem> {
        self.read("role", RoleName::parse, NAME)
    }

    /// The base64url of a SHA-256, if it is given.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn digest(&self, name: &str) -> Result<Option<Digest>, Problem> {
        self.read(name, Digest::from_base64url, "must be the base64url of a SHA-256")
    }

    /// A duration in whole seconds, if it is given.
    ///
    /// # Errors
    /// If it is not a number of up to nine digits.
    pub fn seconds(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let number = |text: &str| {
            let digits = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok().map(Duration::from_secs)).flatten()
        };
        self.read(name, number, "must be whole seconds")
    }

    /// A number from 1 to `most`, if it is given.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn number(&self, name: &str, most: u32) -> Result<Option<u32>, Problem> {
        let number = |text: &str| text.parse().ok().filter(|number| (1..=most).contains(number));
        self.read(name, number, "must be a number that is not too large")
    }
}

const NAME: &str = "must be 1 to 256 characters, none of them a control character";

/// The URL standard's form encoding, but strict: `None` for what is not UTF-8.
fn decode(text: Option<&[u8]>) -> Option<Cow<'_, str>> {
    let text = text.unwrap_or_default();
    if text.contains(&b'+') {
        let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        return Some(Cow::Owned(percent_decode(&spaced).decode_utf8().ok()?.into_owned()));
    }
    percent_decode(text).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(query: &str) -> String {
        match Query::parse(Some(query), &["service", "user", "min_ttl"]) {
            Ok(query) => {
                let service = query.service().err();
                let number = query.seconds("min_ttl").err();
                service.or(number).map_or_else(String::new, |problem| problem.to_string())
            }
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, parameter) in [
            ("service=a&service=a", "service"),
            ("servic=a", "servic"),
            ("service=", "service"),
            ("service=%FF", "service"),
            ("service=a%00", "service"),
            ("service=a&min_ttl=-1", "min_ttl"),
            ("service=a&min_ttl=1.5", "min_ttl"),
            ("service=a&min_ttl=9999999999", "min_ttl"),
            ("service=a&min_ttl=", "min_ttl"),
        ] {
            assert!(error(query).contains(&format!("\"{parameter}\"")), "{query}: {}", error(query));
        }
        assert_eq!(error("service=a&user=alice%40example.com&min_ttl=60"), "");
        assert_eq!(error("service=%EF%BF%BD&user=a+b%2Bc"), "", "a character like any other");
        let query = Query::parse(Some("user=a+b%2Bc&&service"), &["user", "service"]);
        let query = query.unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!((query.get("user"), query.get("service")), (Some("a b+c"), Some("")));
    }
}
