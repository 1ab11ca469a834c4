//! What all answers have in common.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::api::body;
use crate::api::error::Problem;
use crate::caller::Caller;
use crate::model::{RequestId, RequestIds};

/// The request's name, for answers and logs.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's own request id if it is sane, else a new one.
#[must_use]
pub fn request_id(request: &Parts, ids: &RequestIds) -> RequestId {
    let given = request.headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    given.and_then(RequestId::parse).unwrap_or_else(|| ids.next())
}

/// A run pass has a few kilobytes. hyper takes somewhat more, so that the refusal is one of ours.
const LARGEST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;

/// Refuses heads beyond any need.
///
/// # Errors
/// `too_large`.
pub fn check_head(request: &Parts) -> Result<(), Problem> {
    if is_head_within(request, LARGEST_HEAD) { Ok(()) } else { Err(Problem::head_too_large()) }
}

/// Whether a head is no larger than this, and has not too many headers.
#[must_use]
pub fn is_head_within(request: &Parts, largest: usize) -> bool {
    let headers = &request.headers;
    let of_header = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let target = request.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let size = headers.iter().map(of_header).sum::<usize>() + target;
    size <= largest && headers.len() <= MOST_HEADERS
}

/// An answer with a body.
#[must_use]
pub fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A JSON answer.
#[must_use]
pub fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    answer(status, "application/json", body.to_string())
}

/// What goes out: the answer or the problem, with what every answer has, and the request's body out of the way. `say` is
/// asked whether one more problem is worth a line in the log, and how many were not since the last one that was.
pub async fn conclude(
    result: Result<Response<Full<Bytes>>, Problem>,
    id: &RequestId,
    caller: &Caller,
    body: &mut Incoming,
    say: impl FnOnce() -> Option<u64>,
) -> Response<Full<Bytes>> {
    let answer = result.unwrap_or_else(|problem| {
        if let Some(unsaid) = say() {
            problem.log(id, caller, unsaid);
        }
        problem.into_answer(id)
    });
    let mut answer = finish(answer, id);
    body::dispose(body, &mut answer).await;
    answer
}

/// What a client is told that is one connection too many.
#[must_use]
pub fn too_many(ids: &RequestIds) -> Response<Full<Bytes>> {
    let id = ids.next();
    finish(Problem::too_many_requests("too many connections, or too many in a second").into_answer(&id), &id)
}

/// Puts on what every answer has.
#[must_use]
pub fn finish<B>(mut answer: Response<B>, id: &RequestId) -> Response<B> {
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Ids are plain ASCII by construction.
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(X_REQUEST_ID, id);
    }
    answer
}
