//! The clock of a runtime whose time passes only while everybody waits.

use std::time::Duration;

use bursar::clock::{BootId, Clock, Moment, Timestamp};
use tokio::time::Instant;

use crate::day::At;

/// Both clocks follow the runtime's timers.
#[derive(Clone, Copy)]
pub(crate) struct VirtualClock {
    started: Instant,
    from: At,
    boot_id: BootId,
}

/// Midnight of the simulated day.
const MIDNIGHT: Timestamp = Timestamp::from_secs(1_799_971_200);

impl VirtualClock {
    /// It is `from` now. Inside the runtime only.
    pub(crate) fn new(from: At) -> Self {
        let boot_id = BootId::parse("00000000-0000-0000-0000-000000000001").unwrap();
        Self { started: Instant::now(), from, boot_id }
    }

    /// The time of day.
    pub(crate) fn at(&self) -> At {
        self.from + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(At::MAX)
    }

    /// Waits for a time of day.
    pub(crate) async fn until(&self, at: At) {
        tokio::time::sleep_until(self.started + Duration::from_millis(at - self.from)).await;
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Moment {
        let elapsed = self.started.elapsed();
        let wall = MIDNIGHT.plus(Duration::from_millis(self.from) + elapsed);
        Moment { wall, boot: Duration::from_hours(1) + elapsed, boot_id: self.boot_id }
    }
}
