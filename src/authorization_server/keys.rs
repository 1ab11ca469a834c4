//! Holds a server's key set and decides when to fetch it: as `Cache-Control` says, once more for an unknown `kid`, never
//! more than once per cooldown, and a bad document or a failed fetch leaves the set in use.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use headers::{CacheControl, HeaderMapExt as _};
use hyper::HeaderMap;

use crate::clock::Moment;
use crate::jwt::keys::KeySet;

/// Between two fetches, whatever tokens claim: an invented `kid` must not drive traffic.
const COOLDOWN: Duration = Duration::from_secs(30);
/// Okta advises to look daily to weekly, whatever its `max-age` of weeks says.
const LONGEST_TRUST: Duration = Duration::from_hours(24);

/// The set in use and when it was looked for.
#[derive(Default)]
pub(super) struct Keys {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    set: Option<Arc<KeySet>>,
    attempted: Option<Moment>,
    fresh_until: Option<Duration>,
}

/// Why the keys are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// For a token; what is there will do while it is fresh.
    Usual,
    /// For a token whose `kid` is not in the set.
    Unknown,
}

impl Keys {
    /// The set in use.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.lock().set.clone()
    }

    /// Whether to fetch now; counts as an attempt if so.
    pub(super) fn should_fetch(&self, want: Want, now: &Moment) -> bool {
        let mut state = self.lock();
        let wanted = match (&state.set, state.fresh_until) {
            (Some(_), Some(until)) => want == Want::Unknown || now.boot >= until,
            _ => true,
        };
        let cooling = state.attempted.is_some_and(|at| now.since(&at).is_some_and(|age| age < COOLDOWN));
        // Without any keys nothing can be vouched for: a failed first fetch is tried again sooner.
        let cooling = cooling
            && (state.set.is_some()
                || state
                    .attempted
                    .is_some_and(|at| now.since(&at).is_some_and(|age| age < Duration::from_secs(1))));
        let fetch = wanted && !cooling;
        if fetch {
            state.attempted = Some(*now);
        }
        fetch
    }

    /// Takes a good set into use.
    pub(super) fn replace(&self, set: KeySet, headers: &HeaderMap, now: &Moment) {
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
        assert!(keys.should_fetch(Want::Usual, &clock.now()));
        keys.replace(KeySet::default(), &max_age("max-age=3600"), &clock.now());
        assert!(!keys.should_fetch(Want::Usual, &clock.now()));
        assert!(!keys.should_fetch(Want::Unknown, &clock.now()), "just fetched");
        clock.advance(COOLDOWN);
        assert!(keys.should_fetch(Want::Unknown, &clock.now()));
        assert!(!keys.should_fetch(Want::Unknown, &clock.now()), "failed or not, it counts");
        clock.advance(Duration::from_hours(1));
        assert!(keys.should_fetch(Want::Usual, &clock.now()), "its time is over");
        assert!(keys.current().is_some(), "and it stays in use until a better one is there");
    }
}
