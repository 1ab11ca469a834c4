//! One running piece of work per key, owned by the daemon: whoever wants its result joins it, and whoever leaves changes
//! nothing.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::tasks::Tasks;

/// What is running at most; each is a task of a few kilobytes.
const MOST_FLIGHTS: usize = 10_000;

type Running<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// The work in progress.
pub struct Flights<K, V> {
    running: Running<K, V>,
    tasks: Tasks,
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crashed {
    /// Too much is running; nothing was started.
    Full,
    /// The work panicked.
    Panicked,
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Nothing running; work will be spawned on `tasks`.
    #[must_use]
    pub fn new(tasks: Tasks) -> Self {
        Self { running: Arc::default(), tasks }
    }

    /// Joins the work that is running for `key`, or starts `work`. It runs whether or not its landing is awaited.
    pub fn join<F>(&self, key: &K, work: impl FnOnce() -> F) -> Landing<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        Landing(self.enter(key, work))
    }

    fn enter<F>(&self, key: &K, work: impl FnOnce() -> F) -> Result<watch::Receiver<Option<V>>, Crashed>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landing) = running.get(key) {
            return Ok(landing.clone());
        }
        if running.len() >= MOST_FLIGHTS {
            return Err(Crashed::Full);
        }
        let (land, landing) = watch::channel(None);
        running.insert(key.clone(), landing.clone());
        let departure = Departure { running: Arc::clone(&self.running), key: key.clone() };
        let work = work();
        self.tasks.spawn(async move {
            let value = work.await;
            // Gone from the map first: whoever comes now must see the world after this work.
            drop(departure);
            land.send_replace(Some(value));
        });
        Ok(landing)
    }
}

/// Work that somebody waits for, or not.
pub struct Landing<V>(Result<watch::Receiver<Option<V>>, Crashed>);

impl<V: Clone> Landing<V> {
    /// Waits for the result.
    ///
    /// # Errors
    /// If there will be none.
    pub async fn result(self) -> Result<V, Crashed> {
        match self.0?.wait_for(Option::is_some).await {
            Ok(value) => value.clone().ok_or(Crashed::Panicked),
            Err(_sender_dropped) => Err(Crashed::Panicked),
        }
    }
}

/// Takes the entry out however the work ends; without it, a panic would leave the key stuck.
struct Departure<K: Eq + Hash, V> {
    running: Running<K, V>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Departure<K, V> {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn flights() -> (Flights<&'static str, usize>, Arc<AtomicUsize>) {
        (Flights::new(Tasks::new()), Arc::default())
    }

    fn count(started: &Arc<AtomicUsize>) -> impl Future<Output = usize> + Send + 'static {
        let started = Arc::clone(started);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            started.fetch_add(1, Ordering::Relaxed) + 1
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_share_one_run_and_the_next_one_starts_anew() {
        let (flights, started) = flights();
        let callers: Vec<_> = (0..100).map(|_| flights.join(&"a", || count(&started))).collect();
        for caller in callers {
            assert_eq!(caller.result().await, Ok(1));
        }
        assert_eq!(flights.join(&"a", || count(&started)).result().await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_leaves_changes_nothing() {
        let (flights, started) = flights();
        let first = flights.join(&"a", || count(&started));
        let second = flights.join(&"a", || count(&started));
        drop(first);
        assert_eq!(second.result().await, Ok(1));
        drop(flights.join(&"b", || count(&started)));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(started.load(Ordering::Relaxed), 2, "work that nobody waits for is finished too");
    }

    #[tokio::test]
    async fn a_panic_is_told_to_those_who_wait_and_frees_the_key() {
        let (flights, started) = flights();
        let crashed = flights.join(&"a", || async { panic!("on purpose") });
        assert_eq!(crashed.result().await, Err(Crashed::Panicked));
        tokio::time::pause();
        assert_eq!(flights.join(&"a", || count(&started)).result().await, Ok(1));
    }
}
