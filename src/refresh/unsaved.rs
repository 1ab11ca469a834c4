//! Answers that could not be written: kept in memory, written again and again, spilled when the process must stop.
//!
//! Design 1.6: while an answer is here, its grant gets no further refresh and nothing new is vended from it, and
//! readiness says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::entropy::Entropy;
use crate::model::GrantId;
use crate::ready::Ready;
use crate::refresh::gate::back_off;
use crate::store::{Commit, Committed, Store};
use crate::tasks::Tasks;

const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a stopping process tries to write before it spills.
const LAST_TRIES: u32 = 3;

/// Each grant's answer, and the version that it is to replace.
type Held = HashMap<GrantId, (i64, Arc<Commit>)>;

/// Where an answer has got to.
#[derive(PartialEq, Eq)]
enum Saved {
    InStore,
    BesideStore,
}

/// The answers that are not on disk.
#[derive(Clone)]
pub(super) struct Unsaved {
    held: Arc<Mutex<Held>>,
    store: Arc<dyn Store>,
    entropy: Arc<dyn Entropy>,
    ready: Ready,
    tasks: Tasks,
    /// Woken when what was written is to be revoked.
    revoke: Arc<Notify>,
}

impl Unsaved {
    pub(super) fn new(
        store: Arc<dyn Store>,
        entropy: Arc<dyn Entropy>,
        ready: Ready,
        tasks: Tasks,
        revoke: Arc<Notify>,
    ) -> Self {
        Self { held: Arc::default(), store, entropy, ready, tasks, revoke }
    }

    /// Whether this grant waits for its answer to be written.
    pub(super) fn holds(&self, id: &GrantId) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Takes an answer into care.
    pub(super) fn keep(&self, id: GrantId, version: i64, answer: Commit) {
        let answer = Arc::new(answer);
        let held = (version, Arc::clone(&answer));
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), held);
        let (this, latch) = (self.clone(), self.ready.hold("store"));
        self.tasks.spawn(async move {
            // What went beside the store stays held: the one in the store is used up until the next start takes it up.
            if this.save(&id, version, &answer).await == Saved::InStore {
                this.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            }
            drop(latch);
        });
    }

    /// Puts all of them beside the store at once.
    pub(super) async fn spill(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (id, (version, answer)) in held {
            self.spill_one(&id, version, &answer).await;
        }
    }

    /// Whether it is beside the store.
    async fn spill_one(&self, id: &GrantId, version: i64, answer: &Commit) -> bool {
        let result = self.store.spill(id, version, answer).await;
        match &result {
            Ok(()) => {
                tracing::warn!(grant = %id.key, "stopping: the answer was put into a file beside the store");
            }
            Err(error) => tracing::error!(grant = %id.key, %error, "can't be put beside the store either"),
        }
        result.is_ok()
    }

    async fn save(&self, id: &GrantId, version: i64, answer: &Commit) -> Saved {
        let (mut tries, mut tries_since_stop) = (0, 0);
        loop {
            let wait = back_off(tries, RETRY, 500 + self.entropy.below(500));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.tasks.stopping(), if tries_since_stop == 0 => {}
            }
            tries = tries.saturating_add(1);
            match self.store.commit(id, version, answer).await {
                Ok(Committed::Done(_)) => {
                    tracing::info!(grant = %id.key, tries, "a refresh token that could not be written is on disk now");
                    return Saved::InStore;
                }
                Ok(Committed::Superseded | Committed::Revoked) => {
                    // Either an earlier try was written although it reported an error, or the grant was replaced by an
                    // import or revoked meanwhile; in all cases nothing is left to save.
                    self.revoke.notify_one();
                    tracing::info!(grant = %id.key, tries, "the grant moved on while its answer could not be written");
                    return Saved::InStore;
                }
                Err(error) => {
                    tracing::error!(grant = %id.key, tries, %error, "a new refresh token can't be written; it is kept in memory");
                }
            }
            if self.tasks.is_stopping() {
                tries_since_stop += 1;
                if tries_since_stop >= LAST_TRIES && self.spill_one(id, version, answer).await {
                    return Saved::BesideStore;
                }
            }
        }
    }
}
