//! `/v1/introspect` (RFC 7662). Only looks: it neither uses a token nor ends a family.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::clock::Moment;
use crate::secret::Secret;

use super::client_authentication::authenticate;
use super::family::Verdict;
use super::object::set;
use super::refusal::Refusal;
use super::reply::Reply;
use super::request::Request;
use super::state::{CLIENT_ID, State};

pub(super) fn answer(state: &State, server: &str, request: &Request) -> Reply {
    match token(state, request) {
        Ok(token) => {
            let known = access_token(state, server, &token, &request.now)
                .or_else(|| refresh_token(state, server, &token, &request.now));
            Reply::json(StatusCode::OK, &known.unwrap_or_else(|| json!({ "active": false }))).not_stored()
        }
        Err(refusal) => refusal.reply(state.entropy.as_ref()),
    }
}

/// The token in question, of a client that may ask; revocation begins the same way. A `token_type_hint` is a hint and
/// changes nothing.
pub(super) fn token(state: &State, request: &Request) -> Result<Secret, Refusal> {
    let form = request.form()?;
    authenticate(request.authorization.as_deref(), &form, &state.client_secrets)?;
    let token =
        form.get("token").ok_or_else(|| Refusal::invalid_request("The parameter 'token' is missing."))?;
    Ok(Secret::new(token.to_owned()))
}

fn access_token(state: &State, server: &str, token: &Secret, now: &Moment) -> Option<Value> {
    let token = state.access_tokens.find(server, &token.digest(), now.wall)?;
    if token.user.as_ref().is_some_and(|user| !state.may_use_the_client(user)) {
        return None;
    }
    let mut answer = json!({
        "active": true,
        "token_type": "Bearer",
        "client_id": CLIENT_ID,
        "scope": token.scope,
        "sub": token.subject,
        "iss": state.issuer(server),
        "aud": state.servers.get(server)?.audience,
        "jti": token.jti,
        "iat": token.issued.secs(),
        "exp": token.expires.secs(),
    });
    if let Some(user) = &token.user {
        set(&mut answer, "username", json!(user));
        set(&mut answer, "uid", json!(token.uid));
    }
    Some(answer)
}

/// Active if it would be accepted now, so also while a leeway lasts.
fn refresh_token(state: &State, server: &str, token: &Secret, now: &Moment) -> Option<Value> {
    let Verdict::Good(family) = state.judge(server, token, now) else { return None };
    let login = &state.families.get(family)?.login;
    if !state.may_use_the_client(&login.user) {
        return None;
    }
    let mut answer = json!({
        "active": true,
        "token_type": "Bearer",
        "client_id": CLIENT_ID,
        "scope": login.scopes.join(" "),
        "sub": login.user,
        "username": login.user,
        "uid": state.users.get(&login.user).map(|user| &user.uid),
    });
    if let Some(expires) = login.expires {
        set(&mut answer, "exp", json!(expires.secs()));
    }
    Some(answer)
}
