//! The only place that knows what a failure looks like from outside (RFC 9457): status, stable code, a sentence.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::api::answer::answer;
use crate::caller::Caller;
use crate::model::{EndReason, Failure, RequestId, RunId};
use crate::policy::Denied;
use crate::store::StoreError;

mod consents;

/// A failure as the outside sees it. Carries no token, no secret, no internal text.
pub struct Problem(Box<Inner>);

struct Inner {
    status: StatusCode,
    error: &'static str,
    detail: String,
    members: Map<String, Value>,
    header: Option<(HeaderName, HeaderValue)>,
    /// What happened, for the log alone.
    cause: Option<String>,
    /// The run that asked, for the audit log alone.
    run: Option<RunId>,
}

impl Problem {
    fn new(status: StatusCode, error: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            error,
            detail: detail.into(),
            members: Map::new(),
            header: None,
            cause: None,
            run: None,
        }))
    }

    /// Happened because of this, which the outside is not told.
    fn because(mut self, cause: impl Into<String>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Happened to this run, which only the audit log is told.
    #[must_use]
    pub fn in_run(mut self, run: Option<&RunId>) -> Self {
        self.0.run = run.cloned();
        self
    }

    /// The run that it happened to.
    #[must_use]
    pub fn run(&self) -> Option<&RunId> {
        self.0.run.as_ref()
    }

    /// The sentence.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Says in the log what the answer says, and what it does not; and of how many of this caller's problems before it
    /// nothing was said.
    pub fn log(&self, id: &RequestId, caller: &Caller, unsaid: u64) {
        let (id, uid, pid, error) = (id.as_str(), caller.uid(), caller.pid(), self.error());
        let unsaid = (unsaid > 0).then_some(unsaid);
        match &self.0.cause {
            None => tracing::info!(id, uid, pid, error, unsaid, "refused"),
            Some(cause) => tracing::error!(id, uid, pid, error, cause, unsaid, "failed"),
        }
    }

    /// With one more member.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(member.to_owned(), value.into());
        self
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.0.header = Some((RETRY_AFTER, HeaderValue::from(seconds.max(1))));
        self
    }

    /// A parameter that is missing, twice, unknown or malformed.
    #[must_use]
    pub fn invalid_parameter(parameter: &str, why: &str) -> Self {
        // Echoed for whoever mistyped it, but not without bounds.
        let parameter: String = parameter.chars().filter(|c| !c.is_control()).take(64).collect();
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", format!("{parameter}: {why}"))
            .with("parameter", parameter)
    }

    /// A request that is wrong otherwise.
    #[must_use]
    pub fn invalid_request(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// The path is right and the method is not.
    #[must_use]
    pub fn method_not_allowed(allowed: &'static str) -> Self {
        let detail = format!("only {allowed} is understood");
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", detail);
        problem.0.header = Some((ALLOW, HeaderValue::from_static(allowed)));
        problem
    }

    /// No rule allows it. The same whether or not anything exists.
    #[must_use]
    pub fn access_denied() -> Self {
        Self::new(StatusCode::FORBIDDEN, "access_denied", "no rule allows this caller to have that token")
    }

    /// The run pass is missing or not good (RFC 6750 §3).
    fn run_pass(error: &'static str, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, error, detail);
        problem.0.header = Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        problem
    }

    /// Nothing is there.
    #[must_use]
    pub fn not_found(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// The body is larger than anything that makes sense.
    #[must_use]
    pub fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request is too large")
    }

    /// The request's head is larger than anything that makes sense.
    #[must_use]
    pub fn head_too_large() -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large", "the request's head is too large")
    }

    /// This caller's own limit.
    #[must_use]
    pub fn too_many_requests(detail: &str) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail);
        problem.retry_after(Duration::from_secs(1))
    }

    /// What a request is answered that comes too soon after others: it must cost less than an answer would.
    #[must_use]
    pub fn too_often(id: &RequestId) -> Response<Full<Bytes>> {
        let body = format!(
            r#"{{"type":"about:blank","title":"Too Many Requests","status":429,"error":"too_many_requests","detail":"too many requests a second","request_id":"{id}"}}"#
        );
        let mut answer = answer(StatusCode::TOO_MANY_REQUESTS, "application/problem+json", body);
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        answer
    }

    /// Ours; the log says what.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "internal error; the log has the details under this request id",
        )
    }

    /// The service does not exist, and who asks may know.
    #[must_use]
    pub fn unknown_service() -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown_service", "no service of this name is configured")
    }

    /// The stable code.
    #[must_use]
    pub fn error(&self) -> &'static str {
        self.0.error
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// One of its members that is a text.
    #[must_use]
    pub fn text(&self, member: &str) -> Option<&str> {
        self.0.members.get(member).and_then(Value::as_str)
    }

    /// The token may not leave, since its line in the audit log can't be written.
    #[must_use]
    pub fn not_audited() -> Self {
        let detail =
            "the audit log can't be written, and no token is handed out without it (audit.on_failure)";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail);
        problem.retry_after(Duration::from_secs(1))
    }

    /// The answer.
    #[must_use]
    pub fn into_answer(self, id: &RequestId) -> Response<Full<Bytes>> {
        let mut answer = answer(self.0.status, "application/problem+json", self.json(id));
        if let Some((name, value)) = self.0.header {
            answer.headers_mut().insert(name, value);
        }
        answer
    }

    /// The same as text.
    #[must_use]
    pub fn json(&self, id: &RequestId) -> String {
        let Inner { status, error, detail, members, .. } = &*self.0;
        let mut body = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "error": error,
            "detail": detail,
            "request_id": id.as_str(),
        });
        if let Some(body) = body.as_object_mut() {
            body.extend(members.clone());
        }
        body.to_string()
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoRule => Self::access_denied(),
            Denied::UnknownService => Self::unknown_service(),
            Denied::PassRequired => {
                Self::run_pass("run_pass_required", "this needs a run pass: Authorization: Bearer")
            }
            Denied::BadPass(why) => {
                Self::run_pass("run_pass_invalid", format!("the run pass is not taken: {why}"))
            }
            Denied::PassUnknown => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "authorization_server_unavailable",
                "the keys of run passes can't be had now (run_passes.jwks_url)",
            )
            .retry_after(Duration::from_secs(1)),
            Denied::UnknownRole => Self::invalid_parameter("role", "the service has no such role"),
            Denied::UserMissing => Self::invalid_parameter("user", "missing"),
            Denied::NoUsers => Self::invalid_parameter("user", "the service's tokens speak for no user"),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let cause = error.to_string();
        let problem = match error {
            StoreError::Unavailable(_) => {
                Failure::StoreUnavailable { retry_after: Duration::from_secs(1) }.into()
            }
            StoreError::Inconsistent { .. } | StoreError::Seal(_) => Self::internal(),
        };
        problem.because(cause)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::LoginRequired { reason, since } => {
                let problem = Self::new(StatusCode::CONFLICT, "login_required", login_required(reason))
                    .with("reason", reason.as_str());
                match since {
                    Some(since) => problem.with("since", since.to_string()),
                    None => problem,
                }
            }
            Failure::UserMismatch { user } => Self::new(
                StatusCode::CONFLICT,
                "user_mismatch",
                "the refresh token is another user's; it is kept: import it again, for that user",
            )
            .with("user", user.as_str()),
            Failure::Refused { error, hint } => Self::new(
                StatusCode::BAD_GATEWAY,
                "authorization_server_refused",
                "the authorization server refuses to issue this token; an administrator must act, the grant is kept",
            )
            .with("authorization_server_error", error)
            .with("hint", hint),
            Failure::TokenInvalid { hint } => Self::new(
                StatusCode::BAD_GATEWAY,
                "token_invalid",
                "the authorization server issued a token that does not verify; it is not handed out",
            )
            .with("hint", hint),
            Failure::ServerUnavailable { retry_after } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "authorization_server_unavailable",
                "the authorization server can't be asked now, and no token with enough life is at hand",
            )
            .retry_after(retry_after),
            Failure::StoreUnavailable { retry_after } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_unavailable",
                "the store does not work, and no token with enough life is at hand",
            )
            .retry_after(retry_after),
            Failure::RejectedTooOften { retry_after } => {
                Self::too_many_requests("a token is replaced once a minute at most because a service refuses it")
                    .retry_after(retry_after)
            }
            Failure::TooManyWaiting => Self::too_many_requests("too many requests wait for a token already"),
            Failure::Timeout => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "the refresh takes longer than this request may wait; it goes on",
            )
            .retry_after(Duration::from_secs(1)),
            Failure::Internal(text) => Self::internal().because(text),
        }
    }
}

fn login_required(reason: EndReason) -> &'static str {
    match reason {
        EndReason::NeverConnected => "this user has not connected this service",
        EndReason::Expired => "this user's consent has expired; they must connect again",
        EndReason::Revoked => {
            "the authorization server takes this user's consent no more; they must connect again"
        }
        EndReason::RoleNotGranted => {
            "this user has not granted this role; they must connect again and grant it"
        }
        EndReason::Lost => {
            "this user's consent was lost with an answer that never arrived; they must connect again"
        }
    }
}

/// For tests and logs.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.0.status.as_u16(), self.0.error, json!(self.0.members))
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
