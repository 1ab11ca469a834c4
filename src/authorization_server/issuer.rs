//! Whose authorization server an issuer is.

use url::Url;

/// Where Okta's own domains end.
const OKTA: [&str; 4] = [".okta.com", ".oktapreview.com", ".okta-emea.com", ".okta-gov.com"];

/// Whose authorization server an issuer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// One of Okta's custom authorization servers, at the company's own domain or Okta's.
    Custom {
        /// Where it is.
        domain: String,
        /// Its id there.
        id: String,
    },
    /// Okta's own, which every organisation has: its access tokens are for Okta alone.
    Organisation {
        /// Where it is.
        domain: String,
    },
    /// Another provider's.
    Other,
}

impl Issuer {
    /// By its form alone.
    #[must_use]
    pub fn of(issuer: &str) -> Self {
        let Ok(url) = Url::parse(issuer) else { return Self::Other };
        let Some(host) = url.host_str() else { return Self::Other };
        let domain = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
        match *path {
            ["oauth2", id] if !id.is_empty() => Self::Custom { domain, id: id.to_owned() },
            ["" | "oauth2"] if OKTA.iter().any(|end| host.ends_with(end)) => Self::Organisation { domain },
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn okta_is_known_by_the_path_of_its_issuers() {
        for (issuer, domain) in [
            ("https://company.okta.com/oauth2/aus1", "company.okta.com"),
            ("https://id.company.com/oauth2/aus1", "id.company.com"),
            ("http://127.0.0.1:8080/oauth2/aus1", "127.0.0.1:8080"),
        ] {
            let expected = Issuer::Custom { domain: domain.to_owned(), id: "aus1".to_owned() };
            assert_eq!(Issuer::of(issuer), expected, "{issuer}");
        }
        let organisation = Issuer::Organisation { domain: "company.okta.com".to_owned() };
        assert_eq!(Issuer::of("https://company.okta.com"), organisation);
        for other in ["https://id.example.com", "https://login.example.com/x/oauth2/v2.0", "nonsense"] {
            assert_eq!(Issuer::of(other), Issuer::Other, "{other}");
        }
    }
}
