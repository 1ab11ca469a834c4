//! `POST /v1/introspect` (RFC 7662): is a token that somebody shows genuine? Answered here, by the authorization server's
//! keys; whether its grant has been revoked since is not known to a key.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::api::error::Problem;
use crate::api::query::Query;
use crate::api::{Api, answer, body};
use crate::caller::Caller;
use crate::jwt::Claims;
use crate::model::{Failure, UserName};
use crate::policy::Allowed;
use crate::secret::Secret;

pub(super) async fn introspect(
    api: &Api,
    caller: &Caller,
    request: &Parts,
    body: &mut Incoming,
) -> Result<Response<Full<Bytes>>, Problem> {
    Query::parse(request.uri.query(), &[])?;
    let form = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = form.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Problem::invalid_request("the body must be a form: application/x-www-form-urlencoded"));
    }
    let body = body::read(body).await?;
    let form = Query::parse_form(&body, &["token", "token_type_hint", "service"])?;
    // RFC 6749 §3.2: without a value it counts as omitted.
    let token = form.get("token").filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Problem::invalid_parameter("token", "missing"))?;
    let token = Secret::new(token.to_owned());
    let service = form.service()?;
    let terms = api.terms.load_full();
    let shown = api.shown_in(&terms, caller, request).await;
    let allowed = terms.policy.usable(caller, &shown, service.as_ref(), |_| true)?;
    let wanted: Vec<&Allowed<'_>> = allowed.iter().collect();
    let _place = api.room_to_wait(caller, &terms).ok_or(Failure::TooManyWaiting)?;
    let looking = look(api, &wanted, &token);
    let found =
        tokio::time::timeout(terms.request_timeout, looking).await.unwrap_or(Err(Failure::Timeout))?;
    Ok(answer::json(StatusCode::OK, &found.map_or_else(|| json!({ "active": false }), active)))
}

/// The token's claims, if it is one of a service that this caller may ask for, and of somebody for whom it may.
async fn look(api: &Api, wanted: &[&Allowed<'_>], token: &Secret) -> Result<Option<Claims>, Failure> {
    let mut unknown = None;
    for (index, allowed) in wanted.iter().enumerate() {
        // What a service's first rule has told about a token, its next one need not find out again.
        let earlier = wanted.iter().take(index).any(|earlier| earlier.service.name == allowed.service.name);
        if earlier {
            continue;
        }
        match api.broker.introspect(allowed.service, token).await {
            Ok(Some(claims)) => {
                let of_service = wanted.iter().filter(|other| other.service.name == allowed.service.name);
                // Whose tokens a caller may not have, of those it learns nothing.
                if of_service.into_iter().any(|rule| may_have(rule, &claims)) {
                    return Ok(Some(claims));
                }
            }
            Ok(None) => {}
            Err(failure) => unknown = Some(failure),
        }
    }
    unknown.map_or(Ok(None), Err)
}

/// Whether the rule is about whom the token speaks for.
fn may_have(rule: &Allowed<'_>, claims: &Claims) -> bool {
    if rule.service.has_users() {
        return rule.is_about(claims.text(&rule.service.user_claim).and_then(UserName::parse).as_ref());
    }
    // Another service may have the same audience, and users: theirs is not the client's.
    let client = claims.text("cid").or_else(|| claims.text("client_id"));
    client.is_some() && claims.text("sub") == client
}

/// The claims, and what RFC 7662 §2.2 calls some of Okta's.
fn active(claims: Claims) -> Value {
    let mut members = claims.into_members();
    let scopes = members.get("scp").and_then(Value::as_array).map(|scopes| {
        let words: Vec<&str> = scopes.iter().filter_map(Value::as_str).collect();
        Value::from(words.join(" "))
    });
    let client = members.get("cid").cloned();
    let add = |members: &mut Map<String, Value>, name: &str, value: Option<Value>| {
        if let Some(value) = value {
            members.entry(name).or_insert(value);
        }
    };
    add(&mut members, "scope", scopes);
    add(&mut members, "client_id", client);
    add(&mut members, "token_type", Some(Value::from("Bearer")));
    members.insert("active".to_owned(), Value::from(true));
    Value::Object(members)
}
