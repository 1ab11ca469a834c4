//! `GET /v1/services`: what this caller may ask for.

use bytes::Bytes;
use http_body_util::Full;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::api::error::Problem;
use crate::api::query::Query;
use crate::api::{Api, answer};
use crate::caller::Caller;
use crate::policy::{Allowed, Denied, Pattern, Shown};

pub(super) async fn list(
    api: &Api,
    caller: &Caller,
    request: &Parts,
) -> Result<Response<Full<Bytes>>, Problem> {
    Query::parse(request.uri.query(), &[])?;
    let terms = api.terms.load_full();
    let shown = api.shown_in(&terms, caller, request).await;
    let pass = match &shown {
        Shown::Nothing => None,
        Shown::Pass(pass) => Some(&**pass),
        Shown::Bad(why, _) => return Err(Denied::BadPass(*why).into()),
        Shown::Unknown => return Err(Denied::PassUnknown.into()),
    };
    let services: Vec<Value> = terms.policy.allowed(caller, pass).iter().map(describe).collect();
    Ok(answer::json(StatusCode::OK, &json!({ "services": services })))
}

/// One service by one rule; a service of which two rules speak stands there twice.
fn describe(allowed: &Allowed<'_>) -> Value {
    let service = allowed.service;
    let roles: Vec<&str> = allowed.roles.iter().map(|role| role.as_str()).collect();
    let users: Vec<&str> = match allowed.only {
        Some(user) => vec![user.as_str()],
        None => allowed.users.iter().map(Pattern::as_str).collect(),
    };
    json!({
        "service": service.name.as_str(),
        "kind": service.kind.as_str(),
        "audience": service.audience,
        "default_scope": allowed.default_scopes.then(|| service.scopes.to_string()),
        "roles": roles,
        // Nobody's: the tokens speak for the client itself.
        "users": service.has_users().then_some(users),
        "run_pass": if allowed.needs_pass { "required" } else { "none" },
    })
}
