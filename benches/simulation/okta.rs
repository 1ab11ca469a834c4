//! A model of Okta's token endpoint: rotating refresh tokens with a leeway, rate limits by the minute and by user, and an
//! outage if one is wanted.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bursar::authorization_server::{
    AuthorizationServer, Exchange, Expected, Introspection, RateLimit, Refusal, Reply, Revocation, Tokens,
    Unverified,
};
use bursar::cache::TokenCache;
use bursar::clock::{Clock as _, Timestamp};
use bursar::entropy::{Entropy as _, SeededEntropy};
use bursar::jwt::{Claims, Verified, VerifyError};
use bursar::model::{Scope, TokenKey};
use bursar::secret::Secret;

use crate::day::{At, MINUTE};
use crate::ledger::{LIFE, Ledger};
use crate::memory::REGISTRATION;
use crate::time::VirtualClock;

/// How long a refresh token that was replaced still works.
pub(crate) const LEEWAY: At = 30_000;
/// Requests that one user may cause in a second.
const PER_USER: u32 = 4;

/// What Okta allows; shared with those who are simulated without an engine.
pub(crate) struct Limits {
    per_minute: u32,
    /// The minute, and its requests so far.
    window: (At, u32),
    /// By user: the second, and its requests so far.
    users: Vec<(At, u32)>,
}

impl Limits {
    pub(crate) fn new(per_minute: u32, users: usize) -> Self {
        Self { per_minute, window: (0, 0), users: vec![(0, 0); users] }
    }

    /// Takes a request, or says how long its window lasts still.
    pub(crate) fn admit(&mut self, at: At, user: usize) -> Result<(), At> {
        let minute = count(&mut self.window, at / MINUTE);
        let second = self.users.get_mut(user).map_or(0, |of_user| count(of_user, at / 1000));
        if minute > self.per_minute {
            return Err(MINUTE - at % MINUTE);
        }
        if second > PER_USER { Err(1000 - at % 1000) } else { Ok(()) }
    }
}

fn count(window: &mut (At, u32), now: At) -> u32 {
    if window.0 != now {
        *window = (now, 0);
    }
    window.1 += 1;
    window.1
}

/// The server.
pub(crate) struct Okta {
    pub(crate) clock: VirtualClock,
    pub(crate) cache: TokenCache,
    pub(crate) keys: Arc<Vec<TokenKey>>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) entropy: SeededEntropy,
    /// The scope that only the second role asks for.
    pub(crate) second_role: Scope,
    pub(crate) outage: Option<Range<At>>,
    state: Mutex<State>,
}

struct State {
    limits: Limits,
    grants: Vec<Family>,
}

/// One user's refresh tokens.
#[derive(Clone, Copy, Default)]
struct Family {
    generation: u64,
    /// When the last one came.
    rotated: At,
}

impl State {
    /// Whether this generation's refresh token still counts; then the next one is issued.
    fn rotate(&mut self, at: At, user: usize, presented: u64) -> Option<u64> {
        let family = self.grants.get_mut(user)?;
        if presented == family.generation {
            *family = Family { generation: presented + 1, rotated: at };
            return Some(family.generation);
        }
        let again = presented + 1 == family.generation && at - family.rotated <= LEEWAY;
        again.then_some(family.generation)
    }
}

/// The refresh token of a user's `generation`.
pub(crate) fn refresh_token(user: usize, generation: u64) -> Secret {
    Secret::new(format!("r.{user}.{generation}"))
}

fn read(token: &Secret) -> Option<(usize, u64)> {
    let (user, generation) = token.expose().strip_prefix("r.")?.split_once('.')?;
    Some((user.parse().ok()?, generation.parse().ok()?))
}

/// What the server is made of.
pub(crate) struct OktaParts {
    pub(crate) clock: VirtualClock,
    pub(crate) cache: TokenCache,
    pub(crate) keys: Arc<Vec<TokenKey>>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) seed: u64,
    pub(crate) second_role: Scope,
    pub(crate) outage: Option<Range<At>>,
    pub(crate) per_minute: u32,
}

impl Okta {
    pub(crate) fn new(parts: OktaParts) -> Self {
        let OktaParts { clock, cache, keys, ledger, seed, second_role, outage, per_minute } = parts;
        let users = keys.len() / 2;
        let limits = Limits::new(per_minute, users);
        let state = Mutex::new(State { limits, grants: vec![Family::default(); users] });
        Self { clock, cache, keys, ledger, entropy: SeededEntropy::new(seed), second_role, outage, state }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the token at hand has been due, if there is one that lives.
    fn lateness(&self, key: usize) -> Option<u32> {
        let token = self.cache.get(self.keys.get(key)?)?;
        let now = self.clock.now();
        let due = token.issued.requested_at.boot + token.issued.refresh_after;
        let late = now.boot.checked_sub(due).filter(|_| !token.issued.remaining(&now).is_zero())?;
        u32::try_from(late.as_millis()).ok()
    }

    /// What the server does as soon as the request is there.
    fn act(&self, at: At, presented: &Secret, scope: &Scope) -> Exchange {
        let Some((user, generation)) = read(presented) else {
            return Exchange::Refused(Refusal::InvalidGrant);
        };
        let key = user * 2 + usize::from(self.second_role.without(scope).is_empty());
        let late = self.lateness(key);
        let (mut state, mut ledger) = (self.state(), self.ledger());
        ledger.exchange(at, key);
        let due = |late: &u32| at - At::from(*late);
        let late = late.filter(|late| ledger.was_in_use(key, due(late)));
        ledger.lateness.extend(late);
        if let Err(wait) = state.limits.admit(at, user) {
            ledger.limited += 1;
            return Exchange::Refused(Refusal::RateLimited { retry_after: Duration::from_millis(wait) });
        }
        let Some(generation) = state.rotate(at, user, generation) else {
            ledger.reused += 1;
            return Exchange::Refused(Refusal::InvalidGrant);
        };
        ledger.issued(at, key);
        Exchange::Answered(Box::new(Tokens {
            access_token: Secret::new(format!("a.{user}.{generation}")),
            token_type: "Bearer".to_owned(),
            expires_in: Duration::from_millis(LIFE),
            refresh_token: Some(refresh_token(user, generation)),
            scope: None,
            id_token: None,
        }))
    }
}

#[async_trait]
impl AuthorizationServer for Okta {
    async fn refresh(&self, refresh_token: &Secret, scope: &Scope, deadline: Duration) -> Reply {
        let (at, latency) = (self.clock.at(), Duration::from_millis(50 + self.entropy.below(101)));
        if self.outage.as_ref().is_some_and(|outage| outage.contains(&at)) {
            self.ledger().in_vain += 1;
            // Mostly there is no connection; some requests leave and are never answered, nor did they arrive.
            let sent = self.entropy.below(10) == 0;
            tokio::time::sleep(if sent { deadline } else { latency }).await;
            let why = "an outage".to_owned();
            return if sent { Exchange::InDoubt(why) } else { Exchange::NotSent(why) }.into();
        }
        let answer = self.act(at, refresh_token, scope);
        tokio::time::sleep(latency).await;
        answer.into()
    }

    async fn client_credentials(&self, _: &Scope, _: Duration) -> Reply {
        Exchange::NotSent("there are only users here".to_owned()).into()
    }

    async fn revoke(&self, _: &Secret) -> Revocation {
        Revocation::NotOffered
    }

    async fn introspect(&self, _: &Secret) -> Introspection {
        Introspection::NotOffered
    }

    async fn verify(&self, _: &Secret, _: &Expected<'_>, _: Timestamp) -> Result<Verified, Unverified> {
        Err(Unverified::Invalid(VerifyError::NotAJwt))
    }

    async fn read(&self, _: &Secret, _: &str, _: Timestamp) -> Result<Claims, Unverified> {
        Err(Unverified::Invalid(VerifyError::NotAJwt))
    }

    fn registration(&self) -> String {
        REGISTRATION.to_owned()
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        let at = self.clock.at();
        let limits = &self.state().limits;
        let made = if limits.window.0 == at / MINUTE { limits.window.1 } else { 0 };
        Some(RateLimit {
            limit: limits.per_minute,
            remaining: limits.per_minute.saturating_sub(made),
            resets_at: self.clock.now().boot + Duration::from_millis(MINUTE - at % MINUTE),
        })
    }

    async fn reload_client_secret(&self) -> bool {
        false
    }
}
