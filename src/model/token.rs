//! How long an access token lives, when it is refreshed, and how stale is acceptable: pure arithmetic.

use std::time::Duration;

use crate::clock::{Moment, Timestamp};

/// What is known of an access token's life when its answer arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// When the request that fetched it was started: its life is counted from there, so that a slow answer never makes
    /// it look younger than it is.
    pub requested_at: Moment,
    /// `expires_in` of the answer.
    pub expires_in: Duration,
    /// How long after `requested_at` it is to be refreshed; drawn once, when the answer arrived.
    pub refresh_after: Duration,
}

/// When a token is refreshed and how much life a vended one has at least, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Share of a token's life after which it is refreshed, in percent.
    pub ahead_percent: u32,
    /// At least this long before its end.
    pub floor: Duration,
    /// At most this long before its end.
    pub ceiling: Duration,
    /// No token with less left is handed out unless asked.
    pub min_ttl: Duration,
    /// A token that nobody asked for in this long is not refreshed ahead.
    pub idle_after: Duration,
    /// A grant is used at least this often, so that it does not lapse; `None`: only when asked for.
    pub keep_alive: Option<Duration>,
}

/// The rungs of the ladder that a request for a token climbs down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Hand it out.
    Fresh,
    /// Hand it out, and refresh it behind the caller's back.
    Due,
    /// Alive, but with less life than this caller was promised: wait for a refresh.
    Short,
    /// Its life is over.
    Gone,
}

impl Issued {
    /// The life left at `now`: by the boot clock since the request, never more than the wall clock says. After a
    /// reboot, or with a boot clock that went backwards, the wall clock alone decides.
    #[must_use]
    pub fn remaining(&self, now: &Moment) -> Duration {
        let by_wall = now.wall.until(self.expires_at());
        match now.since(&self.requested_at) {
            Some(age) => self.expires_in.saturating_sub(age).min(by_wall),
            // With no age to go by, a wall clock before the request was set back by an unknown time: nothing is left.
            None if now.wall < self.requested_at.wall => Duration::ZERO,
            None => by_wall.min(self.expires_in),
        }
    }

    /// When its life ends, by the wall clock.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.requested_at.wall.plus(self.expires_in)
    }

    /// Whether it is to be refreshed, or over.
    #[must_use]
    pub fn is_due(&self, now: &Moment) -> bool {
        self.remaining(now) <= self.expires_in.saturating_sub(self.refresh_after)
    }

    /// Which rung it stands on for a caller who wants `min_ttl` of life.
    #[must_use]
    pub fn freshness(&self, now: &Moment, min_ttl: Duration) -> Freshness {
        let remaining = self.remaining(now);
        if remaining.is_zero() {
            Freshness::Gone
        } else if remaining < min_ttl {
            Freshness::Short
        } else if self.is_due(now) {
            Freshness::Due
        } else {
            Freshness::Fresh
        }
    }
}

impl Life {
    /// When to refresh a token that lives for `life`, counted from its request. `spread` (0 to 1000) is drawn once per
    /// token and moves the moment by up to a fifth of what is left then (75 % of a life becomes 75-80 %), so that tokens
    /// fetched together part ways.
    ///
    /// Floor and `min_ttl` give way to short lives: neither may take more than a quarter of it, else a token that lives
    /// for a minute would be refreshed all the time. And the moment lies before the one when callers would have to wait.
    #[must_use]
    pub fn refresh_after(&self, life: Duration, spread: u32) -> Duration {
        let share = life * (100 - self.ahead_percent.min(100)) / 100;
        let before_end = share.max(self.floor.min(life / 4)).min(self.ceiling);
        let wanted = life.saturating_sub(before_end) + before_end / 5 * spread.min(1000) / 1000;
        let latest = life.saturating_sub(self.promised(life)).saturating_sub(life / 100);
        wanted.min(latest)
    }

    /// The life that a token handed out has at least, unless its caller asks otherwise.
    #[must_use]
    pub fn promised(&self, life: Duration) -> Duration {
        self.min_ttl.min(life / 4)
    }

    /// The least life that satisfies a caller who asked for `asked`. More than three quarters of what a new token has
    /// can't be promised: it would turn each request into a refresh.
    #[must_use]
    pub fn wanted(&self, life: Duration, asked: Option<Duration>) -> Duration {
        asked.map_or_else(|| self.promised(life), |asked| asked.min(life * 3 / 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock};

    const LIFE: Life = Life {
        ahead_percent: 75,
        floor: Duration::from_secs(30),
        ceiling: Duration::from_mins(20),
        min_ttl: Duration::from_mins(1),
        idle_after: Duration::from_hours(2),
        keep_alive: None,
    };

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_moment_of_refresh_follows_share_floor_and_ceiling() {
        for (life, spread, expected) in [
            (secs(3600), 0, secs(2700)),
            (secs(3600), 1000, secs(2880)),
            (secs(86_400), 0, secs(86_400 - 1200)),
            (secs(86_400), 1000, secs(86_400 - 960)),
            (secs(20), 0, Duration::from_millis(14_800)),
            (secs(20), 1000, Duration::from_millis(14_800)),
            (secs(300), 0, secs(225)),
            (secs(0), 500, secs(0)),
        ] {
            assert_eq!(LIFE.refresh_after(life, spread), expected, "{life:?} {spread}");
        }
        let late = Life { ahead_percent: 99, ..LIFE };
        assert_eq!(late.refresh_after(secs(200), 0), secs(148), "before callers would have to wait");
        let _no_overflow = LIFE.refresh_after(Duration::from_secs(u64::from(u32::MAX)), 1000);
    }

    #[test]
    fn a_token_is_due_before_anybody_has_to_wait() {
        for life in [4, 20, 60, 300, 3600, 86_400] {
            for spread in [0, 500, 1000] {
                let left = secs(life).saturating_sub(LIFE.refresh_after(secs(life), spread));
                assert!(left > LIFE.promised(secs(life)), "{life} {spread}");
            }
        }
    }

    #[test]
    fn no_more_is_promised_than_a_new_token_can_keep() {
        assert_eq!(LIFE.wanted(secs(20), None), secs(5));
        assert_eq!(LIFE.wanted(secs(3600), None), secs(60));
        assert_eq!(LIFE.wanted(secs(3600), Some(secs(0))), secs(0));
        assert_eq!(LIFE.wanted(secs(3600), Some(secs(1800))), secs(1800));
        assert_eq!(LIFE.wanted(secs(3600), Some(secs(999_999))), secs(2700));
    }

    #[test]
    fn each_rung_of_the_ladder() {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let token = Issued { requested_at: clock.now(), expires_in: secs(100), refresh_after: secs(75) };
        let mut rungs = Vec::new();
        for _ in 0..10 {
            rungs.push(token.freshness(&clock.now(), secs(10)));
            clock.advance(secs(12));
        }
        use Freshness::{Due, Fresh, Gone, Short};
        assert_eq!(rungs, [Fresh, Fresh, Fresh, Fresh, Fresh, Fresh, Fresh, Due, Short, Gone]);
    }

    #[test]
    fn no_clock_makes_an_expired_token_look_alive() {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let token = Issued { requested_at: clock.now(), expires_in: secs(100), refresh_after: secs(75) };
        clock.advance(secs(200));
        clock.set_wall(Timestamp::from_secs(1_700_000_000));
        assert!(token.remaining(&clock.now()).is_zero(), "wall clock set back");
        clock.set_wall(Timestamp::from_secs(1_900_000_000));
        clock.reboot();
        assert!(token.remaining(&clock.now()).is_zero(), "after a reboot");
        clock.set_wall(Timestamp::from_secs(1_700_000_000));
        assert!(token.remaining(&clock.now()).is_zero(), "after a reboot with the wall clock set back");
    }

    #[test]
    fn a_wall_clock_set_forward_ends_a_token_early_rather_than_late() {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let token = Issued { requested_at: clock.now(), expires_in: secs(100), refresh_after: secs(75) };
        clock.set_wall(Timestamp::from_secs(1_800_086_400));
        assert!(token.remaining(&clock.now()).is_zero());
    }
}
