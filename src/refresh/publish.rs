//! What is durable goes into the cache once it is verified, from an exchange or from the store; and out again when its
//! grant ends.

use std::sync::Arc;

use crate::authorization_server::{Expected, Unverified};
use crate::cache::CachedToken;
use crate::fail_point;
use crate::jwt::{Verified, VerifyError};
use crate::model::{EndReason, Failure, GrantId, Service, TokenKey, UserName};
use crate::refresh::{Inner, SHORTLY, store_failure};
use crate::secret::Digest;
use crate::store::{StoreError, StoredToken};

impl Inner {
    /// What the cache or the store has, if it is not the token already seen and has the life that is promised.
    pub(super) async fn recall(
        &self,
        key: &TokenKey,
        service: &Service,
        seen: Option<i64>,
    ) -> Result<Option<Arc<CachedToken>>, Failure> {
        let enough = |token: &Arc<CachedToken>| {
            let left = token.issued.remaining(&self.parts.clock.now());
            Some(token.version) != seen
                && !left.is_zero()
                && left >= self.in_use.load().life.promised(token.issued.expires_in)
        };
        if let Some(token) = self.parts.cache.get(key).filter(&enough) {
            return Ok(Some(token));
        }
        let (id, endings) = (GrantId::current(key.grant.clone()), *self.endings());
        let stored = match self.parts.store.access_token(&id, key.role.as_ref()).await {
            Ok(Some(stored)) => self.unless_outdated(key, service, stored).await,
            Ok(None) => None,
            // It is only kept to save an exchange, and the next one replaces it.
            Err(error @ StoreError::Seal(_)) => {
                tracing::error!(%error, "a kept access token can't be opened; another one is fetched");
                None
            }
            Err(error) => return Err(store_failure(&error)),
        };
        match stored {
            Some(stored)
                if Some(stored.version) != seen
                    && !stored.issued.remaining(&self.parts.clock.now()).is_zero() =>
            {
                Ok(self.publish(key, service, stored, endings).await?).map(|token| Some(token).filter(enough))
            }
            _ => Ok(None),
        }
    }

    /// A stored token that was verified against another configuration may still be good; if not, nobody is to blame: it is
    /// forgotten, and an exchange will tell.
    async fn unless_outdated(
        &self,
        key: &TokenKey,
        service: &Service,
        stored: StoredToken,
    ) -> Option<StoredToken> {
        if stored.verified.is_none_or(|against| against == self.expectation(service, key)) {
            return Some(stored);
        }
        let user = service.has_users().then_some(&key.grant.user);
        let invalid = service.opaque
            || matches!(self.verify(service, key, user, &stored).await, Err(Unverified::Invalid(_)));
        if invalid {
            tracing::info!(grant = %key.grant, "the token in the store is not what is configured now; forgotten");
            self.forget(&GrantId::current(key.grant.clone()), key, stored.version).await;
            return None;
        }
        Some(stored)
    }

    /// Only what is durable comes here, and only what verifies goes on into the cache. `seen` is the number of endings
    /// before `stored` was read or asked for.
    pub(super) async fn publish(
        &self,
        key: &TokenKey,
        service: &Service,
        stored: StoredToken,
        seen: u64,
    ) -> Result<Arc<CachedToken>, Failure> {
        let id = GrantId::current(key.grant.clone());
        let user = service.has_users().then_some(&key.grant.user);
        // Before, for it may be another after: what counts is what it is verified against.
        let against = self.expectation(service, key);
        let verified = match self.verify(service, key, user, &stored).await {
            Ok(verified) => {
                fail_point::reached("verified");
                verified
            }
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
        if stored.verified != Some(against) {
            // Should this fail, the token is verified again after a restart: no harm done.
            let marked =
                self.parts.store.mark_verified(&id, key.role.as_ref(), stored.version, against).await;
            if let Err(error) = marked {
                tracing::warn!(grant = %key.grant, %error, "not marked as verified");
            }
        }
        let usage = self.usage(key);
        self.vouch(service, &usage, &stored.issued);
        let token = CachedToken::new(key, verified, stored.issued, stored.scope, stored.version, usage);
        if token.issued.remaining(&self.parts.clock.now()).is_zero() {
            self.forget(&id, key, stored.version).await;
            let hint = VerifyError::Expired.to_string();
            return Err(self.held_off(key, Failure::TokenInvalid { hint }));
        }
        let token = Arc::new(token);
        {
            let endings = self.endings();
            let configured = self.in_use.load().services.get(&service.name).cloned();
            if configured.is_none_or(|configured| *configured != *service) {
                // The configuration has changed while this was under way; the next request sees the new one.
                return Err(Failure::ServerUnavailable { retry_after: SHORTLY });
            }
            if *endings == seen {
                self.parts.cache.put(key.clone(), Arc::clone(&token));
                fail_point::reached("published");
                self.look_after(key, &token);
                self.watchers.tell(key);
                return Ok(token);
            }
        }
        // Some grant has ended since, or the configuration has changed: was it this one?
        match self.unless_ended(&id).await? {
            // Good for whoever waits; the next one reads it from the store again.
            Some(_living) => Ok(token),
            None => Err(Failure::LoginRequired { reason: EndReason::NeverConnected, since: None }),
        }
    }

    pub(super) async fn verify(
        &self,
        service: &Service,
        key: &TokenKey,
        user: Option<&UserName>,
        stored: &StoredToken,
    ) -> Result<Verified, Unverified> {
        // Verified against the same configuration: what has changed since must be looked at again.
        if stored.verified == Some(self.expectation(service, key)) {
            return Ok(Verified::remembered(stored.token.clone()));
        }
        if service.opaque {
            return Ok(Verified::opaque(stored.token.clone()));
        }
        let scope = service.scope(key.role.as_ref()).unwrap_or_default();
        let expected =
            Expected { audience: &service.audience, user_claim: &service.user_claim, user, scope: &scope };
        let door = self.door(service).map_err(|failure| Unverified::NoKeys(format!("{failure:?}")))?;
        door.server.verify(&stored.token, &expected, self.parts.clock.now().wall).await
    }

    /// Names all that a token is verified against.
    fn expectation(&self, service: &Service, key: &TokenKey) -> Digest {
        let registration = self.door(service).map(|door| door.server.registration()).unwrap_or_default();
        let scope = service.scope(key.role.as_ref()).unwrap_or_default().to_string();
        let user = key.grant.user.as_str();
        let parts = [&registration, &service.audience, &service.user_claim, user, &scope];
        Digest::of(format!("{} {:?} {parts:?}", service.opaque, service.speaks_for).as_bytes())
    }

    async fn forget(&self, id: &GrantId, key: &TokenKey, version: i64) {
        if let Err(error) = self.parts.store.discard(id, key.role.as_ref(), version).await {
            tracing::warn!(grant = %key.grant, %error, "a token that does not verify stays in the store, marked so");
        }
    }

    /// The grant has ended, or was replaced: nothing of it is handed out any more.
    pub(super) fn drop_cached(&self, id: &GrantId, service: &Service) {
        self.expiries.notify_one();
        self.checks.ask_anew(&id.key);
        let mut endings = self.endings();
        *endings += 1;
        for role in std::iter::once(None).chain(service.roles.keys().map(Some)) {
            let key = TokenKey { grant: id.key.clone(), role: role.cloned() };
            self.parts.cache.remove(&key);
            self.holdoffs.clear(&key);
            self.schedule().ended(&key);
            self.watchers.tell(&key);
        }
    }
}
