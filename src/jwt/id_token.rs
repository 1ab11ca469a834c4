//! ID tokens: who has just signed in (OpenID Connect Core §3.1.3.7).

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Timestamp;
use crate::jwt::claims::Object;
use crate::jwt::keys::KeySet;
use crate::jwt::{LEEWAY, VerifyError, addressed, genuine, times};
use crate::model::excerpt;
use crate::secret::Secret;

/// What an ID token must be to be believed.
#[derive(Clone, Copy, Debug)]
pub struct IdExpectation<'a> {
    /// `iss`, byte for byte.
    pub issuer: &'a str,
    /// What `aud` must be: our id.
    pub client_id: &'a str,
    /// What was sent with the browser, where one was.
    pub nonce: Option<&'a Secret>,
    /// The access token that it came with.
    pub access_token: &'a Secret,
    /// How long ago the user may have signed in.
    pub max_age: Option<Duration>,
    /// The classes of signing in that were asked for, separated by spaces.
    pub acr_values: Option<&'a str>,
}

/// Who has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identified {
    /// `sub`: at Okta the user's id.
    pub subject: String,
    /// `preferred_username`, if it is there.
    pub preferred_username: Option<String>,
}

/// Verifies `token`.
///
/// # Errors
/// The first reason not to believe it.
pub fn identify(
    token: &Secret,
    keys: &KeySet,
    expected: &IdExpectation<'_>,
    now: Timestamp,
) -> Result<Identified, VerifyError> {
    let claims = genuine(token, keys)?;
    addressed(&claims, expected.issuer, expected.client_id)?;
    times(&claims, now)?;
    let authorized = claims.get("azp").map(|_| claims.text("azp"));
    let several = claims.texts("aud").is_some_and(|audiences| audiences.len() > 1);
    match authorized {
        Some(Some(client)) if client == expected.client_id => {}
        Some(client) => return Err(VerifyError::Client(excerpt(client.unwrap_or_default()))),
        None if several => return Err(VerifyError::Claim("azp".into())),
        None => {}
    }
    if expected.nonce.is_some_and(|nonce| !says(&claims, "nonce", nonce)) {
        return Err(VerifyError::Nonce);
    }
    if let Some(hash) = claims.get("at_hash") {
        // Of all algorithms that are taken here: the left half of a SHA-256. EdDSA's is another one, and not looked at.
        let known = !token_is_eddsa(token);
        let left = digest(&SHA256, expected.access_token.expose().as_bytes());
        let left = left.as_ref().get(..16).map(|half| URL_SAFE_NO_PAD.encode(half));
        if known && hash.as_str() != left.as_deref() {
            return Err(VerifyError::AccessTokenHash);
        }
    }
    if let Some(max_age) = expected.max_age {
        let signed_in = claims.time("auth_time").ok_or_else(|| VerifyError::Claim("auth_time".into()))?;
        let latest = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX).saturating_add(LEEWAY);
        if now.millis().saturating_sub(signed_in.millis()) > latest {
            return Err(VerifyError::SignedInTooLongAgo);
        }
    }
    if let Some(wanted) = expected.acr_values {
        // "If possible" is what the administrator wrote: then less will do.
        let reached = claims.text("acr").unwrap_or_default();
        let mut wanted = wanted.split(' ');
        if !wanted.any(|class| class == reached || class.ends_with(":ifpossible")) {
            return Err(VerifyError::SignedInTooWeakly(excerpt(reached)));
        }
    }
    let subject = claims.text("sub").filter(|subject| !subject.is_empty());
    Ok(Identified {
        subject: subject.ok_or_else(|| VerifyError::Claim("sub".into()))?.to_owned(),
        preferred_username: claims.text("preferred_username").map(str::to_owned),
    })
}

/// Compared by digest: neither is worth timing.
fn says(claims: &Object, name: &str, secret: &Secret) -> bool {
    claims.text(name).is_some_and(|text| Secret::new(text.to_owned()) == *secret)
}

fn token_is_eddsa(token: &Secret) -> bool {
    let header = token.expose().split('.').next().and_then(|header| super::claims::object(header).ok());
    header.is_some_and(|header| header.text("alg") == Some("EdDSA"))
}

#[cfg(test)]
mod tests;
