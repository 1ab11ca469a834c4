//! Makes the tokens that a grant is good for, and the answer that carries them.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::secret::Secret;

use super::super::access::AccessToken;
use super::super::fault::{Alteration, Forgery};
use super::super::forgery::{self, ForgersKeys};
use super::super::jwt::{AccessClaims, IdClaims, Subject, compact};
use super::super::object::{number, remove, set, text};
use super::super::scopes;
use super::super::state::State;
use super::super::users::User;
use super::{Call, Entitlement};

const DAY: i64 = 24 * 3600;

/// Makes and remembers the tokens. `None` if a key is missing.
pub(super) fn issue(state: &mut State, call: &Call<'_>, entitlement: &Entitlement) -> Option<Value> {
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
        Some(Alteration::NoRefreshToken) => remove(&mut body, "refresh_token"),
        Some(
            Alteration::SameRefreshToken
            | Alteration::LessScope
            | Alteration::NoIdToken
            | Alteration::OtherIdToken
            | Alteration::WrongNonce
            | Alteration::OldSignIn
            | Alteration::WeakSignIn,
        )
        | None => {}
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
        let alteration = call.distortion.alteration;
        let other = state.users.values().find(|other| other.login != user.login);
        let user = other.filter(|_| alteration == Some(Alteration::OtherIdToken)).unwrap_or(user);
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
        let mut claims = claims.to_json();
        match alteration {
            Some(Alteration::WrongNonce) => set(&mut claims, "nonce", json!("another")),
            Some(Alteration::OldSignIn) => set(&mut claims, "auth_time", json!(login.at.wall.secs() - DAY)),
            Some(Alteration::WeakSignIn) => remove(&mut claims, "acr"),
            _ => {}
        }
        compact(&json!({ "alg": "RS256", "kid": active.kid() }), &claims, |input| active.sign(input))
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
    let wants_id_token = scopes::has(&entitlement.scopes, "openid")
        && call.distortion.alteration != Some(Alteration::NoIdToken);
    let id_token = if wants_id_token { id_token(&access_token) } else { None };
    Some(Made { claims, access_token, id_token })
}

fn lifetime_seconds(state: &State) -> i64 {
    i64::try_from(state.settings.token_lifetime.as_secs()).unwrap_or(i64::MAX / 4)
}
