//! What the configuration says of the page; a reload replaces it whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use url::Url;

use crate::connect::cookies::Style;
use crate::model::{Service, ServiceName, redirect_uri};

/// No link back is longer: it goes into a cookie.
const LONGEST: usize = 1024;

/// On what terms users connect.
#[derive(Debug)]
pub struct Terms {
    /// The origin that browsers see the page at.
    pub public_url: Url,
    /// The origins that users may be sent back to.
    pub return_to: Vec<Url>,
    /// The authorization servers by name.
    pub servers: BTreeMap<String, Place>,
    /// Whether something before the page may say whom a connection is of: it has no certificate of its own.
    pub behind_proxy: bool,
    /// The services that have users.
    pub services: Vec<Arc<Service>>,
}

/// Where users sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Servers of one realm know the same people: what one of them says of somebody counts for all of them. Nobody is
    /// somebody at a server because another realm's says so.
    pub realm: String,
    /// As people know it.
    pub label: String,
    /// The origins that a browser may be sent to.
    pub origins: Vec<String>,
}

impl Place {
    /// Of a server that names itself `issuer`, where we are `client_id`. An Okta org's servers are one realm for one
    /// application: under which name an application knows a user is set for each of them. So are, in development, those of
    /// one origin on loopback that look like Okta's. Any other server is a realm of its own.
    #[must_use]
    pub fn of(
        (issuer, client_id): (&str, &str),
        okta_domain: Option<&str>,
        authorization_endpoint: Option<&Url>,
    ) -> Self {
        let url = Url::parse(issuer).ok();
        let origin = |url: &Url| url.origin().ascii_serialization();
        let stand_in = url.as_ref().filter(|url| {
            let mut path = url.path_segments().into_iter().flatten();
            url.scheme() == "http" && path.next() == Some("oauth2") && path.next().is_some()
        });
        let realm = match (okta_domain, stand_in) {
            (Some(domain), _) => format!("okta {} {client_id}", domain.to_ascii_lowercase()),
            (None, Some(url)) => format!("dev {} {client_id}", origin(url)),
            (None, None) => format!("issuer {issuer}"),
        };
        let host = url.as_ref().and_then(Url::host_str).unwrap_or(issuer);
        let label = match url.as_ref().and_then(Url::port) {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let mut origins: Vec<String> =
            url.as_ref().into_iter().chain(authorization_endpoint).map(origin).collect();
        origins.dedup();
        Self { realm, label, origins }
    }
}

impl Terms {
    pub(super) fn style(&self) -> Style {
        Style::new(self.is_https())
    }

    pub(super) fn is_https(&self) -> bool {
        self.public_url.scheme() == "https"
    }

    pub(super) fn origin(&self) -> String {
        self.public_url.origin().ascii_serialization()
    }

    pub(super) fn service(&self, name: &str) -> Option<&Arc<Service>> {
        let name = ServiceName::parse(name)?;
        self.services.iter().find(|service| service.name == name)
    }

    /// The realm of a service's server, if there is such a server.
    pub(super) fn realm(&self, service: &Service) -> Option<&str> {
        self.servers.get(&service.authorization_server).map(|place| place.realm.as_str())
    }

    /// Where a browser is sent back to; one for each server, so that no answer of one passes for another's.
    pub(super) fn redirect_uri(&self, authorization_server: &str) -> Url {
        redirect_uri(&self.public_url, authorization_server)
    }

    /// A link back, if it leads to one of the configured origins.
    pub(super) fn link_back(&self, text: &str) -> Option<Url> {
        let url = Url::parse(text).ok().filter(|url| url.as_str().len() <= LONGEST)?;
        let bare = url.username().is_empty() && url.password().is_none();
        let known = self.return_to.iter().any(|allowed| allowed.origin() == url.origin());
        (bare && known && url.has_host()).then_some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        let url = |text: &str| Url::parse(text).unwrap();
        Terms {
            public_url: url("https://bursar.example.com"),
            return_to: vec![url("https://workflows.example.com"), url("https://other.example.com:8443")],
            servers: BTreeMap::new(),
            behind_proxy: false,
            services: Vec::new(),
        }
    }

    #[test]
    fn a_link_back_leads_to_a_configured_origin_or_nowhere() {
        let terms = terms();
        for good in [
            "https://workflows.example.com",
            "https://workflows.example.com/runs/7?x=1#top",
            "https://other.example.com:8443/",
            "https://WORKFLOWS.example.com:443/x",
        ] {
            assert!(terms.link_back(good).is_some(), "{good}");
        }
        for bad in [
            "http://workflows.example.com/",
            "https://workflows.example.com:444/",
            "https://workflows.example.com.evil.example/",
            "https://workflows.example.com@evil.example/",
            "https://user:secret@workflows.example.com/",
            "https://evil.example/https://workflows.example.com",
            "https://evil.example\\@workflows.example.com/",
            "//workflows.example.com/",
            "/runs",
            "javascript:alert(1)//workflows.example.com",
            "data:text/html,x",
            "https://other.example.com/",
            "",
        ] {
            assert_eq!(terms.link_back(bad), None, "{bad}");
        }
        let split = terms.link_back("https://workflows.example.com/\r\nset-cookie:x=y").unwrap();
        assert!(!split.as_str().contains(['\r', '\n']), "{split}");
        let long = format!("https://workflows.example.com/{}", "x".repeat(LONGEST));
        assert_eq!(terms.link_back(&long), None);
    }

    #[test]
    fn an_okta_orgs_servers_are_one_realm_for_one_application_and_any_other_is_its_own() {
        let of = |client, domain, id| {
            Place::of((&format!("https://{domain}/oauth2/{id}"), client), Some(domain), None).realm
        };
        let okta = |domain, id| of("client", domain, id);
        // As whom a user is known is set for each application.
        assert_ne!(of("other", "company.okta.com", "one"), okta("company.okta.com", "one"));
        assert_ne!(
            Place::of(("http://127.0.0.1:1/oauth2/a", "other"), None, None).realm,
            Place::of(("http://127.0.0.1:1/oauth2/b", "client"), None, None).realm
        );
        assert_eq!(okta("company.okta.com", "one"), okta("company.okta.com", "two"));
        assert_ne!(okta("company.okta.com", "one"), okta("other.okta.com", "one"));
        let own = |issuer| Place::of((issuer, "client"), None, None).realm;
        assert_ne!(own("https://id.example.com/realms/a"), own("https://id.example.com/realms/b"));
        assert_ne!(own("https://id.example.com/oauth2/a"), own("https://id.example.com/oauth2/b"));
        assert_ne!(own("https://company.okta.com/oauth2/one"), okta("company.okta.com", "one"));
        assert_eq!(own("http://127.0.0.1:1/oauth2/a"), own("http://127.0.0.1:1/oauth2/b"));
        assert_ne!(own("http://127.0.0.1:1/oauth2/a"), own("http://127.0.0.1:2/oauth2/a"));
        assert_ne!(own("http://127.0.0.1:1/a"), own("http://127.0.0.1:1/b"));
    }

    #[test]
    fn each_server_has_a_redirect_uri_of_its_own() {
        let terms = terms();
        assert_eq!(
            terms.redirect_uri("production").as_str(),
            "https://bursar.example.com/callback/production"
        );
        assert_eq!(
            terms.redirect_uri("a/../b ?").as_str(),
            "https://bursar.example.com/callback/a%2F..%2Fb%20%3F"
        );
    }
}
