//! Runs that have ended: no token for their passes any more, however long those say that they are valid.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::model::RunId;
use crate::store::{RunStore, StoreError};

/// The ended runs whose passes may still be valid, in memory and in the store.
pub struct EndedRuns {
    store: Arc<dyn RunStore>,
    runs: RwLock<HashMap<RunId, Timestamp>>,
    /// Changes with each run that ends.
    changes: watch::Sender<u64>,
}

impl EndedRuns {
    /// Reads what the last process remembered.
    ///
    /// # Errors
    /// If the store does not tell: then nobody may have a token, rather than those whose run is over.
    pub async fn load(store: Arc<dyn RunStore>, now: Timestamp) -> Result<Self, StoreError> {
        let runs = RwLock::new(store.ended_runs(now).await?.into_iter().collect());
        Ok(Self { store, runs, changes: watch::Sender::new(0) })
    }

    /// Ends a run: here at once, and on disk, so that it stays over. Whoever is served for it is told.
    ///
    /// # Errors
    /// If it can't be written down. In this process the run is over all the same.
    pub async fn end(&self, run: RunId, until: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        {
            let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
            runs.retain(|_, until| *until > now);
            let remembered = runs.entry(run.clone()).or_insert(until);
            *remembered = until.max(*remembered);
        }
        self.changes.send_modify(|count| *count += 1);
        self.store.end_run(&run, until, now).await
    }

    /// Whether the run is over.
    #[must_use]
    pub fn contains(&self, run: &RunId) -> bool {
        self.runs.read().unwrap_or_else(PoisonError::into_inner).contains_key(run)
    }

    /// Changes whenever a run ends.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
