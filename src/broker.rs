//! From a permit to a token: one match on how stale the one at hand is.

use std::sync::Arc;
use std::time::Duration;

use crate::authorization_server::Unverified;
use crate::cache::{CachedToken, TokenCache};
use crate::clock::{Clock, Moment};
use crate::jwt::Claims;
use crate::metrics::Metrics;
use crate::model::{Failure, Freshness, Service};
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
}

/// Where a token came from: the metric's label.
#[derive(Clone, Copy)]
enum Source {
    Cache,
    Refresh,
}

impl Broker {
    /// Vends what `engine` puts into `cache`.
    #[must_use]
    pub fn new(engine: Engine, cache: TokenCache, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { engine, cache, clock, metrics }
    }

    /// The token that `permit` is for, with at least `min_ttl` of life (by default what the configuration promises),
    /// within `patience`.
    ///
    /// # Errors
    /// Why there is none. After [`Failure::Timeout`] the refresh goes on.
    pub async fn vend(
        &self,
        permit: &Permit,
        min_ttl: Option<Duration>,
        patience: Duration,
    ) -> Result<Arc<CachedToken>, Failure> {
        let started = self.clock.now();
        let waiting = tokio::time::timeout(patience, self.find(permit, min_ttl));
        let result = waiting.await.unwrap_or(Err(Failure::Timeout));
        let service = permit.key().grant.service.as_str();
        let word = result.as_ref().map_or_else(Failure::word, |_| "ok");
        self.metrics.token_requests.with_label_values(&[service, word]).inc();
        let (token, source) = result?;
        let took = self.clock.now().since(&started).unwrap_or_default();
        let source = match source {
            Source::Cache => "cache",
            Source::Refresh => "refresh",
        };
        self.metrics.token_request_duration.with_label_values(&[source]).observe(took.as_secs_f64());
        Ok(token)
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

    /// The time by the clock that lives are counted on.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    async fn find(
        &self,
        permit: &Permit,
        min_ttl: Option<Duration>,
    ) -> Result<(Arc<CachedToken>, Source), Failure> {
        let key = permit.key();
        let (token, source) = match self.cache.get(key) {
            Some(token) => (token, Source::Cache),
            None => (self.engine.token(key, None).await?, Source::Refresh),
        };
        let life = self.engine.life();
        let wanted = life.wanted(token.issued.expires_in, min_ttl);
        match token.issued.freshness(&self.clock.now(), wanted) {
            Freshness::Fresh => Ok((token, source)),
            Freshness::Due => {
                // Goes on behind the caller's back; the next one finds its result.
                drop(self.engine.token(key, Some(token.version)));
                Ok((token, source))
            }
            Freshness::Short | Freshness::Gone => {
                let token = self.engine.token(key, Some(token.version)).await?;
                let left = token.issued.remaining(&self.clock.now());
                if left.is_zero() || left < life.promised(token.issued.expires_in).min(wanted) {
                    // The exchange took so long that its token is old already; the next one may be quicker.
                    return Err(Failure::ServerUnavailable { retry_after: SHORTLY });
                }
                Ok((token, Source::Refresh))
            }
        }
    }
}
