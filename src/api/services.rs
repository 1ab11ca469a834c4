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
use crate::policy::{Allowed, Pattern};

pub(super) fn list(api: &Api, caller: &Caller, request: &Parts) -> Result<Response<Full<Bytes>>, Problem> {
    Query::parse(request.uri.query(), &[])?;
    let terms = api.terms.load_full();
    let services: Vec<Value> = terms.policy.allowed(caller).iter().map(describe).collect();
    Ok(answer::json(StatusCode::OK, &json!({ "services": services })))
}

/// One service by one rule; a service of which two rules speak stands there twice.
fn describe(allowed: &Allowed<'_>) -> Value {
    let service = allowed.service;
    let roles: Vec<&str> = allowed.roles.iter().map(|role| role.as_str()).collect();
    let users: Vec<&str> = allowed.users.iter().map(Pattern::as_str).collect();
    json!({
        "service": service.name.as_str(),
        "kind": service.kind.as_str(),
        "audience": service.audience,
        "default_scope": allowed.default_scopes.then(|| service.scopes.to_string()),
        "roles": roles,
        // Nobody's: the tokens speak for the client itself.
        "users": service.has_users().then_some(users),
        "run_pass": "none",
    })
}
