//! From a permit to a token: one match on how stale the one at hand is.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use crate::authorization_server::Unverified;
use crate::cache::{CachedToken, TokenCache};
use crate::clock::{Clock, Moment};
use crate::jwt::Claims;
use crate::metrics::Metrics;
use crate::model::{Failure, Freshness, Service, TokenKey};
use crate::policy::Permit;
use crate::refresh::Engine;
use crate::secret::Secret;

/// What a caller is told to wait where nothing better is known.
const SHORTLY: Duration = Duration::from_secs(1);

/// Hands out tokens.
pub struct Broker {
    engine: Engine,
    cache: TokenCache,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    from_cache: Histogram,
    from_refresh: Histogram,
}

/// A token that was handed out, and what must still hold for it to be handed out again to the same caller.
pub struct Held {
    /// The token.
    pub token: Arc<CachedToken>,
    wanted: Duration,
    generation: u64,
    requests: IntCounter,
}

impl Broker {
    /// Vends what `engine` puts into `cache`.
    #[must_use]
    pub fn new(engine: Engine, cache: TokenCache, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let duration = |source| metrics.token_request_duration.with_label_values(&[source]);
        let (from_cache, from_refresh) = (duration("cache"), duration("refresh"));
        Self { engine, cache, clock, metrics, from_cache, from_refresh }
    }

    /// The token that `permit` is for, with at least `min_ttl` of life (by default what the configuration promises) at the
    /// moment that comes with it, within `patience`.
    ///
    /// # Errors
    /// Why there is none. After [`Failure::Timeout`] the refresh goes on.
    pub async fn vend(
        &self,
        permit: &Permit,
        min_ttl: Option<Duration>,
        patience: Duration,
    ) -> Result<(Held, Moment), Failure> {
        let started = self.clock.now();
        let key = permit.key();
        let at_hand = self.cache.get(key).map(|token| self.unless_too_old(key, token, min_ttl, &started));
        let (result, source) = match at_hand {
            Some(Ok(token)) => (Ok((token, started)), &self.from_cache),
            none_or_too_old => {
                let too_old = none_or_too_old.and_then(Result::err);
                let waiting = tokio::time::timeout(patience, self.wait_for(key, min_ttl, too_old));
                (waiting.await.unwrap_or(Err(Failure::Timeout)), &self.from_refresh)
            }
        };
        let word = result.as_ref().map_or_else(Failure::word, |_| "ok");
        let requests = self.metrics.token_requests.with_label_values(&[key.grant.service.as_str(), word]);
        requests.inc();
        let (token, judged_at) = result?;
        source.observe(self.clock.now().since(&started).unwrap_or_default().as_secs_f64());
        // The token may have been replaced while it was on its way here: then it is not held.
        let generation = self.cache.generation();
        let is_there = self.cache.get(key).is_some_and(|there| Arc::ptr_eq(&there, &token));
        let generation = if is_there { generation } else { u64::MAX };
        let wanted = self.engine.life().wanted(token.issued.expires_in, min_ttl);
        Ok((Held { token, wanted, generation, requests }, judged_at))
    }

    /// Whether a token that was handed out can be again, as if it were asked for anew: the time for the answer, or `None`
    /// if it takes a closer look.
    #[must_use]
    pub fn again(&self, held: &Held) -> Option<Moment> {
        let now = self.clock.now();
        let unchanged = held.generation == self.cache.generation();
        if !unchanged || held.token.issued.freshness(&now, held.wanted) != Freshness::Fresh {
            return None;
        }
        held.requests.inc();
        self.from_cache.observe(self.clock.now().since(&now).unwrap_or_default().as_secs_f64());
        Some(now)
    }

    /// What a token that somebody shows says of itself, if it is one of this service's and valid now.
    ///
    /// # Errors
    /// If that can't be told, since the authorization server's keys can't be had.
    pub async fn introspect(&self, service: &Service, token: &Secret) -> Result<Option<Claims>, Failure> {
        match self.engine.read(service, token).await {
            Ok(claims) => Ok(Some(claims)),
            Err(Unverified::Invalid(_)) => Ok(None),
            Err(Unverified::NoKeys(why)) => {
                tracing::warn!(service = %service.name, %why, "a token can't be introspected");
                Err(Failure::ServerUnavailable { retry_after: SHORTLY })
            }
        }
    }

    /// The ladder: a token that can be handed out at once, or `None` if its caller has to wait for another.
    fn unless_too_old(
        &self,
        key: &TokenKey,
        token: Arc<CachedToken>,
        min_ttl: Option<Duration>,
        now: &Moment,
    ) -> Result<Arc<CachedToken>, Arc<CachedToken>> {
        let wanted = self.engine.life().wanted(token.issued.expires_in, min_ttl);
        match token.issued.freshness(now, wanted) {
            Freshness::Fresh => Ok(token),
            Freshness::Due => {
                // Goes on behind the caller's back; the next one finds its result.
                drop(self.engine.token(key, Some(token.version)));
                Ok(token)
            }
            Freshness::Short | Freshness::Gone => Err(token),
        }
    }

    /// `at_hand` is too old, or there is none.
    async fn wait_for(
        &self,
        key: &TokenKey,
        min_ttl: Option<Duration>,
        at_hand: Option<Arc<CachedToken>>,
    ) -> Result<(Arc<CachedToken>, Moment), Failure> {
        let too_old = match at_hand {
            Some(token) => token,
            None => {
                let stored = self.engine.token(key, None).await?;
                let now = self.clock.now();
                match self.unless_too_old(key, stored, min_ttl, &now) {
                    Ok(token) => return Ok((token, now)),
                    Err(token) => token,
                }
            }
        };
        let token = self.engine.token(key, Some(too_old.version)).await?;
        let (life, now) = (self.engine.life(), self.clock.now());
        let wanted = life.wanted(token.issued.expires_in, min_ttl);
        let left = token.issued.remaining(&now);
        if left.is_zero() || left < life.promised(token.issued.expires_in).min(wanted) {
            // The exchange took so long that its token is old already; the next one may be quicker.
            return Err(Failure::ServerUnavailable { retry_after: SHORTLY });
        }
        Ok((token, now))
    }
}
