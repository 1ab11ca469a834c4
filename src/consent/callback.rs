//! What a browser brings back from the authorization server (RFC 6749 §4.1.2): only the answer to what was asked counts,
//! and only from the server that was asked (RFC 9207, RFC 9700 §4.4).

use crate::authorization_server::consent::Authorization;
use crate::authorization_server::misconfiguration;
use crate::clock::Timestamp;
use crate::consent::{Pending, Refused};
use crate::secret::Secret;

/// The parameters that came back, each at most once.
#[derive(Clone, Debug, Default)]
pub struct Callback {
    /// What the tokens are had for.
    pub code: Option<Secret>,
    /// What was sent with the browser.
    pub state: Option<Secret>,
    /// Who sent it back.
    pub issuer: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
    /// The same in a sentence; looked into, never repeated.
    pub error_description: Option<String>,
}

impl Callback {
    /// From the query that a browser came with; `None` where a parameter stands twice.
    #[must_use]
    pub fn read(query: &str) -> Option<Self> {
        let mut callback = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let secret = || Some(Secret::new(value.to_string()));
            let text = || Some(value.to_string());
            let twice = match &*name {
                "code" => std::mem::replace(&mut callback.code, secret()).is_some(),
                "state" => std::mem::replace(&mut callback.state, secret()).is_some(),
                "iss" => std::mem::replace(&mut callback.issuer, text()).is_some(),
                "error" => std::mem::replace(&mut callback.error, text()).is_some(),
                "error_description" => std::mem::replace(&mut callback.error_description, text()).is_some(),
                // RFC 6749 §4.1.2: the client must ignore parameters that it does not know.
                _ => false,
            };
            if twice {
                return None;
            }
        }
        Some(callback)
    }
}

/// The code, if this is the answer to what is pending.
pub(super) fn check(
    came: &Callback,
    pending: &Pending,
    server: &Authorization,
    now: Timestamp,
) -> Result<Secret, Refused> {
    if came.state.as_ref() != Some(&pending.state) {
        return Err(Refused::Unsolicited);
    }
    match &came.issuer {
        Some(issuer) if *issuer != server.issuer => return Err(Refused::Unsolicited),
        None if server.names_itself => return Err(Refused::Unsolicited),
        Some(_) | None => {}
    }
    if now >= pending.until {
        return Err(Refused::TooLate);
    }
    match (&came.error, &came.code) {
        (Some(error), _) => Err(refused(error, came.error_description.as_deref().unwrap_or_default())),
        (None, Some(code)) if !code.is_empty() => Ok(code.clone()),
        (None, _) => Err(Refused::Unsolicited),
    }
}

/// What Okta says when the user declines, and when a policy does, are the same error; its sentence tells them apart.
fn refused(error: &str, description: &str) -> Refused {
    let policy = ["policy", "Policy", "not assigned", "not allowed"];
    let sane = (1..=64).contains(&error.len())
        && error.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match error {
        "access_denied" if !policy.iter().any(|word| description.contains(word)) => Refused::Cancelled,
        "login_required" | "consent_required" | "interaction_required" => Refused::Cancelled,
        _ if sane => misconfiguration(error, description).into(),
        _ => Refused::Unsolicited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consent::Purpose;
    use crate::model::ServiceName;
    use url::Url;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn pending() -> Pending {
        Pending {
            authorization_server: "production".to_owned(),
            service: ServiceName::parse("snowflake").unwrap(),
            purpose: Purpose::Connect(Vec::new()),
            redirect_uri: Url::parse("https://b.example/callback/production").unwrap(),
            state: secret("the-state"),
            until: NOW.plus(std::time::Duration::from_mins(1)),
            registration: "c at https://o.example".to_owned(),
            nonce: secret("n"),
            verifier: secret("v"),
        }
    }

    fn come(query: &str, names_itself: bool, now: Timestamp) -> Result<Secret, &'static str> {
        let server = Authorization {
            endpoint: Url::parse("https://o.example/authorize").unwrap(),
            issuer: "https://o.example".to_owned(),
            client_id: "c".to_owned(),
            asks_each_time: false,
            names_itself,
        };
        let came = Callback::read(query).ok_or("twice")?;
        check(&came, &pending(), &server, now).map_err(|refused| refused.word())
    }

    #[test]
    fn a_code_counts_only_as_the_answer_to_what_was_asked_and_from_whom() {
        assert!(come("code=c&state=the-state&iss=https%3A%2F%2Fo.example", true, NOW).is_ok());
        assert!(come("code=c&state=the-state", false, NOW).is_ok());
        for (query, names_itself, expected) in [
            ("code=c&state=another", false, "unsolicited"),
            ("code=c", false, "unsolicited"),
            ("state=the-state", false, "unsolicited"),
            ("code=&state=the-state", false, "unsolicited"),
            ("code=c&state=the-state&iss=https%3A%2F%2Fevil.example", false, "unsolicited"),
            ("code=c&state=the-state&iss=https%3A%2F%2Fo.example%2F", true, "unsolicited"),
            ("code=c&state=the-state", true, "unsolicited"),
            ("code=c&code=d&state=the-state", false, "twice"),
            ("code=c&state=the-state&state=the-state", false, "twice"),
            ("error=access_denied&state=another", false, "unsolicited"),
        ] {
            assert_eq!(come(query, names_itself, NOW), Err(expected), "{query}");
        }
        let late = NOW.plus(std::time::Duration::from_mins(1));
        assert_eq!(come("code=c&state=the-state", false, late), Err("too_late"));
    }

    #[test]
    fn the_user_s_no_is_told_from_a_policy_s() {
        let said = |error: &str, description: &str| {
            let text = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("state", "the-state")
                .append_pair("error", error)
                .append_pair("error_description", description)
                .finish();
            come(&text, false, NOW).unwrap_err()
        };
        assert_eq!(
            said("access_denied", "The resource owner or authorization server denied the request."),
            "cancelled"
        );
        assert_eq!(said("access_denied", "User is not assigned to the client application."), "not_allowed");
        assert_eq!(said("access_denied", "Policy evaluation failed for this request"), "not_allowed");
        assert_eq!(said("invalid_scope", "One or more scopes"), "authorization_server_refused");
        assert_eq!(said("unmet_authentication_requirements", ""), "signed_in_too_weakly");
        assert_eq!(said("server_error", ""), "authorization_server_unavailable");
        assert_eq!(said("<script>", ""), "unsolicited");
    }

    #[test]
    fn what_is_pending_is_read_as_it_was_written() {
        let written = pending().write();
        let read = Pending::read(&written).unwrap();
        assert_eq!(*read.write(), *written);
        assert!(Pending::read(b"{}").is_none());
    }
}
