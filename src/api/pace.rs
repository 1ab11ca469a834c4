//! How often one uid may ask: a bucket for each that holds one second's worth and fills evenly. Refusing costs us too, so
//! how many of a uid's refusals are answered, and how many are logged, have buckets of their own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a bucket holds is measured in the time that it takes to fill.
const FULL: Duration = Duration::from_secs(1);
/// Refusals of one uid that are answered at once, a second, however few requests it may make.
const FEWEST_TOLD: u32 = 100;
/// Lines about one uid's refusals, a second.
const LINES: u32 = 20;
/// Below this many nobody is looked for who can be forgotten.
const FEW: usize = 64;

/// The buckets of all uids. One that is full again says no more than none, so that is when a uid is forgotten: whoever
/// comes back finds what it left.
#[derive(Default)]
pub(super) struct Paces(Mutex<Uids>);

#[derive(Default)]
struct Uids {
    by_uid: HashMap<u32, Pace>,
    /// How many there may be before those that can be forgotten are looked for.
    bound: usize,
}

/// Each is the moment at which its bucket is full again.
#[derive(Default)]
struct Pace {
    asked: Duration,
    told: Duration,
    said: Duration,
    /// Refusals since the last line that got none.
    unsaid: u64,
}

/// Whether a request is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is.
    Yes,
    /// It is refused.
    TooOften,
    /// It is refused, and so many were before it that its answer may wait.
    FarTooOften,
}

impl Paces {
    /// Counts a connection, which is one with its first request.
    pub(super) fn admit(&self, uid: u32, per_second: u32, now: Duration) -> bool {
        self.of(uid, now, |pace| pour(&mut pace.asked, per_second, now))
    }

    /// Counts a request.
    pub(super) fn ask(&self, uid: u32, per_second: u32, now: Duration) -> Heard {
        self.of(uid, now, |pace| {
            if pour(&mut pace.asked, per_second, now) {
                Heard::Yes
            } else if pour(&mut pace.told, per_second.max(FEWEST_TOLD), now) {
                Heard::TooOften
            } else {
                Heard::FarTooOften
            }
        })
    }

    /// Whether one more refusal is worth an answer.
    pub(super) fn tell(&self, uid: u32, per_second: u32, now: Duration) -> bool {
        self.of(uid, now, |pace| pour(&mut pace.told, per_second.max(FEWEST_TOLD), now))
    }

    /// Whether one more refusal is worth a line in the log: then how many before it were not.
    pub(super) fn say(&self, uid: u32, now: Duration) -> Option<u64> {
        self.of(uid, now, |pace| {
            if pour(&mut pace.said, LINES, now) {
                Some(std::mem::take(&mut pace.unsaid))
            } else {
                pace.unsaid += 1;
                None
            }
        })
    }

    fn of<T>(&self, uid: u32, now: Duration, look: impl FnOnce(&mut Pace) -> T) -> T {
        let mut uids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uids.by_uid.len() > uids.bound.max(FEW) {
            uids.by_uid.retain(|_, pace| pace.asked.max(pace.told).max(pace.said) > now);
            uids.bound = uids.by_uid.len() * 2;
        }
        look(uids.by_uid.entry(uid).or_default())
    }
}

/// Takes one from a bucket, if there is one in it.
fn pour(full_again: &mut Duration, per_second: u32, now: Duration) -> bool {
    let after = (*full_again).max(now) + FULL / per_second.max(1);
    let there = after <= now + FULL;
    if there {
        *full_again = after;
    }
    there
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn asked(paces: &Paces, uid: u32, times: u32, per_second: u32, now: Duration) -> usize {
        (0..times).filter(|_| paces.ask(uid, per_second, now) == Heard::Yes).count()
    }

    #[test]
    fn a_second_holds_so_many_and_fills_evenly_whoever_else_asks() {
        let paces = Paces::default();
        assert_eq!(asked(&paces, 1, 25, 10, START), 10);
        assert_eq!(asked(&paces, 2, 25, 10, START), 10, "another's bucket is another's");
        assert_eq!(asked(&paces, 1, 5, 10, START + Duration::from_millis(99)), 0);
        assert_eq!(asked(&paces, 1, 5, 10, START + Duration::from_millis(300)), 3);
        assert_eq!(asked(&paces, 1, 25, 10, START + Duration::from_mins(5)), 10, "and no more than it holds");
        assert_eq!(asked(&paces, 3, 5, 1, START), 1);
        assert_eq!(asked(&paces, 4, 1_000_001, 1_000_000, START), 1_000_000);
    }

    #[test]
    fn another_bound_holds_at_once_and_empties_no_bucket_and_fills_none() {
        let paces = Paces::default();
        assert_eq!(asked(&paces, 1, 10, 10, START), 10);
        assert_eq!(asked(&paces, 1, 100, 100, START), 0);
        assert_eq!(asked(&paces, 1, 100, 100, START + Duration::from_millis(100)), 10);
    }

    #[test]
    fn so_many_refusals_are_answered_at_once_and_no_more() {
        let paces = Paces::default();
        let mut heard = (0..500).map(|_| paces.ask(1, 5, START));
        assert!(heard.by_ref().take(5).all(|heard| heard == Heard::Yes));
        assert!(heard.by_ref().take(100).all(|heard| heard == Heard::TooOften));
        assert!(heard.all(|heard| heard == Heard::FarTooOften));
        assert!(!paces.tell(1, 5, START) && paces.tell(1, 5, START + FULL));
        assert!(paces.admit(2, 1, START) && !paces.admit(2, 1, START));
        assert!((0..100).all(|_| paces.tell(2, 1, START)), "who has come too often was not told yet");
    }

    #[test]
    fn lines_are_bounded_and_the_next_one_counts_those_that_were_not_written() {
        let paces = Paces::default();
        let said: Vec<_> = (0..30).map(|_| paces.say(1, START)).collect();
        assert_eq!(said.iter().flatten().count(), 20);
        assert_eq!(paces.say(1, START + FULL), Some(10));
        assert_eq!(paces.say(1, START + FULL), Some(0));
    }

    #[test]
    fn who_left_with_an_empty_bucket_comes_back_to_it_and_who_has_a_full_one_is_forgotten() {
        let paces = Paces::default();
        assert_eq!(asked(&paces, 1, 2, 1, START), 1);
        for uid in 100..10_000 {
            paces.ask(uid, 1000, START + Duration::from_millis(u64::from(uid) / 20));
        }
        assert_eq!(paces.ask(1, 1, START + Duration::from_millis(900)), Heard::TooOften);
        let remembered = paces.0.lock().unwrap().by_uid.len();
        assert!(remembered < 300, "{remembered}");
    }
}
