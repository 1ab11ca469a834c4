//! What a reload replaces: services, authorization servers, times. What a door has learnt of its server stays, as long as it
//! is the same server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::authorization_server::AuthorizationServer;
use crate::model::{Life, Service, ServiceName};
use crate::refresh::budget::Budget;
use crate::refresh::gate::Gate;
use crate::refresh::pace::Pace;
use crate::refresh::plan::Recovery;

/// What the configuration says.
pub struct Setup {
    /// The authorization servers by name.
    pub servers: HashMap<String, ServerSetup>,
    /// The services by name.
    pub services: HashMap<ServiceName, Arc<Service>>,
    /// When tokens are refreshed.
    pub life: Life,
    /// How long a grant's row is taken for.
    pub lease: Duration,
    /// How long before a grant ends by itself that is said.
    pub warn_before: Duration,
}

/// One authorization server.
pub struct ServerSetup {
    /// Who is asked.
    pub server: Arc<dyn AuthorizationServer>,
    /// What it allows.
    pub recovery: Recovery,
    /// Our share of its rate limit.
    pub requests_per_minute: u32,
    /// How often it is asked whether grants in use still live, if it is.
    pub liveness: Option<Duration>,
}

/// A setup at work.
pub(super) struct InUse {
    pub(super) doors: HashMap<String, Arc<Door>>,
    pub(super) services: HashMap<ServiceName, Arc<Service>>,
    pub(super) life: Life,
    pub(super) lease: Duration,
    pub(super) warn_before: Duration,
}

/// The way to one authorization server.
pub(super) struct Door {
    pub(super) server: Arc<dyn AuthorizationServer>,
    pub(super) recovery: Recovery,
    pub(super) gate: Arc<Gate>,
    pub(super) pace: Arc<Pace>,
    pub(super) budget: Arc<Budget>,
    pub(super) liveness: Option<Duration>,
    silent: AtomicBool,
    /// Revocations at the same time; apart from exchanges, which must not wait for them.
    pub(super) telling: Arc<Semaphore>,
}

impl Door {
    /// Whether it answers questions about refresh tokens, as far as is known.
    pub(super) fn introspects(&self) -> bool {
        !self.silent.load(Ordering::Relaxed)
    }

    /// It does not.
    pub(super) fn offers_no_introspection(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }
}

const MOST_TOLD_AT_ONCE: usize = 4;

impl InUse {
    pub(super) fn new(setup: Setup, old: Option<&InUse>) -> Self {
        let door = |(name, of): (String, ServerSetup)| {
            let ServerSetup { server, recovery, requests_per_minute, liveness } = of;
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
            let budget = same
                .map_or_else(|| Arc::new(Budget::new(requests_per_minute)), |door| Arc::clone(&door.budget));
            budget.set(requests_per_minute);
            (
                name,
                Arc::new(Door {
                    server,
                    recovery,
                    gate,
                    pace,
                    budget,
                    liveness,
                    silent: AtomicBool::new(false),
                    telling,
                }),
            )
        };
        Self {
            doors: setup.servers.into_iter().map(door).collect(),
            services: setup.services,
            life: setup.life,
            lease: setup.lease,
            warn_before: setup.warn_before,
        }
    }
}
