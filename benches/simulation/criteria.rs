//! What must hold, and a line for each that does not.

use std::process::ExitCode;

use crate::day::MINUTE;
use crate::ledger::Ledger;
use crate::report::{NOTICED, clock};
use crate::scenarios::{Idle, Outage, Size};

/// Until then workflows arrive that were running before; which minute they come in is our choice, not theirs.
pub(crate) const SETTLING: usize = 60;
/// How far a minute may stand out from the hour around it.
const STEEPEST: f64 = 1.25;
/// And how far one of few requests may by chance alone, in standard deviations.
const CHANCE: f64 = 4.5;

#[derive(Default)]
pub(crate) struct Criteria(Vec<String>);

impl Criteria {
    fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.0.push(otherwise());
        }
    }

    pub(crate) fn day(&mut self, day: &Ledger, size: Size) {
        for (role, name) in ["default scopes", "second roles"].into_iter().enumerate() {
            let ratio = day.per_lifetime(role);
            self.require(ratio <= 1.01, || {
                format!("{ratio:.3} refreshes for each token lifetime in use ({name})")
            });
        }
        let steep = |(_, count, mean): &(usize, u32, f64)| {
            f64::from(*count) > mean * STEEPEST.max(1.0 + CHANCE / mean.sqrt())
        };
        if let Some((minute, count, mean)) = day.around(SETTLING).find(steep) {
            let at = clock(size.day().from + minute as u64 * MINUTE);
            self.0.push(format!("{count} requests in the minute at {at}, {mean:.0} in those around it"));
        }
        let (limited, errors, reused) = (day.limited, day.errors.len(), day.reused);
        self.require(limited == 0, || format!("{limited} requests over the server's limit"));
        self.require(day.peak() <= size.per_minute(), || format!("{} requests in a minute", day.peak()));
        let waits = day.waits_in_use;
        self.require(waits == 0, || format!("{waits} callers waited for a token in use"));
        let recalls = day.recalls;
        self.require(recalls == 0, || {
            format!("{recalls} callers waited for the store: the cache is too small")
        });
        self.require(errors == 0, || format!("{errors} callers got an error"));
        self.require(reused == 0, || format!("{reused} refresh tokens were presented twice"));
    }

    pub(crate) fn outage(&mut self, outage: &Outage, size: Size) {
        let ledger = &outage.ledger;
        let (outlived, reused, limited) = (outage.errors_with_a_token(), ledger.reused, ledger.limited);
        self.require(outlived == 0, || {
            format!("{outlived} errors for callers whose token outlived the outage")
        });
        let most = ledger.peak();
        self.require(most <= size.per_minute(), || format!("{most} requests in a minute around the outage"));
        self.require(limited == 0, || {
            format!("{limited} requests over the server's limit around the outage")
        });
        self.require(reused == 0, || {
            format!("{reused} refresh tokens were presented twice around the outage")
        });
        let late = ledger.errors.iter().filter(|error| error.at > outage.when.end + NOTICED).count();
        self.require(late == 0, || format!("{late} errors when the outage had been over for half a minute"));
    }

    pub(crate) fn idle(&mut self, idle: &Idle) {
        let (requests, kept_alive, expected) = (idle.requests, idle.kept_alive, idle.expected);
        self.require(requests == kept_alive as u64, || {
            format!("{requests} requests for {kept_alive} idle grants")
        });
        self.require(kept_alive.abs_diff(expected) <= 1 + expected / 1000, || {
            format!("{kept_alive} idle grants were kept alive, not {expected}")
        });
    }

    pub(crate) fn tell(self) -> ExitCode {
        for missed in &self.0 {
            println!("not met: {missed}");
        }
        if self.0.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
