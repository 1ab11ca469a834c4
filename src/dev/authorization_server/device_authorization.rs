//! `/v1/device/authorize` (RFC 8628 3.1) and the page on which users enter the code.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::client_authentication::authenticate;
use super::device;
use super::form::Form;
use super::pages;
use super::refusal::{NOT_ASSIGNED, Refusal};
use super::reply::Reply;
use super::request::Request;
use super::scopes;
use super::state::State;
use super::users::PASSWORD;

/// No vowels, so that no word comes about (RFC 8628 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

pub(super) fn answer(state: &mut State, server: &str, request: &Request) -> Reply {
    match begin(state, server, request) {
        Ok(body) => Reply::json(StatusCode::OK, &body).not_stored(),
        Err(refusal) => refusal.reply(state.entropy.as_ref()),
    }
}

fn begin(state: &mut State, server: &str, request: &Request) -> Result<Value, Refusal> {
    let form = request.form()?;
    authenticate(request.authorization.as_deref(), &form, &state.client_secrets)?;
    let known = state.servers.get(server).ok_or(Refusal::Internal)?;
    let scopes = form.get("scope").and_then(scopes::parse).ok_or(Refusal::InvalidScope)?;
    if !scopes.iter().all(|scope| known.knows_scope(scope)) {
        return Err(Refusal::InvalidScope);
    }
    let device_code = state.new_secret("device");
    let user_code: String = (0..8).map(|_| letter(state)).collect();
    let interval = state.settings.device_interval;
    state.devices.add(device_code.digest(), user_code.clone(), server, scopes, interval, request.now);
    let page = format!("{}/activate", state.origin);
    Ok(json!({
        "device_code": device_code.expose(),
        "user_code": user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={user_code}"),
        "expires_in": device::LIFETIME.as_secs(),
        "interval": interval.as_secs(),
    }))
}

fn letter(state: &State) -> char {
    let place = usize::try_from(state.entropy.below(20)).unwrap_or(0);
    LETTERS.get(place).copied().map_or('B', char::from)
}

/// `/activate`: a GET shows the form, a POST decides (`user_code`, `username`, `password`, `action=approve` or `deny`).
pub(super) fn activate(state: &mut State, request: &Request) -> Reply {
    let fields = if request.method == Method::POST { &request.body } else { request.query.as_bytes() };
    let Ok(form) = Form::parse(fields) else {
        return Reply::html(StatusCode::BAD_REQUEST, pages::problem("A field came twice."));
    };
    let user_code = form.get("user_code").unwrap_or_default();
    if request.method != Method::POST {
        return Reply::html(StatusCode::OK, pages::activate(user_code, None));
    }
    let user = form.get("username").unwrap_or_default();
    let again = |status, problem| Reply::html(status, pages::activate(user_code, Some(problem)));
    if form.get("password") != Some(PASSWORD) || !state.users.get(user).is_some_and(|user| user.active) {
        return again(StatusCode::UNAUTHORIZED, "Unable to sign in.");
    }
    if !state.may_use_the_client(user) {
        return again(StatusCode::FORBIDDEN, NOT_ASSIGNED);
    }
    let approves = match form.get("action") {
        Some("approve") => true,
        Some("deny") => false,
        Some(_) | None => return again(StatusCode::BAD_REQUEST, "Choose to approve or to deny."),
    };
    if !state.devices.decide(user_code, approves.then_some(user), &request.now) {
        return again(StatusCode::BAD_REQUEST, "That code is unknown, used or too old.");
    }
    let text =
        if approves { "The device is connected. You can go back to it." } else { "The device was denied." };
    Reply::html(StatusCode::OK, pages::done(text))
}
