//! The figures as text.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::criteria::SETTLING;
use crate::day::{At, HOUR, MINUTE};
use crate::ledger::{Error, Ledger, ratio};
use crate::others::MIN_TTL;
use crate::scenarios::{Idle, Outage, Size};

/// How long the engine waits at most before it asks once more whether the server is there.
pub(crate) const NOTICED: At = 30_000;

/// A way to keep tokens fresh, and what it came to.
pub(crate) type Ways<'a> = [(&'static str, &'a Ledger); 3];

/// `12:05`.
pub(crate) fn clock(at: At) -> String {
    format!("{:02}:{:02}", at / HOUR, at % HOUR / MINUTE)
}

pub(crate) fn day(ways: &Ways<'_>, size: Size) {
    let row = |name: &str, value: &dyn Fn(&Ledger) -> String| {
        let [one, other, third] = ways.map(|(_, ledger)| value(ledger));
        println!("{name:50}{one:>14}{other:>14}{third:>14}");
    };
    let [one, other, third] = ways.map(|(name, _)| name);
    println!("{:50}{one:>14}{other:>14}{third:>14}", "A working day");
    row("requests by callers", &|ledger| ledger.requests.to_string());
    row("  had to wait for Okta", &|ledger| percent(ledger.waits, ledger.requests));
    row("  had to wait for a token in use", &|ledger| percent(ledger.waits_in_use, ledger.requests));
    row("  had their token read from the store", &|ledger| percent(ledger.recalls, ledger.requests));
    row("  errors", &|ledger| ledger.errors.len().to_string());
    row("requests to Okta", &|ledger| ledger.exchanges.iter().sum::<u64>().to_string());
    row("  for each lifetime in use, default scopes", &|ledger| format!("{:.3}", ledger.per_lifetime(0)));
    row("  for each lifetime in use, second roles", &|ledger| format!("{:.3}", ledger.per_lifetime(1)));
    row("  for tokens that nobody then asked for", &|ledger| {
        percent(ledger.never_had, ledger.exchanges.iter().sum())
    });
    row("  in a minute, mean", &|ledger| format!("{:.0}", ledger.mean()));
    row("  in a minute, most", &|ledger| ledger.peak().to_string());
    row("  most against the hour around it (after an hour)", &|ledger| {
        let (minute, _, most) = ledger.steepest(SETTLING);
        format!("{most:.2} {}", clock(size.day().from + minute as u64 * MINUTE))
    });
    row("  over its limit (429)", &|ledger| ledger.limited.to_string());
    row("  with a refresh token used before", &|ledger| ledger.reused.to_string());
    let bursar = ways[0].1;
    let mut late = bursar.lateness.clone();
    late.sort_unstable();
    let quantile = |share: usize| late.get((late.len() * share / 1000).min(late.len().saturating_sub(1)));
    let [p50, p99, most] =
        [500, 990, 1000].map(|share| quantile(share).map_or(0.0, |ms| f64::from(*ms) / 1000.0));
    println!(
        "  from due to the request: p50 {p50:.3} s, p99 {p99:.3} s, most {most:.3} s, of {}",
        late.len()
    );
}

impl Outage {
    /// Errors of callers whose newest token could be handed out until it was over, and noticed to be over.
    pub(crate) fn errors_with_a_token(&self) -> usize {
        let outlives = |ends: At| ends >= self.when.end + NOTICED + MIN_TTL;
        self.errors(|error| error.token_ends.is_some_and(outlives))
    }

    fn errors(&self, which: impl Fn(&Error) -> bool) -> usize {
        self.ledger.errors.iter().filter(|error| which(error)).count()
    }

    /// What callers were told, and how often.
    fn words(&self) -> BTreeMap<&'static str, usize> {
        let mut words = BTreeMap::new();
        for error in &self.ledger.errors {
            *words.entry(error.word).or_default() += 1;
        }
        words
    }

    /// The busiest minute since it was over.
    fn peak_after(&self) -> u32 {
        let minute = usize::try_from((self.when.end - self.from) / MINUTE).unwrap_or(0);
        self.ledger.minutes.get(minute..).unwrap_or_default().iter().copied().max().unwrap_or_default()
    }
}

pub(crate) fn outage(outage: &Outage) {
    let ledger = &outage.ledger;
    println!("\nAn outage from {} to {}", clock(outage.when.start), clock(outage.when.end));
    println!("  requests by callers: {}, errors: {}", ledger.requests, ledger.errors.len());
    for (word, count) in outage.words() {
        println!("    {word}: {count}");
    }
    println!("  errors of callers whose token outlived it: {}", outage.errors_with_a_token());
    println!("  errors when it was over: {}", outage.errors(|error| error.at > outage.when.end));
    println!("  requests that did not reach Okta: {}", ledger.in_vain);
    println!("  requests in a minute, most after it: {}", outage.peak_after());
    println!(
        "  over its limit (429): {}, with a refresh token used before: {}",
        ledger.limited, ledger.reused
    );
}

pub(crate) fn idle(idle: &Idle) {
    let Idle { grants, expected, requests, kept_alive, peak } = idle;
    println!("\nA day of {grants} grants that nobody uses, each last used within three days");
    println!(
        "  fall due: {expected}, kept alive: {kept_alive}, requests: {requests}, most in a minute: {peak}"
    );
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.2} %", ratio(part, whole) * 100.0)
}

/// One line for each minute.
pub(crate) fn csv(ways: &Ways<'_>, size: Size) -> String {
    let mut text = format!("minute,{},{},{}\n", ways[0].0, ways[1].0, ways[2].0);
    for minute in 0..ways[0].1.minutes.len() {
        text.push_str(&clock(size.day().from + minute as u64 * MINUTE));
        for (_, ledger) in ways {
            text.push_str(&format!(",{}", ledger.minutes.get(minute).copied().unwrap_or_default()));
        }
        text.push('\n');
    }
    text
}

/// Where other things that are built are.
pub(crate) fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    target.join("simulation")
}
