//! What counts once: the states of sign-ins that have come back, and sessions that were signed out of. A sealed cookie is
//! good until its end wherever a copy of it lies, so that it is here that its use is remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::secret::Digest;

/// Some megabytes.
const MOST: usize = 50_000;

/// Names, each until it would count for nothing anyway.
#[derive(Default)]
pub(super) struct Spent(Mutex<HashMap<Digest, Timestamp>>);

impl Spent {
    /// Once.
    ///
    /// # Errors
    /// If it was spent before, or there is no room to remember it.
    pub(super) fn spend(&self, name: Digest, until: Timestamp, now: Timestamp) -> Result<(), NotSpent> {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.contains_key(&name) {
            return Err(NotSpent::Again);
        }
        if !make_room(&mut spent, now) {
            return Err(NotSpent::NoRoom);
        }
        spent.insert(name, until);
        Ok(())
    }

    /// In any case: where there is no room, what would end soonest is forgotten. Whether something was.
    pub(super) fn spend_anyway(&self, name: Digest, until: Timestamp, now: Timestamp) -> bool {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut forgotten = false;
        if !spent.contains_key(&name) && !make_room(&mut spent, now) {
            let soonest = spent.iter().min_by_key(|(_, until)| **until).map(|(name, _)| *name);
            forgotten = soonest.is_some_and(|soonest| spent.remove(&soonest).is_some());
        }
        spent.insert(name, until);
        forgotten
    }

    pub(super) fn is_spent(&self, name: Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&name)
    }
}

/// Why it does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotSpent {
    /// It has counted.
    Again,
    /// It could not be remembered.
    NoRoom,
}

/// Without what counts for nothing any more; whether one more fits then.
fn make_room(spent: &mut HashMap<Digest, Timestamp>, now: Timestamp) -> bool {
    if spent.len() >= MOST {
        spent.retain(|_, until| *until > now);
    }
    spent.len() < MOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_once_and_nothing_counts_when_there_is_no_room() {
        let (spent, now) = (Spent::default(), Timestamp::from_secs(1000));
        let later = Timestamp::from_secs(1600);
        assert_eq!(spent.spend(Digest::of(b"one"), later, now), Ok(()));
        assert_eq!(spent.spend(Digest::of(b"one"), later, now), Err(NotSpent::Again));
        assert!(spent.is_spent(Digest::of(b"one")) && !spent.is_spent(Digest::of(b"two")));
        for number in 1..MOST {
            spent.spend(Digest::of(&number.to_be_bytes()), later, now).unwrap();
        }
        assert_eq!(spent.spend(Digest::of(b"more"), later, now), Err(NotSpent::NoRoom));
        assert_eq!(spent.spend(Digest::of(b"one"), later, now), Err(NotSpent::Again));
        assert_eq!(
            spent.spend(Digest::of(b"more"), Timestamp::from_secs(2000), later),
            Ok(()),
            "the others are over"
        );
    }

    #[test]
    fn what_must_be_remembered_takes_the_place_of_what_ends_soonest() {
        let (spent, now) = (Spent::default(), Timestamp::from_secs(1000));
        let at = |seconds| Timestamp::from_secs(seconds);
        assert!(!spent.spend_anyway(Digest::of(b"soonest"), at(1500), now));
        for number in 1..MOST {
            assert!(!spent.spend_anyway(Digest::of(&number.to_be_bytes()), at(1600), now));
        }
        assert!(spent.spend_anyway(Digest::of(b"more"), at(1700), now), "something had to go");
        assert!(spent.is_spent(Digest::of(b"more")) && !spent.is_spent(Digest::of(b"soonest")));
        assert_eq!(spent.0.lock().unwrap().len(), MOST);
    }
}
