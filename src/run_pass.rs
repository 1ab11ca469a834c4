//! Run passes: JWTs by which the workflow platform says for whom one run may act, and on what. A pass narrows what its
//! caller's rule allows and never widens it; who may show one at all, rules decide.
//!
//! Pure: the keys and the time are arguments. Where keys come from and which runs have ended is `runs`' business.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::jwt::keys::{KeySet, NoKey};
use crate::jwt::{self, Claims, SigningAlgorithm, VerifyError};
use crate::model::{Entitlement, RoleName, RunId, ServiceName, UserName};
use crate::secret::Secret;

/// What passes may be signed with.
pub const ALGORITHMS: [SigningAlgorithm; 3] =
    [SigningAlgorithm::Rs256, SigningAlgorithm::Es256, SigningAlgorithm::EdDsa];

/// How far the platform's clock may be ahead of ours. A pass that has ended gets no leeway.
pub const LEEWAY: Duration = Duration::from_mins(1);
/// A pass names services and roles; beyond this it is not a list but a load.
const MOST_ENTITLEMENTS: usize = 1000;

/// What a pass must be to be believed.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// `iss`, byte for byte.
    pub issuer: String,
    /// What `aud` must be, or contain.
    pub audience: String,
    /// From `iat` to `exp`, or from now where it has no `iat`.
    pub max_lifetime: Duration,
}

/// Proof that a pass was believed. Only this module makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPass {
    run: RunId,
    user: UserName,
    entitlements: Vec<Entitlement>,
    expires_at: Timestamp,
}

impl RunPass {
    /// A made-up pass, for tests of what is decided about one.
    #[cfg(test)]
    pub(crate) fn invented(user: &str, services: &[&str]) -> Self {
        Self {
            run: RunId::parse("run").unwrap_or_else(|| unreachable!()),
            user: UserName::parse(user).unwrap_or_else(|| unreachable!()),
            entitlements: services.iter().filter_map(|text| Entitlement::parse(text)).collect(),
            expires_at: Timestamp::from_secs(0),
        }
    }

    /// `jti`: the run.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// `sub`: the user whom the run acts for.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// `exp`.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Whether the run may have a service's token for `role`, or for its default scopes; for whom is another question.
    #[must_use]
    pub fn covers(&self, service: &ServiceName, role: Option<&RoleName>) -> bool {
        self.entitlements.iter().any(|entitlement| entitlement.covers(service, role))
    }
}

/// Why a pass was not believed; for whoever showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unbelieved {
    /// Not `Authorization: Bearer` and one token.
    #[error("it must come as `Authorization: Bearer`, once")]
    NotBearer,
    /// There is no section `[run_passes]`.
    #[error("no run passes are taken here: the configuration has no [run_passes]")]
    NotTaken,
    /// Not three parts of base64url around JSON objects.
    #[error("it is not a JWT")]
    Malformed,
    /// Another algorithm.
    #[error("it must be signed with RS256, ES256 or EdDSA")]
    Algorithm,
    /// It asks for an extension to be understood.
    #[error("its header has `crit`, which is not supported")]
    Critical,
    /// No key for it, or one that is not good enough.
    #[error("it is signed with a key that is not among those of [run_passes]")]
    Key,
    /// Not that key's.
    #[error("its signature is wrong")]
    Signature,
    /// Missing or of the wrong type.
    #[error("its `{0}` is missing or not usable")]
    Claim(&'static str),
    /// From somebody else.
    #[error("its `iss` is not run_passes.issuer")]
    Issuer,
    /// For somebody else.
    #[error("its `aud` is not run_passes.audience")]
    Audience,
    /// Over.
    #[error("it has expired")]
    Expired,
    /// To come.
    #[error("it is not valid yet")]
    NotYetValid,
    /// Longer than `max_lifetime`.
    #[error("it is valid for longer than run_passes.max_lifetime")]
    TooLong,
    /// Somebody said that the run is over.
    #[error("its run has ended")]
    Ended,
    /// Another user, service or role.
    #[error("it does not cover this user, service and role")]
    NotCovered,
}

/// Verifies a pass.
///
/// # Errors
/// The first reason not to believe it.
pub fn verify(
    pass: &Secret,
    keys: &KeySet,
    expected: &Expectation,
    now: Timestamp,
) -> Result<RunPass, Unbelieved> {
    let claims = jwt::signed_by(pass, keys, &expected.issuer, &expected.audience)?;
    let expires_at = valid(&claims, expected.max_lifetime, now)?;
    let text = |name| claims.text(name).ok_or(Unbelieved::Claim(name));
    let services = claims.texts("services").ok_or(Unbelieved::Claim("services"))?;
    if services.len() > MOST_ENTITLEMENTS {
        return Err(Unbelieved::Claim("services"));
    }
    let entitlements: Option<Vec<_>> = services.into_iter().map(Entitlement::parse).collect();
    Ok(RunPass {
        run: RunId::parse(text("jti")?).ok_or(Unbelieved::Claim("jti"))?,
        user: UserName::parse(text("sub")?).ok_or(Unbelieved::Claim("sub"))?,
        entitlements: entitlements.ok_or(Unbelieved::Claim("services"))?,
        expires_at,
    })
}

fn valid(claims: &Claims, max_lifetime: Duration, now: Timestamp) -> Result<Timestamp, Unbelieved> {
    let optional = |name: &'static str| match (claims.has(name), claims.time(name)) {
        (true, None) => Err(Unbelieved::Claim(name)),
        (_, time) => Ok(time),
    };
    let expires_at = claims.time("exp").ok_or(Unbelieved::Claim("exp"))?;
    let (issued_at, not_before) = (optional("iat")?, optional("nbf")?);
    if expires_at <= now {
        return Err(Unbelieved::Expired);
    }
    if issued_at.max(not_before).is_some_and(|start| start > now.plus(LEEWAY)) {
        return Err(Unbelieved::NotYetValid);
    }
    let longest = issued_at.map_or(now.plus(LEEWAY), |issued_at| issued_at.min(now.plus(LEEWAY)));
    if expires_at > longest.plus(max_lifetime) {
        return Err(Unbelieved::TooLong);
    }
    Ok(expires_at)
}

impl From<VerifyError> for Unbelieved {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Algorithm(_) => Self::Algorithm,
            VerifyError::Critical => Self::Critical,
            VerifyError::Key(NoKey::Unnamed | NoKey::Unknown | NoKey::Unacceptable(_)) => Self::Key,
            VerifyError::Signature => Self::Signature,
            VerifyError::Claim(name) if name == "aud" => Self::Claim("aud"),
            VerifyError::Claim(_) => Self::Claim("iss"),
            VerifyError::Type(_) => Self::Claim("typ"),
            VerifyError::Issuer(_) => Self::Issuer,
            VerifyError::Audience(_) => Self::Audience,
            VerifyError::NotAJwt
            | VerifyError::Encrypted
            | VerifyError::Client(_)
            | VerifyError::Expired
            | VerifyError::NotYetValid
            | VerifyError::Scope { .. }
            | VerifyError::Nonce
            | VerifyError::AccessTokenHash
            | VerifyError::SignedInTooLongAgo
            | VerifyError::SignedInTooWeakly(_)
            | VerifyError::User(_) => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests;
