//! The real engine and broker, between a store in memory and the model of Okta.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bursar::audit::Audit;
use bursar::authorization_server::AuthorizationServer;
use bursar::broker::{Broker, Wanted};
use bursar::cache::TokenCache;
use bursar::caller::{Caller, Look};
use bursar::clock::{Clock, Timestamp};
use bursar::entropy::{Entropy, SeededEntropy};
use bursar::metrics::Metrics;
use bursar::model::{
    Entitlement, Failure, GrantKey, Kind, Life, RoleName, Scope, Service, ServiceName, SpeaksFor, TokenKey,
    UserName,
};
use bursar::policy::{Pattern, Permit, Policy, Rule, Shown, TokenRequest};
use bursar::ready::Ready;
use bursar::refresh::plan::Recovery;
use bursar::refresh::setup::{ServerSetup, Setup};
use bursar::refresh::{Engine, Parts};
use bursar::store::Store;
use bursar::tasks::Tasks;
use bursar::uses::Uses;

use crate::day::{At, Day, Request};
use crate::ledger::{IDLE_AFTER, Ledger};
use crate::memory::MemoryStore;
use crate::okta::{LEEWAY, Okta, OktaParts, refresh_token};
use crate::time::VirtualClock;

/// How long a caller waits at most, as the socket has it.
const PATIENCE: Duration = Duration::from_secs(15);
/// Requests that come within this time are made together.
const TOGETHER: At = 100;
const SECOND_ROLE: &str = "ANALYST";

/// What may differ between two scenarios.
pub(crate) struct Scenario {
    pub(crate) day: Day,
    pub(crate) per_minute: u32,
    pub(crate) outage: Option<Range<At>>,
    pub(crate) keep_alive: Option<Duration>,
}

/// One sidecar.
pub(crate) struct World {
    pub(crate) clock: VirtualClock,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    broker: Arc<Broker>,
    permits: Vec<Permit>,
    tasks: Tasks,
}

impl World {
    /// Starts one in which each user gave consent, and was last refreshed at the time that `refreshed` says. Inside a runtime
    /// whose time stands still.
    pub(crate) async fn start(
        scenario: Scenario,
        caller: &Caller,
        refreshed: impl Fn(usize, Timestamp) -> Timestamp,
    ) -> Self {
        let Scenario { day, per_minute, outage, keep_alive } = scenario;
        let (clock, service) = (VirtualClock::new(day.from), service());
        let store = MemoryStore::new(service.name.clone());
        let users = (0..day.users).filter_map(|user| UserName::parse(&format!("user-{user}@example.com")));
        let now = clock.now().wall;
        let mut keys = Vec::with_capacity(day.users * 2);
        for (number, user) in users.enumerate() {
            store.connect(&user, refresh_token(number, 0), refreshed(number, now));
            let grant = GrantKey { service: service.name.clone(), user };
            keys.push(TokenKey { grant: grant.clone(), role: None });
            keys.push(TokenKey { grant, role: RoleName::parse(SECOND_ROLE) });
        }
        let permits = permits(caller, &service, &keys);
        let (keys, cache) = (Arc::new(keys), TokenCache::default());
        let ledger = Arc::new(Mutex::new(Ledger::new(day.users, day.from, day.until)));
        let okta = Okta::new(OktaParts {
            clock,
            cache: cache.clone(),
            keys,
            ledger: Arc::clone(&ledger),
            seed: day.seed ^ 1,
            second_role: Scope::from_wire("session:role:ANALYST"),
            outage,
            per_minute,
        });
        let (metrics, tasks) = (Arc::new(Metrics::new().unwrap()), Tasks::new());
        let store: Arc<dyn Store> = Arc::new(store);
        let uses = Arc::new(Uses::new(Arc::clone(&store)));
        let parts = Parts {
            store,
            cache: cache.clone(),
            owner: "us".into(),
            clock: Arc::new(clock) as Arc<dyn Clock>,
            entropy: Arc::new(SeededEntropy::new(day.seed ^ 2)) as Arc<dyn Entropy>,
            tasks: tasks.clone(),
            ready: Ready::default(),
            metrics: Arc::clone(&metrics),
            audit: Audit::none(),
        };
        let engine = Engine::new(parts, setup(service, okta, per_minute, keep_alive));
        engine.recover().await.unwrap();
        engine.look_after().await.unwrap();
        let broker = Arc::new(Broker::new(engine, (cache, uses), Arc::new(clock), metrics));
        Self { clock, ledger, broker, permits, tasks }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }

    /// Makes the day's requests at their time, and waits for the day's end.
    pub(crate) async fn live_through(&self, day: Day) {
        let mut now = day.from;
        for request in day.requests() {
            let at = request.at.next_multiple_of(TOGETHER);
            if at > now {
                self.clock.until(at).await;
                now = at;
            }
            self.ask(request);
        }
        self.clock.until(day.until).await;
    }

    /// One request. Only what can't be answered at once becomes a task.
    fn ask(&self, request: Request) {
        let Some(permit) = self.permits.get(request.key).cloned() else { return };
        let in_use = self.ledger().asked(request.at, request.key);
        let broker = Arc::clone(&self.broker);
        let mut vend = Box::pin(async move {
            let vended = broker.vend(&permit, &Wanted::default(), PATIENCE, || Some(())).await;
            vended.map(drop)
        });
        match vend.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => note(&self.ledger, self.clock.at(), request.key, &result),
            Poll::Pending => {
                let (ledger, clock, asked) = (Arc::clone(&self.ledger), self.clock, self.clock.at());
                self.tasks.spawn(async move {
                    let result = vend.await;
                    // The store takes no time here, and the server always some.
                    let recalled = result.is_ok() && clock.at() == asked;
                    {
                        let mut ledger = locked(&ledger);
                        if recalled { ledger.recalls += 1 } else { ledger.waits(in_use) }
                    }
                    note(&ledger, clock.at(), request.key, &result);
                });
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

fn note(ledger: &Mutex<Ledger>, at: At, key: usize, result: &Result<(), Failure>) {
    match result {
        Ok(()) => locked(ledger).had(key),
        Err(failure) => locked(ledger).failed(at, key, failure.word()),
    }
}

fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

fn service() -> Service {
    let second_role = RoleName::parse(SECOND_ROLE).unwrap();
    Service {
        name: ServiceName::parse("snowflake").unwrap(),
        speaks_for: SpeaksFor::Users,
        authorization_server: "okta".into(),
        audience: "https://simulation.snowflakecomputing.com".into(),
        scopes: Scope::from_wire("session:role:PUBLIC"),
        roles: [(second_role, Scope::from_wire("session:role:ANALYST"))].into(),
        user_claim: "sub".into(),
        // Nothing is signed, so nothing is verified: what is looked at here is when, not what.
        opaque: true,
        kind: Kind::Snowflake,
        acr_values: None,
        max_age: None,
        password_grant: false,
    }
}

/// Everything as the configuration has it by default.
fn setup(service: Service, okta: Okta, per_minute: u32, keep_alive: Option<Duration>) -> Setup {
    let recovery = Recovery { leeway: Duration::from_millis(LEEWAY), deadline: Duration::from_secs(5) };
    let server: Arc<dyn AuthorizationServer> = Arc::new(okta);
    let server = ServerSetup { server, recovery, requests_per_minute: per_minute, liveness: None };
    Setup {
        servers: HashMap::from([("okta".to_owned(), server)]),
        services: HashMap::from([(service.name.clone(), Arc::new(service))]),
        life: Life {
            ahead_percent: 75,
            floor: Duration::from_secs(30),
            ceiling: Duration::from_mins(20),
            min_ttl: Duration::from_mins(1),
            idle_after: Duration::from_millis(IDLE_AFTER),
            keep_alive,
        },
        lease: Duration::from_secs(10),
        warn_before: Duration::from_hours(72),
    }
}

/// Ourselves. A caller comes from a socket, so there is one, in a runtime with more than timers.
pub(crate) fn caller() -> Caller {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _inside = runtime.enter();
    let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
    Caller::of(&ours, &Look::default()).unwrap()
}

/// One for each key.
fn permits(caller: &Caller, service: &Service, keys: &[TokenKey]) -> Vec<Permit> {
    let rule = Rule {
        uid: Some(caller.uid()),
        services: vec![Entitlement::All],
        users: vec![Pattern::new("*")],
        ..Rule::default()
    };
    let services = HashMap::from([(service.name.clone(), Arc::new(service.clone()))]);
    let policy = Policy::new(vec![rule], services, u32::MAX);
    let permit = |key: &TokenKey| {
        let request = TokenRequest {
            service: key.grant.service.clone(),
            user: Some(key.grant.user.clone()),
            role: key.role.clone(),
        };
        policy.permit(caller, request, &Shown::Nothing).unwrap()
    };
    keys.iter().map(permit).collect()
}
