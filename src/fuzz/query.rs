use std::time::Duration;

use url::form_urlencoded;

use crate::api::query::Query;
use crate::fuzz::LONGEST_COMPLAINT;
use crate::model::{RoleName, ServiceName, UserName};
use crate::secret::Digest;

const KNOWN: [&str; 7] = ["service", "user", "role", "min_ttl", "rejected", "token", "limit"];

/// A request's query, or a form in its body.
pub fn query(input: &[u8]) -> bool {
    let query = match Query::parse_form(input, &KNOWN) {
        Ok(query) => query,
        Err(problem) => {
            assert!(problem.to_string().len() <= LONGEST_COMPLAINT);
            return false;
        }
    };
    // Each parameter once, and read as the URL standard reads it.
    let mut read: Vec<(&str, &str)> =
        KNOWN.into_iter().filter_map(|name| query.get(name).map(|value| (name, value))).collect();
    read.sort_unstable();
    let mut standard: Vec<(String, String)> = form_urlencoded::parse(input).into_owned().collect();
    standard.sort_unstable();
    let standard: Vec<(&str, &str)> =
        standard.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(read, standard);

    let written = form_urlencoded::Serializer::new(String::new()).extend_pairs(&read).finish();
    let again = Query::parse(Some(&written), &KNOWN).unwrap_or_else(|problem| panic!("{problem}"));
    assert!(KNOWN.iter().all(|name| query.get(name) == again.get(name)));

    typed(&query)
}

/// What is read of a value is the value itself.
fn typed(query: &Query<'_>) -> bool {
    let (Ok(service), Ok(user), Ok(role), Ok(min_ttl), Ok(rejected), Ok(limit)) = (
        query.service(),
        query.user(),
        query.role(),
        query.seconds("min_ttl"),
        query.digest("rejected"),
        query.number("limit", 1000),
    ) else {
        return false;
    };
    assert_eq!(service.as_ref().map(ServiceName::as_str), query.get("service"));
    assert_eq!(user.as_ref().map(UserName::as_str), query.get("user"));
    assert_eq!(role.as_ref().map(RoleName::as_str), query.get("role"));
    for name in ["service", "user", "role"] {
        assert!(!query.get(name).is_some_and(|value| value.is_empty() || value.contains(char::is_control)));
    }
    assert!(min_ttl.is_none_or(|time| time < Duration::from_secs(1_000_000_000)));
    assert!(limit.is_none_or(|limit| (1..=1000).contains(&limit)));
    if let Some(digest) = rejected {
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(query.get("rejected").map(|text| text.trim_end_matches('=').len()), Some(43));
    }
    true
}
