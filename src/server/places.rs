//! Places of which one uid may take so many at the same time; each is free again when it is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

/// Who has how many; nobody is remembered without one.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<HashMap<u32, Taken>>>);

#[derive(Default)]
struct Taken {
    count: usize,
    queue: Arc<AsyncMutex<()>>,
}

/// One of them.
pub struct Place {
    uid: u32,
    places: Places,
    queue: Arc<AsyncMutex<()>>,
}

impl Places {
    /// A place for this uid, if it has fewer than `most`.
    #[must_use]
    pub fn take(&self, uid: u32, most: usize) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&uid).map_or(0, |own| own.count);
        if own >= most {
            return None;
        }
        let own = taken.entry(uid).or_default();
        own.count += 1;
        Some(Place { uid, places: self.clone(), queue: Arc::clone(&own.queue) })
    }
}

impl Place {
    /// The turn among those of this uid who have a place: for what is done for one after the other, so that others need
    /// not wait for all of them.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.queue.lock().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.uid) {
            own.count -= 1;
            if own.count == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_uid_has_its_own_places_and_nobody_is_remembered_without_one() {
        let places = Places::default();
        let (first, second) = (places.take(1, 2), places.take(1, 2));
        assert!(first.is_some() && second.is_some() && places.take(1, 2).is_none());
        assert!(places.take(2, 2).is_some(), "another's are another's");
        assert!(places.take(1, 3).is_some(), "the bound may change");
        drop(first);
        assert!(places.take(1, 2).is_some());
        drop(second);
        assert!(places.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_after_the_other_is_among_those_of_one_uid() {
        let places = Places::default();
        let [first, second, other] = [1, 1, 2].map(|uid| places.take(uid, 2).unwrap());
        let turn = first.turn().await;
        let mut waiting = Box::pin(second.turn());
        tokio::select! {
            biased;
            _ = waiting.as_mut() => panic!("out of turn"),
            _ = other.turn() => {}
        }
        drop(turn);
        drop(waiting.await);
    }
}
