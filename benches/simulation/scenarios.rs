//! What is simulated: a working day, an outage around midday, grants that nobody uses.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bursar::clock::Timestamp;

use crate::day::{At, Day, HOUR, MINUTE};
use crate::ledger::{LIFE, Ledger};
use crate::world::{Scenario, World, caller};

const SEED: u64 = 20_261_123;
/// Workflows have been running for days: which of them are refreshed when has spread over the time between two refreshes, 75
/// to 80 % of an hour. Spread over anything longer, some would come while others are refreshed already.
const BETWEEN_REFRESHES: At = LIFE * 775 / 1000;
/// A grant is used at least this often; the engine begins when three quarters of it are over.
const KEEP_ALIVE: Duration = Duration::from_hours(72);

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) users: usize,
    pub(crate) hours: u64,
}

impl Size {
    /// By the command line and the environment.
    pub(crate) fn chosen() -> Self {
        let quick = std::env::args().any(|argument| argument == "--quick");
        let (users, hours) = if quick { (5_000, 6) } else { (100_000, 24) };
        let number = |name: &str, default: u64| {
            std::env::var(name)
                .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
        };
        let users = number("BURSAR_SIMULATION_USERS", users).clamp(100, 1_000_000);
        let hours = number("BURSAR_SIMULATION_HOURS", hours).clamp(2, 24);
        Self { users: usize::try_from(users).unwrap_or(usize::MAX), hours }
    }

    /// Okta's 4,000 requests in a minute for a hundred thousand users, and as many for each user when there are fewer.
    pub(crate) fn per_minute(self) -> u32 {
        u32::try_from(self.users / 25).unwrap_or(u32::MAX)
    }

    /// A whole day from midnight, or the hours from six in the morning.
    pub(crate) fn day(self) -> Day {
        let from = (24 - self.hours).min(6) * HOUR;
        self.between(from..from + self.hours * HOUR)
    }

    fn between(self, hours: Range<At>) -> Day {
        Day { users: self.users, seed: SEED, from: hours.start, until: hours.end, spread: BETWEEN_REFRESHES }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, hours } = self;
        write!(f, "{users} users, {hours} hours, budget and limit {} requests per minute", self.per_minute())
    }
}

/// Runs in a runtime of its own, whose time passes as soon as everybody waits.
fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(work)
}

/// Everybody was refreshed just now.
fn just_now(_: usize, now: Timestamp) -> Timestamp {
    now
}

pub(crate) fn working_day(size: Size) -> Ledger {
    let day = size.day();
    let scenario = Scenario { day, per_minute: size.per_minute(), outage: None, keep_alive: None };
    live(scenario, just_now)
}

fn live(scenario: Scenario, refreshed: impl Fn(usize, Timestamp) -> Timestamp) -> Ledger {
    let day = scenario.day;
    let caller = caller();
    in_virtual_time(async {
        let world = World::start(scenario, &caller, refreshed).await;
        world.live_through(day).await;
        std::mem::replace(&mut *world.ledger(), Ledger::new(0, 0, 0))
    })
}

/// Half an hour without a server.
pub(crate) struct Outage {
    pub(crate) ledger: Ledger,
    pub(crate) when: Range<At>,
    pub(crate) from: At,
}

pub(crate) fn outage(size: Size) -> Outage {
    let when = 12 * HOUR..12 * HOUR + 30 * MINUTE;
    let day = size.between(8 * HOUR + 30 * MINUTE..13 * HOUR + 45 * MINUTE);
    let outage = Some(when.clone());
    let ledger = live(Scenario { day, per_minute: size.per_minute(), outage, keep_alive: None }, just_now);
    Outage { ledger, when, from: day.from }
}

/// Grants that nobody asks for.
pub(crate) struct Idle {
    pub(crate) grants: usize,
    /// Those that fall due in a day.
    pub(crate) expected: usize,
    /// Requests, and how many grants they were for.
    pub(crate) requests: u64,
    pub(crate) kept_alive: usize,
    pub(crate) peak: u32,
}

pub(crate) fn idle(size: Size) -> Idle {
    let day = Day { until: 24 * HOUR, ..size.between(0..24 * HOUR) };
    // Evenly over the last three days, in no order.
    let age = |user: usize| {
        KEEP_ALIVE * u32::try_from(user * 7919 % size.users).unwrap_or(0)
            / u32::try_from(size.users).unwrap_or(1)
    };
    let scenario =
        Scenario { day, per_minute: size.per_minute(), outage: None, keep_alive: Some(KEEP_ALIVE) };
    let caller = caller();
    let ledger = in_virtual_time(async {
        let world = World::start(scenario, &caller, |user, now| now.minus(age(user))).await;
        world.clock.until(day.until).await;
        std::mem::replace(&mut *world.ledger(), Ledger::new(0, 0, 0))
    });
    let due_after = KEEP_ALIVE / 4 * 3;
    let a_day = Duration::from_hours(24);
    Idle {
        grants: size.users,
        expected: (0..size.users).filter(|user| age(*user) + a_day > due_after).count(),
        requests: ledger.exchanges.iter().sum(),
        kept_alive: (0..size.users * 2).filter(|key| ledger.issued_at(*key).is_some()).count(),
        peak: ledger.peak(),
    }
}
