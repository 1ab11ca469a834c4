//! A grant is revoked: here at once, at its authorization server as soon as that can be reached (RFC 7009), over restarts.
//!
//! The tombstone in the store comes first. From then on nothing is handed out, no exchange under way can bring the grant
//! back, and the refresh token waits, sealed, until its server has answered.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::authorization_server::Revocation;
use crate::flight::{Crashed, Flights};
use crate::jwt;
use crate::model::{Failure, GrantId, GrantKey, UserName};
use crate::refresh::gate::back_off;
use crate::refresh::{Engine, Inner, SHORTLY, store_failure};
use crate::store::{PendingRevocation, Tombstone, Which};
use crate::tasks::Tasks;

/// Between two tries to reach servers that are to be told.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// What waits is looked for this often even if nobody has said that something does, or that it is worth a try.
const LOOK: Duration = Duration::from_mins(10);

/// What is left to do after a revocation, each with its reason.
pub type Left = Vec<String>;

/// What came of telling a grant's server.
#[derive(Clone, Default)]
struct Told {
    left: Left,
    /// When it is worth another try, for what only takes one.
    again_after: Option<Duration>,
}

/// Tells servers, one run at a time for each grant.
pub(super) struct Revoking {
    running: Flights<GrantKey, Result<Told, Failure>>,
    again: Arc<Notify>,
}

impl Revoking {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { running: Flights::new(tasks), again: Arc::default() }
    }

    pub(super) fn again(&self) -> Arc<Notify> {
        Arc::clone(&self.again)
    }

    /// Something may be waiting, or worth a try.
    pub(super) fn wake(&self) {
        self.again.notify_one();
    }
}

impl Engine {
    /// Ends a grant. `None` if there is none; else what is left to do, after `patience` at most. What is left is done
    /// by itself.
    ///
    /// # Errors
    /// If the store does not take the tombstone: then nothing has changed. If it fails later, the grant has ended and
    /// the rest is done by itself.
    pub async fn revoke(&self, key: &GrantKey, patience: Duration) -> Result<Option<Left>, Failure> {
        if !self.bury(&GrantId::current(key.clone())).await? {
            return Ok(None);
        }
        self.tell(key, patience).await.map(|told| Some(told.left))
    }

    /// Revokes and forgets every grant of a user. How many were forgotten, and what is left to do, after `patience` at
    /// most; doing it again does what was left.
    ///
    /// # Errors
    /// If the store does not work: then some may be left, and it can be done again.
    pub async fn erase(&self, user: &UserName, patience: Duration) -> Result<(u64, Left), Failure> {
        let store = &self.0.parts.store;
        // Of services that are not configured any more, too. One grant for each service at most.
        let which = Which { user: Some(user.clone()), ..Which::default() };
        let grants = store.grants(&which, None, u32::MAX).await.map_err(|error| store_failure(&error))?;
        let keys: Vec<GrantKey> = grants.into_iter().map(|grant| grant.key).collect();
        for key in &keys {
            self.bury(&GrantId::current(key.clone())).await?;
        }
        let unproven = self.bury_candidates(user).await?;
        let until = tokio::time::Instant::now() + patience;
        let mut left = Vec::new();
        let mut forgotten = u64::try_from(unproven.len()).unwrap_or(u64::MAX);
        for key in &unproven {
            let patience = until.saturating_duration_since(tokio::time::Instant::now());
            left.extend(self.tell(key, patience).await?.left);
        }
        for key in &keys {
            let patience = until.saturating_duration_since(tokio::time::Instant::now());
            left.extend(self.tell(key, patience).await?.left);
            // An exchange that began before the end may still bring a refresh token, for which the tombstone must be there.
            let turn =
                tokio::time::timeout(patience, self.0.turns.take(&GrantId::current(key.clone()))).await;
            if turn.is_ok() && !self.0.unsaved.holds(&GrantId::current(key.clone())) {
                forgotten += u64::from(store.erase(key).await.map_err(|error| store_failure(&error))?);
            } else {
                left.push(format!("{key}: an exchange is under way; erase again when it is over"));
            }
        }
        self.0.recount.notify_one();
        Ok((forgotten, left))
    }

    /// How many grants wait to be revoked at their servers.
    ///
    /// # Errors
    /// If the store can't be asked.
    pub async fn waiting_to_be_revoked(&self) -> Result<usize, Failure> {
        let waiting = self.0.parts.store.to_revoke().await;
        waiting.map(|keys| keys.len()).map_err(|error| store_failure(&error))
    }

    /// Puts the tombstone, from which on nothing is handed out. `false` if there is nothing to end.
    async fn bury(&self, id: &GrantId) -> Result<bool, Failure> {
        let inner = &self.0;
        let now = inner.parts.clock.now().wall;
        let found = inner.parts.store.revoke(id, now).await.map_err(|error| store_failure(&error))?;
        if found == Tombstone::Missing {
            return Ok(false);
        }
        if let Ok(service) = inner.service(&id.key.service) {
            inner.drop_cached(id, &service);
        }
        inner.recount.notify_one();
        // Should this process not come to tell the server, or in vain.
        inner.revoking.wake();
        tracing::warn!(grant = %id.key, "revoked here; nothing of it is handed out any more");
        Ok(true)
    }

    /// Refresh tokens that were handed in for somebody else and proved to be this user's: under which keys they wait now.
    async fn bury_candidates(&self, user: &UserName) -> Result<Vec<GrantKey>, Failure> {
        let (store, mut keys) = (&self.0.parts.store, Vec::new());
        for id in store.candidates().await.map_err(|error| store_failure(&error))? {
            let Ok(service) = self.0.service(&id.key.service) else { continue };
            let token = store.access_token(&id, None).await.map_err(|error| store_failure(&error))?;
            let claimed = token.and_then(|token| jwt::claimed_text(&token.token, &service.user_claim));
            if claimed.as_deref() == Some(user.as_str()) && self.bury(&id).await? {
                keys.push(id.key);
            }
        }
        Ok(keys)
    }

    /// Tells the grant's server, and says what is left to do.
    async fn tell(&self, key: &GrantKey, patience: Duration) -> Result<Told, Failure> {
        let (inner, key_to_tell) = (Arc::clone(&self.0), key.clone());
        let telling =
            self.0.revoking.running.join(key, move || async move { inner.tell(&key_to_tell).await });
        match tokio::time::timeout(patience, telling.result()).await {
            Ok(Ok(result)) => result,
            Ok(Err(Crashed::Full)) => Err(Failure::ServerUnavailable { retry_after: SHORTLY }),
            Ok(Err(Crashed::Panicked)) => Err(Failure::Internal("a revocation panicked".to_owned())),
            Err(_elapsed) => Ok(Told {
                left: vec![format!("{key}: the authorization server has not answered yet; tried until done")],
                again_after: Some(SHORTLY),
            }),
        }
    }
}

impl Inner {
    /// Tells the server of all that waits under this key.
    async fn tell(&self, key: &GrantKey) -> Result<Told, Failure> {
        let id = GrantId::current(key.clone());
        // An exchange that was under way when the grant was revoked ends first; what it brings waits as well.
        drop(self.turns.take(&id).await);
        let (mut told, mut tried) = (Told::default(), HashSet::new());
        loop {
            let waiting = self.parts.store.revocations(key).await.map_err(|error| store_failure(&error))?;
            // What came to wait while others were told of is told of as well.
            let Some(pending) = waiting.into_iter().find(|one| !tried.contains(&one.refresh_token.digest()))
            else {
                break;
            };
            tried.insert(pending.refresh_token.digest());
            self.tell_of(key, &pending, &mut told).await?;
        }
        if self.unsaved.holds(&id) {
            told.left.push(format!(
                "{key}: what its last refresh brought can't be written, and is revoked after that"
            ));
            told.again_after.get_or_insert(SHORTLY);
        }
        Ok(told)
    }

    /// Only the server that the token belongs to, and only as the client that it was given to.
    async fn tell_of(
        &self,
        key: &GrantKey,
        pending: &PendingRevocation,
        told: &mut Told,
    ) -> Result<(), Failure> {
        let in_use = self.in_use.load_full();
        let door = in_use.doors.values().find(|door| door.server.registration() == pending.registration);
        let Some(door) = door else {
            told.left.push(format!(
                "{key}: belongs to {}, which is not configured any more",
                pending.registration
            ));
            return Ok(());
        };
        let revocation = {
            let _place = door.gate.place(false).await;
            door.server.revoke(&pending.refresh_token).await
        };
        match revocation {
            Revocation::Done => tracing::info!(grant = %key, "revoked at the authorization server"),
            Revocation::NotOffered => {
                tracing::warn!(grant = %key, "the authorization server offers no revocation");
                told.left.push(format!(
                    "{key}: the authorization server offers no revocation; end the grant there by hand"
                ));
            }
            Revocation::Failed { why, retry_after } => {
                tracing::warn!(grant = %key, %why, since = %pending.since, "not revoked at the authorization server yet");
                told.left.push(format!(
                    "{key}: to be revoked at the authorization server, tried until done ({why})"
                ));
                told.again_after = told.again_after.max(retry_after.or(Some(SHORTLY)));
                return Ok(());
            }
        }
        let token = pending.refresh_token.digest();
        self.parts.store.revoked(key, token).await.map_err(|error| store_failure(&error))
    }
}

/// Goes on telling servers until nothing is left, and begins again whenever something is. A server that does not answer
/// holds up only those who wait for it.
pub(super) async fn retry(inner: Weak<Inner>, again: Arc<Notify>) {
    let mut tries = 0;
    loop {
        let Some(engine) = inner.upgrade().map(Engine) else { return };
        let store = &engine.0.parts.store;
        let waiting = store.to_revoke().await.unwrap_or_else(|error| {
            tracing::error!(%error, "what is to be revoked can't be looked for");
            Vec::new()
        });
        let mut telling: JoinSet<_> = JoinSet::new();
        for key in waiting {
            let engine = engine.clone();
            telling.spawn(async move { engine.tell(&key, RETRY.1).await });
        }
        let results = telling.join_all().await;
        let (total, retries): (usize, Vec<Duration>) = (
            results.len(),
            results
                .into_iter()
                .filter_map(|told| told.map_or(Some(SHORTLY), |told| told.again_after))
                .collect(),
        );
        let jitter = 500 + engine.0.parts.entropy.below(500);
        drop(engine);
        match retries.iter().max() {
            None => {
                tries = 0;
                let _woken_or_not = tokio::time::timeout(LOOK, again.notified()).await;
            }
            Some(after) => {
                tries = if retries.len() < total { 0 } else { tries + 1 };
                tokio::time::sleep(back_off(tries, RETRY, jitter).max((*after).min(LOOK))).await;
            }
        }
    }
}
