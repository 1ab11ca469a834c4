//! Uses grants that nobody uses, once in a while, so that the authorization server does not let them lapse.
//!
//! Which ones are next is asked of the store, by an index and a page at a time: idle grants cost neither memory nor time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::{GrantId, GrantKey, Service};
use crate::refresh::Inner;
use crate::refresh::admission::Leave;
use crate::refresh::budget::Background;
use crate::store::Unused;

/// Grants that are looked at together.
const PAGE: u32 = 64;
/// Between two looks.
const REST: Duration = Duration::from_mins(1);
/// Of those that are left alone; more wait for these.
const MOST_LEFT_ALONE: usize = 10_000;

/// Begins when three quarters of `keep_alive` are over, so that what has become due together can be spread.
fn since(now: Timestamp, keep_alive: Duration) -> Timestamp {
    now.minus(keep_alive / 4 * 3)
}

/// Grants that are being used, or that failed, and until when each is left alone.
type LeftAlone = Arc<Mutex<HashMap<GrantKey, Duration>>>;

/// Runs until the engine is gone.
pub(super) async fn keep_alive(inner: Weak<Inner>) {
    let left_alone = LeftAlone::default();
    loop {
        let wait = match inner.upgrade() {
            Some(inner) => inner.keep_grants_alive(&left_alone).await,
            None => return,
        };
        tokio::time::sleep(wait).await;
    }
}

impl Inner {
    /// One round over all services; answers how long there is nothing to do.
    async fn keep_grants_alive(self: &Arc<Self>, left_alone: &LeftAlone) -> Duration {
        let in_use = self.in_use.load_full();
        let Some(keep_alive) = in_use.life.keep_alive else { return REST };
        let now = self.parts.clock.now();
        left_alone.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, until| *until > now.boot);
        let mut wait = REST;
        for service in in_use.services.values().filter(|service| service.has_users()) {
            wait = wait.min(self.keep_service_alive(service, keep_alive, left_alone).await);
        }
        wait
    }

    async fn keep_service_alive(
        self: &Arc<Self>,
        service: &Arc<Service>,
        keep_alive: Duration,
        left_alone: &LeftAlone,
    ) -> Duration {
        let Ok(door) = self.door(service) else { return REST };
        let mut after: Option<Unused> = None;
        loop {
            let before = since(self.parts.clock.now().wall, keep_alive);
            let page = self.parts.store.unused(&service.name, before, after.as_ref(), PAGE).await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "grants that nobody uses are not kept alive for now");
                    return REST;
                }
            };
            for unused in &page {
                let key = GrantKey { service: service.name.clone(), user: unused.user.clone() };
                {
                    let left_alone = left_alone.lock().unwrap_or_else(PoisonError::into_inner);
                    if left_alone.contains_key(&key) {
                        continue;
                    }
                    if left_alone.len() >= MOST_LEFT_ALONE {
                        return REST;
                    }
                }
                let now = self.parts.clock.now();
                let may = door.gate.has_room(&now);
                if let Err(wait) = may.and_then(|()| door.budget.take_in_background(&now, Background::Idle)) {
                    return wait;
                }
                self.keep_grant_alive(key, service, now.boot + keep_alive / 32, left_alone);
            }
            if page.len() < PAGE as usize {
                return REST;
            }
            after = page.into_iter().next_back();
        }
    }

    /// Only the exchange: the token that comes is verified if somebody asks for it. In a task of its own, so that neither a stop
    /// cuts it in two nor a slow server holds up the others.
    fn keep_grant_alive(
        self: &Arc<Self>,
        key: GrantKey,
        service: &Arc<Service>,
        until: Duration,
        left_alone: &LeftAlone,
    ) {
        let (inner, service, left_alone) = (Arc::clone(self), Arc::clone(service), Arc::clone(left_alone));
        left_alone.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), until);
        self.parts.tasks.spawn(async move {
            let id = GrantId::current(key);
            let _turn = inner.turns.take(&id).await;
            match inner.exchange(&id, &service, None, Leave::Idle).await {
                Ok(_) => {
                    left_alone.lock().unwrap_or_else(PoisonError::into_inner).remove(&id.key);
                }
                Err(failure) => {
                    tracing::warn!(grant = %id.key, ?failure, "a grant that nobody uses was not kept alive");
                }
            }
        });
    }
}
