//! What all answers have in common: what browsers are told to refuse.

use std::collections::BTreeSet;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, LOCATION, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use crate::api::answer;
use crate::connect::terms::Terms;
use crate::model::RequestId;

const FIXED: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Other sites learn nothing. `no-referrer` would have forms of ours come without an origin.
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

pub(super) fn html(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    answer::answer(status, "text/html; charset=utf-8", text)
}

/// What belongs to nobody and never changes.
pub(super) fn asset(content_type: &'static str, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = answer::answer(StatusCode::OK, content_type, text);
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    answer.headers_mut().insert(CACHE_CONTROL, forever);
    answer
}

/// On to another page, by GET. `target` is a URL or comes from one: what can't stand in a header can't stand in it.
pub(super) fn see_other(target: &str) -> Response<Full<Bytes>> {
    let mut answer = answer::answer(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
    match HeaderValue::from_str(target) {
        Ok(target) => drop(answer.headers_mut().insert(LOCATION, target)),
        Err(_) => *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    answer
}

/// Puts on what every answer has.
pub(super) fn finish(answer: Response<Full<Bytes>>, terms: &Terms, id: &RequestId) -> Response<Full<Bytes>> {
    let kept = answer.headers().get(CACHE_CONTROL).cloned();
    let mut answer = answer::finish(answer, id);
    let headers = answer.headers_mut();
    if let Some(kept) = kept {
        headers.insert(CACHE_CONTROL, kept);
    }
    for (name, value) in FIXED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(&policy(terms)) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    if terms.is_https() {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    answer
}

/// Nothing but our own style and pictures. Chromium looks at where a form's redirects lead, too, and from an authorization
/// server they may lead on to whatever identity provider the company has: any, as long as nobody can listen.
fn policy(terms: &Terms) -> String {
    let origins = terms.servers.values().flat_map(|place| place.origins.iter().map(String::as_str));
    let local = origins.filter(|origin| !origin.starts_with("https:"));
    let targets: BTreeSet<&str> = ["'self'", "https:"].into_iter().chain(local).collect();
    let targets = targets.into_iter().collect::<Vec<_>>().join(" ");
    format!(
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action {targets}; frame-ancestors 'none'; \
         base-uri 'none'"
    )
}
