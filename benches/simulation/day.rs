//! When users ask for tokens: a working day of people, and workflows that run round the clock. The same seed gives the same
//! requests to everybody who is to answer them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bursar::entropy::{Entropy as _, SeededEntropy};

/// Milliseconds of the day.
pub(crate) type At = u64;

pub(crate) const MINUTE: At = 60_000;
pub(crate) const HOUR: At = 60 * MINUTE;

/// Of a hundred users, how many are people; the others are scheduled workflows.
const PEOPLE: u64 = 65;
/// Of a hundred users, how many use a second role besides.
const SECOND_ROLE: u64 = 4;
/// When people come, and its standard deviation.
const MORNING: At = 9 * HOUR;
const DEVIATION: At = 75 * MINUTE;

/// Who asks, and from when to when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Day {
    pub(crate) users: usize,
    pub(crate) seed: u64,
    pub(crate) from: At,
    pub(crate) until: At,
    /// Workflows were running before: their first requests are spread over this time.
    pub(crate) spread: At,
}

/// One request. `key` is twice the user's number, plus one for the second role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) at: At,
    pub(crate) key: usize,
}

/// All requests of a day in their order.
pub(crate) struct Requests {
    day: Day,
    users: Vec<User>,
    next: BinaryHeap<Reverse<(At, usize)>>,
}

struct User {
    entropy: SeededEntropy,
    /// Between two requests, from and to.
    pause: (At, At),
    until: At,
    second_role: bool,
}

impl Day {
    pub(crate) fn requests(self) -> Requests {
        let mut requests = Requests { day: self, users: Vec::new(), next: BinaryHeap::new() };
        for number in 0..self.users {
            let seed = self.seed ^ (number as u64).wrapping_mul(0xD134_2543_DE82_EF95);
            let (user, mut first) = User::new(SeededEntropy::new(seed), self);
            // Who came before we look is in the middle of a working day.
            while first < self.from {
                first += user.pause();
            }
            if first < user.until.min(self.until) {
                requests.next.push(Reverse((first, number)));
            }
            requests.users.push(user);
        }
        requests
    }
}

impl User {
    fn new(entropy: SeededEntropy, day: Day) -> (Self, At) {
        // The first numbers of neighbouring seeds are alike.
        for _ in 0..4 {
            entropy.below(1);
        }
        let is_person = entropy.below(100) < PEOPLE;
        let second_role = entropy.below(100) < SECOND_ROLE;
        let (first, until, pause) = if is_person {
            // The sum of twelve draws is near enough to a normal distribution, of deviation 1 and mean 6.
            let draws = (0..12).map(|_| entropy.below(1_000_000)).sum::<u64>();
            let first = MORNING - 6 * DEVIATION + draws * DEVIATION / 1_000_000;
            (first, first + 7 * HOUR + entropy.below(3 * HOUR), (10 * MINUTE, 20 * MINUTE))
        } else {
            (day.from + entropy.below(day.spread), At::MAX, (20 * MINUTE, 40 * MINUTE))
        };
        (Self { entropy, pause, until, second_role }, first)
    }

    fn pause(&self) -> At {
        let (least, most) = self.pause;
        least + self.entropy.below(most - least)
    }
}

impl Iterator for Requests {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let Reverse((at, number)) = self.next.pop()?;
        let user = self.users.get(number)?;
        let role = usize::from(user.second_role && user.entropy.below(2) == 1);
        let next = at + user.pause();
        if next < user.until.min(self.day.until) {
            self.next.push(Reverse((next, number)));
        }
        Some(Request { at, key: number * 2 + role })
    }
}
