//! Where a user connects.

use url::Url;

use crate::model::{RoleName, ServiceName};

/// The origin that a sign-in from a terminal comes back to (RFC 8252 §7.3), unless another port is named. Okta compares the
/// port too, so it is always the same one.
pub const LOOPBACK: &str = "http://127.0.0.1:8976";

/// Where an authorization server sends the browser back to. Servers compare it byte for byte with what is registered, and
/// each has one of its own, so that an answer of one is never taken for another's (RFC 9700 §4.4).
#[must_use]
pub fn redirect_uri(origin: &Url, authorization_server: &str) -> Url {
    let mut uri = origin.clone();
    // An origin always has a path to change.
    if let Ok(mut path) = uri.path_segments_mut() {
        path.clear().extend(["callback", authorization_server]);
    }
    uri
}

/// The page where users connect, as browsers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginUrl(Url);

impl LoginUrl {
    /// The page of this origin.
    #[must_use]
    pub fn at(mut public_url: Url) -> Self {
        public_url.set_path("/");
        public_url.set_query(None);
        public_url.set_fragment(None);
        Self(public_url)
    }

    /// Where a user connects to a service, for a role if one is missing. Nobody is named in it: who signs in there is
    /// found out by signing in.
    #[must_use]
    pub fn of(&self, service: &ServiceName, role: Option<&RoleName>) -> String {
        let mut url = self.0.clone();
        url.query_pairs_mut().append_pair("service", service.as_str());
        if let Some(role) = role {
            url.query_pairs_mut().append_pair("role", role.as_str());
        }
        url.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(public_url: &str, service: &str, role: Option<&str>) -> String {
        let url = LoginUrl::at(Url::parse(public_url).unwrap());
        url.of(&ServiceName::parse(service).unwrap(), role.and_then(RoleName::parse).as_ref())
    }

    #[test]
    fn a_service_and_a_role_are_named() {
        let page = "https://bursar.example.com";
        assert_eq!(of(page, "snowflake", None), "https://bursar.example.com/?service=snowflake");
        assert_eq!(
            of(page, "snowflake", Some("ANALYST")),
            "https://bursar.example.com/?service=snowflake&role=ANALYST"
        );
    }

    #[test]
    fn a_strange_name_stays_one_parameter_of_one_page() {
        let url = of("http://[::1]:8085", "a&role=b#c d\u{e9}", Some("R&D \"x\""));
        assert_eq!(url, "http://[::1]:8085/?service=a%26role%3Db%23c+d%C3%A9&role=R%26D+%22x%22");
    }

    #[test]
    fn each_server_has_a_redirect_uri_of_its_own_whatever_it_is_called() {
        let page = Url::parse("https://bursar.example.com").unwrap();
        for (origin, server, expected) in [
            (&page, "production", "https://bursar.example.com/callback/production"),
            (&page, "a/../b ?", "https://bursar.example.com/callback/a%2F..%2Fb%20%3F"),
            (&Url::parse(LOOPBACK).unwrap(), "a", "http://127.0.0.1:8976/callback/a"),
        ] {
            assert_eq!(redirect_uri(origin, server).as_str(), expected);
        }
    }
}
