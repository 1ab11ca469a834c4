//! The two usual ways to keep tokens fresh, under the same requests and the same limits, without an engine: only when each
//! would ask the server counts, so both are simulated as the policies that they are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bursar::entropy::{Entropy as _, SeededEntropy};

use crate::day::{At, Day, MINUTE};
use crate::ledger::{LIFE, Ledger};
use crate::okta::Limits;

/// No token with less left is handed out, as with bursar.
pub(crate) const MIN_TTL: At = MINUTE;
/// How long before its end a timer replaces a token.
const BEFORE_THE_END: At = 5 * MINUTE;

/// When a token is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// When a request finds it too old.
    OnDemand,
    /// By a timer for each token, always the same time before its end, whether anybody uses it or not.
    FixedTime,
}

struct Simulation {
    way: Way,
    ledger: Ledger,
    limits: Limits,
    entropy: SeededEntropy,
    /// When the server will be asked for which key.
    later: BinaryHeap<Reverse<(At, usize)>>,
    /// Whether a request for the key waits for its turn in `later`.
    fetching: Vec<bool>,
}

/// A day of it.
pub(crate) fn simulate(way: Way, day: Day, per_minute: u32) -> Ledger {
    let mut simulation = Simulation {
        way,
        ledger: Ledger::new(day.users, day.from, day.until),
        limits: Limits::new(per_minute, day.users),
        entropy: SeededEntropy::new(day.seed ^ 3),
        later: BinaryHeap::new(),
        fetching: vec![false; day.users * 2],
    };
    for request in day.requests() {
        simulation.pass(request.at);
        simulation.ask(request.at, request.key);
    }
    simulation.pass(day.until);
    simulation.ledger
}

impl Simulation {
    /// What comes before `until` happens.
    fn pass(&mut self, until: At) {
        while let Some(Reverse((at, key))) = self.later.peek().copied().filter(|Reverse((at, _))| *at < until)
        {
            self.later.pop();
            self.exchange(at, key);
        }
    }

    fn ask(&mut self, at: At, key: usize) {
        let in_use = self.ledger.asked(at, key);
        let fresh = self.ledger.issued_at(key).is_some_and(|issued| at + MIN_TTL <= issued + LIFE);
        if !fresh {
            self.ledger.waits(in_use);
            if !self.fetching.get(key).copied().unwrap_or_default() {
                self.exchange(at, key);
            }
        }
        self.ledger.had(key);
    }

    fn exchange(&mut self, at: At, key: usize) {
        self.ledger.exchange(at, key);
        let refused = self.limits.admit(at, key / 2);
        if let Some(fetching) = self.fetching.get_mut(key) {
            *fetching = refused.is_err();
        }
        if let Err(wait) = refused {
            self.ledger.limited += 1;
            self.later.push(Reverse((at + wait + self.entropy.below(1000), key)));
            return;
        }
        self.ledger.issued(at, key);
        if self.way == Way::FixedTime {
            self.later.push(Reverse((at + LIFE - BEFORE_THE_END, key)));
        }
    }
}
