//! What is recorded, and the line that it becomes.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::audit::chain::{Key, Mac};
use crate::caller::Caller;
use crate::clock::Timestamp;
use crate::model::{GrantKey, Reference, RequestId, RoleName, ServiceName, TokenMark, UserName};

/// Longest text that is taken from elsewhere, in characters.
const LONGEST: usize = 300;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A token was handed out.
    Vend,
    /// A caller was refused one.
    Refusal,
    /// A user's consent came in.
    Connect,
    /// A refresh token was presented at its authorization server.
    Refresh,
    /// A grant is over.
    GrantEnd,
    /// A grant ends soon by itself.
    GrantEnding,
    /// Somebody ended a grant, or its server was told.
    Revoke,
    /// A run is over: its pass counts no more.
    RunEnd,
    /// The configuration was read again, or refused.
    Reload,
    /// The store's rows were sealed with another key.
    KeyRotation,
    /// Anything else that an administrator did.
    Admin,
    /// The process began.
    Start,
    /// The process ended as it was told to.
    Stop,
    /// Lines are missing here that could not be written.
    Lost,
}

/// Who asked, as the kernel said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Who {
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
}

impl From<&Caller> for Who {
    fn from(caller: &Caller) -> Self {
        Self { uid: caller.uid(), gid: caller.gid(), pid: caller.pid(), unit: caller.unit().map(short) }
    }
}

impl Who {
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    pub(super) fn gid(&self) -> u32 {
        self.gid
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// The user alone, whichever of its processes.
    pub(super) fn of_uid(uid: u32, gid: u32) -> Self {
        Self { uid, gid, pid: None, unit: None }
    }
}

/// One thing that happened. What does not apply is left out; no token and no secret has a place in it.
#[derive(Clone, Debug)]
pub struct Event {
    pub(super) kind: Kind,
    pub(super) result: Cow<'static, str>,
    pub(super) time: Timestamp,
    pub(super) request_id: Option<RequestId>,
    pub(super) caller: Option<Who>,
    pub(super) run: Option<String>,
    pub(super) service: Option<ServiceName>,
    pub(super) user: Option<UserName>,
    pub(super) role: Option<RoleName>,
    pub(super) token: Option<TokenMark>,
    pub(super) authorization_server: Option<String>,
    pub(super) reference: Reference,
    pub(super) count: Option<u64>,
    pub(super) refused: Option<u64>,
    pub(super) detail: Option<String>,
}

impl Event {
    /// Ended with this: `ok`, or the stable word of an error.
    #[must_use]
    pub fn new(kind: Kind, result: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            result: result.into(),
            time: Timestamp::from_millis(0),
            request_id: None,
            caller: None,
            run: None,
            service: None,
            user: None,
            role: None,
            token: None,
            authorization_server: None,
            reference: Reference::default(),
            count: None,
            refused: None,
            detail: None,
        }
    }

    /// Asked for by this caller, in this request.
    #[must_use]
    pub fn by(self, caller: &Caller, id: &RequestId) -> Self {
        Self { caller: Some(caller.into()), request_id: Some(id.clone()), ..self }
    }

    /// Asked for in this request, by somebody on the network.
    #[must_use]
    pub fn in_request(self, id: &RequestId) -> Self {
        Self { request_id: Some(id.clone()), ..self }
    }

    /// With the pass of this run.
    #[must_use]
    pub fn in_run(self, run: Option<String>) -> Self {
        Self { run: run.map(|run| short(&run)), ..self }
    }

    /// About this grant.
    #[must_use]
    pub fn about(self, key: &GrantKey) -> Self {
        self.naming(Some(key.service.clone()), Some(key.user.clone()))
    }

    /// About whatever of these is known.
    #[must_use]
    pub fn naming(self, service: Option<ServiceName>, user: Option<UserName>) -> Self {
        Self { service, user: user.filter(|user| !user.is_the_client()), ..self }
    }

    /// With this role.
    #[must_use]
    pub fn role(self, role: Option<&RoleName>) -> Self {
        Self { role: role.cloned(), ..self }
    }

    /// About this access token.
    #[must_use]
    pub fn token(self, token: TokenMark) -> Self {
        Self { token: Some(token), ..self }
    }

    /// At this authorization server, which calls it so.
    #[must_use]
    pub fn at(self, authorization_server: &str, reference: Reference) -> Self {
        Self { authorization_server: Some(authorization_server.to_owned()), reference, ..self }
    }

    /// And this is worth knowing. Never anything secret.
    #[must_use]
    pub fn detail(self, detail: impl AsRef<str>) -> Self {
        Self { detail: Some(short(detail.as_ref())), ..self }
    }
}

fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

/// What the first line of a file says besides: it can be checked without the file before, and tells which key to use.
pub(super) struct Opening<'a> {
    pub(super) key: &'a Key,
    pub(super) before: Mac,
    /// The line above was not finished.
    pub(super) torn: bool,
    /// What was found amiss.
    pub(super) trouble: Option<&'a str>,
}

/// The members, in the order in which they stand.
#[derive(Serialize)]
struct Members<'a> {
    time: String,
    seq: u64,
    event: Kind,
    result: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a Who>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    okta_request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    torn: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev: Option<String>,
}

/// The line without its hash.
pub(super) fn line(event: &Event, seq: u64, opening: Option<&Opening<'_>>) -> String {
    let members = Members {
        time: rfc3339(event.time),
        seq,
        event: event.kind,
        result: &event.result,
        request_id: event.request_id.as_ref().map(RequestId::as_str),
        caller: event.caller.as_ref(),
        run: event.run.as_deref(),
        service: event.service.as_ref().map(ServiceName::as_str),
        user: event.user.as_ref().map(UserName::as_str),
        role: event.role.as_ref().map(RoleName::as_str),
        jti: event.token.as_ref().and_then(TokenMark::jti),
        token_sha256: event.token.as_ref().map(ToString::to_string),
        authorization_server: event.authorization_server.as_deref(),
        okta_request_id: event.reference.okta_request_id.as_deref(),
        error_id: event.reference.error_id.as_deref(),
        count: event.count,
        refused: event.refused,
        detail: event.detail.as_deref(),
        trouble: opening.and_then(|opening| opening.trouble),
        torn: opening.is_some_and(|opening| opening.torn),
        key: opening.map(|opening| opening.key.id()),
        prev: opening.map(|opening| opening.before.to_string()),
    };
    // Names and numbers alone: nothing of it can fail.
    serde_json::to_string(&members).unwrap_or_default()
}

/// With milliseconds, which a log's reader sorts by.
fn rfc3339(time: Timestamp) -> String {
    // humantime prints years up to 9999.
    const LAST: u64 = 253_402_300_799_999;
    let millis = u64::try_from(time.millis()).unwrap_or(0).min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_in_one_line_whatever_the_names() {
        let key = GrantKey {
            service: ServiceName::parse("a\"}\u{2028}").unwrap(),
            user: UserName::parse("\\u0000,\"mac\":\"").unwrap(),
        };
        let mut event = Event::new(Kind::Refusal, "access_denied")
            .by(&Caller::invented(1, 2), &RequestId::parse("r-1").unwrap())
            .about(&key)
            .detail("x".repeat(1000));
        event.time = Timestamp::from_millis(1_795_439_111_042);
        let text = line(&event, 7, None);
        assert!(!text.contains('\n'));
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["time"], "2026-11-23T13:05:11.042Z");
        assert_eq!(read["service"], key.service.as_str());
        assert_eq!(read["user"], key.user.as_str());
        assert_eq!(read["caller"], serde_json::json!({ "uid": 1, "gid": 2 }));
        assert_eq!(read["detail"].as_str().unwrap().len(), LONGEST);
        for absent in ["role", "jti", "token_sha256", "run", "count", "key", "prev", "torn"] {
            assert!(read.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn the_client_itself_is_no_user() {
        let event = Event::new(Kind::Vend, "ok").naming(None, Some(UserName::of_the_client()));
        assert!(!line(&event, 1, None).contains("user"));
    }
}
