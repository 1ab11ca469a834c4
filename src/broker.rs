//! From a permit to a token: one match on how stale the one at hand is.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use prometheus::{Histogram, IntCounter};
use tokio::sync::watch;

use crate::authorization_server::Unverified;
use crate::cache::{CachedToken, TokenCache};
use crate::caller::Caller;
use crate::clock::{Clock, Moment};
use crate::jwt::Claims;
use crate::metrics::Metrics;
use crate::model::{Asker, Failure, Freshness, Service, TokenKey};
use crate::policy::Permit;
use crate::refresh::Engine;
use crate::secret::{Digest, Secret};
use crate::uses::Uses;

/// What a caller is told to wait where nothing better is known.
const SHORTLY: Duration = Duration::from_secs(1);

/// Hands out tokens.
pub struct Broker {
    engine: Engine,
    cache: TokenCache,
    uses: Arc<Uses>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    from_cache: Histogram,
    from_refresh: Histogram,
    rejections: Rejections,
}

/// A token that was handed out, and what must still hold for it to be handed out again to the same caller.
pub struct Held {
    /// The token.
    pub token: Arc<CachedToken>,
    /// It could not be refreshed when it was due.
    pub stale: bool,
    wanted: Duration,
    generation: u64,
    requests: IntCounter,
}

impl Broker {
    /// Vends what `engine` puts into the cache, and notes who used it.
    #[must_use]
    pub fn new(
        engine: Engine,
        (cache, uses): (TokenCache, Arc<Uses>),
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let duration = |source| metrics.token_request_duration.with_label_values(&[source]);
        let (from_cache, from_refresh) = (duration("cache"), duration("refresh"));
        Self {
            engine,
            cache,
            uses,
            clock,
            metrics,
            from_cache,
            from_refresh,
            rejections: Rejections::default(),
        }
    }

    /// The token that `permit` is for, as `wanted`, at the moment that comes with it, within `patience`. Where it takes a
    /// wait, `room` gives a place for that or none.
    ///
    /// # Errors
    /// Why there is none. After [`Failure::Timeout`] the refresh goes on.
    pub async fn vend<P: Send>(
        &self,
        permit: &Permit,
        wanted: &Wanted,
        patience: Duration,
        room: impl FnOnce() -> Option<P> + Send,
    ) -> Result<(Held, Moment), Failure> {
        let started = self.clock.now();
        let key = permit.key();
        let at_hand = self.cache.get(key).map(|token| self.judge(key, token, wanted, &started));
        let (result, source) = match at_hand {
            Some(Rung::Give(token)) => (Ok((token, started)), &self.from_cache),
            rung => {
                let result = match room() {
                    Some(_place) => {
                        let waiting = tokio::time::timeout(patience, self.wait_for(key, wanted, rung));
                        waiting.await.unwrap_or(Err(Failure::Timeout))
                    }
                    None => Err(Failure::TooManyWaiting),
                };
                (result, &self.from_refresh)
            }
        };
        let word = match &result {
            Ok((token, _)) if token.issued.is_due(&started) && self.engine.is_failing(key) => "stale",
            Ok(_) => "ok",
            Err(failure) => failure.word(),
        };
        let requests = self.metrics.token_requests.with_label_values(&[key.grant.service.as_str(), word]);
        requests.inc();
        let (token, judged_at) = result?;
        let now = self.clock.now();
        token.usage.touch(&now);
        source.observe(now.since(&started).unwrap_or_default().as_secs_f64());
        // The token may have been replaced while it was on its way here: then it is not held.
        let generation = self.cache.generation();
        let is_there = self.cache.get(key).is_some_and(|there| Arc::ptr_eq(&there, &token));
        let generation = if is_there { generation } else { u64::MAX };
        let wanted = self.engine.life().wanted(token.issued.expires_in, wanted.min_ttl);
        Ok((Held { token, stale: word == "stale", wanted, generation, requests }, judged_at))
    }

    /// Whether a token that was handed out can be again, as if it were asked for anew: the time for the answer, or `None`
    /// if it takes a closer look.
    #[must_use]
    pub fn again(&self, held: &Held) -> Option<Moment> {
        let now = self.clock.now();
        let unchanged = held.generation == self.cache.generation();
        let fresh = held.token.issued.freshness(&now, held.wanted) == Freshness::Fresh;
        if !unchanged || !fresh || !held.token.usage.is_vouched_for(&now) {
            return None;
        }
        held.token.usage.touch(&now);
        held.requests.inc();
        self.from_cache.observe(self.clock.now().since(&now).unwrap_or_default().as_secs_f64());
        Some(now)
    }

    /// The token that `permit` is for goes out to `caller`.
    pub fn note_use(&self, permit: &Permit, token: &CachedToken, caller: &Caller, now: &Moment) {
        let asker = Asker { uid: caller.uid(), unit: caller.unit(), run: permit.run() };
        self.uses.note(&permit.key().grant, &token.usage, &asker, now.wall);
    }

    /// Changes whenever there is another token, or none any more.
    #[must_use]
    pub fn changes(&self, key: &TokenKey) -> watch::Receiver<u64> {
        self.engine.changes(key)
    }

    /// Counts the grants that end, and other reasons to look at a token again.
    #[must_use]
    pub fn endings(&self) -> u64 {
        self.engine.endings()
    }

    /// Whether the token's grant still lived just now, if it did when `endings` were counted. That may be denied of one
    /// that does, when another one has ended meanwhile and there was no room for this token in memory.
    #[must_use]
    pub fn still_has(&self, key: &TokenKey, endings: u64) -> bool {
        self.engine.endings() == endings || self.cache.get(key).is_some()
    }

    /// Says that `caller` uses the token, without handing it out. `false` if there is none that could be.
    #[must_use]
    pub fn touch(&self, permit: &Permit, caller: &Caller) -> bool {
        let now = self.clock.now();
        let alive = self.cache.get(permit.key()).filter(|token| !token.issued.remaining(&now).is_zero());
        alive.is_some_and(|token| {
            token.usage.touch(&now);
            self.note_use(permit, &token, caller, &now);
            true
        })
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

    /// The ladder (design 3).
    fn judge(&self, key: &TokenKey, token: Arc<CachedToken>, wanted: &Wanted, now: &Moment) -> Rung {
        if wanted.refuses(&token) {
            return Rung::Replace(token);
        }
        let least = self.engine.life().wanted(token.issued.expires_in, wanted.min_ttl);
        match token.issued.freshness(now, least) {
            Freshness::Fresh | Freshness::Due if !token.usage.is_vouched_for(now) => Rung::Vouch(token),
            Freshness::Fresh => Rung::Give(token),
            Freshness::Due => {
                // Goes on behind the caller's back; the next one finds its result.
                self.engine.keep_fresh(key, &token);
                Rung::Give(token)
            }
            Freshness::Short | Freshness::Gone => Rung::Replace(token),
        }
    }

    /// What is at hand can't be given as it is, or there is nothing.
    async fn wait_for(
        &self,
        key: &TokenKey,
        wanted: &Wanted,
        at_hand: Option<Rung>,
    ) -> Result<(Arc<CachedToken>, Moment), Failure> {
        let rung = match at_hand {
            Some(rung) => rung,
            None => {
                let stored = self.engine.token(key, None).await?;
                self.judge(key, stored, wanted, &self.clock.now())
            }
        };
        let too_old = match rung {
            Rung::Give(token) => return Ok((token, self.clock.now())),
            Rung::Vouch(token) => {
                self.engine.vouch(key, &token.usage).await?;
                return Ok((token, self.clock.now()));
            }
            Rung::Replace(token) => token,
        };
        let rejected = wanted.rejected.filter(|_| wanted.refuses(&too_old));
        if let Some(rejected) = rejected {
            self.rejections.enter(key, rejected, &self.clock.now())?;
        }
        let token = self.engine.token(key, Some(too_old.version)).await?;
        if rejected.is_some() {
            self.rejections.replaced(key);
        }
        let (life, now) = (self.engine.life(), self.clock.now());
        let least = life.wanted(token.issued.expires_in, wanted.min_ttl);
        let left = token.issued.remaining(&now);
        if left.is_zero()
            || left < life.promised(token.issued.expires_in).min(least)
            || wanted.refuses(&token)
        {
            // The exchange took so long that its token is old already; the next one may be quicker. Or the server gave the
            // same token once more.
            return Err(Failure::ServerUnavailable { retry_after: SHORTLY });
        }
        if !token.usage.is_vouched_for(&now) {
            // It was in the store, and not from an exchange just now.
            self.engine.vouch(key, &token.usage).await?;
        }
        Ok((token, now))
    }
}

/// What a caller wants of a token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// At least this much life; by default what the configuration promises.
    pub min_ttl: Option<Duration>,
    /// Not this one: the service refused it.
    pub rejected: Option<Digest>,
}

impl Wanted {
    fn refuses(&self, token: &CachedToken) -> bool {
        self.rejected.is_some_and(|rejected| token.token().digest() == rejected)
    }
}

/// Where a token stands for a caller.
enum Rung {
    /// It can be handed out at once.
    Give(Arc<CachedToken>),
    /// Once its server has said that its grant lives.
    Vouch(Arc<CachedToken>),
    /// Only another one will do.
    Replace(Arc<CachedToken>),
}

/// Which tokens were replaced lately because a service refused them: a service that refuses everything must not become a
/// storm at the authorization server.
struct Rejections(Cache<TokenKey, Rejection>);

#[derive(Clone, Copy)]
struct Rejection {
    at: Duration,
    token: Digest,
    /// Another token has come since.
    replaced: bool,
}

/// Between two of one token's.
const BETWEEN_REJECTIONS: Duration = Duration::from_mins(1);

impl Default for Rejections {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_idle(BETWEEN_REJECTIONS * 2).build())
    }
}

impl Rejections {
    /// May a refresh be made for this reason? Who comes with the same token while it is under way joins it.
    fn enter(&self, key: &TokenKey, token: Digest, now: &Moment) -> Result<(), Failure> {
        if let Some(last) = self.0.get(key) {
            let retry_after = (last.at + BETWEEN_REJECTIONS).saturating_sub(now.boot);
            match (retry_after.is_zero(), last.token == token && !last.replaced) {
                (false, false) => return Err(Failure::RejectedTooOften { retry_after }),
                (false, true) => return Ok(()),
                (true, _) => {}
            }
        }
        self.0.insert(key.clone(), Rejection { at: now.boot, token, replaced: false });
        Ok(())
    }

    fn replaced(&self, key: &TokenKey) {
        if let Some(last) = self.0.get(key) {
            self.0.insert(key.clone(), Rejection { replaced: true, ..last });
        }
    }
}
