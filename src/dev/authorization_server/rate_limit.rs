//! Okta's rate limits: per minute and endpoint for the organisation, per second for each user.
//!
//! A window of a minute begins with its first request, not with the clock's minute.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::clock::{Moment, Timestamp};

use super::family::age;
use super::reply::Reply;
use super::route::Endpoint;

const WINDOW: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);

/// Where a caller stands, for the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) limit: u32,
    pub(super) remaining: u32,
    pub(super) reset: Timestamp,
}

impl Allowance {
    /// No `Retry-After`: Okta gives none.
    pub(super) fn announce(&self, reply: Reply) -> Reply {
        // Rounded up, so that whoever waits until then never comes too early.
        let reset = self.reset.millis().saturating_add(999).div_euclid(1000);
        reply
            .with("x-rate-limit-limit", self.limit.to_string())
            .with("x-rate-limit-remaining", self.remaining.to_string())
            .with("x-rate-limit-reset", reset.to_string())
    }
}

#[derive(Default)]
pub(super) struct RateLimits {
    windows: BTreeMap<Endpoint, Window>,
    /// When each user's last token requests were let through; at most a second's worth.
    users: HashMap<String, VecDeque<Moment>>,
}

struct Window {
    began: Moment,
    used: u32,
}

impl RateLimits {
    /// Takes a place in the endpoint's minute. `Err` if there is none left: then nothing was taken.
    pub(super) fn enter(
        &mut self,
        endpoint: Endpoint,
        limit: u32,
        now: &Moment,
    ) -> Result<Allowance, Allowance> {
        let window = self.windows.entry(endpoint).or_insert(Window { began: *now, used: 0 });
        if age(now, &window.began) >= WINDOW {
            *window = Window { began: *now, used: 0 };
        }
        let reset = now.wall.plus(WINDOW.saturating_sub(age(now, &window.began)));
        if window.used >= limit {
            return Err(Allowance { limit, remaining: 0, reset });
        }
        window.used += 1;
        Ok(Allowance { limit, remaining: limit - window.used, reset })
    }

    /// Takes one of the user's places in the last second.
    pub(super) fn enter_user(&mut self, user: &str, limit: u32, now: &Moment) -> Result<(), Allowance> {
        let recent = self.users.entry(user.to_owned()).or_default();
        while recent.front().is_some_and(|then| age(now, then) >= SECOND) {
            recent.pop_front();
        }
        if recent.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
            recent.push_back(*now);
            return Ok(());
        }
        let wait = recent.front().map_or(SECOND, |oldest| SECOND.saturating_sub(age(now, oldest)));
        Err(Allowance { limit, remaining: 0, reset: now.wall.plus(wait) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock};

    #[test]
    fn a_minute_begins_with_its_first_request() {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_030));
        let mut limits = RateLimits::default();
        let first = limits.enter(Endpoint::Token, 2, &clock.now()).unwrap();
        assert_eq!((first.remaining, first.reset.secs()), (1, 1_800_000_090));
        clock.advance(Duration::from_secs(59));
        limits.enter(Endpoint::Token, 2, &clock.now()).unwrap();
        let refused = limits.enter(Endpoint::Token, 2, &clock.now()).unwrap_err();
        assert_eq!((refused.remaining, refused.reset.secs()), (0, 1_800_000_090));
        limits.enter(Endpoint::Revoke, 2, &clock.now()).unwrap();
        clock.advance(Duration::from_secs(1));
        limits.enter(Endpoint::Token, 2, &clock.now()).unwrap();
    }

    #[test]
    fn a_user_has_so_many_requests_in_any_second() {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let mut limits = RateLimits::default();
        limits.enter_user("alice", 2, &clock.now()).unwrap();
        clock.advance(Duration::from_millis(600));
        limits.enter_user("alice", 2, &clock.now()).unwrap();
        limits.enter_user("alice", 2, &clock.now()).unwrap_err();
        limits.enter_user("bob", 2, &clock.now()).unwrap();
        clock.advance(Duration::from_millis(400));
        limits.enter_user("alice", 2, &clock.now()).unwrap();
        limits.enter_user("alice", 2, &clock.now()).unwrap_err();
    }
}
