//! One exchange per grant at a time: whoever wants one takes the grant's turn, first come, first served.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::model::GrantId;

/// The turns that somebody has or waits for.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<GrantId, Weak<AsyncMutex<()>>>>>);

/// The turn; ends when dropped.
pub(super) struct Turn {
    turns: Turns,
    id: GrantId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn.
    pub(super) async fn take(&self, id: &GrantId) -> Turn {
        let queue = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.get(id).and_then(Weak::upgrade).unwrap_or_else(|| {
                let queue = Arc::default();
                turns.insert(id.clone(), Arc::downgrade(&queue));
                queue
            })
        };
        let guard = queue.lock_owned().await;
        Turn { turns: self.clone(), id: id.clone(), guard: Some(guard) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The guard holds the queue: gone now, unless somebody waits.
        drop(self.guard.take());
        if turns.get(&self.id).is_some_and(|queue| queue.strong_count() == 0) {
            turns.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GrantKey, ServiceName, UserName};

    #[tokio::test]
    async fn turns_come_in_order_and_leave_nothing_behind() {
        let turns = Turns::default();
        let grant =
            GrantKey { service: ServiceName::parse("s").unwrap(), user: UserName::parse("alice").unwrap() };
        let id = GrantId::current(grant);
        let first = turns.take(&id).await;
        let mut second = Box::pin(turns.take(&id));
        assert!(futures_pending(&mut second).await);
        drop(first);
        drop(second.await);
        assert!(turns.0.lock().unwrap().is_empty());
    }

    async fn futures_pending(future: &mut (impl Future<Output = Turn> + Unpin)) -> bool {
        tokio::time::timeout(std::time::Duration::from_millis(1), future).await.is_err()
    }
}
