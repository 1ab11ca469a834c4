//! When the tokens in use are refreshed: plain state, plain events; `ahead` chooses the events and runs what follows.
//!
//! ```text
//!             published                    its time comes, somebody uses it
//!   (nothing) ────────► waiting ──────────────────────────────────► due ───► in flight
//!       ▲                  │ ▲                                                 │
//!       │  nobody uses it  │ │           published, or failed: later           │
//!       └──────────────────┘ └─────────────────────────────────────────────────┘
//! ```
//!
//! What is due waits for the budget, by authorization server, the living token that ends first going first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Usage;
use crate::model::TokenKey;
use crate::refresh::timers::Timers;

/// The tokens in use.
#[derive(Default)]
pub(super) struct Schedule {
    tokens: HashMap<TokenKey, Token>,
    waiting: Timers<TokenKey>,
    due: BTreeMap<String, BTreeMap<Place, TokenKey>>,
    numbers: u64,
    /// How many of those that wait are due in each step of time.
    crowds: HashMap<u64, u32>,
}

/// The steps, in seconds: short beside the time over which refreshes are spread.
const STEP: u64 = 10;

fn step(at: Duration) -> u64 {
    at.as_secs() / STEP
}

/// In the order in which they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    ends: Duration,
    number: u64,
}

/// A token's times, by the boot clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// When it is to be refreshed.
    pub(super) due: Duration,
    /// When its life is over.
    pub(super) ends: Duration,
    /// The grant's version that it came with.
    pub(super) version: i64,
}

struct Token {
    usage: Arc<Usage>,
    version: i64,
    due: Duration,
    ends: Duration,
    /// Refreshes that failed since.
    failures: u32,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Due { server: String, number: u64 },
    InFlight,
}

/// A token that is to be refreshed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) key: TokenKey,
    /// The grant's version that it came with.
    pub(super) version: i64,
    /// Since when.
    pub(super) due: Duration,
}

impl Schedule {
    /// A token has come.
    pub(super) fn published(&mut self, key: &TokenKey, times: Times, usage: &Arc<Usage>) {
        self.leave_place(key);
        let Times { due, ends, version } = times;
        let token =
            Token { usage: Arc::clone(usage), version, due, ends, failures: 0, stage: Stage::Waiting };
        self.tokens.insert(key.clone(), token);
        self.wait(key, due);
    }

    /// Time has passed: what is due is put in its server's queue if somebody asked for it since `idle_since`, and forgotten
    /// otherwise: whoever asks for it later finds it too old, and brings it back.
    pub(super) fn passed(
        &mut self,
        now: Duration,
        idle_since: Duration,
        server_of: impl Fn(&TokenKey) -> Option<String>,
    ) {
        while let Some((key, at)) = self.waiting.due(now) {
            self.thin(at);
            let Some(token) = self.tokens.get_mut(&key) else { continue };
            match server_of(&key) {
                Some(server) if token.usage.asked().is_some_and(|asked| asked >= idle_since) => {
                    self.numbers += 1;
                    let place = Place { ends: token.ends, number: self.numbers };
                    token.stage = Stage::Due { server: server.clone(), number: self.numbers };
                    self.due.entry(server).or_default().insert(place, key);
                }
                // Idle, or its service is not configured any more.
                _ => drop(self.tokens.remove(&key)),
            }
        }
    }

    /// The servers for which something is due.
    pub(super) fn servers(&self) -> Vec<String> {
        self.due.keys().cloned().collect()
    }

    /// How much is due at one server.
    pub(super) fn backlog(&self, server: &str) -> usize {
        self.due.get(server).map_or(0, BTreeMap::len)
    }

    /// The server has room for one more: for the living token that ends first. What has ended can't be saved any more, and who
    /// asks for it goes first anyway; serving it before the living would let those die too.
    pub(super) fn take(&mut self, server: &str, now: Duration) -> Option<Ready> {
        let queue = self.due.get_mut(server)?;
        let ended = Place { ends: now, number: u64::MAX };
        let living = queue.range(ended..).next().map(|(place, _)| *place);
        let key = match living {
            Some(living) => queue.remove(&living),
            None => queue.pop_first().map(|(_, key)| key),
        };
        if queue.is_empty() {
            self.due.remove(server);
        }
        let key = key?;
        let token = self.tokens.get_mut(&key)?;
        token.stage = Stage::InFlight;
        Some(Ready { version: token.version, due: token.due, key })
    }

    /// A refresh that was taken from here came to nothing; `later` says when the next is worth it, from the number of those
    /// that failed before. Whatever else happened to the token meanwhile stands.
    pub(super) fn failed(&mut self, key: &TokenKey, later: impl FnOnce(u32) -> Duration) {
        if let Some(token) = self.tokens.get_mut(key).filter(|token| token.stage == Stage::InFlight) {
            let at = later(token.failures);
            token.failures = token.failures.saturating_add(1);
            token.stage = Stage::Waiting;
            self.wait(key, at);
        }
    }

    /// There is no such token any more.
    pub(super) fn ended(&mut self, key: &TokenKey) {
        self.leave_place(key);
        self.tokens.remove(key);
    }

    /// How a token is used, if it is looked after.
    pub(super) fn usage(&self, key: &TokenKey) -> Option<Arc<Usage>> {
        self.tokens.get(key).map(|token| Arc::clone(&token.usage))
    }

    /// Whether its last refresh ahead failed.
    pub(super) fn is_failing(&self, key: &TokenKey) -> bool {
        self.tokens.get(key).is_some_and(|token| token.failures > 0)
    }

    /// When it is worth looking again.
    pub(super) fn next(&self) -> Option<Duration> {
        self.waiting.next()
    }

    /// The tokens, and when each is due.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (&TokenKey, Duration)> {
        self.tokens.iter().map(|(key, token)| (key, token.due))
    }

    /// How much else is due about then.
    pub(super) fn crowd(&self, at: Duration) -> u32 {
        self.crowds.get(&step(at)).copied().unwrap_or(0)
    }

    fn wait(&mut self, key: &TokenKey, at: Duration) {
        self.waiting.set(key.clone(), at);
        *self.crowds.entry(step(at)).or_default() += 1;
    }

    fn thin(&mut self, at: Duration) {
        if let Some(crowd) = self.crowds.get_mut(&step(at)) {
            *crowd -= 1;
            if *crowd == 0 {
                self.crowds.remove(&step(at));
            }
        }
    }

    fn leave_place(&mut self, key: &TokenKey) {
        if let Some(at) = self.waiting.cancel(key) {
            self.thin(at);
        }
        let Some(token) = self.tokens.get(key) else { return };
        if let Stage::Due { server, number } = &token.stage
            && let Some(queue) = self.due.get_mut(server)
        {
            queue.remove(&Place { ends: token.ends, number: *number });
            if queue.is_empty() {
                self.due.remove(server);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock as _, ManualClock, Moment, Timestamp};
    use crate::model::{GrantKey, ServiceName, UserName};

    fn key(number: u8) -> TokenKey {
        let user = UserName::parse(&format!("user{number}")).unwrap();
        TokenKey { grant: GrantKey { service: ServiceName::parse("s").unwrap(), user }, role: None }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn times(due: u64, ends: u64) -> Times {
        Times { due: secs(due), ends: secs(ends), version: 1 }
    }

    #[expect(clippy::unnecessary_wraps, reason = "where there is no service there is no server")]
    fn here(_: &TokenKey) -> Option<String> {
        Some("here".to_owned())
    }

    fn at(boot: Duration) -> Moment {
        Moment { boot, ..ManualClock::new(Timestamp::from_secs(1_800_000_000)).now() }
    }

    #[test]
    fn what_ends_first_goes_first_and_nothing_goes_twice() {
        let mut schedule = Schedule::default();
        for (number, ends) in [(1, 90), (2, 70), (3, 80)] {
            schedule.published(&key(number), times(10, ends), &Arc::new(Usage::new(Some(secs(0)))));
        }
        schedule.passed(secs(9), secs(0), here);
        assert_eq!(schedule.take("here", secs(0)), None);
        schedule.passed(secs(10), secs(0), here);
        assert!(schedule.take("elsewhere", secs(0)).is_none());
        let order: Vec<_> =
            std::iter::from_fn(|| schedule.take("here", secs(0))).map(|ready| ready.key).collect();
        assert_eq!(order, [key(2), key(3), key(1)]);
        schedule.passed(secs(99), secs(0), here);
        assert_eq!(schedule.take("here", secs(0)), None, "in flight");
    }

    #[test]
    fn what_has_ended_already_does_not_hold_up_what_lives() {
        let mut schedule = Schedule::default();
        for (number, ends) in [(1, 20), (2, 30), (3, 40)] {
            schedule.published(&key(number), times(10, ends), &Arc::new(Usage::new(Some(secs(0)))));
        }
        schedule.passed(secs(10), secs(0), here);
        let order: Vec<_> =
            std::iter::from_fn(|| schedule.take("here", secs(30))).map(|ready| ready.key).collect();
        assert_eq!(order, [key(3), key(1), key(2)]);
    }

    #[test]
    fn what_nobody_asks_for_is_let_go_of() {
        let mut schedule = Schedule::default();
        let usage = Arc::new(Usage::new(Some(secs(5))));
        schedule.published(&key(1), times(10, 20), &usage);
        schedule.passed(secs(10), secs(6), here);
        assert_eq!((schedule.tokens.len(), schedule.take("here", secs(0))), (0, None));
        usage.touch(&at(secs(7)));
        schedule.published(&key(1), times(10, 20), &usage);
        schedule.passed(secs(10), secs(6), here);
        assert!(schedule.take("here", secs(0)).is_some());
    }

    #[test]
    fn a_refresh_that_fails_is_made_later_unless_the_token_came_otherwise() {
        let mut schedule = Schedule::default();
        let usage = Arc::new(Usage::new(Some(secs(0))));
        schedule.published(&key(1), times(10, 20), &usage);
        schedule.passed(secs(10), secs(0), here);
        let taken = schedule.take("here", secs(0)).unwrap();
        schedule.failed(&taken.key, |failures| secs(11 + u64::from(failures)));
        assert!(schedule.is_failing(&taken.key));
        schedule.passed(secs(11), secs(0), here);
        let again = schedule.take("here", secs(0)).unwrap();
        assert_eq!(again.due, secs(10), "it has been due since");
        schedule.published(&key(1), times(50, 60), &usage);
        schedule.failed(&again.key, |_| secs(12));
        schedule.passed(secs(49), secs(0), here);
        assert!(schedule.take("here", secs(0)).is_none() && !schedule.is_failing(&key(1)));
    }

    /// What a token must be, told without heaps and queues.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Naive {
        Waiting(u64),
        Due,
        InFlight,
    }

    proptest! {
        /// Against a model that looks at everything all the time.
        #[test]
        fn every_token_in_use_is_refreshed_once_when_it_is_due(
            steps in prop::collection::vec((0_u8..6, 0_u8..6, 0_u64..30), 1..300),
        ) {
            let (mut schedule, mut naive) = (Schedule::default(), BTreeMap::new());
            let usage = Arc::new(Usage::new(Some(secs(1_000_000))));
            let mut now = 0;
            for (what, number, by) in steps {
                match what {
                    0 => {
                        schedule.published(&key(number), times(now + by, now + by + 10), &usage);
                        naive.insert(key(number), Naive::Waiting(now + by));
                    }
                    1 | 2 => {
                        now += by;
                        schedule.passed(secs(now), secs(0), here);
                        for state in naive.values_mut() {
                            if matches!(state, Naive::Waiting(at) if *at <= now) {
                                *state = Naive::Due;
                            }
                        }
                    }
                    3 => match schedule.take("here", secs(0)) {
                        Some(ready) => {
                            prop_assert_eq!(naive.get(&ready.key), Some(&Naive::Due));
                            naive.insert(ready.key, Naive::InFlight);
                        }
                        None => prop_assert!(!naive.values().any(|state| *state == Naive::Due)),
                    },
                    4 => {
                        schedule.failed(&key(number), |_| secs(now + by));
                        if let Some(state) = naive.get_mut(&key(number))
                            && *state == Naive::InFlight
                        {
                            *state = Naive::Waiting(now + by);
                        }
                    }
                    _ => {
                        schedule.ended(&key(number));
                        naive.remove(&key(number));
                    }
                }
                prop_assert_eq!(schedule.tokens.len(), naive.len());
                let waiting = naive.values().filter(|state| matches!(state, Naive::Waiting(_))).count();
                prop_assert_eq!(schedule.crowds.values().sum::<u32>() as usize, waiting);
                let due = naive.values().filter(|state| **state == Naive::Due).count();
                prop_assert_eq!(schedule.backlog("here"), due);
                let next = naive.values().filter_map(|state| match state {
                    Naive::Waiting(at) => Some(secs(*at)),
                    Naive::Due | Naive::InFlight => None,
                });
                if let Some(next) = next.min() {
                    prop_assert!(schedule.next().is_some_and(|at| at <= next), "it is looked at in time");
                }
            }
        }
    }
}
