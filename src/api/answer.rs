//! What all answers have in common.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};

use crate::entropy::Entropy;
use crate::model::RequestId;

/// The request's name, for answers and logs.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The caller's own request id if it is sane, else a new one.
#[must_use]
pub fn request_id<B>(request: &Request<B>, entropy: &dyn Entropy) -> RequestId {
    let given = request.headers().get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    given.and_then(RequestId::parse).unwrap_or_else(|| RequestId::draw(entropy))
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

/// Puts on what every answer has.
#[must_use]
pub fn finish(mut answer: Response<Full<Bytes>>, id: &RequestId) -> Response<Full<Bytes>> {
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Ids are plain ASCII by construction.
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        headers.insert(X_REQUEST_ID, id);
    }
    answer
}
