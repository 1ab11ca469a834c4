//! One flight: from "a token is wanted" to a verified one in the cache.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::CachedToken;
use crate::model::{EndReason, Failure, GrantId, Service, TokenKey};
use crate::refresh::Inner;
use crate::refresh::admission::Leave;
use crate::refresh::schedule::Ready;

/// How long it is remembered that a role was not granted, unless the user connects again.
const NOT_GRANTED: Duration = Duration::from_mins(5);

/// What a flight is for.
#[derive(Clone)]
pub(super) enum Want {
    /// A token of another version than this one, with enough life, for somebody who waits.
    Newer(Option<i64>),
    /// The same, and nobody waits; the budget has a place for it.
    Ahead(Ready),
    /// An exchange.
    Exchange,
}

impl Want {
    pub(super) fn is_for_an_exchange(&self) -> bool {
        matches!(self, Self::Exchange)
    }

    fn leave(&self) -> Leave {
        match self {
            Self::Newer(_) => Leave::Asked,
            Self::Ahead(_) => Leave::Ahead,
            Self::Exchange => Leave::Granted,
        }
    }

    /// What the caller, or the schedule, has seen already; `None`: nothing.
    fn seen(&self) -> Option<i64> {
        match self {
            Self::Newer(seen) => *seen,
            Self::Ahead(ready) => Some(ready.version),
            Self::Exchange => None,
        }
    }
}

impl Inner {
    pub(super) async fn fly(&self, key: &TokenKey, want: Want) -> Result<Arc<CachedToken>, Failure> {
        let result = self.fetch(key, &want).await;
        if let (Want::Ahead(ready), Ok(token)) = (&want, &result) {
            let late = token.issued.requested_at.boot.saturating_sub(ready.due);
            self.parts.metrics.refresh_lateness.observe(late.as_secs_f64());
        }
        if let (Want::Newer(_), Ok(token)) = (&want, &result) {
            token.usage.touch(&self.parts.clock.now());
        }
        result
    }

    async fn fetch(&self, key: &TokenKey, want: &Want) -> Result<Arc<CachedToken>, Failure> {
        let id = GrantId::current(key.grant.clone());
        let service = self.service(&key.grant.service)?;
        if !want.is_for_an_exchange() {
            // Without the turn, so that a slow exchange of another role holds up nobody whose token is in the store.
            if let Some(token) = self.recall(key, &service, want.seen()).await? {
                return Ok(token);
            }
            // Nor need anybody wait for an exchange to hear that a grant has ended.
            self.unless_ended(&id).await?;
        }
        let _turn = self.turns.take(&id).await;
        if !service.has_users() {
            self.ensure_client_grant(&id, &service).await?;
        }
        if !want.is_for_an_exchange() {
            if let Some(token) = self.recall(key, &service, want.seen()).await? {
                return Ok(token);
            }
            if let Some(failure) = self.holdoffs.get(key, &self.parts.clock.now()) {
                return Err(failure);
            }
        }
        let result = self.obtain(&id, key, &service, want.leave()).await;
        match &result {
            Ok(_) => self.holdoffs.clear(key),
            // Any name can be asked about.
            Err(failure @ Failure::LoginRequired { reason: EndReason::NeverConnected, .. }) => {
                tracing::debug!(grant = %key.grant, ?failure, "no fresh token");
            }
            Err(failure) => tracing::warn!(grant = %key.grant, role = ?key.role, ?failure, "no fresh token"),
        }
        result
    }

    /// Exchanges, and where a role's scope is refused finds out whether it is the role or everything.
    async fn obtain(
        &self,
        id: &GrantId,
        key: &TokenKey,
        service: &Service,
        leave: Leave,
    ) -> Result<Arc<CachedToken>, Failure> {
        let endings = *self.endings();
        let result = self.exchange(id, service, key.role.as_ref(), leave).await;
        let stored = match result {
            Err(Failure::Refused { error, .. })
                if error == "invalid_scope" && key.role.is_some() && service.has_users() =>
            {
                // One request more than was thought of.
                self.door(service)?.budget.count(&self.parts.clock.now());
                let defaults = self
                    .exchange(id, service, None, leave)
                    .await
                    .map_err(|failure| self.held_off(key, failure))?;
                let default_key = TokenKey { grant: key.grant.clone(), role: None };
                self.publish(&default_key, service, defaults, endings).await?;
                let since = Some(self.parts.clock.now().wall);
                let failure = Failure::LoginRequired { reason: EndReason::RoleNotGranted, since };
                return Err(self.held_off(key, failure));
            }
            other => other.map_err(|failure| self.held_off(key, failure))?,
        };
        self.publish(key, service, stored, endings).await
    }

    /// Remembers failures that would come again at once, so that callers get them from memory for a while.
    pub(super) fn held_off(&self, key: &TokenKey, failure: Failure) -> Failure {
        let wait = match &failure {
            Failure::Refused { .. } | Failure::TokenInvalid { .. } => None,
            Failure::LoginRequired { reason: EndReason::RoleNotGranted, .. } => Some(NOT_GRANTED),
            Failure::ServerUnavailable { retry_after } => Some(*retry_after),
            Failure::LoginRequired { .. }
            | Failure::StoreUnavailable { .. }
            | Failure::RejectedTooOften { .. }
            | Failure::TooManyWaiting
            | Failure::Timeout
            | Failure::UserMismatch { .. }
            | Failure::Internal(_) => return failure,
        };
        let jitter = self.parts.entropy.below(1000);
        self.holdoffs.hold(key, &failure, wait, &self.parts.clock.now(), jitter);
        failure
    }
}
