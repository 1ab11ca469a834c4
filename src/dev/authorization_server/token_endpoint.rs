//! `/v1/token`: who may have which tokens. Decides on a parsed form and the state; knows nothing of connections.

use hyper::StatusCode;
use serde_json::Value;

use crate::clock::Moment;
use crate::secret::Secret;

use super::client_authentication::authenticate;
use super::family::FamilyId;
use super::fault::{Alteration, Forgery};
use super::form::Form;
use super::refusal::Refusal;
use super::reply::Reply;
use super::request::Request;
use super::scopes;
use super::settings::GRANT_TYPES;
use super::state::State;

mod authorization_code;
mod client_credentials;
mod device_code;
mod issuing;
mod password;
mod refresh_token;

/// What is not granted where less is than was asked for.
const LESS: &str = "session:role:PUBLIC";

/// What a grant turned out to be good for.
struct Entitlement {
    /// The login; none for client credentials.
    family: Option<FamilyId>,
    scopes: Vec<String>,
    nonce: Option<String>,
    refresh_token: Option<Secret>,
}

/// How a test wants the answer to be wrong.
#[derive(Clone, Default)]
pub(super) struct Distortion {
    pub(super) forgery: Option<Forgery>,
    pub(super) alteration: Option<Alteration>,
}

/// One call of the endpoint, as the grants see it.
struct Call<'a> {
    server: &'a str,
    form: &'a Form,
    now: Moment,
    distortion: &'a Distortion,
}

pub(super) fn answer(state: &mut State, server: &str, request: &Request, distortion: &Distortion) -> Reply {
    let reply = match exchange(state, server, request, distortion) {
        Ok(body) => Reply::json(StatusCode::OK, &body),
        Err(refusal) => {
            if matches!(refusal, Refusal::RateLimited(_)) {
                state.stats.rate_limited();
            }
            refusal.reply(state.entropy.as_ref())
        }
    };
    reply.not_stored()
}

fn exchange(
    state: &mut State,
    server: &str,
    request: &Request,
    distortion: &Distortion,
) -> Result<Value, Refusal> {
    let form = request.form()?;
    authenticate(request.authorization.as_deref(), &form, &state.client_secrets)?;
    let grant_type = form
        .get("grant_type")
        .ok_or_else(|| Refusal::invalid_request("The parameter 'grant_type' is missing."))?;
    if !GRANT_TYPES.contains(&grant_type) {
        return Err(Refusal::UnsupportedGrantType);
    }
    if !state.settings.grant_types.iter().any(|allowed| allowed == grant_type) {
        return Err(Refusal::GrantTypeNotAllowed(state.settings.grant_types.clone()));
    }
    let call = Call { server, form: &form, now: request.now, distortion };
    let mut entitlement = match grant_type {
        "refresh_token" => refresh_token::redeem(state, &call)?,
        "authorization_code" => authorization_code::redeem(state, &call)?,
        "client_credentials" => client_credentials::redeem(state, &call)?,
        "password" => password::redeem(state, &call)?,
        _ => device_code::redeem(state, &call)?,
    };
    if distortion.alteration == Some(Alteration::LessScope) {
        entitlement.scopes.retain(|scope| scope != LESS);
    }
    issuing::issue(state, &call, &entitlement).ok_or(Refusal::Internal)
}

impl Call<'_> {
    fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.form
            .get(name)
            .ok_or_else(|| Refusal::InvalidRequest(format!("The parameter '{name}' is missing.")))
    }

    /// Okta's limit for each user, checked before anything is used up or rotated.
    fn enter_user(&self, state: &mut State, user: &str) -> Result<(), Refusal> {
        let limit = state.settings.requests_per_second_per_user;
        state.limits.enter_user(user, limit, &self.now).map_err(Refusal::RateLimited)
    }
}

/// The scopes of the request, all of them known to the server; `None` if it names none.
fn requested_scopes(state: &State, call: &Call<'_>) -> Result<Option<Vec<String>>, Refusal> {
    let Some(text) = call.form.get("scope") else { return Ok(None) };
    let scopes = scopes::parse(text).ok_or(Refusal::InvalidScope)?;
    let server = state.servers.get(call.server).ok_or(Refusal::Internal)?;
    if scopes.iter().all(|scope| server.knows_scope(scope)) {
        Ok(Some(scopes))
    } else {
        Err(Refusal::InvalidScope)
    }
}
