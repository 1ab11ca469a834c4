//! What the vending socket records: each token that is handed out, and who is refused one.

use hyper::StatusCode;
use hyper::http::request::Parts;

use crate::api::error::Problem;
use crate::api::query::Query;
use crate::api::{Api, token};
use crate::audit::{Event, Kind};
use crate::broker::Held;
use crate::caller::Caller;
use crate::model::RequestId;
use crate::policy::Permit;

/// What a query may name that is worth knowing of whoever was refused.
const NAMES: [&str; 5] = ["service", "user", "role", "min_ttl", "rejected"];

/// A token that is being handed out.
pub(super) fn vend(caller: &Caller, id: &RequestId, permit: &Permit, held: &Held) -> Event {
    let key = permit.key();
    Event::new(Kind::Vend, if held.stale { "stale" } else { "ok" })
        .by(caller, id)
        .in_run(permit.run().map(ToString::to_string))
        .about(&key.grant)
        .role(key.role.as_ref())
        .token(held.token.mark().clone())
}

/// Somebody was refused for what they may do, or since there is no grant for it; not for how they asked, nor since
/// something does not work.
pub(super) fn refusal(api: &Api, caller: &Caller, id: &RequestId, request: &Parts, problem: &Problem) {
    let refusals =
        [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::CONFLICT, StatusCode::BAD_GATEWAY];
    if !api.audit.is_on() || !refusals.contains(&problem.status()) {
        return;
    }
    let mut event = Event::new(Kind::Refusal, problem.error()).by(caller, id);
    if let Ok(query) = Query::parse(request.uri.query(), &NAMES) {
        let role = query.role().ok().flatten();
        let (service, user) = (query.service().ok().flatten(), query.user().ok().flatten());
        event = event.naming(service, user).role(role.as_ref());
    }
    event = event.in_run(problem.run().map(ToString::to_string));
    let why = problem.text("reason").or_else(|| problem.text("authorization_server_error"));
    let why = why.or_else(|| Some(problem.detail()).filter(|_| problem.status() == StatusCode::UNAUTHORIZED));
    if let Some(why) = why.or_else(|| Some(request.uri.path()).filter(|path| *path != token::PATH)) {
        event = event.detail(why);
    }
    api.audit.refusal(event);
}
