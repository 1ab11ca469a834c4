//! The engine: from "a fresh token is wanted" to "it is verified, durable and in the cache", one exchange per grant at a
//! time, whoever waits or leaves.
//!
//! ```text
//! token        joins the flight for this token, or starts one
//!   recall     what the store has is good enough? after a restart it mostly is
//!   turn       one exchange per grant; roles of one grant queue up
//!   exchange   lease and write-ahead, one POST, durable            (exchange.rs)
//!   publish    verified, only then in the cache
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::authorization_server::AuthorizationServer;
use crate::cache::{CachedToken, TokenCache};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::flight::{Crashed, Flights};
use crate::metrics::Metrics;
use crate::model::{EndReason, Failure, GrantId, GrantState, Life, RoleName, Service, ServiceName, TokenKey};
use crate::ready::Ready;
use crate::store::{Lease, Store, StoreError};
use crate::tasks::Tasks;

mod exchange;
mod gate;
mod holdoff;
mod import;
mod pace;
/// May a refresh token be presented now?
pub mod plan;
mod publish;
mod turns;
mod unsaved;

use exchange::Leave;
use gate::{Gate, back_off};
use holdoff::Holdoffs;
use pace::Pace;
use plan::Recovery;
use turns::Turns;
use unsaved::Unsaved;

/// Between two looks at an exchange that an earlier process left in doubt: at first often, for its leeway runs out.
const RESOLVE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// What a caller is told to wait where nothing better is known.
const SHORTLY: Duration = Duration::from_secs(1);

/// What the engine is made of.
pub struct Parts {
    /// Where grants are remembered.
    pub store: Arc<dyn Store>,
    /// The authorization servers by name, and what each allows.
    pub servers: HashMap<String, (Arc<dyn AuthorizationServer>, Recovery)>,
    /// The services by name.
    pub services: HashMap<ServiceName, Arc<Service>>,
    /// Where tokens go that may be handed out.
    pub cache: TokenCache,
    /// When tokens are refreshed.
    pub life: Life,
    /// For how long, and as whom, a grant's row is taken.
    pub lease: Lease,
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
}

/// The engine; clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

/// What is in doubt at the same time at most; more are found by whoever asks for them, or at the next start.
const MOST_DOUBTS: usize = 10_000;

struct Inner {
    parts: Parts,
    doors: HashMap<String, Door>,
    flights: Flights<Flight, Result<Arc<CachedToken>, Failure>>,
    turns: Turns,
    holdoffs: Holdoffs,
    unsaved: Unsaved,
    /// Counts the grants that ended or were replaced, so that who was just reading one of them notices.
    endings: AtomicU64,
    /// Rows whose exchange is in doubt and that nobody goes after yet.
    doubts: mpsc::Sender<GrantId>,
    pursued: Mutex<HashSet<GrantId>>,
    /// Woken when the gauges of grants are out of date.
    recount: Arc<Notify>,
}

/// One flight for each token; those that want an exchange whatever is at hand do not share with those that don't.
type Flight = (TokenKey, Leave);

/// The way to one authorization server.
struct Door {
    server: Arc<dyn AuthorizationServer>,
    recovery: Recovery,
    gate: Gate,
    pace: Pace,
}

impl Engine {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(mut parts: Parts) -> Self {
        let doors = std::mem::take(&mut parts.servers)
            .into_iter()
            .map(|(name, (server, recovery))| {
                (name, Door { server, recovery, gate: Gate::default(), pace: Pace::default() })
            })
            .collect();
        let unsaved = Unsaved::new(
            Arc::clone(&parts.store),
            Arc::clone(&parts.entropy),
            parts.ready.clone(),
            parts.tasks.clone(),
        );
        let flights = Flights::new(parts.tasks.clone());
        let (turns, holdoffs, endings) = (Turns::default(), Holdoffs::default(), AtomicU64::new(0));
        let (doubts, in_doubt) = mpsc::channel(MOST_DOUBTS);
        let pursued = Mutex::default();
        let recount = Arc::<Notify>::default();
        let counting =
            count_grants(Arc::clone(&parts.store), Arc::clone(&parts.metrics), Arc::clone(&recount));
        parts.tasks.spawn_until_stop(counting);
        let inner =
            Inner { parts, doors, flights, turns, holdoffs, unsaved, endings, doubts, pursued, recount };
        let engine = Self(Arc::new(inner));
        engine.0.parts.tasks.spawn_until_stop(pursue_doubts(Arc::downgrade(&engine.0), in_doubt));
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

    /// Goes after the exchanges of which an earlier process left open whether they took place. Each goes on by itself.
    ///
    /// # Errors
    /// If the store can't be asked.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        let in_doubt = self.0.parts.store.in_doubt().await?;
        for id in &in_doubt {
            tracing::warn!(grant = %id.key, "an exchange was under way when the last process ended; finding out what became of it");
            self.0.pursue(id);
        }
        self.0.recount.notify_one();
        Ok(in_doubt.len())
    }

    /// Whether the service has this role; every service has none.
    #[must_use]
    pub fn has_role(&self, service: &ServiceName, role: Option<&RoleName>) -> bool {
        self.0.parts.services.get(service).is_some_and(|service| service.scope(role).is_some())
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
        let flight = (key.clone(), want.leave());
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

/// What a flight is for.
#[derive(Clone, Copy)]
enum Want {
    /// A token of another version than this one, with enough life.
    Newer(Option<i64>),
    /// An exchange.
    Exchange,
}

impl Want {
    fn leave(self) -> Leave {
        match self {
            Self::Newer(_) => Leave::Asked,
            Self::Exchange => Leave::Granted,
        }
    }
}

impl Inner {
    /// Has somebody go after a row whose exchange is in doubt, unless somebody does already.
    fn pursue(&self, id: &GrantId) {
        let new = self.pursued.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        if new && self.doubts.try_send(id.clone()).is_err() {
            self.pursued.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
            tracing::error!(grant = %id.key, "too much is in doubt; this one is left to whoever asks for it");
        }
    }

    /// Until it is known what became of the row's exchange, or the process stops. Nobody waits for it; whoever wants a
    /// token of this grant meanwhile takes turns with it.
    async fn resolve(&self, id: &GrantId) {
        let Ok(service) = self.service(&id.key.service) else { return };
        for tries in 0.. {
            {
                let _turn = self.turns.take(id).await;
                match self.parts.store.grant(id).await {
                    Ok(Some(grant))
                        if grant.in_doubt_since.is_some() && grant.state == GrantState::Active => {}
                    Ok(_settled) => {
                        // With the turn, so that nobody counts on us who is in doubt only now.
                        self.pursued.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
                        return;
                    }
                    Err(error) => tracing::error!(grant = %id.key, %error, "the store does not work"),
                }
                if let Err(failure) = self.exchange(id, &service, None, Leave::Asked).await {
                    tracing::warn!(grant = %id.key, ?failure, "not known yet what became of an exchange");
                }
            }
            let wait = back_off(tries, RESOLVE, 500 + self.parts.entropy.below(500));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.parts.tasks.stopping() => return,
            }
        }
    }

    async fn fly(&self, key: &TokenKey, want: Want) -> Result<Arc<CachedToken>, Failure> {
        let id = GrantId::current(key.grant.clone());
        let service = self.service(&key.grant.service)?;
        if let Want::Newer(seen) = want {
            // Without the turn, so that a slow exchange of another role holds up nobody whose token is in the store. Should
            // a grant end meanwhile, what was read may be its; then it is read again with the turn.
            let endings = self.endings.load(Ordering::Acquire);
            let recalled = self.recall(key, &service, seen).await;
            if self.endings.load(Ordering::Acquire) != endings {
                self.parts.cache.remove(key);
            } else if let Some(token) = recalled? {
                return Ok(token);
            }
        }
        let _turn = self.turns.take(&id).await;
        if let Want::Newer(seen) = want {
            if let Some(token) = self.recall(key, &service, seen).await? {
                return Ok(token);
            }
            if let Some(failure) = self.holdoffs.get(key, &self.parts.clock.now()) {
                return Err(failure);
            }
        }
        let result = self.obtain(&id, key, &service, want.leave()).await;
        match &result {
            Ok(_) => self.holdoffs.clear(key),
            Err(failure) => tracing::warn!(grant = %key.grant, role = ?key.role, ?failure, "no fresh token"),
        }
        result
    }

    /// Exchanges, and where a role's scope is refused finds out whether it is the role or everything.
    async fn obtain(
        &self,
        id: &GrantId,
        key: &TokenKey,
        service: &Service,
        leave: Leave,
    ) -> Result<Arc<CachedToken>, Failure> {
        let result = self.exchange(id, service, key.role.as_ref(), leave).await;
        let stored = match result {
            Err(Failure::Refused { error, .. }) if error == "invalid_scope" && key.role.is_some() => {
                let defaults = self
                    .exchange(id, service, None, leave)
                    .await
                    .map_err(|failure| self.held_off(key, failure))?;
                let default_key = TokenKey { grant: key.grant.clone(), role: None };
                self.publish(&default_key, service, defaults).await?;
                let since = Some(self.parts.clock.now().wall);
                let failure = Failure::LoginRequired { reason: EndReason::RoleNotGranted, since };
                return Err(self.held_off(key, failure));
            }
            other => other.map_err(|failure| self.held_off(key, failure))?,
        };
        self.publish(key, service, stored).await
    }

    /// Remembers failures that would come again at once, so that callers get them from memory for a while.
    fn held_off(&self, key: &TokenKey, failure: Failure) -> Failure {
        let wait = match &failure {
            Failure::Refused { .. } | Failure::TokenInvalid { .. } => None,
            Failure::LoginRequired { reason: EndReason::RoleNotGranted, .. } => Some(Duration::from_mins(1)),
            Failure::ServerUnavailable { retry_after } => Some(*retry_after),
            Failure::LoginRequired { .. }
            | Failure::StoreUnavailable { .. }
            | Failure::Timeout
            | Failure::UserMismatch { .. }
            | Failure::Internal(_) => return failure,
        };
        let jitter = self.parts.entropy.below(1000);
        self.holdoffs.hold(key, &failure, wait, &self.parts.clock.now(), jitter);
        failure
    }

    fn door(&self, service: &Service) -> Result<&Door, Failure> {
        let found = self.doors.get(&service.authorization_server);
        found.ok_or_else(|| Failure::Internal("no such authorization server".to_owned()))
    }

    fn service(&self, name: &ServiceName) -> Result<Arc<Service>, Failure> {
        let found = self.parts.services.get(name).cloned();
        found.ok_or_else(|| Failure::Internal(format!("service {name} is not configured")))
    }
}

/// Brings the gauges of grants up to date whenever some have come or ended, once a second at most: it looks at them all.
async fn count_grants(store: Arc<dyn Store>, metrics: Arc<Metrics>, recount: Arc<Notify>) {
    loop {
        recount.notified().await;
        match store.count().await {
            Ok(counts) => {
                metrics.grants.reset();
                for (service, state, count) in counts {
                    metrics.grants.with_label_values(&[service.as_str(), state.as_str()]).set(count);
                }
            }
            Err(error) => tracing::warn!(%error, "grants not counted"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Goes after what is in doubt, each row in a task of its own.
async fn pursue_doubts(inner: Weak<Inner>, mut in_doubt: mpsc::Receiver<GrantId>) {
    while let Some(id) = in_doubt.recv().await {
        let Some(inner) = inner.upgrade() else { return };
        let tasks = inner.parts.tasks.clone();
        tasks.spawn(async move { inner.resolve(&id).await });
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
