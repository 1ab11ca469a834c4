//! Those who want to hear of changes: a new token, an end, a new beginning. They are told that there is one, and look for
//! themselves, so that nothing is kept for who is slow.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::model::TokenKey;
use crate::refresh::Engine;

/// By token.
#[derive(Default)]
pub(super) struct Watchers(Mutex<HashMap<TokenKey, watch::Sender<u64>>>);

impl Watchers {
    fn join(&self, key: &TokenKey) -> watch::Receiver<u64> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, sender| !sender.is_closed());
        watched.entry(key.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// Something has changed.
    pub(super) fn tell(&self, key: &TokenKey) {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = watched.get(key) {
            sender.send_modify(|changes| *changes += 1);
        }
    }
}

impl Engine {
    /// Changes whenever there is another token, or none any more.
    #[must_use]
    pub fn changes(&self, key: &TokenKey) -> watch::Receiver<u64> {
        self.0.watchers.join(key)
    }
}
