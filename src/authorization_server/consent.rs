//! How a user's consent is asked for, and what it is redeemed with: RFC 6749 §4.1 with PKCE, RFC 8628, OpenID Connect Core.

use std::time::Duration;

use serde::Deserialize;
use url::Url;

use crate::authorization_server::Misconfiguration;
use crate::secret::Secret;

/// Where RFC 8628 §3.2 names no interval.
const UNSAID_INTERVAL: u64 = 5;
/// No device code is good for longer, and no interval is, whatever is said.
const LONGEST: Duration = Duration::from_hours(1);

/// Where a browser is sent, and what is expected of what comes back.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// Where the user signs in.
    pub endpoint: Url,
    /// Byte for byte as it names itself.
    pub issuer: String,
    /// Our id there.
    pub client_id: String,
    /// Whether it gives `offline_access` only where the user is asked for it then and there (OpenID Connect Core §11). Okta
    /// asks where its administrators want that.
    pub asks_each_time: bool,
    /// Whether it names itself in what comes back (RFC 9207): then it must.
    pub names_itself: bool,
}

/// What a consent is redeemed with, once.
#[derive(Clone, Copy, Debug)]
pub enum Redeemed<'a> {
    /// What the browser brought back (RFC 6749 §4.1.3, RFC 7636 §4.5).
    Code {
        /// The code.
        code: &'a Secret,
        /// What its challenge was made of.
        verifier: &'a Secret,
        /// Where it was sent to.
        redirect_uri: &'a Url,
    },
    /// What the device waits with (RFC 8628 §3.4).
    DeviceCode(&'a Secret),
    /// The user's own password (RFC 6749 §4.3; RFC 9700 §2.4: must not be used).
    Password {
        /// The user's name there.
        username: &'a str,
        /// The password.
        password: &'a Secret,
        /// What for.
        scope: &'a crate::model::Scope,
    },
}

/// A device waits for its user (RFC 8628 §3.2).
#[derive(Clone, Debug)]
pub struct DeviceAuthorization {
    /// What it waits with.
    pub device_code: Secret,
    /// What the user types.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it, if there is one.
    pub verification_uri_complete: Option<String>,
    /// How long it is good for.
    pub expires_in: Duration,
    /// Between two questions.
    pub interval: Duration,
}

/// Why a consent can't be asked for.
#[derive(Clone, Debug)]
pub enum NotAsked {
    /// The server does not offer it.
    NotOffered(&'static str),
    /// An administrator must act.
    Refused(Misconfiguration),
    /// Not now; the text is for the log.
    Unavailable(String),
}

/// Reads a device authorization response.
pub(super) fn device_authorization(body: &[u8]) -> Option<DeviceAuthorization> {
    #[derive(Deserialize)]
    struct Response {
        device_code: String,
        user_code: String,
        verification_uri: String,
        verification_uri_complete: Option<String>,
        expires_in: u64,
        interval: Option<u64>,
    }
    if !body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let response: Response = serde_json::from_slice(body).ok()?;
    // Both are shown on a terminal, and one is opened in a browser.
    let is_shown = |text: &str| {
        (1..=500).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    let is_address =
        |text: &str| is_shown(text) && Url::parse(text).is_ok_and(|url| super::is_confidential(&url));
    let sane = !response.device_code.is_empty()
        && is_shown(&response.user_code)
        && is_address(&response.verification_uri);
    let interval = response.interval.unwrap_or(UNSAID_INTERVAL).max(1);
    sane.then(|| DeviceAuthorization {
        device_code: Secret::new(response.device_code),
        user_code: response.user_code,
        verification_uri: response.verification_uri,
        verification_uri_complete: response.verification_uri_complete.filter(|uri| is_address(uri)),
        expires_in: Duration::from_secs(response.expires_in).min(LONGEST),
        interval: Duration::from_secs(interval).min(LONGEST),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(interval: &str, uri: &str) -> Option<DeviceAuthorization> {
        let body = format!(
            r#"{{"device_code":"d","user_code":"ABCD-EFGH","verification_uri":"{uri}","expires_in":600{interval}}}"#
        );
        device_authorization(body.as_bytes())
    }

    #[test]
    fn an_interval_that_is_not_said_is_five_seconds() {
        assert_eq!(read("", "https://o.example/activate").unwrap().interval, Duration::from_secs(5));
        let said = read(r#","interval":0"#, "https://o.example/activate").unwrap();
        assert_eq!(said.interval, Duration::from_secs(1), "never all the time");
    }

    #[test]
    fn an_address_that_is_no_place_for_a_code_is_not_shown() {
        for uri in ["javascript:alert(1)", "http://o.example/activate", "https://o.example/\\u001b[2J", ""] {
            assert!(read("", uri).is_none(), "{uri}");
        }
    }
}
