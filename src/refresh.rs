//! The engine: from "a fresh token is wanted" to "it is verified, durable and in the cache", one exchange per grant at a
//! time, whoever waits or leaves.
//!
//! ```text
//! token        joins the flight for this token, or starts one
//!   recall     what the store has is good enough? after a restart it mostly is
//!   turn       one exchange per grant; roles of one grant queue up
//!   exchange   lease and write-ahead, one POST, durable            (exchange.rs)
//!   publish    verified, only then in the cache
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::authorization_server::{AuthorizationServer, Expected, Unverified};
use crate::cache::{CachedToken, TokenCache};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::flight::{Crashed, Flights};
use crate::jwt::{Verified, VerifyError};
use crate::metrics::Metrics;
use crate::model::{EndReason, Failure, GrantId, Life, RoleName, Service, ServiceName, TokenKey, UserName};
use crate::ready::Ready;
use crate::store::{Lease, Store, StoreError, StoredToken};
use crate::tasks::Tasks;

mod exchange;
mod gate;
mod holdoff;
mod import;
mod pace;
/// May a refresh token be presented now?
pub mod plan;
mod turns;
mod unsaved;

use gate::Gate;
use holdoff::Holdoffs;
use pace::Pace;
use plan::Recovery;
use turns::Turns;
use unsaved::Unsaved;

/// What a caller is told to wait where nothing better is known.
const SHORTLY: Duration = Duration::from_secs(1);

/// What the engine is made of.
pub struct Parts {
    /// Where grants are remembered.
    pub store: Arc<dyn Store>,
    /// The authorization servers by name, and what each allows.
    pub servers: HashMap<String, (Arc<dyn AuthorizationServer>, Recovery)>,
    /// The services by name.
    pub services: HashMap<ServiceName, Arc<Service>>,
    /// Where tokens go that may be handed out.
    pub cache: TokenCache,
    /// When tokens are refreshed.
    pub life: Life,
    /// For how long, and as whom, a grant's row is taken.
    pub lease: Lease,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub entropy: Arc<dyn Entropy>,
    /// What owns the work.
    pub tasks: Tasks,
    /// Held back while an answer can't be written.
    pub ready: Ready,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The engine; clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    parts: Parts,
    doors: HashMap<String, Door>,
    flights: Flights<TokenKey, Result<Arc<CachedToken>, Failure>>,
    turns: Turns,
    holdoffs: Holdoffs,
    unsaved: Unsaved,
}

/// The way to one authorization server.
struct Door {
    server: Arc<dyn AuthorizationServer>,
    recovery: Recovery,
    gate: Gate,
    pace: Pace,
}

impl Engine {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(mut parts: Parts) -> Self {
        let doors = std::mem::take(&mut parts.servers)
            .into_iter()
            .map(|(name, (server, recovery))| {
                (name, Door { server, recovery, gate: Gate::default(), pace: Pace::default() })
            })
            .collect();
        let unsaved = Unsaved::new(
            Arc::clone(&parts.store),
            Arc::clone(&parts.entropy),
            parts.ready.clone(),
            parts.tasks.clone(),
        );
        let flights = Flights::new(parts.tasks.clone());
        let (turns, holdoffs) = (Turns::default(), Holdoffs::default());
        Self(Arc::new(Inner { parts, doors, flights, turns, holdoffs, unsaved }))
    }

    /// A token newer than the one of version `seen`: from the store if it has one, else by an exchange. The work goes
    /// on whether or not the future is awaited; everybody who asks meanwhile shares it.
    pub fn token(
        &self,
        key: &TokenKey,
        seen: Option<i64>,
    ) -> impl Future<Output = Result<Arc<CachedToken>, Failure>> + Send + use<> {
        self.join(key, Want::Newer(seen))
    }

    /// A token from an exchange made now, whatever is at hand.
    pub fn refresh(
        &self,
        key: &TokenKey,
    ) -> impl Future<Output = Result<Arc<CachedToken>, Failure>> + Send + use<> {
        self.join(key, Want::Exchange)
    }

    /// Goes after the exchanges of which an earlier process left open whether they took place. Each goes on by itself.
    ///
    /// # Errors
    /// If the store can't be asked.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let in_doubt = self.0.parts.store.in_doubt().await?;
        for id in &in_doubt {
            tracing::warn!(grant = %id.key, "an exchange was under way when the last process ended; finding out what became of it");
            if id.candidate.is_none() {
                drop(self.refresh(&TokenKey { grant: id.key.clone(), role: None }));
            } else {
                self.resume_candidate(id.clone());
            }
        }
        Ok(in_doubt.len())
    }

    /// Whether the service has this role; every service has none.
    #[must_use]
    pub fn has_role(&self, service: &ServiceName, role: Option<&RoleName>) -> bool {
        self.0.parts.services.get(service).is_some_and(|service| service.scope(role).is_some())
    }

    /// Brings the gauges of grants up to date, behind everybody's back.
    pub fn count_grants(&self) {
        self.0.count_grants();
    }

    fn join(
        &self,
        key: &TokenKey,
        want: Want,
    ) -> impl Future<Output = Result<Arc<CachedToken>, Failure>> + Send + use<> {
        let (inner, token_key) = (Arc::clone(&self.0), key.clone());
        let flight = self.0.flights.join(key, move || async move { inner.fly(&token_key, want).await });
        async move {
            flight.result().await.unwrap_or_else(|crashed| {
                Err(match crashed {
                    Crashed::Full => Failure::ServerUnavailable { retry_after: SHORTLY },
                    Crashed::Panicked => Failure::Internal("a refresh panicked".to_owned()),
                })
            })
        }
    }
}

/// What a flight is for.
#[derive(Clone, Copy)]
enum Want {
    /// A token of another version than this one, with enough life.
    Newer(Option<i64>),
    /// An exchange.
    Exchange,
}

impl Inner {
    async fn fly(&self, key: &TokenKey, want: Want) -> Result<Arc<CachedToken>, Failure> {
        let id = GrantId::current(key.grant.clone());
        let service = self.service(&key.grant.service)?;
        if let Want::Newer(seen) = want
            && let Some(token) = self.recall(key, &service, seen).await?
        {
            return Ok(token);
        }
        let _turn = self.turns.take(&id).await;
        if self.unsaved.holds(&id) {
            return Err(Failure::StoreUnavailable { retry_after: SHORTLY });
        }
        if let Want::Newer(seen) = want {
            if let Some(token) = self.recall(key, &service, seen).await? {
                return Ok(token);
            }
            if let Some(failure) = self.holdoffs.get(key, &self.parts.clock.now()) {
                return Err(failure);
            }
        }
        let result = self.obtain(&id, key, &service).await;
        match &result {
            Ok(_) => self.holdoffs.clear(key),
            Err(failure) => tracing::warn!(grant = %key.grant, role = ?key.role, ?failure, "no fresh token"),
        }
        result
    }

    /// What the cache or the store has, if it is not the token already seen and has the life that is promised.
    async fn recall(
        &self,
        key: &TokenKey,
        service: &Service,
        seen: Option<i64>,
    ) -> Result<Option<Arc<CachedToken>>, Failure> {
        let enough = |token: &Arc<CachedToken>| {
            let left = token.issued.remaining(&self.parts.clock.now());
            Some(token.version) != seen
                && !left.is_zero()
                && left >= self.parts.life.promised(token.issued.expires_in)
        };
        if let Some(token) = self.parts.cache.get(key).filter(&enough) {
            return Ok(Some(token));
        }
        let id = GrantId::current(key.grant.clone());
        let stored =
            self.parts.store.access_token(&id, key.role.as_ref()).await.map_err(|e| store_failure(&e))?;
        match stored {
            Some(stored)
                if Some(stored.version) != seen
                    && !stored.issued.remaining(&self.parts.clock.now()).is_zero() =>
            {
                Ok(self.publish(key, service, stored).await?).map(|token| Some(token).filter(enough))
            }
            _ => Ok(None),
        }
    }

    /// Exchanges, and where a role's scope is refused finds out whether it is the role or everything.
    async fn obtain(
        &self,
        id: &GrantId,
        key: &TokenKey,
        service: &Service,
    ) -> Result<Arc<CachedToken>, Failure> {
        let result = self.exchange(id, service, key.role.as_ref()).await;
        let stored = match result {
            Err(Failure::Refused { error, .. }) if error == "invalid_scope" && key.role.is_some() => {
                let defaults =
                    self.exchange(id, service, None).await.map_err(|failure| self.held_off(key, failure))?;
                let default_key = TokenKey { grant: key.grant.clone(), role: None };
                self.publish(&default_key, service, defaults).await?;
                let since = Some(self.parts.clock.now().wall);
                let failure = Failure::LoginRequired { reason: EndReason::RoleNotGranted, since };
                return Err(self.held_off(key, failure));
            }
            other => other.map_err(|failure| self.held_off(key, failure))?,
        };
        self.publish(key, service, stored).await
    }

    /// Only what is durable comes here, and only what verifies goes on into the cache.
    async fn publish(
        &self,
        key: &TokenKey,
        service: &Service,
        stored: StoredToken,
    ) -> Result<Arc<CachedToken>, Failure> {
        let id = GrantId::current(key.grant.clone());
        let verified = match self.verify(service, key, Some(&key.grant.user), &stored).await {
            Ok(verified) => verified,
            Err(Unverified::NoKeys(why)) => {
                tracing::warn!(grant = %key.grant, %why, "a token waits to be verified");
                return Err(Failure::ServerUnavailable { retry_after: SHORTLY });
            }
            Err(Unverified::Invalid(error)) => {
                if let VerifyError::User(other) = &error {
                    tracing::error!(grant = %key.grant, %other, "the authorization server answered with another user's token");
                }
                self.forget(&id, key, stored.version).await;
                return Err(self.held_off(key, Failure::TokenInvalid { hint: error.to_string() }));
            }
        };
        if !stored.verified {
            // Should this fail, the token is verified again after a restart: no harm done.
            if let Err(error) = self.parts.store.mark_verified(&id, key.role.as_ref(), stored.version).await {
                tracing::warn!(grant = %key.grant, %error, "not marked as verified");
            }
        }
        let token = CachedToken::new(key, verified, stored.issued, stored.scope, stored.version);
        if token.issued.remaining(&self.parts.clock.now()).is_zero() {
            self.forget(&id, key, stored.version).await;
            let hint = VerifyError::Expired.to_string();
            return Err(self.held_off(key, Failure::TokenInvalid { hint }));
        }
        let token = Arc::new(token);
        self.parts.cache.put(key.clone(), Arc::clone(&token));
        Ok(token)
    }

    async fn verify(
        &self,
        service: &Service,
        key: &TokenKey,
        user: Option<&UserName>,
        stored: &StoredToken,
    ) -> Result<Verified, Unverified> {
        if stored.verified {
            return Ok(Verified::remembered(stored.token.clone()));
        }
        if service.opaque {
            return Ok(Verified::opaque(stored.token.clone()));
        }
        let no_door = || Unverified::NoKeys("no such authorization server".to_owned());
        let scope = service.scope(key.role.as_ref()).unwrap_or_default();
        let expected =
            Expected { audience: &service.audience, user_claim: &service.user_claim, user, scope: &scope };
        let door = self.doors.get(&service.authorization_server).ok_or_else(no_door)?;
        door.server.verify(&stored.token, &expected, self.parts.clock.now().wall).await
    }

    async fn forget(&self, id: &GrantId, key: &TokenKey, version: i64) {
        if let Err(error) = self.parts.store.discard(id, key.role.as_ref(), version).await {
            tracing::warn!(grant = %key.grant, %error, "a token that does not verify stays in the store, marked so");
        }
    }

    /// The grant has ended, or was replaced: nothing of it is handed out any more.
    fn drop_cached(&self, id: &GrantId, service: &Service) {
        for role in std::iter::once(None).chain(service.roles.keys().map(Some)) {
            let key = TokenKey { grant: id.key.clone(), role: role.cloned() };
            self.parts.cache.remove(&key);
            self.holdoffs.clear(&key);
        }
    }

    /// Remembers failures that would come again at once, so that callers get them from memory for a while.
    fn held_off(&self, key: &TokenKey, failure: Failure) -> Failure {
        let wait = match &failure {
            Failure::Refused { .. } | Failure::TokenInvalid { .. } => None,
            Failure::LoginRequired { reason: EndReason::RoleNotGranted, .. } => Some(Duration::from_mins(1)),
            Failure::ServerUnavailable { retry_after } => Some(*retry_after),
            Failure::LoginRequired { .. }
            | Failure::StoreUnavailable { .. }
            | Failure::Timeout
            | Failure::UserMismatch { .. }
            | Failure::Internal(_) => return failure,
        };
        let jitter = self.parts.entropy.below(1000);
        self.holdoffs.hold(key, &failure, wait, &self.parts.clock.now(), jitter);
        failure
    }

    fn service(&self, name: &ServiceName) -> Result<Arc<Service>, Failure> {
        let found = self.parts.services.get(name).cloned();
        found.ok_or_else(|| Failure::Internal(format!("service {name} is not configured")))
    }
}

fn store_failure(error: &StoreError) -> Failure {
    match error {
        StoreError::Unavailable(_) => {
            tracing::error!(%error, "the store does not work");
            Failure::StoreUnavailable { retry_after: SHORTLY }
        }
        StoreError::Inconsistent { .. } | StoreError::Seal(_) => Failure::Internal(error.to_string()),
    }
}
