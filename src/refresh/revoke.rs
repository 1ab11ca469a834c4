//! A grant is revoked: here at once, at its authorization server as soon as that can be reached (RFC 7009), over restarts.
//!
//! The tombstone in the store comes first. From then on nothing is handed out, no exchange under way can bring the grant
//! back, and the refresh token waits, sealed, until its server has answered.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::authorization_server::Revocation;
use crate::flight::Flights;
use crate::jwt;
use crate::model::{Failure, GrantId, GrantKey, Service, UserName};
use crate::refresh::gate::back_off;
use crate::refresh::{Engine, Inner, store_failure};
use crate::store::{PendingRevocation, Tombstone};
use crate::tasks::Tasks;

/// Between two tries to reach a server that is to be told.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// What waits is looked for this often even if nobody has said that something does.
const LOOK: Duration = Duration::from_mins(10);

/// What is left to do after a revocation: nothing, or what and why.
pub type Left = Vec<String>;

/// Tells servers, one run at a time for each grant.
pub(super) struct Revoking {
    running: Flights<GrantKey, Result<Left, Failure>>,
    again: Arc<Notify>,
}

impl Revoking {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { running: Flights::new(tasks), again: Arc::default() }
    }

    pub(super) fn again(&self) -> Arc<Notify> {
        Arc::clone(&self.again)
    }

    /// Something may be waiting.
    pub(super) fn wake(&self) {
        self.again.notify_one();
    }
}

impl Engine {
    /// Ends a grant. `None` if there is none; else what is left to do, after `patience` at most. What is left is done
    /// by itself.
    ///
    /// # Errors
    /// If the store does not take the tombstone: then nothing has changed.
    pub async fn revoke(&self, key: &GrantKey, patience: Duration) -> Result<Option<Left>, Failure> {
        let inner = &self.0;
        let now = inner.parts.clock.now().wall;
        let id = GrantId::current(key.clone());
        if inner.parts.store.revoke(&id, now).await.map_err(|error| store_failure(&error))?
            == Tombstone::Missing
        {
            return Ok(None);
        }
        if let Ok(service) = inner.service(&key.service) {
            inner.drop_cached(&id, &service);
        }
        inner.recount.notify_one();
        tracing::warn!(grant = %key, "revoked here; nothing of it is handed out any more");
        self.tell(key, patience).await.map(Some)
    }

    /// Revokes and forgets every grant of a user. How many there were, and what is left to do.
    ///
    /// # Errors
    /// If the store does not work: then some may be left, and it can be done again.
    pub async fn erase(&self, user: &UserName, patience: Duration) -> Result<(u64, Left), Failure> {
        let (inner, mut left) = (&self.0, Vec::new());
        let services: Vec<Arc<Service>> = inner.in_use.load().services.values().cloned().collect();
        for service in &services {
            let key = GrantKey { service: service.name.clone(), user: user.clone() };
            left.extend(self.revoke(&key, patience).await?.unwrap_or_default());
        }
        let candidates = self.revoke_candidates(user).await?;
        let grants = inner.parts.store.erase(user).await.map_err(|error| store_failure(&error))?;
        inner.recount.notify_one();
        Ok((grants + candidates, left))
    }

    /// How many grants wait to be revoked at their servers.
    ///
    /// # Errors
    /// If the store can't be asked.
    pub async fn waiting_to_be_revoked(&self) -> Result<usize, Failure> {
        let waiting = self.0.parts.store.to_revoke().await;
        waiting.map(|keys| keys.len()).map_err(|error| store_failure(&error))
    }

    /// Tells the grant's server, and says what is left to do.
    async fn tell(&self, key: &GrantKey, patience: Duration) -> Result<Left, Failure> {
        let (inner, key_to_tell) = (Arc::clone(&self.0), key.clone());
        let telling =
            self.0.revoking.running.join(key, move || async move { inner.tell(&key_to_tell).await });
        match tokio::time::timeout(patience, telling.result()).await {
            Ok(Ok(result)) => result,
            Ok(Err(_crashed)) => Err(Failure::Internal("a revocation panicked".to_owned())),
            Err(_elapsed) => Ok(vec![format!("{key}: the authorization server has not answered yet")]),
        }
    }

    /// Refresh tokens that were handed in for somebody else and proved to be this user's.
    async fn revoke_candidates(&self, user: &UserName) -> Result<u64, Failure> {
        let (store, mut revoked) = (&self.0.parts.store, 0);
        for id in store.candidates().await.map_err(|error| store_failure(&error))? {
            let Ok(service) = self.0.service(&id.key.service) else { continue };
            let token = store.access_token(&id, None).await.map_err(|error| store_failure(&error))?;
            let claimed = token.and_then(|token| jwt::claimed_text(&token.token, &service.user_claim));
            if claimed.as_deref() == Some(user.as_str()) {
                let now = self.0.parts.clock.now().wall;
                store.revoke(&id, now).await.map_err(|error| store_failure(&error))?;
                self.0.revoking.wake();
                revoked += 1;
            }
        }
        Ok(revoked)
    }
}

impl Inner {
    /// Tells the server of all that waits under this key.
    async fn tell(&self, key: &GrantKey) -> Result<Left, Failure> {
        let id = GrantId::current(key.clone());
        // An exchange that was under way when the grant was revoked ends first; what it brings waits as well.
        let turn = self.turns.take(&id).await;
        if let Ok(service) = self.service(&key.service) {
            self.drop_cached(&id, &service);
        }
        drop(turn);
        let mut left = Vec::new();
        for pending in self.parts.store.revocations(key).await.map_err(|error| store_failure(&error))? {
            match self.tell_of(&pending).await {
                Revocation::Done => tracing::info!(grant = %key, "revoked at the authorization server"),
                Revocation::NotOffered => {
                    tracing::warn!(grant = %key, "the authorization server offers no revocation");
                    left.push(format!(
                        "{key}: the authorization server offers no revocation; end the grant there by hand"
                    ));
                }
                Revocation::Failed { why, .. } => {
                    tracing::warn!(grant = %key, %why, since = %pending.since, "not revoked at the authorization server yet");
                    left.push(format!(
                        "{key}: to be revoked at the authorization server, tried until done ({why})"
                    ));
                    self.revoking.wake();
                    continue;
                }
            }
            let token = pending.refresh_token.digest();
            self.parts.store.revoked(key, token).await.map_err(|error| store_failure(&error))?;
        }
        Ok(left)
    }

    /// Only the server that the token belongs to, and only as the client that it was given to.
    async fn tell_of(&self, pending: &PendingRevocation) -> Revocation {
        let in_use = self.in_use.load_full();
        let mut doors = in_use.doors.values();
        match doors.find(|door| door.server.registration() == pending.registration) {
            Some(door) => door.server.revoke(&pending.refresh_token).await,
            None => Revocation::Failed {
                why: format!("it belongs to {}, which is not configured", pending.registration),
                retry_after: None,
            },
        }
    }
}

/// Goes on telling servers until nothing is left, and begins again whenever something is.
pub(super) async fn retry(inner: Weak<Inner>, again: Arc<Notify>) {
    let mut tries = 0;
    loop {
        let Some(engine) = inner.upgrade().map(Engine) else { return };
        let store = &engine.0.parts.store;
        let waiting = store.to_revoke().await.unwrap_or_else(|error| {
            tracing::error!(%error, "what is to be revoked can't be looked for");
            Vec::new()
        });
        let mut left = 0;
        for key in &waiting {
            // One that hangs holds nobody else up for longer than its own deadline.
            let told = engine.tell(key, RETRY.1).await;
            left += usize::from(!told.is_ok_and(|left| left.is_empty()));
        }
        let jitter = 500 + engine.0.parts.entropy.below(500);
        drop(engine);
        if left == 0 {
            tries = 0;
            let _woken_or_not = tokio::time::timeout(LOOK, again.notified()).await;
        } else {
            tokio::time::sleep(back_off(tries, RETRY, jitter)).await;
            tries += 1;
        }
    }
}
