//! What a reload replaces: services, authorization servers, times. What a door has learnt of its server stays, as long as it
//! is the same server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::authorization_server::AuthorizationServer;
use crate::model::{Life, Service, ServiceName};
use crate::refresh::gate::Gate;
use crate::refresh::pace::Pace;
use crate::refresh::plan::Recovery;

/// What the configuration says.
pub struct Setup {
    /// The authorization servers by name, and what each allows.
    pub servers: HashMap<String, (Arc<dyn AuthorizationServer>, Recovery)>,
    /// The services by name.
    pub services: HashMap<ServiceName, Arc<Service>>,
    /// When tokens are refreshed.
    pub life: Life,
    /// How long a grant's row is taken for.
    pub lease: Duration,
}

/// A setup at work.
pub(super) struct InUse {
    pub(super) doors: HashMap<String, Arc<Door>>,
    pub(super) services: HashMap<ServiceName, Arc<Service>>,
    pub(super) life: Life,
    pub(super) lease: Duration,
}

/// The way to one authorization server.
pub(super) struct Door {
    pub(super) server: Arc<dyn AuthorizationServer>,
    pub(super) recovery: Recovery,
    pub(super) gate: Arc<Gate>,
    pub(super) pace: Arc<Pace>,
    /// Revocations at the same time; apart from exchanges, which must not wait for them.
    pub(super) telling: Arc<Semaphore>,
}

const MOST_TOLD_AT_ONCE: usize = 4;

impl InUse {
    pub(super) fn new(setup: Setup, old: Option<&InUse>) -> Self {
        let door = |(name, (server, recovery)): (String, (Arc<dyn AuthorizationServer>, Recovery))| {
            let registration = server.registration();
            let same = old.and_then(|old| old.doors.get(&name));
            let same = same.filter(|door| door.server.registration() == registration);
            // A pause that the server asked for holds; what was shut by a mistake may have been mended.
            let paused = same.filter(|door| door.gate.is_limited());
            let gate = paused.map_or_else(Arc::default, |door| Arc::clone(&door.gate));
            let pace = same.map_or_else(Arc::default, |door| Arc::clone(&door.pace));
            let telling = same.map_or_else(
                || Arc::new(Semaphore::new(MOST_TOLD_AT_ONCE)),
                |door| Arc::clone(&door.telling),
            );
            (name, Arc::new(Door { server, recovery, gate, pace, telling }))
        };
        Self {
            doors: setup.servers.into_iter().map(door).collect(),
            services: setup.services,
            life: setup.life,
            lease: setup.lease,
        }
    }
}
