//! Access tokens that no client may take for good, each wrong in one way.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::entropy::Entropy;

use super::fault::Forgery;
use super::jwt::compact;
use super::object::{number, remove, set};
use super::rsa::SigningKey;
use super::weak_key;

const HOUR: i64 = 3600;

/// The keys that a forger may use.
pub(super) struct ForgersKeys<'a> {
    pub(super) active: &'a SigningKey,
    /// Published nowhere.
    pub(super) stray: Option<&'a SigningKey>,
}

/// Changes claims that are signed properly afterwards. `WrongSubject` is not among them: that token is made for the
/// other user from the start.
pub(super) fn change_claims(forgery: &Forgery, claims: &mut Value, lifetime: i64) {
    let iat = number(claims, "iat").unwrap_or_default();
    match forgery {
        Forgery::WrongIssuer => set(claims, "iss", json!("https://other.example.com/oauth2/ausother")),
        Forgery::WrongAudience => set(claims, "aud", json!("https://other.example.com")),
        Forgery::WrongClient => set(claims, "cid", json!("0oaother")),
        Forgery::WrongScope => set(claims, "scp", json!(["session:role:ACCOUNTADMIN"])),
        Forgery::Expired => {
            set(claims, "iat", json!(iat - HOUR - lifetime));
            set(claims, "exp", json!(iat - HOUR));
        }
        Forgery::NotYetValid => {
            set(claims, "iat", json!(iat + HOUR));
            set(claims, "nbf", json!(iat + HOUR));
            set(claims, "exp", json!(iat + HOUR + lifetime));
        }
        Forgery::NoExp => remove(claims, "exp"),
        Forgery::WrongSubject(_)
        | Forgery::AlgNone
        | Forgery::Hs256PublicKey
        | Forgery::WrongKey
        | Forgery::UnknownKid
        | Forgery::NoKid
        | Forgery::Crit
        | Forgery::IdToken
        | Forgery::Jwe
        | Forgery::Opaque
        | Forgery::WeakKey => {}
    }
}

/// The token's text; `id_token` is what takes its place for that forgery.
pub(super) fn token(
    forgery: &Forgery,
    claims: &Value,
    id_token: impl FnOnce() -> Option<String>,
    keys: &ForgersKeys<'_>,
    entropy: &dyn Entropy,
) -> Option<String> {
    let kid = keys.active.kid();
    let signed = |header: &Value| compact(header, claims, |input| keys.active.sign(input));
    match forgery {
        Forgery::WrongIssuer
        | Forgery::WrongAudience
        | Forgery::WrongSubject(_)
        | Forgery::WrongClient
        | Forgery::WrongScope
        | Forgery::Expired
        | Forgery::NotYetValid
        | Forgery::NoExp => signed(&json!({ "alg": "RS256", "kid": kid })),
        Forgery::UnknownKid => signed(&json!({ "alg": "RS256", "kid": entropy.text(32) })),
        Forgery::NoKid => signed(&json!({ "alg": "RS256" })),
        Forgery::Crit => signed(&json!({
            "alg": "RS256", "kid": kid, "crit": ["urn:example:unknown"], "urn:example:unknown": true,
        })),
        Forgery::AlgNone => compact(&json!({ "alg": "none", "kid": kid }), claims, |_| Some(Vec::new())),
        Forgery::Hs256PublicKey => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, keys.active.public_pem()?.as_bytes());
            compact(&json!({ "alg": "HS256", "kid": kid }), claims, |input| {
                Some(hmac::sign(&key, input).as_ref().to_vec())
            })
        }
        Forgery::WrongKey => {
            let stray = keys.stray?;
            compact(&json!({ "alg": "RS256", "kid": kid }), claims, |input| stray.sign(input))
        }
        Forgery::WeakKey => compact(&json!({ "alg": "RS256", "kid": weak_key::KID }), claims, |input| {
            Some(weak_key::sign(input))
        }),
        Forgery::IdToken => id_token(),
        Forgery::Jwe => {
            let header = json!({ "alg": "RSA-OAEP-256", "enc": "A256GCM", "cty": "JWT", "kid": kid });
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            let part = |bytes| entropy.text(bytes);
            Some(format!("{header}.{}.{}.{}.{}", part(256), part(12), part(400), part(16)))
        }
        Forgery::Opaque => Some(format!("at-sentinel-{}", entropy.text(48))),
    }
}
