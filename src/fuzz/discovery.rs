use std::net::IpAddr;

use serde_json::{Map, Value};
use url::Url;

use crate::authorization_server::{Endpoints, locations, parse_metadata};
use crate::fuzz::LONGEST_COMPLAINT;

const ISSUER: &str = "https://company.okta.com/oauth2/aus1";

/// A metadata document; or, where it is a URL, an issuer.
pub fn discovery(input: &[u8]) -> bool {
    if let Some(issuer) = std::str::from_utf8(input).ok().and_then(|text| Url::parse(text).ok()) {
        // It is asked there and nowhere else.
        assert!(locations(&issuer).iter().all(|place| {
            (place.scheme(), place.host(), place.port()) == (issuer.scheme(), issuer.host(), issuer.port())
        }));
        return false;
    }
    let endpoints = match parse_metadata(ISSUER, input) {
        Ok(endpoints) => endpoints,
        Err(why) => {
            assert!(why.len() <= LONGEST_COMPLAINT, "{} bytes: {why:.200}", why.len());
            return false;
        }
    };
    let said: Value = serde_json::from_slice(input).unwrap();
    assert_eq!(said["issuer"], ISSUER);
    let mut document: Map<String, Value> = [("issuer".to_owned(), Value::from(ISSUER))].into_iter().collect();
    for (name, url) in endpoints.named() {
        assert!(url.scheme() == "https" || is_here(url), "{url}");
        document.insert(name.to_owned(), Value::from(url.as_str()));
    }
    let again = parse_metadata(ISSUER, Value::from(document).to_string().as_bytes()).unwrap();
    assert!(pairs(&endpoints).eq(&pairs(&again)));
    true
}

fn pairs(endpoints: &Endpoints) -> Vec<(&'static str, &Url)> {
    endpoints.named().collect()
}

/// By its text, not by the parts that the parser made of it.
fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
