//! What an endpoint answers, as a value: `http` turns it into bytes.

use aws_lc_rs::digest::{SHA256, digest};
use hyper::StatusCode;
use serde_json::Value;

use crate::entropy::Entropy;

/// An answer, and how it is brought to the client.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    pub(super) delivery: Delivery,
}

/// Everything but `Whole` is a fault that a test ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// As HTTP has it.
    Whole,
    /// `Content-Length` promises more than comes before the connection ends.
    Truncated,
    /// The connection ends without an answer.
    Cut,
    /// Nothing comes, for as long as the client waits.
    Never,
}

impl Reply {
    pub(super) fn new(status: StatusCode, content_type: &str, body: String) -> Self {
        let headers = vec![("content-type", content_type.to_owned())];
        Self { status, headers, body, delivery: Delivery::Whole }
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), delivery: Delivery::Whole }
    }

    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    pub(super) fn html(status: StatusCode, body: String) -> Self {
        Self::new(status, "text/html; charset=utf-8", body)
            .with(
                "content-security-policy",
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
            )
            .with("referrer-policy", "no-referrer")
            .not_stored()
    }

    /// 302, as Okta's authorization endpoint answers.
    pub(super) fn redirect(location: String) -> Self {
        Self::empty(StatusCode::FOUND).with("location", location).not_stored()
    }

    /// An error in RFC 6749's shape.
    pub(super) fn oauth_error(status: StatusCode, error: &str, description: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": error, "error_description": description }))
    }

    /// An error in Okta's own shape, which a client of Okta must know too.
    pub(super) fn okta_error(status: StatusCode, code: &str, summary: &str, entropy: &dyn Entropy) -> Self {
        let body = serde_json::json!({
            "errorCode": code,
            "errorSummary": summary,
            "errorLink": code,
            "errorId": format!("oae{}", entropy.text(15)),
            "errorCauses": [],
        });
        Self::json(status, &body)
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// RFC 6749 5.1: answers with tokens or codes are never stored.
    pub(super) fn not_stored(self) -> Self {
        self.with("cache-control", "no-cache, no-store").with("pragma", "no-cache")
    }

    pub(super) fn delivered(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }
}

/// The SHA-256 of `text` as the 32 bytes that base64url or hexadecimal forms are made of.
pub(super) fn sha256(text: &str) -> Vec<u8> {
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}
