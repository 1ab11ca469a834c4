//! A grant is revoked: here at once, at its authorization server as soon as that can be reached (RFC 7009), over restarts.
//!
//! The tombstone in the store comes first. From then on nothing is handed out, no exchange under way can bring the grant
//! back, and the refresh token waits, sealed, until its server has answered.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::authorization_server::Revocation;
use crate::flight::{Crashed, Flights};
use crate::jwt;
use crate::model::{Failure, GrantId, GrantKey, UserName};
use crate::refresh::gate::back_off;
use crate::refresh::{Engine, Inner, SHORTLY, store_failure};
use crate::store::{PendingRevocation, StoreError, Tombstone, Which};
use crate::tasks::Tasks;

/// Between two tries to reach a server that is to be told.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How long one round waits for servers that take their time; what it began goes on.
const ROUND: Duration = Duration::from_secs(10);
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
    anew: AtomicBool,
}

impl Revoking {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { running: Flights::new(tasks), again: Arc::default(), anew: AtomicBool::new(false) }
    }

    pub(super) fn again(&self) -> Arc<Notify> {
        Arc::clone(&self.again)
    }

    /// Something may be waiting.
    pub(super) fn wake(&self) {
        self.again.notify_one();
    }

    /// Whatever waits is worth a try.
    pub(super) fn wake_all(&self) {
        self.anew.store(true, Ordering::Relaxed);
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
        let found = self.bury(&GrantId::current(key.clone()), key).await?;
        if found == Tombstone::Missing {
            return Ok(None);
        }
        let mut left = self.tell(key, patience).await?.left;
        left.extend(unreadable(found, key));
        Ok(Some(left))
    }

    /// Revokes and forgets every grant of a user. How many were forgotten, and what is left to do, after `patience` at
    /// most; doing it again does what was left.
    ///
    /// # Errors
    /// If the store does not work: then some may be left, and it can be done again.
    pub async fn erase(&self, user: &UserName, patience: Duration) -> Result<(u64, Left), Failure> {
        let store = &self.0.parts.store;
        let until = Instant::now() + patience;
        let patience = || until.saturating_duration_since(Instant::now());
        // Of services that are not configured any more, too. One grant for each service at most.
        let which = Which { user: Some(user.clone()), ..Which::default() };
        let grants = store.grants(&which, None, u32::MAX).await.map_err(|error| store_failure(&error))?;
        let mut keys: BTreeSet<GrantKey> = grants.into_iter().map(|grant| grant.key).collect();
        let mut left = Vec::new();
        for key in &keys {
            let found = self.bury(&GrantId::current(key.clone()), key).await?;
            left.extend(unreadable(found, key));
        }
        let mut forgotten = self.bury_candidates(user, until, &mut left).await?;
        let waiting = store.to_revoke().await.map_err(|error| store_failure(&error))?;
        keys.extend(waiting.into_iter().filter(|key| key.user == *user));
        for key in &keys {
            left.extend(self.tell(key, patience()).await?.left);
            // An exchange that began before the end may still bring a refresh token, for which the tombstone must be there.
            let id = GrantId::current(key.clone());
            let turn = tokio::time::timeout(patience(), self.0.turns.take(&id)).await;
            if turn.is_err() || self.0.unsaved.holds(&id) {
                left.push(format!("{key}: an exchange is under way; erase again when it is over"));
            } else if is_put(self.bury(&id, key).await?) {
                left.push(format!("{key}: connected again meanwhile; revoked, erase again"));
            } else {
                forgotten += u64::from(store.erase(key).await.map_err(|error| store_failure(&error))?);
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

    /// Puts the tombstone, from which on nothing is handed out. What is to be revoked waits under `key`.
    async fn bury(&self, id: &GrantId, key: &GrantKey) -> Result<Tombstone, Failure> {
        let inner = &self.0;
        let now = inner.parts.clock.now().wall;
        let found = inner.parts.store.revoke(id, key, now).await.map_err(|error| store_failure(&error))?;
        if matches!(found, Tombstone::Put | Tombstone::PutAfterEnd | Tombstone::Unreadable) {
            if let Ok(service) = inner.service(&id.key.service) {
                inner.drop_cached(id, &service);
            }
            inner.recount.notify_one();
            inner.news.notify_one();
            if found != Tombstone::PutAfterEnd {
                inner.record_end_by_us(id);
            }
            // Should this process not come to tell the server, or in vain.
            inner.revoking.wake();
            tracing::warn!(grant = %key, "revoked here; nothing of it is handed out any more");
        }
        Ok(found)
    }

    /// Refresh tokens that were handed in for somebody else and proved to be this user's: how many.
    async fn bury_candidates(
        &self,
        user: &UserName,
        until: Instant,
        left: &mut Left,
    ) -> Result<u64, Failure> {
        let (store, mut buried) = (&self.0.parts.store, 0);
        for id in store.candidates().await.map_err(|error| store_failure(&error))? {
            let Ok(service) = self.0.service(&id.key.service) else {
                left.push(format!(
                    "{}: handed in, not proven, and the service is not configured any more",
                    id.key
                ));
                continue;
            };
            let token = match store.access_token(&id, None).await {
                Ok(token) => token,
                // Whose it is can't be told any more; nobody else's erasure waits for that.
                Err(error @ StoreError::Seal(_)) => {
                    tracing::error!(%error, "handed in, not proven");
                    None
                }
                Err(error) => return Err(store_failure(&error)),
            };
            let claimed = token.and_then(|token| jwt::claimed_text(&token.token, &service.user_claim));
            if claimed.as_deref() != Some(user.as_str()) {
                continue;
            }
            let key = GrantKey { service: id.key.service.clone(), user: user.clone() };
            // With its turn: an exchange of it may be under way, and what that brings must find its row.
            let turn = tokio::time::timeout_at(until, self.0.turns.take(&id)).await;
            if turn.is_err() || self.0.unsaved.holds(&id) {
                left.push(format!("{key}: an import is under way; erase again when it is over"));
            } else if is_put(self.bury(&id, &key).await?) {
                buried += 1;
            }
        }
        Ok(buried)
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
            if self.parts.tasks.is_stopping() {
                told.left.push(format!("{key}: to be revoked after the next start"));
                break;
            }
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
        let mut doors = in_use.doors.iter();
        let found = doors.find(|(_, door)| door.server.registration() == pending.registration);
        let Some((name, door)) = found else {
            told.left.push(format!(
                "{key}: belongs to {}, which is not configured any more",
                pending.registration
            ));
            return Ok(());
        };
        if let Some(wait) = door.gate.limited_for(&self.parts.clock.now()) {
            told.left
                .push(format!("{key}: to be revoked when the authorization server's rate limit is over"));
            told.again_after = told.again_after.max(Some(wait));
            return Ok(());
        }
        let ask = async {
            let _place = door.telling.acquire().await;
            door.budget.count(&self.parts.clock.now());
            door.server.revoke(&pending.refresh_token).await
        };
        let revocation = tokio::select! {
            revocation = ask => revocation,
            // It may or may not have arrived, and is made again after the next start.
            () = self.parts.tasks.stopping() => {
                let why = "the process is stopping".to_owned();
                Revocation::Failed { why, retry_after: None }
            }
        };
        match revocation {
            Revocation::Done => {
                door.gate.client_accepted();
                self.record_told(key, name, "ok");
                tracing::info!(grant = %key, "revoked at the authorization server");
            }
            Revocation::NotOffered => {
                self.record_told(key, name, "not_offered");
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

fn is_put(found: Tombstone) -> bool {
    matches!(found, Tombstone::Put | Tombstone::PutAfterEnd)
}

fn unreadable(found: Tombstone, key: &GrantKey) -> Option<String> {
    let say = || {
        format!("{key}: its refresh token can't be opened; end the grant at the authorization server by hand")
    };
    (found == Tombstone::Unreadable).then(say)
}

/// Goes on telling servers until nothing is left, and begins again whenever something is. Each grant has its own time, so
/// that a server that does not answer holds up only those who wait for it.
pub(super) async fn retry(inner: Weak<Inner>, again: Arc<Notify>) {
    let mut later: HashMap<GrantKey, (Instant, u32)> = HashMap::new();
    loop {
        let Some(engine) = inner.upgrade().map(Engine) else { return };
        if engine.0.revoking.anew.swap(false, Ordering::Relaxed) {
            later.clear();
        }
        let until = match engine.0.parts.store.to_revoke().await {
            Ok(waiting) => {
                let known: HashSet<&GrantKey> = waiting.iter().collect();
                later.retain(|key, _| known.contains(key));
                let now = Instant::now();
                let is_due = |key: &GrantKey| later.get(key).is_none_or(|(at, _)| *at <= now);
                let due: Vec<GrantKey> = waiting.iter().filter(|key| is_due(key)).cloned().collect();
                for (key, told) in round(&engine, due).await {
                    let tries = later.get(&key).map_or(0, |(_, tries)| *tries);
                    let jitter = 500 + engine.0.parts.entropy.below(500);
                    let wait = match told {
                        Ok(told) if told.left.is_empty() => {
                            // Should something of it come later, that has not waited yet.
                            later.remove(&key);
                            continue;
                        }
                        // Not for us to do, unless the configuration changes.
                        Ok(Told { again_after: None, .. }) => LOOK,
                        Ok(Told { again_after: Some(after), .. }) => {
                            back_off(tries, RETRY, jitter).max(after.min(LOOK))
                        }
                        Err(_store_or_too_much_to_do) => back_off(tries, RETRY, jitter),
                    };
                    later.insert(key, (Instant::now() + wait, tries.saturating_add(1)));
                }
                later.values().map(|(at, _)| *at).min().unwrap_or_else(|| Instant::now() + LOOK)
            }
            Err(error) => {
                tracing::error!(%error, "what is to be revoked can't be looked for");
                Instant::now() + SHORTLY
            }
        };
        drop(engine);
        let _woken_or_not = tokio::time::timeout_at(until, again.notified()).await;
    }
}

/// Tells all of these servers side by side.
async fn round(engine: &Engine, due: Vec<GrantKey>) -> Vec<(GrantKey, Result<Told, Failure>)> {
    let mut telling = JoinSet::new();
    for key in due {
        let engine = engine.clone();
        telling.spawn(async move {
            let told = engine.tell(&key, ROUND).await;
            (key, told)
        });
    }
    let mut results = Vec::new();
    while let Some(told) = telling.join_next().await {
        results.extend(told);
    }
    results
}
