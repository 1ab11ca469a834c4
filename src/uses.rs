//! Who used each grant last, and when. A use is noted where it happens, beside the token, and saved a while later; whoever
//! shows grants asks here, and sees what is not saved yet as well.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cache::Usage;
use crate::clock::Timestamp;
use crate::model::{Asker, GrantKey, LastUse, UserName};
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// Between two savings: a process that dies forgets the uses of this time.
const EVERY: Duration = Duration::from_mins(1);
/// Grants whose use waits to be saved, at most: as many as there are tokens in memory. Beyond them uses are noted once others
/// have been saved.
const MOST: usize = 250_000;
/// Saved in one go: whoever else needs the store waits no longer than that.
const BATCH: usize = 200;

/// The last uses.
pub struct Uses {
    store: Arc<dyn Store>,
    /// What is not saved yet: the tokens in use of each grant.
    unsaved: Mutex<HashMap<GrantKey, Vec<Arc<Usage>>>>,
}

impl Uses {
    /// Kept in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, unsaved: Mutex::default() }
    }

    /// One of the grant's tokens is handed to `asker`. Costs a slot of that token's own; the list that everybody shares is
    /// touched once per token between two savings.
    pub fn note(&self, key: &GrantKey, usage: &Arc<Usage>, asker: &Asker<'_>, now: Timestamp) {
        if key.user.is_the_client() || !usage.note_use(asker, now) {
            return;
        }
        let mut unsaved = self.unsaved();
        if unsaved.len() < MOST || unsaved.contains_key(key) {
            unsaved.entry(key.clone()).or_default().push(Arc::clone(usage));
        } else {
            usage.forget_use();
        }
    }

    /// Who used the grant last, if anybody did, and if the store says so.
    pub async fn last_use(&self, key: &GrantKey) -> Option<LastUse> {
        match self.last_uses(std::slice::from_ref(key)).await {
            Ok(mut uses) => uses.remove(key),
            Err(error) => {
                tracing::warn!(grant = %key, %error, "not known who used the grant last");
                None
            }
        }
    }

    /// Who used each of these grants last; without those that nobody did.
    ///
    /// # Errors
    /// If the store does not say.
    pub async fn last_uses(&self, keys: &[GrantKey]) -> Result<HashMap<GrantKey, LastUse>, StoreError> {
        let mut uses: HashMap<GrantKey, LastUse> = self.store.last_uses(keys).await?.into_iter().collect();
        let unsaved = self.unsaved();
        for (key, usages) in keys.iter().filter_map(|key| unsaved.get_key_value(key)) {
            if let Some(newer) =
                latest(usages).filter(|newer| uses.get(key).is_none_or(|saved| saved.at < newer.at))
            {
                uses.insert(key.clone(), newer);
            }
        }
        Ok(uses)
    }

    /// Forgets what waits to be saved of this user's grants. What is saved goes with the grant.
    pub fn forget(&self, user: &UserName) {
        self.unsaved().retain(|key, usages| {
            let stays = key.user != *user;
            if !stays {
                for usage in usages.iter() {
                    usage.forget_use();
                }
            }
            stays
        });
    }

    /// Saves what there is every minute, until a stop is asked for; a saving under way is finished.
    pub fn save_now_and_then(self: &Arc<Self>, tasks: &Tasks) {
        let (uses, stop) = (Arc::clone(self), tasks.clone());
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(EVERY) => uses.save().await,
                    () = stop.stopping() => return,
                }
            }
        });
    }

    /// Saves what there is now. What can't be saved waits for the next time.
    pub async fn save(&self) {
        let keys: Vec<GrantKey> = self.unsaved().keys().cloned().collect();
        for keys in keys.chunks(BATCH) {
            let uses: Vec<(GrantKey, LastUse)> = {
                let unsaved = self.unsaved();
                let last = |key: &GrantKey| Some((key.clone(), latest(unsaved.get(key)?)?));
                keys.iter().filter_map(last).collect()
            };
            if let Err(error) = self.store.note_uses(&uses).await {
                tracing::warn!(%error, "not saved yet who used which grant last");
                return;
            }
            let mut unsaved = self.unsaved();
            for (key, saved) in &uses {
                if let Some(usages) = unsaved.get_mut(key) {
                    usages.retain(|usage| !usage.is_saved(saved));
                    if usages.is_empty() {
                        unsaved.remove(key);
                    }
                }
            }
        }
    }

    fn unsaved(&self) -> MutexGuard<'_, HashMap<GrantKey, Vec<Arc<Usage>>>> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn latest(usages: &[Arc<Usage>]) -> Option<LastUse> {
    usages.iter().filter_map(|usage| usage.last_use()).max_by_key(|last| last.at)
}
