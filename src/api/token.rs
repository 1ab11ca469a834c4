//! `GET /v1/token`: the request's shape, then the rule, then the grant; refusals in that order.

use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, HeaderValue, VARY};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::api::error::Problem;
use crate::api::query::Query;
use crate::api::{Api, Memory, Terms, again, answer};
use crate::broker::Wanted;
use crate::caller::Caller;
use crate::policy::{Permit, Shown, TokenRequest};

pub(super) const PATH: &str = "/v1/token";
const PARAMETERS: [&str; 5] = ["service", "user", "role", "min_ttl", "rejected"];

pub(super) async fn vend(
    api: &Api,
    caller: &Caller,
    memory: &Mutex<Memory>,
    request: &Parts,
) -> Result<Response<Full<Bytes>>, Problem> {
    let query = Query::parse(request.uri.query(), &PARAMETERS)?;
    let asked = asked(&query)?;
    let wanted = Wanted { min_ttl: query.seconds("min_ttl")?, rejected: query.digest("rejected")? };
    let terms = api.terms.load_full();
    let shown = api.shown_in(&terms, caller, request).await;
    let permit = permit(api, &terms, caller, asked, &shown)?;
    let room = || api.room_to_wait(caller, &terms);
    let (held, now) = api.broker.vend(&permit, &wanted, terms.request_timeout, room).await?;
    let token = &held.token;
    tracing::debug!(grant = %permit.key().grant, role = ?permit.key().role, version = token.version, "vended");
    let text = wants_text(request);
    let body: Bytes = if text { token.token().expose().to_owned().into() } else { token.json(&now).into() };
    let left = token.issued.remaining(&now).as_secs();
    if wanted.rejected.is_none() {
        again::remember(memory, request, terms, held, (left, body.clone()));
    }
    Ok(answer(text, body))
}

/// Which token a query is about.
pub(super) fn asked(query: &Query<'_>) -> Result<TokenRequest, Problem> {
    query.required("service")?;
    Ok(TokenRequest {
        service: query.service()?.ok_or_else(Problem::unknown_service)?,
        user: query.user()?,
        role: query.role()?,
    })
}

/// Whether the caller may have it; counted if not.
pub(super) fn permit(
    api: &Api,
    terms: &Terms,
    caller: &Caller,
    asked: TokenRequest,
    shown: &Shown,
) -> Result<Permit, Problem> {
    let service = asked.service.clone();
    terms.policy.permit(caller, asked, shown).map_err(|denied| {
        let label = if terms.policy.service(&service).is_some() { service.as_str() } else { "unknown" };
        let problem = Problem::from(denied);
        api.metrics.token_requests.with_label_values(&[label, problem.error()]).inc();
        problem
    })
}

/// A token with what belongs to it as JSON, or alone.
pub(super) fn answer(text: bool, body: Bytes) -> Response<Full<Bytes>> {
    let content_type = if text { "text/plain; charset=utf-8" } else { "application/json" };
    let mut answer = answer::answer(StatusCode::OK, content_type, body);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    answer
}

/// Whether the caller wants the token alone: `text/plain` is named, and JSON is not.
pub(super) fn wants_text(request: &Parts) -> bool {
    let mut text = false;
    for value in request.headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            match range.split(';').next().unwrap_or_default().trim() {
                "application/json" => return false,
                "text/plain" => text = true,
                _ => {}
            }
        }
    }
    text
}
