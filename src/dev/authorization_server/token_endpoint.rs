//! `/v1/token`: who may have which tokens, and the answer that carries them. Decides on a parsed form and the state;
//! knows nothing of connections.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::clock::{Moment, Timestamp};
use crate::secret::Secret;

use super::access::AccessToken;
use super::client_authentication::authenticate;
use super::family::FamilyId;
use super::fault::{Alteration, Forgery};
use super::forgery::{self, ForgersKeys};
use super::form::Form;
use super::jwt::{AccessClaims, IdClaims, Subject, compact};
use super::object::{number, set, text};
use super::refusal::Refusal;
use super::reply::Reply;
use super::request::Request;
use super::scopes;
use super::settings::GRANT_TYPES;
use super::state::State;
use super::users::User;

mod authorization_code;
mod client_credentials;
mod device_code;
mod password;
mod refresh_token;

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
    let entitlement = match grant_type {
        "refresh_token" => refresh_token::redeem(state, &call)?,
        "authorization_code" => authorization_code::redeem(state, &call)?,
        "client_credentials" => client_credentials::redeem(state, &call)?,
        "password" => password::redeem(state, &call)?,
        _ => device_code::redeem(state, &call)?,
    };
    issue(state, &call, &entitlement).ok_or(Refusal::Internal)
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

/// Makes and remembers the tokens. `None` if a key is missing.
fn issue(state: &mut State, call: &Call<'_>, entitlement: &Entitlement) -> Option<Value> {
    let made = make(state, call, entitlement)?;
    let scope = entitlement.scopes.join(" ");
    let expires_in = lifetime_seconds(state);
    state.remember("access_token", &made.access_token);
    let record = AccessToken {
        server: call.server.to_owned(),
        family: entitlement.family,
        jti: text(&made.claims, "jti").unwrap_or_default(),
        subject: text(&made.claims, "sub").unwrap_or_default(),
        user: entitlement.family.and(text(&made.claims, "sub")),
        uid: text(&made.claims, "uid"),
        scope: scope.clone(),
        issued: call.now.wall,
        expires: Timestamp::from_secs(
            number(&made.claims, "exp").unwrap_or_else(|| call.now.wall.secs() + expires_in),
        ),
    };
    state.access_tokens.add(Secret::new(made.access_token.clone()).digest(), record, call.now.wall);
    let mut body = json!({
        "token_type": "Bearer",
        "expires_in": expires_in,
        "access_token": made.access_token,
        "scope": scope,
    });
    if let Some(refresh_token) = &entitlement.refresh_token {
        set(&mut body, "refresh_token", json!(refresh_token.expose()));
    }
    if let Some(id_token) = made.id_token {
        state.remember("id_token", &id_token);
        set(&mut body, "id_token", json!(id_token));
    }
    match call.distortion.alteration {
        Some(Alteration::Dpop) => set(&mut body, "token_type", json!("DPoP")),
        Some(Alteration::StringExpiresIn) => set(&mut body, "expires_in", json!(expires_in.to_string())),
        Some(Alteration::NoRefreshToken | Alteration::SameRefreshToken) | None => {}
    }
    Some(body)
}

struct Made {
    claims: Value,
    access_token: String,
    id_token: Option<String>,
}

fn make(state: &State, call: &Call<'_>, entitlement: &Entitlement) -> Option<Made> {
    let server = state.servers.get(call.server)?;
    let active = server.keys.active()?;
    let (issuer, forgery) = (state.issuer(call.server), call.distortion.forgery.as_ref());
    let login = entitlement.family.and_then(|family| state.families.get(family)).map(|family| &family.login);
    // Somebody else's tokens altogether, as if the server had mixed up two users.
    let user = match (forgery, login) {
        (Some(Forgery::WrongSubject(other)), Some(_)) => {
            Some(state.users.get(other).cloned().unwrap_or_else(|| User::new(other)))
        }
        (_, Some(login)) => state.users.get(&login.user).cloned(),
        (_, None) => None,
    };
    let id_token = |access_token: &str| {
        let (user, login) = (user.as_ref()?, login?);
        let claims = IdClaims {
            issuer: &issuer,
            user,
            login,
            scopes: &entitlement.scopes,
            nonce: entitlement.nonce.as_deref(),
            access_token,
            jti: format!("ID.{}", state.entropy.text(24)),
            issued: call.now.wall,
        };
        compact(&json!({ "alg": "RS256", "kid": active.kid() }), &claims.to_json(), |input| {
            active.sign(input)
        })
    };
    let subject = match (&user, login) {
        (Some(user), Some(login)) => Subject::User(user, login),
        (_, _) => Subject::Client,
    };
    let mut claims = AccessClaims {
        issuer: &issuer,
        audience: server.audience,
        subject,
        scopes: &entitlement.scopes,
        jti: format!("AT.{}", state.entropy.text(24)),
        issued: call.now.wall,
        lifetime_seconds: lifetime_seconds(state),
    }
    .to_json();
    let access_token = match forgery {
        None => {
            compact(&json!({ "alg": "RS256", "kid": active.kid() }), &claims, |input| active.sign(input))?
        }
        Some(forgery) => {
            forgery::change_claims(forgery, &mut claims, lifetime_seconds(state));
            let keys = ForgersKeys { active, stray: state.stray_key.as_ref() };
            forgery::token(forgery, &claims, || id_token(""), &keys, state.entropy.as_ref())?
        }
    };
    let wants_id_token = scopes::has(&entitlement.scopes, "openid");
    let id_token = if wants_id_token { id_token(&access_token) } else { None };
    Some(Made { claims, access_token, id_token })
}

fn lifetime_seconds(state: &State) -> i64 {
    i64::try_from(state.settings.token_lifetime.as_secs()).unwrap_or(i64::MAX / 4)
}
