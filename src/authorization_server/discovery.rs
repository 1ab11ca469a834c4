//! Where a server's endpoints are, by its own word, taken only if it names itself exactly as configured (RFC 8414 §3.3).

use serde::Deserialize;
use url::Url;

use crate::model::excerpt;

/// Where it is asked; what is `None` it does not offer.
#[derive(Clone, Debug, Deserialize)]
pub struct Endpoints {
    /// For tokens.
    pub token_endpoint: Url,
    /// Its keys.
    pub jwks_uri: Option<Url>,
    /// Where users sign in.
    pub authorization_endpoint: Option<Url>,
    /// RFC 7662.
    pub introspection_endpoint: Option<Url>,
    /// RFC 7009.
    pub revocation_endpoint: Option<Url>,
    /// RFC 8628.
    pub device_authorization_endpoint: Option<Url>,
    /// Whether it names itself when it sends a browser back (RFC 9207 §3).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

impl Endpoints {
    /// Each of them, with the name that it has in the document and in the configuration.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, &Url)> {
        let optional = [
            ("jwks_uri", &self.jwks_uri),
            ("authorization_endpoint", &self.authorization_endpoint),
            ("introspection_endpoint", &self.introspection_endpoint),
            ("revocation_endpoint", &self.revocation_endpoint),
            ("device_authorization_endpoint", &self.device_authorization_endpoint),
        ];
        let optional = optional.into_iter().filter_map(|(name, url)| Some((name, url.as_ref()?)));
        std::iter::once(("token_endpoint", &self.token_endpoint)).chain(optional)
    }
}

/// What we use of the document.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    #[serde(flatten)]
    endpoints: Endpoints,
}

/// Where the document may be: OpenID Connect's place, then RFC 8414's, which puts the well-known part before the path.
pub(crate) fn locations(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/').to_owned();
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    };
    vec![
        at(format!("{path}/.well-known/openid-configuration")),
        at(format!("/.well-known/oauth-authorization-server{path}")),
    ]
}

/// Reads a document.
pub(crate) fn parse(issuer: &str, document: &[u8]) -> Result<Endpoints, String> {
    let Metadata { issuer: named, endpoints } = serde_json::from_slice(document)
        .map_err(|error| format!("the metadata document can't be read: {}", excerpt(&error.to_string())))?;
    if named != issuer {
        return Err(format!(
            "the server names itself {:?}, but {issuer:?} is configured: they must be identical, to the last slash",
            excerpt(&named)
        ));
    }
    if let Some((_, url)) = endpoints.named().find(|(_, url)| !is_confidential(url)) {
        return Err(format!("the endpoint {} is not https", excerpt(url.as_str())));
    }
    Ok(endpoints)
}

/// Whether secrets may be sent there: https, or plain http that does not leave the machine.
pub(crate) fn is_confidential(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(issuer: &str, token_endpoint: &str) -> Vec<u8> {
        format!(r#"{{"issuer":"{issuer}","token_endpoint":"{token_endpoint}","jwks_uri":"https://o.example/keys"}}"#)
            .into_bytes()
    }

    #[test]
    fn the_issuer_is_compared_byte_by_byte() {
        let issuer = "https://o.example/oauth2/aus1";
        assert!(parse(issuer, &document(issuer, "https://o.example/token")).is_ok());
        for other in [
            "https://o.example/oauth2/aus1/",
            "https://O.example/oauth2/aus1",
            "http://o.example/oauth2/aus1",
        ] {
            assert!(parse(issuer, &document(other, "https://o.example/token")).is_err(), "{other}");
        }
    }

    #[test]
    fn an_endpoint_without_tls_is_refused_unless_on_loopback() {
        let issuer = "https://o.example";
        assert!(parse(issuer, &document(issuer, "http://o.example/token")).is_err());
        assert!(parse(issuer, &document(issuer, "http://127.0.0.1:1/token")).is_ok());
        assert!(parse(issuer, &document(issuer, "http://127.0.0.1.evil.example/token")).is_err());
    }

    #[test]
    fn both_places_are_known() {
        let issuer = Url::parse("https://o.example/oauth2/aus1").unwrap();
        let places: Vec<String> = locations(&issuer).into_iter().map(String::from).collect();
        assert_eq!(
            places,
            [
                "https://o.example/oauth2/aus1/.well-known/openid-configuration",
                "https://o.example/.well-known/oauth-authorization-server/oauth2/aus1"
            ]
        );
    }
}
