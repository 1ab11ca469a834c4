//! Remembers for a while that a token can't be had, so that every request for it does not become one to the server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::clock::Moment;
use crate::model::{Failure, TokenKey};
use crate::refresh::gate::back_off;

/// First and longest wait between two tries.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// What failed lately, by token.
pub(super) struct Holdoffs(Cache<TokenKey, Arc<Mutex<Held>>>);

struct Held {
    failure: Failure,
    until: Duration,
    streak: u32,
}

impl Default for Holdoffs {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_idle(RETRY.1 * 2).build())
    }
}

impl Holdoffs {
    /// The failure that still stands.
    pub(super) fn get(&self, key: &TokenKey, now: &Moment) -> Option<Failure> {
        let held = self.0.get(key)?;
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = held.until.checked_sub(now.boot).filter(|left| !left.is_zero())?;
        Some(held.failure.clone().with_wait(left))
    }

    /// For how long the failure still stands.
    pub(super) fn left(&self, key: &TokenKey, now: &Moment) -> Option<Duration> {
        let held = self.0.get(key)?;
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        held.until.checked_sub(now.boot)
    }

    /// It failed again: for longer than last time, or for `wait` if that is known. `jitter` is 0 to 1000.
    pub(super) fn hold(
        &self,
        key: &TokenKey,
        failure: &Failure,
        wait: Option<Duration>,
        now: &Moment,
        jitter: u64,
    ) {
        let fresh =
            || Arc::new(Mutex::new(Held { failure: failure.clone(), until: Duration::ZERO, streak: 0 }));
        let held = self.0.get_with_by_ref(key, fresh);
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = wait.unwrap_or_else(|| back_off(held.streak, RETRY, 750 + jitter / 4));
        *held =
            Held { failure: failure.clone(), until: now.boot + wait, streak: held.streak.saturating_add(1) };
    }

    /// Everything is to be tried anew.
    pub(super) fn clear_all(&self) {
        self.0.invalidate_all();
    }

    /// It works.
    pub(super) fn clear(&self, key: &TokenKey) {
        self.0.invalidate(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock, Timestamp};
    use crate::model::{GrantKey, ServiceName, UserName};

    #[test]
    fn a_failure_stands_for_a_while_and_longer_each_time() {
        let (clock, holdoffs) = (ManualClock::new(Timestamp::from_secs(1_800_000_000)), Holdoffs::default());
        let grant =
            GrantKey { service: ServiceName::parse("s").unwrap(), user: UserName::parse("alice").unwrap() };
        let key = TokenKey { grant, role: None };
        let failure = Failure::TokenInvalid { hint: String::new() };
        for seconds in [1, 2, 4] {
            holdoffs.hold(&key, &failure, None, &clock.now(), 1000);
            assert_eq!(holdoffs.get(&key, &clock.now()), Some(failure.clone()));
            clock.advance(Duration::from_secs(seconds));
            assert_eq!(holdoffs.get(&key, &clock.now()), None);
        }
        holdoffs.clear(&key);
        holdoffs.hold(&key, &failure, None, &clock.now(), 1000);
        clock.advance(Duration::from_secs(1));
        assert_eq!(holdoffs.get(&key, &clock.now()), None);
    }
}
