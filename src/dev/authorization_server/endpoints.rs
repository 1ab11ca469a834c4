//! Which endpoint answers, within its methods and its rate limit.

use hyper::{Method, StatusCode};

use super::fault::{Fault, Forgery};
use super::refusal::Refusal;
use super::reply::Reply;
use super::request::Request;
use super::route::Endpoint;
use super::state::State;
use super::token_endpoint::{self, Distortion};
use super::{authorize, device_authorization, introspection, metadata, revocation};

/// The endpoint's reply, if its method and rate limit allow one.
pub(super) fn answer(
    state: &mut State,
    endpoint: Endpoint,
    server: &str,
    request: &Request,
    fault: Option<&Fault>,
) -> Reply {
    let allowed: &[Method] = match endpoint {
        Endpoint::Token | Endpoint::Introspect | Endpoint::Revoke | Endpoint::Device => &[Method::POST],
        Endpoint::Keys | Endpoint::Discovery => &[Method::GET, Method::HEAD],
        Endpoint::Authorize | Endpoint::Activate => &[Method::GET, Method::POST],
    };
    if !allowed.contains(&request.method) {
        let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let summary = "The endpoint does not support the provided HTTP method";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Reply::okta_error(status, "E0000022", summary, state.entropy.as_ref())
            .with("allow", names.join(", "));
    }
    if !endpoint.is_rate_limited() {
        return dispatch(state, endpoint, server, request, fault);
    }
    match state.limits.enter(endpoint, state.settings.requests_per_minute, &request.now) {
        Ok(allowance) => {
            let reply = dispatch(state, endpoint, server, request, fault);
            // A user's own limit has announced itself already.
            if reply.status == StatusCode::TOO_MANY_REQUESTS { reply } else { allowance.announce(reply) }
        }
        Err(allowance) => {
            state.stats.rate_limited();
            Refusal::RateLimited(allowance).reply(state.entropy.as_ref()).not_stored()
        }
    }
}

fn dispatch(
    state: &mut State,
    endpoint: Endpoint,
    server: &str,
    request: &Request,
    fault: Option<&Fault>,
) -> Reply {
    match endpoint {
        Endpoint::Token => token_endpoint::answer(state, server, request, &distortion(fault)),
        Endpoint::Keys => {
            let keys = state.servers.get(server).map(|server| server.keys.published()).unwrap_or_default();
            let max_age = state.settings.keys_max_age.as_secs();
            Reply::json(StatusCode::OK, &keys)
                .with("cache-control", format!("max-age={max_age}, must-revalidate"))
        }
        Endpoint::Introspect => introspection::answer(state, server, request),
        Endpoint::Revoke => revocation::answer(state, server, request),
        Endpoint::Discovery => {
            let is_wrong = fault == Some(&Fault::Forge(Forgery::WrongIssuer));
            let issuer = if is_wrong {
                "https://other.example.com/oauth2/ausother".to_owned()
            } else {
                state.issuer(server)
            };
            metadata::answer(state, server, &issuer)
        }
        Endpoint::Authorize => authorize::answer(state, server, request),
        Endpoint::Device => device_authorization::answer(state, server, request),
        Endpoint::Activate => device_authorization::activate(state, request),
    }
}

fn distortion(fault: Option<&Fault>) -> Distortion {
    match fault {
        Some(Fault::Forge(forgery)) => Distortion { forgery: Some(forgery.clone()), alteration: None },
        Some(Fault::Alter(alteration)) => Distortion { forgery: None, alteration: Some(*alteration) },
        Some(_) | None => Distortion::default(),
    }
}
