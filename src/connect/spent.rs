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
    /// Whether this is the first time. Where there is no room to remember it, it is not.
    pub(super) fn spend(&self, name: Digest, until: Timestamp, now: Timestamp) -> bool {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.len() >= MOST {
            spent.retain(|_, until| *until > now);
        }
        if spent.len() >= MOST || spent.contains_key(&name) {
            return false;
        }
        spent.insert(name, until);
        true
    }

    pub(super) fn is_spent(&self, name: Digest) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_once_and_nothing_counts_when_there_is_no_room() {
        let (spent, now) = (Spent::default(), Timestamp::from_secs(1000));
        let later = Timestamp::from_secs(1600);
        assert!(spent.spend(Digest::of(b"one"), later, now));
        assert!(!spent.spend(Digest::of(b"one"), later, now));
        assert!(spent.is_spent(Digest::of(b"one")) && !spent.is_spent(Digest::of(b"two")));
        for number in 0..MOST {
            spent.spend(Digest::of(&number.to_be_bytes()), later, now);
        }
        assert!(!spent.spend(Digest::of(b"more"), later, now));
        assert!(spent.spend(Digest::of(b"more"), Timestamp::from_secs(2000), later), "the others are over");
    }
}
