//! Time as an argument: one reading carries the wall clock and the boot clock, and decisions take it as data.
//!
//! Ages and lives are measured on `CLOCK_BOOTTIME`, which goes on while the machine sleeps and can't be set. The wall
//! clock is for what other machines say (`exp`) and for what is left after a restart. Nothing else reads either.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Both clocks, read together.
    fn now(&self) -> Moment;
}

/// One reading of both clocks, and which boot the second one counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Unix time; may jump.
    pub wall: Timestamp,
    /// Time since boot, suspend included; never goes back within one boot.
    pub boot: Duration,
    /// The boot that `boot` counts from.
    pub boot_id: BootId,
}

impl Moment {
    /// How long ago `earlier` was, or `None` where that can't be known: another boot, or a clock gone backwards.
    #[must_use]
    pub fn since(&self, earlier: &Moment) -> Option<Duration> {
        if self.boot_id == earlier.boot_id { self.boot.checked_sub(earlier.boot) } else { None }
    }
}

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the epoch, as JWTs and HTTP count.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// From this moment until `later`; zero if that has passed.
    #[must_use]
    pub fn until(self, later: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// `duration` before this moment.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// `duration` after this moment.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// RFC 3339 in UTC, whole seconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // humantime prints years 1970 to 9999; beyond them a clamped date is as good as any.
        const LAST: u64 = 253_402_300_799;
        let secs = u64::try_from(self.secs()).unwrap_or(0).min(LAST);
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(secs)).fmt(f)
    }
}

/// The kernel's id of one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootId(u128);

impl BootId {
    /// From the text form with or without dashes; `None` if it is not 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 {
            return None;
        }
        u128::from_str_radix(&digits, 16).ok().map(Self)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The kernel's clocks.
pub struct SystemClock {
    boot_id: BootId,
}

impl SystemClock {
    /// Reads the boot id once. Where the kernel gives none, `fallback` stands for it: then nothing is known to be of
    /// the same boot after a restart, which errs on the safe side.
    #[must_use]
    pub fn new(fallback: u128) -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| BootId::parse(&text))
            .unwrap_or(BootId(fallback));
        Self { boot_id }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Moment {
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(_before_1970) => 0,
        };
        // CLOCK_BOOTTIME exists since Linux 2.6.39; should it ever fail, time stands still and everything looks due.
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Moment { wall: Timestamp(wall), boot, boot_id: self.boot_id }
    }
}

/// A clock that tests set by hand.
#[derive(Clone)]
pub struct ManualClock(Arc<Mutex<Moment>>);

impl ManualClock {
    /// Starts at `wall`, an hour after boot.
    #[must_use]
    pub fn new(wall: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Moment { wall, boot: Duration::from_hours(1), boot_id: BootId(1) })))
    }

    /// Both clocks go on by `by`.
    pub fn advance(&self, by: Duration) {
        self.change(|now| {
            now.wall = now.wall.plus(by);
            now.boot += by;
        });
    }

    /// Only the wall clock is set, as by an administrator.
    pub fn set_wall(&self, wall: Timestamp) {
        self.change(|now| now.wall = wall);
    }

    /// The machine was started anew: the boot clock begins again under another id.
    pub fn reboot(&self) {
        self.change(|now| {
            now.boot = Duration::from_secs(10);
            now.boot_id = BootId(now.boot_id.0 + 1);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Moment)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_unknown_after_a_reboot_and_when_the_clock_went_back() {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let before = clock.now();
        clock.advance(Duration::from_secs(7));
        let after = clock.now();
        assert_eq!(after.since(&before), Some(Duration::from_secs(7)));
        assert_eq!(before.since(&after), None);
        clock.reboot();
        assert_eq!(clock.now().since(&before), None);
        clock.advance(Duration::from_hours(2));
        assert_eq!(clock.now().since(&before), None, "however long the machine has been up since");
    }

    #[test]
    fn setting_the_wall_clock_changes_no_age() {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let before = clock.now();
        clock.set_wall(Timestamp::from_secs(5));
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now().since(&before), Some(Duration::from_secs(1)));
    }

    #[test]
    fn times_print_as_rfc_3339_even_absurd_ones() {
        assert_eq!(Timestamp::from_secs(1_795_439_111).to_string(), "2026-11-23T13:05:11Z");
        assert_eq!(Timestamp::from_millis(i64::MIN).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_millis(i64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn the_system_clock_runs_forward() {
        let clock = SystemClock::new(0);
        let first = clock.now();
        let second = clock.now();
        assert!(second.since(&first).is_some());
    }
}
