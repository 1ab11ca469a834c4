//! The server's word for what is wrong, in either of Okta's shapes, and where each is mended.

use serde_json::Value;

use crate::model::excerpt;

/// The app integration, in Okta's Admin Console.
pub(super) const APP: &str = "Applications > Applications > the app integration > General";
/// The authorization server, in Okta's Admin Console.
pub(super) const SERVER: &str = "Security > API > Authorization Servers > the authorization server";

/// An error of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Its word: `error`, or `errorCode`.
    pub(super) error: String,
    /// Its sentence: `error_description`, or `errorSummary`.
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(error: &str, text: &str) -> Self {
        let plain = |text: &str| excerpt(text).replace(char::is_control, " ");
        Self { error: plain(error), text: plain(text) }
    }

    /// From an answer's body, if it is an error in either shape.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let error = text("error").or_else(|| text("errorCode"))?;
        Some(Self::new(error, text("error_description").or_else(|| text("errorSummary")).unwrap_or_default()))
    }

    /// As it is quoted.
    pub(super) fn quoted(&self) -> String {
        if self.text.is_empty() { self.error.clone() } else { format!("{}: {}", self.error, self.text) }
    }
}

/// Where an access policy is mended that does not match.
pub(super) fn policy(grant_type: &str) -> String {
    format!(
        "in Okta, {SERVER} > Access Policies: a policy assigned to this client needs an active rule that matches grant type \
         {grant_type}, the user and these scopes; the user must be assigned to the app: Applications > the app integration > \
         Assignments"
    )
}

/// What is done about `DPoP`.
pub(super) fn dpop() -> String {
    format!(
        "no data driver speaks DPoP: in Okta, {APP} > General Settings, switch off `Require Demonstrating Proof of Possession \
         (DPoP) header in token requests`"
    )
}

/// What is done about a server that can't be reached, by what happened.
pub(super) fn unreachable(section: &str, host: &str, what: &str) -> String {
    let what = what.to_ascii_lowercase();
    if what.contains("certificate") {
        return format!(
            "the certificate is not trusted or not for {host}: where a company's own authority or an inspecting proxy signed it, \
             name that root in {section}.ca_file"
        );
    }
    if what.contains("proxy") {
        return format!(
            "the proxy that HTTPS_PROXY names must let {host}:443 through; or name {host} in NO_PROXY"
        );
    }
    if what.contains("lookup") || what.contains("name or service") {
        return format!("{host} is not known to DNS here: is {section}.okta_domain (or issuer) right?");
    }
    format!(
        "this machine must be let through to {host} (firewall, HTTPS_PROXY), and the server must be up (https://status.okta.com)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_understood_and_control_characters_are_not_printed() {
        let oauth = Refusal::of(br#"{"error":"invalid_grant","error_description":"No\u001b[31m."}"#).unwrap();
        assert_eq!(oauth.quoted(), "invalid_grant: No [31m.");
        let okta = Refusal::of(br#"{"errorCode":"E0000047","errorSummary":"Too many."}"#).unwrap();
        assert_eq!(okta.quoted(), "E0000047: Too many.");
        for other in ["", "<html>", "[]", r#"{"access_token":"x"}"#, r#"{"error":7}"#] {
            assert_eq!(Refusal::of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn what_kept_a_request_from_arriving_has_its_own_remedy() {
        for (what, expected) in [
            ("connecting: invalid peer certificate: UnknownIssuer", "a.ca_file"),
            ("connecting: the proxy answers 407", "NO_PROXY"),
            ("connecting: failed to lookup address information", "okta_domain"),
            ("connecting: Connection refused", "firewall"),
        ] {
            assert!(unreachable("a", "host", what).contains(expected), "{what}");
        }
    }
}
