//! The engine: from "a fresh token is wanted" to "it is verified, durable and in the cache", one exchange per grant at a
//! time, whoever waits or leaves.
//!
//! ```text
//! token        joins the flight for this token, or starts one
//!   recall     what the store has is good enough? after a restart it mostly is  (fetch.rs)
//!   turn       one exchange per grant; roles of one grant queue up
//!   exchange   lease and write-ahead, one POST, durable            (exchange.rs)
//!   publish    verified, only then in the cache
//! ```
//!
//! Nobody has to ask: tokens in use are refreshed ahead (schedule.rs, ahead.rs) within the server's budget, other grants are
//! kept alive (keep_alive.rs), and where it is wanted the server is asked whether grants live (liveness.rs).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use crate::audit::Audit;
use crate::authorization_server::Unverified;
use crate::cache::{CachedToken, TokenCache};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::flight::{Crashed, Flights};
use crate::jwt::{Claims, VerifyError};
use crate::metrics::Metrics;
use crate::model::{Failure, Grant, GrantId, GrantKey, GrantState, Life, Service, ServiceName, TokenKey};
use crate::ready::Ready;
use crate::secret::Secret;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

mod admission;
/// Consents become grants.
pub mod adopt;
mod ahead;
mod audited;
mod budget;
mod coverage;
mod doubts;
mod exchange;
mod fetch;
mod gate;
mod holdoff;
mod import;
mod keep_alive;
mod liveness;
mod pace;
/// May a refresh token be presented now?
pub mod plan;
mod present;
mod publish;
/// Grants are revoked, users forgotten.
pub mod revoke;
mod schedule;
/// What a reload replaces.
pub mod setup;
mod status;
mod timers;
mod turns;
mod unsaved;
mod watchers;

use doubts::{MOST_DOUBTS, pursue_doubts};
use fetch::Want;
use holdoff::Holdoffs;
use liveness::Checks;
use revoke::Revoking;
use schedule::Schedule;
use setup::{Door, InUse, Setup};
pub use status::DoorStatus;
use status::{count_grants, tell_expiries};
use turns::Turns;
use unsaved::Unsaved;
use watchers::Watchers;

/// What a caller is told to wait where nothing better is known.
const SHORTLY: Duration = Duration::from_secs(1);

/// What the engine is made of.
pub struct Parts {
    /// Where grants are remembered.
    pub store: Arc<dyn Store>,
    /// Where tokens go that may be handed out.
    pub cache: TokenCache,
    /// As whom a grant's row is taken.
    pub owner: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub entropy: Arc<dyn Entropy>,
    /// What owns the work.
    pub tasks: Tasks,
    /// Held back while an answer can't be written.
    pub ready: Ready,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where refreshes and ends are recorded.
    pub audit: Audit,
}

/// The engine; clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    parts: Parts,
    in_use: ArcSwap<InUse>,
    flights: Flights<Flight, Result<Arc<CachedToken>, Failure>>,
    turns: Turns,
    holdoffs: Holdoffs,
    schedule: Mutex<Schedule>,
    checks: Checks,
    /// Grants that are being asked about because somebody waits for that.
    vouching: Flights<GrantKey, Result<(), Failure>>,
    /// Woken when it is known anew when a grant ends.
    expiries: Arc<Notify>,
    /// Woken when a grant has ended, or it is known anew when one will.
    news: Arc<Notify>,
    watchers: Watchers,
    /// Woken when something is due sooner than was known.
    wake: Arc<Notify>,
    unsaved: Unsaved,
    /// Counts the times that tokens went out of the cache because their grant, or the configuration, is another one now; so
    /// that who was just about to put one in notices. Held while either is done.
    endings: Mutex<u64>,
    revoking: Revoking,
    /// Rows whose exchange is in doubt and that nobody goes after yet.
    doubts: mpsc::Sender<GrantId>,
    pursued: Mutex<HashSet<GrantId>>,
    /// Woken when the gauges of grants are out of date.
    recount: Arc<Notify>,
}

/// One flight for each token; those that want an exchange whatever is at hand do not share with those that don't.
type Flight = (TokenKey, bool);

impl Engine {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(parts: Parts, setup: Setup) -> Self {
        let in_use = ArcSwap::from_pointee(InUse::new(setup, None));
        let revoking = Revoking::new(parts.tasks.clone());
        let unsaved = Unsaved::new(
            Arc::clone(&parts.store),
            Arc::clone(&parts.entropy),
            parts.ready.clone(),
            parts.tasks.clone(),
            revoking.again(),
        );
        let flights = Flights::new(parts.tasks.clone());
        let vouching = Flights::new(parts.tasks.clone());
        let expiries = Arc::<Notify>::default();
        let (turns, holdoffs, endings) = (Turns::default(), Holdoffs::default(), Mutex::default());
        let (doubts, in_doubt) = mpsc::channel(MOST_DOUBTS);
        let pursued = Mutex::default();
        let recount = Arc::<Notify>::default();
        let counting =
            count_grants(Arc::clone(&parts.store), Arc::clone(&parts.metrics), Arc::clone(&recount));
        parts.tasks.spawn_until_stop(counting);
        let ends = tell_expiries(Arc::clone(&parts.store), Arc::clone(&parts.metrics), Arc::clone(&expiries));
        parts.tasks.spawn_until_stop(ends);
        let inner = Inner {
            parts,
            in_use,
            flights,
            turns,
            holdoffs,
            schedule: Mutex::default(),
            checks: Checks::default(),
            vouching,
            expiries,
            news: Arc::default(),
            watchers: Watchers::default(),
            wake: Arc::default(),
            unsaved,
            endings,
            revoking,
            doubts,
            pursued,
            recount,
        };
        let engine = Self(Arc::new(inner));
        let tasks = &engine.0.parts.tasks;
        tasks.spawn_until_stop(pursue_doubts(Arc::downgrade(&engine.0), in_doubt));
        tasks.spawn_until_stop(revoke::retry(Arc::downgrade(&engine.0), engine.0.revoking.again()));
        engine
    }

    /// A token newer than the one of version `seen`: from the store if it has one, else by an exchange. The work goes
    /// on whether or not the future is awaited; everybody who asks meanwhile shares it.
    pub fn token(
        &self,
        key: &TokenKey,
        seen: Option<i64>,
    ) -> impl Future<Output = Result<Arc<CachedToken>, Failure>> + Send + use<> {
        self.join(key, Want::Newer(seen))
    }

    /// A token from an exchange made now, whatever is at hand.
    pub fn refresh(
        &self,
        key: &TokenKey,
    ) -> impl Future<Output = Result<Arc<CachedToken>, Failure>> + Send + use<> {
        self.join(key, Want::Exchange)
    }

    /// Looks after what an earlier process had in use, and whatever comes into use, from now on. After `recover`.
    ///
    /// # Errors
    /// If the store can't be asked.
    pub async fn look_after(&self) -> Result<usize, StoreError> {
        let restored = self.0.restore().await?;
        let (tasks, wake) = (&self.0.parts.tasks, Arc::clone(&self.0.wake));
        tasks.spawn_until_stop(ahead::keep_ahead(Arc::downgrade(&self.0), wake));
        tasks.spawn_until_stop(keep_alive::keep_alive(Arc::downgrade(&self.0)));
        Ok(restored)
    }

    /// Whether the token could not be refreshed when it was due.
    #[must_use]
    pub fn is_failing(&self, key: &TokenKey) -> bool {
        self.0.schedule().is_failing(key)
    }

    /// Goes after the exchanges of which an earlier process left open whether they took place. Each goes on by itself.
    ///
    /// # Errors
    /// If the store can't be asked.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        self.0.give_back_abandoned().await?;
        let in_doubt = self.0.parts.store.in_doubt().await?;
        for id in &in_doubt {
            tracing::warn!(grant = %id.key, "an exchange was under way when the last process ended; finding out what became of it");
            self.0.pursue(id);
        }
        self.0.recount.notify_one();
        self.0.expiries.notify_one();
        self.0.revoking.wake();
        Ok(in_doubt.len())
    }

    /// Another number after each grant that has ended, and each configuration.
    #[must_use]
    pub fn endings(&self) -> u64 {
        *self.0.endings()
    }

    /// A service as it is configured now.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<Arc<Service>> {
        self.0.in_use.load().services.get(name).cloned()
    }

    /// When tokens are refreshed, as it is configured now.
    #[must_use]
    pub fn life(&self) -> Life {
        self.0.in_use.load().life
    }

    /// What a token that somebody shows says of itself, if the service's authorization server issued it for that service
    /// and it is valid now. An opaque one can't be read here.
    ///
    /// # Errors
    /// Why it is not, or why that can't be told.
    pub async fn read(&self, service: &Service, token: &Secret) -> Result<Claims, Unverified> {
        let door = self.0.door(service).map_err(|failure| Unverified::NoKeys(format!("{failure:?}")))?;
        if service.opaque {
            return Err(Unverified::Invalid(VerifyError::NotAJwt));
        }
        // In a task of its own: whoever asks may leave, and must not begin a fetch of keys that counts for nothing.
        let (now, token) = (self.0.parts.clock.now().wall, token.clone());
        let (audience, server) = (service.audience.clone(), Arc::clone(&door.server));
        let reading = self.0.parts.tasks.spawn(async move { server.read(&token, &audience, now).await });
        reading.await.unwrap_or_else(|error| Err(Unverified::NoKeys(error.to_string())))
    }

    /// Works with another configuration from now on. What is under way is finished with the old one; what was verified
    /// against it is looked at again before it is handed out.
    pub fn replace(&self, setup: Setup) {
        let old = self.0.in_use.load_full();
        self.0.in_use.store(Arc::new(InUse::new(setup, Some(&old))));
        let mut endings = self.0.endings();
        *endings += 1;
        self.0.parts.cache.clear();
        self.0.holdoffs.clear_all();
        drop(endings);
        self.0.recount.notify_one();
        self.0.wake.notify_one();
        // What could not be revoked may be now.
        self.0.revoking.wake_all();
    }

    /// Puts the answers that could not be written beside the store, for a process that may not wait any longer.
    pub async fn spill(&self) {
        self.0.unsaved.spill().await;
    }

    fn join(
        &self,
        key: &TokenKey,
        want: Want,
    ) -> impl Future<Output = Result<Arc<CachedToken>, Failure>> + Send + use<> {
        let (inner, token_key) = (Arc::clone(&self.0), key.clone());
        let flight = (key.clone(), want.is_for_an_exchange());
        let flight = self.0.flights.join(&flight, move || async move { inner.fly(&token_key, want).await });
        async move {
            flight.result().await.unwrap_or_else(|crashed| {
                Err(match crashed {
                    Crashed::Full => Failure::ServerUnavailable { retry_after: SHORTLY },
                    Crashed::Panicked => Failure::Internal("a refresh panicked".to_owned()),
                })
            })
        }
    }
}

impl Inner {
    /// A service whose tokens speak for the client itself has one row, made when it is first needed.
    async fn ensure_client_grant(&self, id: &GrantId, service: &Service) -> Result<(), Failure> {
        let store = &self.parts.store;
        let registration = self.door(service)?.server.registration();
        let there = store.grant(id).await.map_err(|error| store_failure(&error))?;
        if there.is_some_and(|grant| grant.registration == registration && grant.state == GrantState::Active)
        {
            return Ok(());
        }
        let now = self.parts.clock.now().wall;
        store.ensure_client_grant(id, &registration, now).await.map_err(|error| store_failure(&error))
    }

    /// The grant, if there is one and it lives.
    async fn unless_ended(&self, id: &GrantId) -> Result<Option<Grant>, Failure> {
        let grant = self.parts.store.grant(id).await.map_err(|error| store_failure(&error))?;
        match grant.as_ref().map(|grant| grant.state) {
            Some(GrantState::Ended { reason, since }) => {
                Err(Failure::LoginRequired { reason, since: Some(since) })
            }
            Some(GrantState::Active) | None => Ok(grant),
        }
    }

    fn door(&self, service: &Service) -> Result<Arc<Door>, Failure> {
        let found = self.in_use.load().doors.get(&service.authorization_server).cloned();
        found.ok_or_else(|| Failure::Internal("no such authorization server".to_owned()))
    }

    fn service(&self, name: &ServiceName) -> Result<Arc<Service>, Failure> {
        let found = self.in_use.load().services.get(name).cloned();
        found.ok_or_else(|| Failure::Internal(format!("service {name} is not configured")))
    }

    fn schedule(&self) -> std::sync::MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endings(&self) -> std::sync::MutexGuard<'_, u64> {
        self.endings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn store_failure(error: &StoreError) -> Failure {
    match error {
        StoreError::Unavailable(_) => {
            tracing::error!(%error, "the store does not work");
            Failure::StoreUnavailable { retry_after: SHORTLY }
        }
        StoreError::Inconsistent { .. } | StoreError::Seal(_) => Failure::Internal(error.to_string()),
    }
}
