//! What is asked of an authorization server, and how its answers are told apart.
//!
//! A refresh ends in one of three ways, never two: not sent, answered for certain, or in doubt (design 1.3). What
//! follows from each is decided in `refresh`.

use std::time::Duration;

use async_trait::async_trait;

use crate::authorization_server::consent::{Authorization, DeviceAuthorization, NotAsked, Redeemed};
use crate::clock::Timestamp;
use crate::jwt::{Claims, Expectation, IdExpectation, Identified, Verified, VerifyError};
use crate::model::{Reference, Scope};
use crate::secret::Secret;

/// Sorts a token endpoint's answer; pure.
mod answer;

/// How we prove who we are: RFC 6749 §2.3.
pub mod client_authentication;

/// The key that we sign with.
pub mod signing_key;

/// The client of one real server.
pub mod client;

/// A user's consent: how it is asked for, and redeemed.
pub mod consent;

/// Whose it is.
pub mod issuer;

/// Its metadata document: RFC 8414, OpenID Connect Discovery.
mod discovery;
pub use answer::misconfiguration;
pub use discovery::Endpoints;
pub(crate) use discovery::{is_confidential, locations};
#[cfg(any(test, fuzzing))]
pub(crate) use {
    answer::{rate_limit, retry_after, sort},
    discovery::parse as parse_metadata,
};

/// One request over one connection, with limits on everything.
pub mod http;

/// Holds a key set and decides when to fetch it.
pub mod keys;

/// The port.
#[async_trait]
pub trait AuthorizationServer: Send + Sync {
    /// Presents `refresh_token` once, for `scope` (RFC 6749 §6). Takes at most `deadline`, after which the connection
    /// is reset; never tries again by itself.
    async fn refresh(&self, refresh_token: &Secret, scope: &Scope, deadline: Duration) -> Reply;

    /// Asks for a token that speaks for the client itself (RFC 6749 §4.4), under the same rules.
    async fn client_credentials(&self, scope: &Scope, deadline: Duration) -> Reply;

    /// Where a user's browser is sent to consent. Its keys are at hand from then on, so that who comes back need not wait
    /// for them.
    async fn authorization(&self) -> Result<Authorization, NotAsked> {
        Err(NotAsked::NotOffered("an authorization endpoint"))
    }

    /// Asks for a code that a user may type elsewhere (RFC 8628 §3.1).
    async fn device_authorization(&self, _scope: &Scope) -> Result<DeviceAuthorization, NotAsked> {
        Err(NotAsked::NotOffered("device authorization"))
    }

    /// Redeems a user's consent, once.
    async fn redeem(&self, _consent: Redeemed<'_>) -> Reply {
        Exchange::NotSent("nobody connects here".to_owned()).into()
    }

    /// Verifies an ID token against the server's keys.
    async fn identify(
        &self,
        _token: &Secret,
        _expected: &Introduced<'_>,
        _now: Timestamp,
    ) -> Result<Identified, Unverified> {
        Err(Unverified::NoKeys("nobody connects here".to_owned()))
    }

    /// Asks the server to forget a refresh token and all that came of it (RFC 7009). Asking again does no harm.
    async fn revoke(&self, refresh_token: &Secret) -> Revocation;

    /// Asks whether a refresh token would be accepted (RFC 7662), which changes nothing at the server.
    async fn introspect(&self, refresh_token: &Secret) -> Introspection;

    /// Verifies an access token against the server's keys, fetching them where needed.
    async fn verify(
        &self,
        token: &Secret,
        expected: &Expected<'_>,
        now: Timestamp,
    ) -> Result<Verified, Unverified>;

    /// What a token that somebody shows says of itself, if the server issued it for `audience` and it is valid at `now`
    /// (RFC 7662, answered here, by the server's keys).
    async fn read(&self, token: &Secret, audience: &str, now: Timestamp) -> Result<Claims, Unverified>;

    /// Whether revoking one refresh token leaves the others of the same user alone, as it does at Okta. Elsewhere whole consents
    /// may end with it (RFC 7009 §2.1 leaves that open), and what a user consents to twice may be one.
    fn revokes_alone(&self) -> bool {
        false
    }

    /// Issuer and client in one text: what a refresh token from here is bound to.
    fn registration(&self) -> String;

    /// What its last answer said of its rate limit, if it said anything.
    fn rate_limit(&self) -> Option<RateLimit> {
        None
    }

    /// Reads the client's secret again, for secrets overlap while they are changed. Whether it has changed.
    async fn reload_client_secret(&self) -> bool;
}

/// Issuer and client in one text.
pub(crate) fn registration(client_id: &str, issuer: &str) -> String {
    format!("{client_id} at {issuer}")
}

/// What the caller of `verify` knows of a token; the server adds its issuer and client.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// What `aud` must be.
    pub audience: &'a str,
    /// The claim that names the user.
    pub user_claim: &'a str,
    /// The user, if it is known whose it must be.
    pub user: Option<&'a crate::model::UserName>,
    /// What was asked for.
    pub scope: &'a Scope,
}

impl<'a> Expected<'a> {
    fn at(&self, issuer: &'a str, client_id: &'a str) -> Expectation<'a> {
        Expectation {
            issuer,
            audience: self.audience,
            client_id,
            user_claim: self.user_claim,
            user: self.user,
            scope: self.scope,
        }
    }
}

/// What the caller of `identify` knows of an ID token; the server adds its issuer and client.
#[derive(Clone, Copy, Debug)]
pub struct Introduced<'a> {
    /// What was sent with the browser, where one was.
    pub nonce: Option<&'a Secret>,
    /// The access token that it came with.
    pub access_token: &'a Secret,
    /// How long ago the user may have signed in.
    pub max_age: Option<Duration>,
    /// The classes of signing in that were asked for.
    pub acr_values: Option<&'a str>,
}

impl<'a> Introduced<'a> {
    fn at(&self, issuer: &'a str, client_id: &'a str) -> IdExpectation<'a> {
        IdExpectation {
            issuer,
            client_id,
            nonce: self.nonce,
            access_token: self.access_token,
            max_age: self.max_age,
            acr_values: self.acr_values,
        }
    }
}

/// How much more the server would take, as of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests in a window, by whomever.
    pub limit: u32,
    /// How many are left of them.
    pub remaining: u32,
    /// When the window ends, by our boot clock.
    pub resets_at: Duration,
}

/// How a refresh ended.
#[derive(Clone, Debug)]
pub enum Exchange {
    /// Not a byte of it left this machine.
    NotSent(String),
    /// A whole token response.
    Answered(Box<Tokens>),
    /// A whole error response; the refresh token was not used up.
    Refused(Refusal),
    /// Anything else: the server may or may not have acted.
    InDoubt(String),
}

/// How a refresh ended, and what the server calls it.
#[derive(Clone, Debug)]
pub struct Reply {
    /// How.
    pub exchange: Exchange,
    /// What it calls it, where it calls it anything.
    pub reference: Reference,
}

impl From<Exchange> for Reply {
    fn from(exchange: Exchange) -> Self {
        Self { exchange, reference: Reference::default() }
    }
}

/// A token response (RFC 6749 §5.1).
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The access token.
    pub access_token: Secret,
    /// `token_type`, as it came.
    pub token_type: String,
    /// Its life.
    pub expires_in: Duration,
    /// The refresh token, if one came.
    pub refresh_token: Option<Secret>,
    /// The scope, if it was named.
    pub scope: Option<Scope>,
    /// Who has signed in, if that was asked.
    pub id_token: Option<Secret>,
}

/// An error response (RFC 6749 §5.2, or Okta's own shape), by who must act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The user: this refresh token is not accepted.
    InvalidGrant,
    /// An administrator: nothing is wrong with the grant.
    Configuration(Misconfiguration),
    /// Nobody: wait.
    RateLimited {
        /// Until the window ends, by the server's own clock.
        retry_after: Duration,
    },
}

/// Something that an administrator must mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misconfiguration {
    /// The server's word for it.
    pub error: String,
    /// Where to look.
    pub hint: &'static str,
}

impl Misconfiguration {
    /// Whether it concerns the client, and so every grant at this server, rather than one scope or user.
    #[must_use]
    pub fn concerns_client(&self) -> bool {
        ["invalid_client", "unauthorized_client", "unsupported_grant_type", "use_dpop_nonce"]
            .contains(&self.error.as_str())
    }
}

/// What introspection says of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Introspection {
    /// It would be accepted.
    Active {
        /// `exp`, if the server says when it ends.
        expires_at: Option<Timestamp>,
        /// `scope`, if the server says what the user consented to.
        scope: Option<Scope>,
    },
    /// It would not.
    Inactive,
    /// The server offers no introspection.
    NotOffered,
    /// No answer that can be used.
    Failed(String),
}

/// How a revocation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The server does not take the token any more, or never knew it.
    Done,
    /// The server offers no revocation: only its administrators can end the grant there.
    NotOffered,
    /// Not now; the token must be taken to be alive (RFC 7009 §2.2.1).
    Failed {
        /// What happened.
        why: String,
        /// When the server says that it is worth asking again.
        retry_after: Option<Duration>,
    },
}

/// Why a token can't be vouched for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unverified {
    /// It is not what it must be.
    #[error("{0}")]
    Invalid(VerifyError),
    /// The keys that would tell can't be had for now; nothing is known against the token.
    #[error("the authorization server's keys can't be had: {0}")]
    NoKeys(String),
}
