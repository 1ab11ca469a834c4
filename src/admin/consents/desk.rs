//! Consents that wait for their users: in memory alone, few, and gone when they are over. A restart ends them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::api::error::Problem;
use crate::clock::{Clock, Moment, Timestamp};
use crate::consent::{Connected, Consents, Pending, Refused};
use crate::entropy::Entropy;

/// Of each kind.
const MOST: usize = 64;
/// How long it can be asked what became of one.
const KEPT: Duration = Duration::from_mins(10);
/// Of an id, so that nobody comes upon another's.
const RANDOM_BYTES: usize = 16;

/// What waits.
pub struct Desk {
    pub(super) consents: Consents,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    authorizations: Mutex<HashMap<String, Pending>>,
    devices: Mutex<HashMap<String, Device>>,
}

struct Device {
    until: Timestamp,
    decided: Option<(Decided, Moment)>,
}

/// What became of a device's consent.
pub(super) type Decided = Result<Connected, Refused>;

impl Desk {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(consents: Consents, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { consents, entropy, clock, authorizations: Mutex::default(), devices: Mutex::default() }
    }

    /// A browser was sent away; the id for when it comes back.
    pub(super) fn add_authorization(&self, pending: Pending) -> Result<String, Problem> {
        let now = self.clock.now().wall;
        let mut waiting = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, pending| pending.until > now);
        if waiting.len() >= MOST {
            return Err(full());
        }
        let id = self.entropy.text(RANDOM_BYTES);
        waiting.insert(id.clone(), pending);
        Ok(id)
    }

    /// It has come back. Only once.
    pub(super) fn take_authorization(&self, id: &str) -> Option<Pending> {
        self.authorizations.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// Whether another device may wait, before a server is asked for its code.
    pub(super) fn check_room_for_device(&self) -> Result<(), Problem> {
        self.with_devices(|devices| if devices.len() < MOST { Ok(()) } else { Err(full()) })
    }

    /// A device waits; the id to ask after it.
    pub(super) fn add_device(&self, until: Timestamp) -> Result<String, Problem> {
        let id = self.entropy.text(RANDOM_BYTES);
        self.with_devices(|devices| {
            if devices.len() >= MOST {
                return Err(full());
            }
            devices.insert(id.clone(), Device { until, decided: None });
            Ok(id)
        })
    }

    /// It waits no longer.
    pub(super) fn decide(&self, id: &str, decided: Decided) {
        let now = self.clock.now();
        self.with_devices(|devices| {
            if let Some(device) = devices.get_mut(id) {
                device.decided = Some((decided, now));
            }
        });
    }

    /// Until when it may wait, and what became of it, if that is decided.
    pub(super) fn device(&self, id: &str) -> Option<(Timestamp, Option<Decided>)> {
        self.with_devices(|devices| {
            let device = devices.get(id)?;
            Some((device.until, device.decided.as_ref().map(|(decided, _)| decided.clone())))
        })
    }

    /// Those that wait, and those that were decided lately: where there is no room, the ones that were decided go first.
    fn with_devices<T>(&self, act: impl FnOnce(&mut HashMap<String, Device>) -> T) -> T {
        let now = self.clock.now();
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |at: &Moment| now.since(at).unwrap_or(Duration::MAX);
        devices.retain(|_, device| device.decided.as_ref().is_none_or(|(_, at)| age(at) < KEPT));
        if devices.len() >= MOST {
            let decided =
                devices.iter().filter_map(|(id, device)| Some((id, age(&device.decided.as_ref()?.1))));
            let oldest = decided.max_by_key(|(_, age)| *age).map(|(id, _)| id.clone());
            oldest.and_then(|id| devices.remove(&id));
        }
        act(&mut devices)
    }
}

fn full() -> Problem {
    Problem::too_many_requests("too many consents wait for their users already")
}
