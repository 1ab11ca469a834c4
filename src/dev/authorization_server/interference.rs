//! What an ordered fault does to one exchange, before the server acts or after.

use hyper::StatusCode;

use crate::clock::Moment;

use super::fault::Fault;
use super::rate_limit::Allowance;
use super::refusal::Refusal;
use super::reply::{Delivery, Reply};
use super::state::State;

/// The reply of a fault that keeps the server from acting.
pub(super) fn instead_of_acting(state: &mut State, fault: &Fault, now: &Moment) -> Option<Reply> {
    let nothing = || Reply::empty(StatusCode::OK);
    match fault {
        Fault::Status { status, body, content_type, acts: false } => {
            Some(Reply::new(*status, content_type, body.clone()))
        }
        Fault::Hang => Some(nothing().delivered(Delivery::Never)),
        Fault::CutBefore => Some(nothing().delivered(Delivery::Cut)),
        Fault::Error { status, error, description } => {
            Some(Reply::oauth_error(*status, error, description).not_stored())
        }
        Fault::RateLimit(wait) => {
            state.stats.rate_limited();
            let (limit, reset) = (state.settings.requests_per_minute, now.wall.plus(*wait));
            let allowance = Allowance { limit, remaining: 0, reset };
            Some(Refusal::RateLimited(allowance).reply(state.entropy.as_ref()).not_stored())
        }
        Fault::Status { .. }
        | Fault::Delay(_)
        | Fault::CutAfter
        | Fault::HangAfter
        | Fault::Garbage
        | Fault::Truncated
        | Fault::ProxyPage
        | Fault::Forge(_)
        | Fault::Alter(_) => None,
    }
}

/// What becomes of a proper reply on its way to the client.
pub(super) fn after_acting(mut reply: Reply, fault: Option<&Fault>) -> Reply {
    match fault {
        Some(Fault::Status { status, body, content_type, .. }) => {
            Reply::new(*status, content_type, body.clone())
        }
        Some(Fault::CutAfter) => reply.delivered(Delivery::Cut),
        Some(Fault::HangAfter) => reply.delivered(Delivery::Never),
        Some(Fault::Truncated) => reply.delivered(Delivery::Truncated),
        Some(Fault::Garbage) => {
            // All but the end: everything is in it that an error message must not quote.
            reply.body.pop();
            reply.status = StatusCode::OK;
            reply
        }
        Some(Fault::ProxyPage) => Reply::new(
            StatusCode::OK,
            "text/html",
            "<!doctype html><title>Network login</title><p>Please sign in to this network.</p>".to_owned(),
        ),
        Some(
            Fault::Delay(_)
            | Fault::Hang
            | Fault::CutBefore
            | Fault::Error { .. }
            | Fault::RateLimit(_)
            | Fault::Forge(_)
            | Fault::Alter(_),
        )
        | None => reply,
    }
}
