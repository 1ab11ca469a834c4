//! Okta takes four token requests per second for one user, so roles of one grant that queue up must not come faster.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::clock::Moment;
use crate::model::UserName;

/// One below Okta's limit, for its clock is not ours.
const MOST: usize = 3;
const WINDOW: Duration = Duration::from_millis(1100);

/// When each user's last requests were made, at one server.
pub(super) struct Pace(Cache<UserName, Arc<Mutex<VecDeque<Duration>>>>);

impl Default for Pace {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_idle(Duration::from_secs(5)).build())
    }
}

impl Pace {
    /// Takes the next place for `user` and says how long to wait for it.
    pub(super) fn wait(&self, user: &UserName, now: &Moment) -> Duration {
        let last = self.0.get_with_by_ref(user, Arc::default);
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = if last.len() < MOST { None } else { last.pop_front() };
        let at = earliest.map_or(now.boot, |earliest| now.boot.max(earliest + WINDOW));
        last.push_back(at);
        at.saturating_sub(now.boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock, Timestamp};

    #[test]
    fn no_second_sees_more_than_three() {
        let (clock, pace) = (ManualClock::new(Timestamp::from_secs(1_800_000_000)), Pace::default());
        let alice = UserName::parse("alice").unwrap();
        let waits: Vec<_> = (0..7).map(|_| pace.wait(&alice, &clock.now()).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 1100, 1100, 1100, 2200]);
        assert!(
            pace.wait(&UserName::parse("bob").unwrap(), &clock.now()).is_zero(),
            "each user for themselves"
        );
    }
}
