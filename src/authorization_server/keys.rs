//! Holds a server's key set and decides when to fetch it: as `Cache-Control` says, once more for an unknown `kid`, never
//! more than once per cooldown, and a bad document or a failed fetch leaves the set in use.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headers::{CacheControl, HeaderMapExt as _};
use hyper::HeaderMap;

use crate::clock::Moment;
use crate::jwt::keys::KeySet;

/// Between two fetches of a set that is there: because its time is over, or because a token names a key not in it.
const COOLDOWN: Duration = Duration::from_secs(30);
/// Between two tries while there are no keys at all.
const RETRY: Duration = Duration::from_secs(1);
/// Okta advises to look daily to weekly, whatever its `max-age` of weeks says.
const LONGEST_TRUST: Duration = Duration::from_hours(24);

/// The set in use and when it was looked for.
#[derive(Default)]
pub struct Keys {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    set: Option<Arc<KeySet>>,
    fresh_until: Option<Duration>,
    fetched: Option<Moment>,
    fetched_for_unknown: Option<Moment>,
}

/// Why the keys are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// For a token; what is there will do while it is fresh.
    Usual,
    /// For a token whose `kid` is not in the set.
    Unknown,
}

impl Keys {
    /// The set in use.
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.lock().set.clone()
    }

    /// Whether to fetch now.
    pub fn wants_fetch(&self, want: Want, now: &Moment) -> bool {
        let state = self.lock();
        let within =
            |at: Option<Moment>, wait| at.is_some_and(|at| now.since(&at).is_some_and(|age| age < wait));
        match (&state.set, state.fresh_until, want) {
            // Without any keys nothing can be vouched for: tried again soon.
            (None, ..) | (_, None, _) => !within(state.fetched, RETRY),
            // A key may be newer than a set that was fetched a moment ago, but an invented one must not drive traffic.
            (Some(_), Some(_), Want::Unknown) => !within(state.fetched_for_unknown, COOLDOWN),
            (Some(_), Some(until), Want::Usual) => now.boot >= until && !within(state.fetched, COOLDOWN),
        }
    }

    /// A fetch has ended, well or not: counts against the cooldown either way.
    pub fn fetched(&self, want: Want, now: &Moment) {
        let mut state = self.lock();
        state.fetched = Some(*now);
        if want == Want::Unknown {
            state.fetched_for_unknown = Some(*now);
        }
    }

    /// Takes a good set into use.
    pub fn replace(&self, set: KeySet, headers: &HeaderMap, now: &Moment) {
        let mut state = self.lock();
        state.fresh_until = Some(now.boot + trust(headers));
        state.set = Some(Arc::new(set));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn trust(headers: &HeaderMap) -> Duration {
    let said = headers.typed_get::<CacheControl>();
    match said {
        Some(said) if said.no_store() || said.no_cache() => COOLDOWN,
        said => said.and_then(|said| said.max_age()).unwrap_or(LONGEST_TRUST).clamp(COOLDOWN, LONGEST_TRUST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock, Timestamp};
    use hyper::header::{CACHE_CONTROL, HeaderValue};

    fn max_age(text: &'static str) -> HeaderMap {
        [(CACHE_CONTROL, HeaderValue::from_static(text))].into_iter().collect()
    }

    #[test]
    fn a_set_is_kept_for_as_long_as_the_server_says_within_bounds() {
        assert_eq!(trust(&max_age("max-age=3600, must-revalidate")), Duration::from_hours(1));
        assert_eq!(trust(&max_age("max-age=3832304")), LONGEST_TRUST);
        assert_eq!(trust(&max_age("max-age=0")), COOLDOWN);
        assert_eq!(trust(&max_age("no-cache")), COOLDOWN);
        assert_eq!(trust(&HeaderMap::new()), LONGEST_TRUST);
    }

    #[test]
    fn an_unknown_kid_causes_one_fetch_per_cooldown() {
        let (clock, keys) = (ManualClock::new(Timestamp::from_secs(1_800_000_000)), Keys::default());
        let fetch = |want| {
            let wanted = keys.wants_fetch(want, &clock.now());
            if wanted {
                keys.fetched(want, &clock.now());
            }
            wanted
        };
        assert!(fetch(Want::Usual));
        assert!(!fetch(Want::Usual), "failed, and tried again soon");
        clock.advance(RETRY);
        assert!(fetch(Want::Usual));
        keys.replace(KeySet::default(), &max_age("max-age=3600"), &clock.now());
        assert!(!fetch(Want::Usual));
        assert!(fetch(Want::Unknown), "rotated right after it was fetched");
        assert!(!fetch(Want::Unknown), "found or not, it counts");
        clock.advance(COOLDOWN);
        assert!(fetch(Want::Unknown));
        clock.advance(Duration::from_hours(1));
        assert!(fetch(Want::Usual), "its time is over");
        assert!(keys.current().is_some(), "and it stays in use until a better one is there");
    }
}
