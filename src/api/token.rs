//! `GET /v1/token`: the request's shape, then the rule, then the grant; refusals in that order.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, HeaderValue, VARY};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tokio::time::Instant;

use crate::api::error::Problem;
use crate::api::query::Query;
use crate::api::{Api, Memory, Terms, again, answer, audited};
use crate::audit::NotWritten;
use crate::broker::Wanted;
use crate::caller::Caller;
use crate::model::{Failure, RequestId};
use crate::policy::{Denied, Permit, Shown, TokenRequest};
use crate::runs::{self, Bearer};

pub(super) const PATH: &str = "/v1/token";
/// How often a token is looked for anew because something has changed while its line was waited for.
const ROUNDS: u32 = 3;
const PARAMETERS: [&str; 5] = ["service", "user", "role", "min_ttl", "rejected"];

pub(super) async fn vend(
    api: &Api,
    (caller, id): (&Caller, &RequestId),
    memory: &Mutex<Memory>,
    request: &Parts,
) -> Result<Response<Full<Bytes>>, Problem> {
    let asked_at = Instant::now();
    let query = Query::parse(request.uri.query(), &PARAMETERS)?;
    let asked = asked(&query)?;
    let wanted = Wanted { min_ttl: query.seconds("min_ttl")?, rejected: query.digest("rejected")? };
    let bearer = runs::bearer(&request.headers);
    for _ in 0..ROUNDS {
        let terms = api.terms.load_full();
        // Without the pass first: what no rule allows is not worth a key.
        permit_by_rule(api, &terms, caller, &asked, &bearer)?;
        let shown = api.shown(&terms, caller, &bearer).await;
        let permit = permit(api, &terms, caller, asked.clone(), &shown)?;
        let patience = terms.request_timeout.saturating_sub(asked_at.elapsed());
        let endings = api.broker.endings();
        let room = || api.room_to_wait(caller, &terms);
        let vended = api.broker.vend(&permit, &wanted, patience, room).await;
        let (held, now) =
            vended.map_err(|failure| terms.problem(failure, permit.key()).in_run(permit.run()))?;
        // The run may have ended while its token was waited for.
        terms.passes.still_shown(&shown).map_err(Denied::BadPass)?;
        let (key, token) = (permit.key(), &held.token);
        if api.audit.is_on() {
            let patience = terms.request_timeout.saturating_sub(asked_at.elapsed());
            let vend = audited::vend(caller, id, &permit, &held);
            api.audit.vend(vend, patience).await.map_err(|NotWritten| Problem::not_audited())?;
            let unchanged = Arc::ptr_eq(&terms, &api.terms.load())
                && api.broker.still_has(key, endings)
                && terms.passes.still_shown(&shown).is_ok();
            if api.audit.waits() && !unchanged {
                // The rule, the run or the grant may have ended while the line was waited for.
                continue;
            }
        }
        api.broker.note_use(&permit, token, caller, &now);
        tracing::debug!(grant = %key.grant, role = ?key.role, version = token.version, "vended");
        let text = wants_text(request);
        let body: Bytes =
            if text { token.token().expose().to_owned().into() } else { token.json(&now).into() };
        let left = token.issued.remaining(&now).as_secs();
        if wanted.rejected.is_none() {
            again::remember(memory, request, terms, (permit, held), (left, body.clone()));
        }
        return Ok(answer(text, body));
    }
    Err(Failure::Timeout.into())
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

/// Whether some rule allows it, whatever the pass will say; counted if not.
pub(super) fn permit_by_rule(
    api: &Api,
    terms: &Terms,
    caller: &Caller,
    asked: &TokenRequest,
    bearer: &Bearer,
) -> Result<(), Problem> {
    if matches!(bearer, Ok(None)) {
        // There is nothing to be judged, and no key to wait for.
        return Ok(());
    }
    match terms.policy.permit(caller, asked.clone(), &Shown::Unknown) {
        Err(Denied::NoRule | Denied::UnknownService) => {
            permit(api, terms, caller, asked.clone(), &Shown::Unknown).map(drop)
        }
        Ok(_) | Err(_) => Ok(()),
    }
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
        let problem = Problem::from(denied).in_run(shown.run());
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
