//! A day of a hundred thousand users on one sidecar, in virtual time: the real engine, cache and broker between a store in
//! memory and a model of Okta, beside the two usual ways to keep tokens fresh.
//!
//! `cargo bench --bench simulation [-- --quick]`; `BURSAR_SIMULATION_USERS` and `BURSAR_SIMULATION_HOURS` choose the size. A
//! seed decides everything, so two runs say the same. Ends with 1 if the engine misses what it promises, and leaves
//! `requests-per-minute.csv` and `.svg` in `simulation` under the target directory.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a measurement fails by panicking, prints what it found, and is itself what measures time"
)]

mod chart;
mod criteria;
mod day;
mod ledger;
mod memory;
mod okta;
mod others;
mod report;
mod scenarios;
mod time;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use criteria::Criteria;
use others::{Way, simulate};
use scenarios::Size;

fn main() -> ExitCode {
    let size = Size::chosen();
    println!("{size}\n");
    let started = Instant::now();
    // The day takes longest; everything else has the second core.
    let (day, (outage, idle, others)) = std::thread::scope(|scope| {
        let day = scope.spawn(|| scenarios::working_day(size));
        let others = scope.spawn(|| {
            let others =
                [Way::OnDemand, Way::FixedTime].map(|way| simulate(way, size.day(), size.per_minute()));
            (scenarios::outage(size), scenarios::idle(size), others)
        });
        (day.join().unwrap(), others.join().unwrap())
    });
    let [on_demand, fixed_time] = others;
    let ways = [("bursar", &day), ("on demand", &on_demand), ("5 min before", &fixed_time)];
    report::day(&ways, size);
    report::outage(&outage);
    report::idle(&idle);
    let mut criteria = Criteria::default();
    criteria.day(&day, size);
    criteria.outage(&outage, size);
    criteria.idle(&idle);
    let directory = report::directory();
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("requests-per-minute.csv"), report::csv(&ways, size)).unwrap();
    std::fs::write(directory.join("requests-per-minute.svg"), chart::svg(&ways, size)).unwrap();
    println!("\n{:.0} s", started.elapsed().as_secs_f64());
    criteria.tell()
}
