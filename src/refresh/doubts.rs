//! Exchanges of which it is not known whether they took place: somebody goes after each until it is known, whoever waits.

use std::sync::{PoisonError, Weak};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::model::{GrantId, GrantState};
use crate::refresh::Inner;
use crate::refresh::admission::Leave;
use crate::refresh::gate::back_off;

/// What is in doubt at the same time at most; more are found by whoever asks for them, or at the next start.
pub(super) const MOST_DOUBTS: usize = 10_000;
/// Between two looks at an exchange that is in doubt: at first often, for its leeway runs out.
const RESOLVE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));

/// Goes after what is in doubt, each row in a task of its own.
pub(super) async fn pursue_doubts(inner: Weak<Inner>, mut in_doubt: mpsc::Receiver<GrantId>) {
    while let Some(id) = in_doubt.recv().await {
        let Some(inner) = inner.upgrade() else { return };
        let tasks = inner.parts.tasks.clone();
        tasks.spawn(async move { inner.resolve(&id).await });
    }
}

impl Inner {
    /// Has somebody go after a row whose exchange is in doubt, unless somebody does already.
    pub(super) fn pursue(&self, id: &GrantId) {
        let new = self.pursued.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        if new && self.doubts.try_send(id.clone()).is_err() {
            self.pursued.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
            tracing::error!(grant = %id.key, "too much is in doubt; this one is left to whoever asks for it");
        }
    }

    /// Until it is known what became of the row's exchange, or the process stops. Nobody waits for it; whoever wants a
    /// token of this grant meanwhile takes turns with it.
    async fn resolve(&self, id: &GrantId) {
        for tries in 0.. {
            {
                let Ok(service) = self.service(&id.key.service) else {
                    // Not configured any more: whoever asks once it is again goes after it.
                    self.pursued.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
                    return;
                };
                let _turn = self.turns.take(id).await;
                match self.parts.store.grant(id).await {
                    Ok(Some(grant))
                        if grant.in_doubt_since.is_some() && grant.state == GrantState::Active => {}
                    Ok(_settled) => {
                        // With the turn, so that nobody counts on us who is in doubt only now.
                        self.pursued.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
                        return;
                    }
                    Err(error) => tracing::error!(grant = %id.key, %error, "the store does not work"),
                }
                if let Err(failure) = self.exchange(id, &service, None, Leave::Asked).await {
                    tracing::warn!(grant = %id.key, ?failure, "not known yet what became of an exchange");
                }
            }
            let wait = back_off(tries, RESOLVE, 500 + self.parts.entropy.below(500));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.parts.tasks.stopping() => return,
            }
        }
    }
}
