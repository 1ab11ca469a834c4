//! A worker asks for the same token again and again: on one connection the same question gets the same answer without being
//! read, decided and looked up anew, as long as nothing that the answer rests on has changed.
//!
//! Each time is a line in the audit log, unless once per token and caller is enough.
//!
//! Who asks can't change on a connection. What can: the rules (a reload), the token (a refresh, an end), its age.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::{Method, Response};

use crate::api::token::{self, wants_text};
use crate::api::{Api, Terms, audited};
use crate::broker::Held;
use crate::caller::Caller;
use crate::model::RequestId;
use crate::policy::Permit;

/// What was asked last on a connection, and what was answered.
#[derive(Default)]
pub struct Memory {
    last: Option<Answered>,
    /// Whether anything was asked: the first request was counted when the connection was made.
    pub(super) has_asked: bool,
}

struct Answered {
    permit: Permit,
    query: String,
    text: bool,
    terms: Arc<Terms>,
    held: Held,
    /// The answer's body while this many seconds are left.
    body: (u64, Bytes),
}

/// The answer, if the request is the last one again and nothing has changed.
pub(super) fn answer(
    api: &Api,
    memory: &Mutex<Memory>,
    request: &Parts,
    (caller, id): (&Caller, &RequestId),
) -> Option<Response<Full<Bytes>>> {
    if api.audit.waits() {
        // Much can change until its line is written.
        return None;
    }
    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    let last = memory.last.as_mut()?;
    let same = request.method == Method::GET
        && request.uri.query() == Some(&last.query)
        && request.uri.path() == token::PATH
        && !request.headers.contains_key(AUTHORIZATION)
        && wants_text(request) == last.text
        && Arc::ptr_eq(&last.terms, &api.terms.load());
    if !same {
        return None;
    }
    let now = api.broker.again(&last.held)?;
    api.broker.note_use(&last.permit, &last.held.token, caller, &now);
    let left = last.held.token.issued.remaining(&now).as_secs();
    if last.body.0 != left && !last.text {
        last.body = (left, last.held.token.json(&now).into());
    }
    if api.audit.writes_each() {
        api.audit.record(audited::vend(caller, id, &last.permit, &last.held));
    }
    Some(token::answer(last.text, last.body.1.clone()))
}

/// Remembers an answer for the next time.
pub(super) fn remember(
    memory: &Mutex<Memory>,
    request: &Parts,
    terms: Arc<Terms>,
    (permit, held): (Permit, Held),
    body: (u64, Bytes),
) {
    if request.method != Method::GET || request.headers.contains_key(AUTHORIZATION) {
        return;
    }
    let query = request.uri.query().unwrap_or_default().to_owned();
    let answered = Answered { permit, query, text: wants_text(request), terms, held, body };
    memory.lock().unwrap_or_else(PoisonError::into_inner).last = Some(answered);
}
