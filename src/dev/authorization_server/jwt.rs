//! Access and ID tokens as Okta makes them: RS256, and a header of `alg` and `kid` only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::clock::Timestamp;

use super::family::Login;
use super::object::set;
use super::reply::sha256;
use super::scopes;
use super::state::CLIENT_ID;
use super::users::User;

/// An ID token lives an hour, whatever the settings.
const ID_TOKEN_SECONDS: i64 = 3600;

/// Who an access token is about.
pub(super) enum Subject<'a> {
    User(&'a User, &'a Login),
    /// Client credentials: the client itself.
    Client,
}

pub(super) struct AccessClaims<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    pub(super) subject: Subject<'a>,
    pub(super) scopes: &'a [String],
    pub(super) jti: String,
    pub(super) issued: Timestamp,
    pub(super) lifetime_seconds: i64,
}

impl AccessClaims<'_> {
    pub(super) fn to_json(&self) -> Value {
        let iat = self.issued.secs();
        let mut claims = json!({
            "ver": 1,
            "jti": self.jti,
            "iss": self.issuer,
            "aud": self.audience,
            "iat": iat,
            "exp": iat + self.lifetime_seconds,
            "cid": CLIENT_ID,
            "scp": self.scopes,
        });
        match self.subject {
            Subject::User(user, login) => {
                set(&mut claims, "uid", json!(user.uid));
                set(&mut claims, "sub", json!(user.login));
                set(&mut claims, "auth_time", json!(login.at.wall.secs()));
                if let Some(acr) = &login.acr {
                    set(&mut claims, "acr", json!(acr));
                }
            }
            Subject::Client => set(&mut claims, "sub", json!(CLIENT_ID)),
        }
        claims
    }
}

pub(super) struct IdClaims<'a> {
    pub(super) issuer: &'a str,
    pub(super) user: &'a User,
    pub(super) login: &'a Login,
    pub(super) scopes: &'a [String],
    pub(super) nonce: Option<&'a str>,
    pub(super) access_token: &'a str,
    pub(super) jti: String,
    pub(super) issued: Timestamp,
}

impl IdClaims<'_> {
    /// Other than an access token's, the `sub` is the user's id.
    pub(super) fn to_json(&self) -> Value {
        let iat = self.issued.secs();
        let at_hash = sha256(self.access_token);
        let mut claims = json!({
            "ver": 1,
            "jti": self.jti,
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": iat,
            "exp": iat + ID_TOKEN_SECONDS,
            "sub": self.user.uid,
            "idp": "00odevbursar",
            "amr": ["pwd"],
            "auth_time": self.login.at.wall.secs(),
            // OIDC Core 3.1.3.6: the left half of the hash.
            "at_hash": URL_SAFE_NO_PAD.encode(at_hash.get(..16).unwrap_or_default()),
        });
        if let Some(nonce) = self.nonce {
            set(&mut claims, "nonce", json!(nonce));
        }
        if let Some(acr) = &self.login.acr {
            set(&mut claims, "acr", json!(acr));
        }
        if scopes::has(self.scopes, "profile") {
            set(&mut claims, "name", json!(self.user.name()));
            set(&mut claims, "preferred_username", json!(self.user.login));
        }
        if scopes::has(self.scopes, "email") {
            set(&mut claims, "email", json!(self.user.login));
            set(&mut claims, "email_verified", json!(true));
        }
        claims
    }
}

/// JWS compact serialization; `None` if signing fails.
pub(super) fn compact(
    header: &Value,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Option<String> {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", encode(header), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(input.as_bytes())?);
    Some(format!("{input}.{signature}"))
}
