//! One signed POST. It is the same for each try, but for a key that was changed meanwhile.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use serde::Serialize;
use url::Url;

use crate::authorization_server::client_authentication::read_secret_file;
use crate::authorization_server::http::{HttpClient, SendError};
use crate::model::LoginUrl;
use crate::notify::event;
use crate::secret::{Digest, Secret};
use crate::store::notices::{Notice, What};

/// For one try, from the connection to the answer's first line.
const DEADLINE: Duration = Duration::from_secs(10);

/// Who is told.
pub struct Webhook {
    url: Url,
    secret_file: PathBuf,
    http: HttpClient,
    /// The key as it was read last, for when it can't be read.
    secret: Mutex<Option<Secret>>,
}

/// What became of a try.
#[derive(Debug)]
pub enum Posted {
    /// The receiver has it.
    Delivered,
    /// The receiver says no.
    Refused {
        /// How.
        status: u16,
        /// It is not for the receiver to mend.
        for_good: bool,
    },
    /// Nobody said anything.
    NoAnswer(String),
}

/// What is posted; what does not apply is left out.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    event: &'static str,
    service: &'a str,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_url: Option<String>,
    time: String,
}

impl Webhook {
    /// To `url`, signed with what is in `secret_file` at that time.
    #[must_use]
    pub fn new(url: Url, secret_file: PathBuf, http: HttpClient) -> Self {
        Self { url, secret_file, http, secret: Mutex::default() }
    }

    /// Tries once.
    pub async fn post(&self, notice: &Notice, login: Option<&LoginUrl>) -> Posted {
        let Some(secret) = self.secret() else {
            return Posted::NoAnswer("without notify.secret_file nothing is posted".to_owned());
        };
        let (id, body) = (id(notice), body(notice, login));
        let request = Request::post("/")
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("bursar/", env!("CARGO_PKG_VERSION")))
            .header("X-Bursar-Event", event(notice.what.kind()))
            .header("X-Bursar-Delivery", id)
            .header("X-Bursar-Signature", signature(&secret, body.as_bytes()))
            .body(Full::new(Bytes::from(body)));
        let Ok(request) = request else { return Posted::NoAnswer("the request can't be made".to_owned()) };
        match self.http.status(&self.url, request, DEADLINE).await {
            Ok(status) => posted(status.as_u16()),
            Err(SendError::NotSent(why) | SendError::InDoubt(why)) => Posted::NoAnswer(why),
        }
    }

    /// The file may have been replaced since; if it can't be read, the key that was in it still counts.
    fn secret(&self) -> Option<Secret> {
        let mut known = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        match read_secret_file(&self.secret_file) {
            Ok(secret) => *known = Some(secret),
            Err(problem) => tracing::warn!(%problem, "notify.secret_file can't be read"),
        }
        known.clone()
    }
}

fn posted(status: u16) -> Posted {
    match status {
        200..300 => Posted::Delivered,
        // Too slow, too early, too many: the receiver is not well.
        408 | 425 | 429 | 500.. => Posted::Refused { status, for_good: false },
        // There is nothing at the address, it wants another key, or does not understand.
        _ => Posted::Refused { status, for_good: true },
    }
}

/// The same for each try.
fn id(notice: &Notice) -> String {
    let of = (notice.number, notice.key.service.as_str(), notice.key.user.as_str(), notice.at.millis());
    Digest::of(format!("{of:?}").as_bytes()).to_string().chars().take(32).collect()
}

fn body(notice: &Notice, login: Option<&LoginUrl>) -> String {
    let (reason, by, since, ends_at) = match notice.what {
        What::Ended { reason, by } => {
            (Some(reason.as_str()), Some(by.as_str()), Some(notice.at.to_string()), None)
        }
        What::Ending { at } => (None, None, None, Some(at.to_string())),
    };
    let body = Body {
        id: &id(notice),
        event: event(notice.what.kind()),
        service: notice.key.service.as_str(),
        user: notice.key.user.as_str(),
        reason,
        by,
        since,
        ends_at,
        login_url: login.map(|login| login.of(&notice.key.service, None)),
        time: notice.at.to_string(),
    };
    // Names and numbers alone: nothing of it can fail.
    serde_json::to_string(&body).unwrap_or_default()
}

/// `sha256=` and the HMAC-SHA-256 in hexadecimal.
fn signature(secret: &Secret, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut text = "sha256=".to_owned();
    for byte in hmac::sign(&key, body).as_ref() {
        // Into memory, which can't fail.
        let _written = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::{EndReason, GrantKey, ServiceName, UserName};
    use crate::store::notices::EndedBy;
    use serde_json::{Value, json};

    fn notice(what: What) -> Notice {
        let key = GrantKey {
            service: ServiceName::parse("snowflake").unwrap(),
            user: UserName::parse("\"alice\"\u{2028}@example.com").unwrap(),
        };
        Notice { number: 7, key, what, at: Timestamp::from_secs(1_795_439_111), overtaken: false }
    }

    fn read(notice: &Notice, login: Option<&LoginUrl>) -> Value {
        serde_json::from_str(&body(notice, login)).unwrap()
    }

    #[test]
    fn what_has_ended_is_told_with_reason_and_what_will_with_its_end() {
        let login = LoginUrl::at(Url::parse("https://bursar.example.com").unwrap());
        let ended = notice(What::Ended { reason: EndReason::Revoked, by: EndedBy::AuthorizationServer });
        assert_eq!(
            read(&ended, Some(&login)),
            json!({
                "id": id(&ended), "event": "grant.ended", "service": "snowflake", "user": ended.key.user.as_str(),
                "reason": "revoked", "by": "authorization_server", "since": "2026-11-23T13:05:11Z",
                "login_url": "https://bursar.example.com/?service=snowflake", "time": "2026-11-23T13:05:11Z",
            })
        );
        let ending = notice(What::Ending { at: Timestamp::from_secs(1_795_439_112) });
        assert_eq!(
            read(&ending, None),
            json!({
                "id": id(&ending), "event": "grant.ending", "service": "snowflake",
                "user": ending.key.user.as_str(), "ends_at": "2026-11-23T13:05:12Z", "time": "2026-11-23T13:05:11Z",
            })
        );
    }

    #[test]
    fn a_notice_keeps_its_id_and_another_has_another() {
        let one = notice(What::Ending { at: Timestamp::from_secs(1) });
        let other = Notice { number: 8, ..one.clone() };
        assert_eq!((id(&one).len(), id(&one)), (32, id(&one.clone())));
        assert_ne!(id(&one), id(&other));
    }

    #[test]
    fn the_signature_is_the_hmac_of_the_body_in_hexadecimal() {
        // RFC 4231, test case 2.
        assert_eq!(
            signature(&Secret::new("Jefe".into()), b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn an_answer_says_whose_fault_it_is() {
        for status in [200, 204, 299] {
            assert!(matches!(posted(status), Posted::Delivered), "{status}");
        }
        for status in [408, 429, 500, 503] {
            assert!(matches!(posted(status), Posted::Refused { for_good: false, .. }), "{status}");
        }
        for status in [301, 307, 400, 401, 404, 410] {
            assert!(matches!(posted(status), Posted::Refused { for_good: true, .. }), "{status}");
        }
    }
}
