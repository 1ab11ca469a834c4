//! Uses grants that nobody uses, once in a while, so that the authorization server does not let them lapse.
//!
//! Which ones are next is asked of the store, by an index and a page at a time: idle grants cost neither memory nor time.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::{Failure, GrantId, GrantKey, Service};
use crate::refresh::Inner;
use crate::refresh::admission::Leave;
use crate::refresh::budget::Background;
use crate::store::Unused;

/// Grants that are looked at together.
const PAGE: u32 = 64;
/// Between two looks.
const REST: Duration = Duration::from_mins(1);
/// Grants that failed and are remembered, so that they are left alone for a while.
const MOST_FAILED: usize = 10_000;

/// Begins when three quarters of `keep_alive` are over, so that what has become due together can be spread.
fn since(now: Timestamp, keep_alive: Duration) -> Timestamp {
    now.minus(keep_alive / 4 * 3)
}

/// Runs until the engine is gone.
pub(super) async fn keep_alive(inner: Weak<Inner>) {
    let mut failed = HashMap::new();
    loop {
        let wait = match inner.upgrade() {
            Some(inner) => inner.keep_grants_alive(&mut failed).await,
            None => return,
        };
        tokio::time::sleep(wait).await;
    }
}

impl Inner {
    /// One round over all services; answers how long there is nothing to do.
    async fn keep_grants_alive(&self, failed: &mut HashMap<GrantKey, Duration>) -> Duration {
        let in_use = self.in_use.load_full();
        let Some(keep_alive) = in_use.life.keep_alive else { return REST };
        let now = self.parts.clock.now();
        failed.retain(|_, until| *until > now.boot);
        let mut wait = REST;
        for service in in_use.services.values().filter(|service| service.has_users()) {
            wait = wait.min(self.keep_service_alive(service, keep_alive, failed).await);
        }
        wait
    }

    async fn keep_service_alive(
        &self,
        service: &Arc<Service>,
        keep_alive: Duration,
        failed: &mut HashMap<GrantKey, Duration>,
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
                if failed.contains_key(&key) {
                    continue;
                }
                let now = self.parts.clock.now();
                let may = door.gate.has_room(&now);
                if let Err(wait) = may.and_then(|()| door.budget.take_in_background(&now, Background::Idle)) {
                    return wait;
                }
                if let Err(failure) = self.keep_grant_alive(&GrantId::current(key.clone()), service).await
                    && failed.len() < MOST_FAILED
                {
                    tracing::warn!(grant = %key, ?failure, "a grant that nobody uses was not kept alive");
                    failed.insert(key, self.parts.clock.now().boot + keep_alive / 32);
                }
            }
            if page.len() < PAGE as usize {
                return REST;
            }
            after = page.into_iter().next_back();
        }
    }

    /// Only the exchange: the token that comes is verified if somebody asks for it.
    async fn keep_grant_alive(&self, id: &GrantId, service: &Service) -> Result<(), Failure> {
        let _turn = self.turns.take(id).await;
        self.exchange(id, service, None, Leave::Idle).await.map(drop)
    }
}
