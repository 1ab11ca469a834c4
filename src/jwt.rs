//! Believes an access token or not: pure, with the keys, the expectation and the time as arguments.
//!
//! This is the Okta profile, not RFC 9068: no `typ`, `scp` a list, `cid` the client. Other providers' `scope` and
//! `client_id` are taken in their place; where both are present, both must agree.
//!
//! docs/jwt.md has the attacks, what stops each, and its test.

use jsonwebtoken::DecodingKey;

use crate::clock::Timestamp;
use crate::model::{Scope, TokenMark, UserName, excerpt};
use crate::secret::Secret;

mod algorithm;
mod claims;
mod id_token;

/// Key sets as the server publishes them.
pub mod keys;

pub use algorithm::SigningAlgorithm;
pub use claims::Claims;
use claims::{Object, object};
pub use id_token::{IdExpectation, Identified, identify};
use keys::{KeySet, NoKey};

/// How far the server's clock may be from ours, in milliseconds.
const LEEWAY: i64 = 60_000;
/// Longest token that is looked at: 64 KiB, eight times what servers and proxies allow in a header.
const LONGEST: usize = 64 * 1024;

/// What a token must be to be believed.
#[derive(Clone, Debug)]
pub struct Expectation<'a> {
    /// `iss`, byte for byte.
    pub issuer: &'a str,
    /// What `aud` must be, or contain.
    pub audience: &'a str,
    /// `cid`: the client that asked for it.
    pub client_id: &'a str,
    /// The claim that names the user.
    pub user_claim: &'a str,
    /// The user, if it is known whose it must be.
    pub user: Option<&'a UserName>,
    /// What was asked for.
    pub scope: &'a Scope,
}

/// Proof that a token was believed. Only this module makes one.
#[derive(Clone, Debug)]
pub struct Verified {
    token: Secret,
    user: Option<UserName>,
    expires_at: Option<Timestamp>,
}

impl Verified {
    /// A token of a service whose tokens are handed on unread (`access_token = "opaque"`).
    #[must_use]
    pub fn opaque(token: Secret) -> Self {
        Self { token, user: None, expires_at: None }
    }

    /// A token that was verified by an earlier process and has lain sealed since.
    #[must_use]
    pub fn remembered(token: Secret) -> Self {
        Self::opaque(token)
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// Whose it is by its own word; `None` if it was not read.
    #[must_use]
    pub fn user(&self) -> Option<&UserName> {
        self.user.as_ref()
    }

    /// Its `exp`; `None` if it was not read.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }
}

/// Why a token was not believed. The texts name what to mend and carry nothing of the token but names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not three parts of base64url around JSON objects.
    #[error("the token is not a JWT; if this server issues opaque ones, set access_token = \"opaque\"")]
    NotAJwt,
    /// Five parts: encrypted for the resource server (JWE).
    #[error(
        "the token is encrypted (JWE) and can't be verified here: turn token encryption off for this \
         authorization server in Okta, or set access_token = \"opaque\""
    )]
    Encrypted,
    /// Not an algorithm that is configured.
    #[error("the token is signed with {0:?}, which is not among the server's signing_algorithms")]
    Algorithm(String),
    /// It asks for an extension to be understood.
    #[error("the token's header has `crit`, which is not supported")]
    Critical,
    /// It says to be something else.
    #[error("the token's header says that it is a {0:?}, which is no access token")]
    Type(String),
    /// No `kid`, or one that is not published, or a key that is not good enough.
    #[error(transparent)]
    Key(#[from] NoKey),
    /// The signature is not that key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim is missing or of the wrong type.
    #[error("the token has no usable `{0}`")]
    Claim(String),
    /// `iss` differs.
    #[error("the token is from issuer {0:?}: configure the server's issuer exactly as it names itself")]
    Issuer(String),
    /// `aud` differs.
    #[error("the token is for audience {0:?}: it must be the service's `audience`")]
    Audience(String),
    /// `cid` differs.
    #[error("the token was issued to client {0:?}, not to ours")]
    Client(String),
    /// `exp` has passed.
    #[error("the token had expired when it came: compare this machine's clock with the server's")]
    Expired,
    /// `iat` or `nbf` is to come.
    #[error("the token is not valid yet: compare this machine's clock with the server's")]
    NotYetValid,
    /// Not the scopes asked for.
    #[error("the token's scopes are not those asked for (missing: {missing:?}, not asked for: {extra:?})")]
    Scope {
        /// Asked for, not there.
        missing: String,
        /// There, not asked for.
        extra: String,
    },
    /// Not the answer to what we asked.
    #[error("the ID token does not carry our `nonce`: it was made for another request")]
    Nonce,
    /// `at_hash` differs.
    #[error("the ID token belongs to another access token")]
    AccessTokenHash,
    /// `auth_time` is further back than `max_age`.
    #[error("the user signed in longer ago than the service's max_age")]
    SignedInTooLongAgo,
    /// `acr` is not among `acr_values`.
    #[error("the user signed in by {0:?}, which is not among the service's acr_values")]
    SignedInTooWeakly(String),
    /// Another user's token: the gravest of all.
    #[error("the token speaks for another user")]
    User(UserName),
}

/// Verifies `token`.
///
/// # Errors
/// The first reason not to believe it. Whose it is comes last, so that [`VerifyError::User`] means a token that is
/// genuine in all else.
pub fn verify(
    token: &Secret,
    keys: &KeySet,
    expected: &Expectation<'_>,
    now: Timestamp,
) -> Result<Verified, VerifyError> {
    let claims = genuine(token, keys)?;
    believe(&claims, expected, now).map(|(user, expires_at)| Verified {
        token: token.clone(),
        user: Some(user),
        expires_at: Some(expires_at),
    })
}

/// What a token that is not verified says in one of its claims. Good for finding what is to be deleted.
#[must_use]
pub fn claimed_text(token: &Secret, claim: &str) -> Option<String> {
    object(token.expose().split('.').nth(1)?).ok()?.text(claim).map(str::to_owned)
}

/// Header and claims of a token, without the signature that makes them one: for somebody to look at, and to be believed by
/// nobody.
///
/// # Errors
/// If it is not three parts around JSON objects.
pub fn shown(token: &Secret) -> Result<(Claims, Claims), VerifyError> {
    let parts: Vec<&str> = token.expose().split('.').collect();
    match parts.as_slice() {
        [header, payload, _signature] => Ok((Claims(object(header)?), Claims(object(payload)?))),
        [_, _, _, _, _] => Err(VerifyError::Encrypted),
        _ => Err(VerifyError::NotAJwt),
    }
}

/// What names a token in the audit log, and gives nothing of it away.
#[must_use]
pub fn mark(token: &Secret) -> TokenMark {
    TokenMark::new(claimed_text(token, "jti").as_deref(), token.digest())
}

/// The claims of a token that `issuer` signed for `audience` and that is valid at `now`, whoever it is for (RFC 7662 asks
/// no more). Unlike a token that has just come, one that is shown to us gets no leeway at its end.
///
/// # Errors
/// The first reason not to believe it.
pub fn introspect(
    token: &Secret,
    keys: &KeySet,
    issuer: &str,
    audience: &str,
    now: Timestamp,
) -> Result<Claims, VerifyError> {
    let claims = genuine(token, keys)?;
    addressed(&claims, issuer, audience)?;
    if times(&claims, now)? <= now {
        return Err(VerifyError::Expired);
    }
    Ok(Claims(claims))
}

/// The claims of a token that `issuer` signed for `audience`. When it is valid, and what for, is for the caller to say.
///
/// # Errors
/// The first reason not to believe it.
pub fn signed_by(token: &Secret, keys: &KeySet, issuer: &str, audience: &str) -> Result<Claims, VerifyError> {
    let claims = genuine(token, keys)?;
    addressed(&claims, issuer, audience)?;
    Ok(Claims(claims))
}

/// The claims of a token whose signature is right.
fn genuine(token: &Secret, keys: &KeySet) -> Result<Object, VerifyError> {
    let text = token.expose();
    if text.len() > LONGEST {
        return Err(VerifyError::NotAJwt);
    }
    let parts: Vec<&str> = text.splitn(6, '.').collect();
    let [header, payload, signature] = parts.as_slice() else {
        return Err(if parts.len() == 5 { VerifyError::Encrypted } else { VerifyError::NotAJwt });
    };
    let header = object(header)?;
    let name = header.text("alg").ok_or(VerifyError::NotAJwt)?;
    let algorithm = SigningAlgorithm::parse(name)
        .filter(|algorithm| keys.allows(*algorithm))
        .ok_or_else(|| VerifyError::Algorithm(excerpt(name)))?;
    if header.get("crit").is_some() {
        return Err(VerifyError::Critical);
    }
    match (header.get("typ"), header.text("typ")) {
        (None, _) => {}
        (Some(_), Some(typ)) if is_type_of_access_tokens(typ) => {}
        (Some(_), Some(typ)) => return Err(VerifyError::Type(excerpt(typ))),
        (Some(_), None) => return Err(VerifyError::NotAJwt),
    }
    let key = keys.find(header.text("kid"), algorithm)?;
    let signed = text.get(..text.len() - signature.len() - 1).ok_or(VerifyError::NotAJwt)?;
    if is_signed(signed.as_bytes(), signature, key, algorithm) {
        object(payload)
    } else {
        Err(VerifyError::Signature)
    }
}

/// RFC 9068 §2.1, and `JWT`, as most write. Whoever names no type at all may mean an access token, Okta does; but whoever
/// names another does not (RFC 8725 §3.11).
fn is_type_of_access_tokens(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    ["at+jwt", "jwt"].contains(&typ.strip_prefix("application/").unwrap_or(&typ))
}

/// Whether `signature`, in base64url, is that key's of `signed`.
fn is_signed(signed: &[u8], signature: &str, key: &DecodingKey, algorithm: SigningAlgorithm) -> bool {
    jsonwebtoken::crypto::verify(signature, signed, key, algorithm.of_library()).unwrap_or(false)
}

/// When a token that is not verified yet says that it ends. Good for ending a life earlier, never for anything else.
#[must_use]
pub fn claimed_expiry(token: &Secret) -> Option<Timestamp> {
    let mut parts = token.expose().split('.');
    let (_header, payload, _signature, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next())
    else {
        return None;
    };
    object(payload).ok()?.time("exp")
}

/// A genuine token is the one that was asked for.
fn believe(
    claims: &Object,
    expected: &Expectation<'_>,
    now: Timestamp,
) -> Result<(UserName, Timestamp), VerifyError> {
    let required = |name: &str| claims.text(name).ok_or_else(|| VerifyError::Claim(name.to_owned()));
    addressed(claims, expected.issuer, expected.audience)?;
    let expires_at = times(claims, now)?;
    required("sub")?;
    let clients = [claims.text("cid"), claims.text("client_id")];
    if clients.iter().all(Option::is_none) {
        return Err(VerifyError::Claim("cid".into()));
    }
    if let Some(other) = clients.into_iter().flatten().find(|client| *client != expected.client_id) {
        return Err(VerifyError::Client(excerpt(other)));
    }
    scopes(claims, expected.scope)?;
    let user = required(expected.user_claim)?;
    let user = UserName::parse(user).ok_or_else(|| VerifyError::Claim(expected.user_claim.to_owned()))?;
    if expected.user.is_some_and(|expected| *expected != user) {
        return Err(VerifyError::User(user));
    }
    Ok((user, expires_at))
}

fn addressed(claims: &Object, issuer: &str, audience: &str) -> Result<(), VerifyError> {
    let found = claims.text("iss").ok_or_else(|| VerifyError::Claim("iss".into()))?;
    if found != issuer {
        return Err(VerifyError::Issuer(excerpt(found)));
    }
    if !claims.texts("aud").ok_or_else(|| VerifyError::Claim("aud".into()))?.contains(&audience) {
        let found = claims.get("aud").map(ToString::to_string).unwrap_or_default();
        return Err(VerifyError::Audience(excerpt(&found)));
    }
    Ok(())
}

fn times(claims: &Object, now: Timestamp) -> Result<Timestamp, VerifyError> {
    let required = |name: &str| claims.time(name).ok_or_else(|| VerifyError::Claim(name.to_owned()));
    let (expires_at, issued_at) = (required("exp")?, required("iat")?);
    let not_before = if claims.get("nbf").is_some() { required("nbf")? } else { issued_at };
    if expires_at.millis().saturating_add(LEEWAY) <= now.millis() {
        return Err(VerifyError::Expired);
    }
    if issued_at.max(not_before).millis().saturating_sub(LEEWAY) > now.millis() {
        return Err(VerifyError::NotYetValid);
    }
    Ok(expires_at)
}

/// What the token may do must be exactly what was asked for: less is useless to the caller, more is not the caller's.
fn scopes(claims: &Object, asked: &Scope) -> Result<(), VerifyError> {
    let listed = claims.get("scp").map(|_| {
        let words = claims.texts("scp").ok_or_else(|| VerifyError::Claim("scp".into()))?;
        Ok(Scope::from_wire(&words.join(" ")))
    });
    let spelled = claims.get("scope").map(|_| {
        claims.text("scope").map(Scope::from_wire).ok_or_else(|| VerifyError::Claim("scope".into()))
    });
    let found: Vec<Scope> = listed.into_iter().chain(spelled).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(VerifyError::Claim("scp".into()));
    }
    let asked = asked.of_the_token();
    for found in found {
        let found = found.of_the_token();
        if found != asked {
            let (missing, extra) = (asked.without(&found).to_string(), found.without(&asked).to_string());
            let (missing, extra) = (excerpt(&missing), excerpt(&extra));
            return Err(VerifyError::Scope { missing, extra });
        }
    }
    Ok(())
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
