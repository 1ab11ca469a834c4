//! Our share of one server's rate limit: so many requests in any minute, whoever they are for.
//!
//! Callers who wait take the next place there is, in the order in which they came. Refreshing ahead takes what they leave:
//! at most four fifths of the budget, evenly spread, so that a backlog never becomes a storm; idle grants take at most a
//! quarter. Requests that can't wait are counted, and others make room for them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::authorization_server::RateLimit;
use crate::clock::Moment;

/// Okta's windows; and since they are not aligned to anything, any minute must be within the limit.
const WINDOW: Duration = Duration::from_mins(1);

/// For a place in it. Who would wait longer is told so, and holds nobody up.
const LONGEST_WAIT: Duration = WINDOW;

/// Consents take so much of the budget at most, a fifth; anybody may begin one. And where that would be next to nothing, so
/// many.
const CONSENTS: usize = 5;
const FEWEST_CONSENTS: usize = 30;

/// What nobody waits for, and its share of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Background {
    /// Of grants in use: refreshing ahead, asking whether they live.
    InUse,
    /// Of the others: keeping them alive.
    Idle,
}

impl Background {
    /// In percent of the budget.
    fn share(self) -> u32 {
        match self {
            Self::InUse => 80,
            Self::Idle => 25,
        }
    }
}

/// The budget.
pub(super) struct Budget {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    per_minute: u32,
    /// When requests of the last minute were made, and when those will be that have a place; in order.
    made: VecDeque<Duration>,
    /// When consents of the last minute were redeemed.
    consents: VecDeque<Duration>,
    /// When the next one of each kind may be made in the background.
    next: [Duration; 2],
    /// What the server has told: others may use the same limit.
    limit: Option<u32>,
    /// Until then nothing is left for what nobody waits for, and for anybody.
    background_paused: Duration,
    paused: Duration,
}

impl Budget {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { state: Mutex::new(State { per_minute: per_minute.max(1), ..State::default() }) }
    }

    /// Another number of requests in a minute; those that were made count on.
    pub(super) fn set(&self, per_minute: u32) {
        self.lock().per_minute = per_minute.max(1);
    }

    /// Requests in a minute, by the configuration.
    pub(super) fn per_minute(&self) -> u32 {
        self.lock().per_minute
    }

    /// Takes the next place for a caller who waits, and says how long to wait for it; or takes none, if that is longer than
    /// anybody should wait.
    pub(super) fn take(&self, now: &Moment) -> Result<Duration, Duration> {
        let mut state = self.lock();
        state.forget(now.boot);
        let most = state.most();
        let free = state.made.len().checked_sub(most).and_then(|index| state.made.get(index));
        let at = free.map_or(now.boot, |earlier| now.boot.max(*earlier + WINDOW)).max(state.paused);
        let wait = at.saturating_sub(now.boot);
        if wait > LONGEST_WAIT {
            return Err(wait);
        }
        state.put(at);
        Ok(wait)
    }

    /// Takes a place now for what nobody waits for, or says when it is worth asking again.
    pub(super) fn take_in_background(&self, now: &Moment, what: Background) -> Result<(), Duration> {
        let mut state = self.lock();
        state.forget(now.boot);
        let share = (state.most() * what.share() as usize / 100).max(1);
        let gap = WINDOW / u32::try_from(share).unwrap_or(u32::MAX);
        let paused = state.paused.max(state.background_paused).saturating_sub(now.boot);
        if !paused.is_zero() {
            return Err(paused);
        }
        // Places that callers have taken for later count too: they go first.
        let most = (state.most() * Background::InUse.share() as usize / 100).max(1);
        if let Some(index) = state.made.len().checked_sub(most) {
            let earlier = state.made.get(index).copied().unwrap_or(now.boot);
            return Err((earlier + WINDOW).saturating_sub(now.boot).max(gap));
        }
        let next = match what {
            Background::InUse => &mut state.next[0],
            Background::Idle => &mut state.next[1],
        };
        let wait = next.saturating_sub(now.boot);
        if !wait.is_zero() {
            return Err(wait);
        }
        // What was missed while nothing ran is made up for, but a second's worth at most.
        *next = (*next).max(now.boot.saturating_sub(Duration::from_secs(1))) + gap;
        state.put(now.boot);
        Ok(())
    }

    /// A request that can't wait, or that is not ours to time.
    pub(super) fn count(&self, now: &Moment) {
        let mut state = self.lock();
        state.forget(now.boot);
        state.put(now.boot);
    }

    /// Takes a place for a consent, if there are not too many in this minute.
    pub(super) fn take_consent(&self, now: &Moment) -> bool {
        let mut state = self.lock();
        state.forget(now.boot);
        let most = (state.most() / CONSENTS).max(FEWEST_CONSENTS);
        let since = now.boot.saturating_sub(WINDOW);
        state.consents.retain(|at| *at > since);
        if state.consents.len() >= most || state.paused > now.boot {
            return false;
        }
        state.consents.push_back(now.boot);
        state.put(now.boot);
        true
    }

    /// What the server says, who knows of requests by others.
    pub(super) fn learn(&self, now: &Moment, seen: &RateLimit) -> Option<u32> {
        let mut state = self.lock();
        let until = seen.resets_at.min(now.boot + WINDOW * 2);
        if seen.remaining == 0 {
            state.paused = until;
        }
        if seen.remaining <= seen.limit / 10 {
            state.background_paused = until;
        }
        let smaller = (seen.limit < state.per_minute).then_some(seen.limit);
        let news = smaller.filter(|_| state.limit != smaller);
        state.limit = smaller;
        news
    }

    /// How much of the budget the last minute took: 1 is all of it.
    pub(super) fn used(&self, now: &Moment) -> f64 {
        let mut state = self.lock();
        state.forget(now.boot);
        let made = state.made.partition_point(|at| *at <= now.boot);
        let made = u32::try_from(made).unwrap_or(u32::MAX);
        f64::from(made) / f64::from(state.per_minute)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn most(&self) -> usize {
        self.limit.map_or(self.per_minute, |limit| limit.min(self.per_minute)).max(1) as usize
    }

    fn forget(&mut self, now: Duration) {
        while self.made.front().is_some_and(|at| *at + WINDOW <= now) {
            self.made.pop_front();
        }
    }

    fn put(&mut self, at: Duration) {
        // Nearly always the last one; places taken for later are few.
        let index = self.made.iter().rposition(|earlier| *earlier <= at).map_or(0, |index| index + 1);
        self.made.insert(index, at);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock as _, ManualClock, Timestamp};

    fn clock() -> ManualClock {
        ManualClock::new(Timestamp::from_secs(1_800_000_000))
    }

    #[test]
    fn callers_have_the_whole_minute_at_once_and_then_wait_in_order() {
        let (clock, budget) = (clock(), Budget::new(3));
        let waits: Vec<_> = (0..5).map(|_| budget.take(&clock.now()).unwrap().as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 60, 60]);
        clock.advance(Duration::from_secs(59));
        assert_eq!(budget.take(&clock.now()).unwrap().as_secs(), 1);
        assert_eq!(budget.take(&clock.now()), Err(Duration::from_secs(61)), "that is too long");
    }

    #[test]
    fn what_nobody_waits_for_is_spread_and_leaves_room_for_callers() {
        let (clock, budget) = (clock(), Budget::new(100));
        let mut taken = 0;
        for _ in 0..600 {
            taken += u32::from(budget.take_in_background(&clock.now(), Background::InUse).is_ok());
            clock.advance(Duration::from_millis(100));
        }
        assert!((78..=82).contains(&taken), "{taken}");
        for _ in 0..19 {
            assert_eq!(budget.take(&clock.now()), Ok(Duration::ZERO), "there is room for callers");
        }
        let wait = budget.take_in_background(&clock.now(), Background::InUse).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= WINDOW);
    }

    #[test]
    fn callers_who_wait_go_before_what_nobody_waits_for() {
        let (clock, budget) = (clock(), Budget::new(10));
        for _ in 0..20 {
            budget.take(&clock.now()).unwrap();
        }
        clock.advance(Duration::from_secs(61));
        assert!(budget.take_in_background(&clock.now(), Background::InUse).is_err());
    }

    #[test]
    fn a_minute_that_others_have_used_up_is_waited_for() {
        let (clock, budget) = (clock(), Budget::new(100));
        let seen = |remaining| RateLimit {
            limit: 1000,
            remaining,
            resets_at: clock.now().boot + Duration::from_secs(20),
        };
        assert_eq!(budget.learn(&clock.now(), &seen(50)), None);
        assert_eq!(budget.take_in_background(&clock.now(), Background::InUse), Err(Duration::from_secs(20)));
        assert_eq!(budget.take(&clock.now()), Ok(Duration::ZERO));
        budget.learn(&clock.now(), &seen(0));
        assert_eq!(budget.take(&clock.now()), Ok(Duration::from_secs(20)));
    }

    #[test]
    fn a_limit_below_the_budget_is_kept_to_and_told_once() {
        let (clock, budget) = (clock(), Budget::new(100));
        let seen = RateLimit { limit: 2, remaining: 2, resets_at: clock.now().boot };
        assert_eq!(budget.learn(&clock.now(), &seen), Some(2));
        assert_eq!(budget.learn(&clock.now(), &seen), None);
        let waits: Vec<_> = (0..3).map(|_| budget.take(&clock.now()).unwrap().as_secs()).collect();
        assert_eq!(waits, [0, 0, 60]);
    }

    proptest! {
        #[test]
        fn no_minute_is_over_budget(steps in prop::collection::vec((0_u64..8_000, 0_u8..3), 1..400), per_minute in 1_u32..40) {
            let (clock, budget) = (clock(), Budget::new(per_minute));
            let mut made = Vec::new();
            for (pause, kind) in steps {
                clock.advance(Duration::from_millis(pause));
                let now = clock.now();
                match kind {
                    0 => made.extend(budget.take(&now).ok().map(|wait| now.boot + wait)),
                    kind => {
                        let what = if kind == 1 { Background::InUse } else { Background::Idle };
                        if budget.take_in_background(&now, what).is_ok() {
                            made.push(now.boot);
                        }
                    }
                }
            }
            made.sort_unstable();
            for (index, first) in made.iter().enumerate() {
                let within = made.iter().skip(index).take_while(|at| **at < *first + WINDOW).count();
                prop_assert!(within <= per_minute as usize, "{within} in a minute");
            }
        }
    }
}
