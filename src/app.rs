//! The one place that names every part and wires them. No decisions live here.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};

use crate::admin::consents::Desk;
use crate::admin::keys::KeyRotation;
use crate::admin::observe::{Observe, Observing};
use crate::admin::{Admin, Reload};
use crate::api::{Api, Load, Terms};
use crate::audit::{self, Audit, Event};
use crate::authorization_server::http::HttpClient;
use crate::broker::Broker;
use crate::cache::TokenCache;
use crate::caller::{Look, overflow_uid};
use crate::clock::{Clock, SystemClock};
use crate::consent::Consents;
use crate::entropy::{Entropy, SystemEntropy};
use crate::hardening::Reach;
use crate::metrics::Metrics;
use crate::model::{LoginUrl, RequestIds};
use crate::notify::Notifier;
use crate::policy::Policy;
use crate::ready::{Latch, Ready};
use crate::refresh::setup::Setup;
use crate::refresh::{Engine, Parts};
use crate::runs::Passes;
use crate::runs::ended::EndedRuns;
use crate::runs::keys::PassKeys;
use crate::server::{self, Limits};
use crate::settings::Settings;
use crate::settings::run_passes::KeySource;
use crate::socket::Listening;
use crate::store::keys::Keys;
use crate::store::metered::MeteredStore;
use crate::store::notices::NoticeStore;
use crate::store::{RunStore, Store, StoreError};
use crate::tasks::Tasks;
use crate::uses::Uses;

mod open;
mod page;
mod reload;

use open::{bind_metrics, notifier, open_audit, open_sockets, open_store, setup};
use page::Page;
use reload::Reloader;

/// What is read of a head at all; what is too large below that is refused in our own words.
const HEAD: usize = 64 * 1024;
const HEADERS: usize = 256;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stop waits for the audit log's disk.
const PATIENCE_FOR_AUDIT: Duration = Duration::from_secs(10);
const PATIENCE_WHEN_FORCED: Duration = Duration::from_secs(1);
/// Administrators are few.
const ADMIN_CONNECTIONS: usize = 64;

/// What the outside world is to the process.
#[derive(Clone)]
pub struct Ports {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What can be opened, if not everything can.
    pub reach: Option<Arc<Reach>>,
}

impl Ports {
    /// The real ones.
    #[must_use]
    pub fn real() -> Self {
        let entropy = SystemEntropy;
        let mut boot = [0; 16];
        entropy.fill(&mut boot);
        Self {
            clock: Arc::new(SystemClock::new(u128::from_le_bytes(boot))),
            entropy: Arc::new(entropy),
            reach: None,
        }
    }
}

/// Why it does not start; the texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something has to be mended first.
    #[error("{0}")]
    Failed(String),
    /// Another process has what we need; later it may work.
    #[error("{0}")]
    InUse(String),
}

/// Everything made and bound, nothing started.
pub struct App {
    tasks: Tasks,
    metrics: Arc<Metrics>,
    ready: Ready,
    engine: Engine,
    notifier: Notifier,
    store: Arc<dyn Store>,
    uses: Arc<Uses>,
    audit: Audit,
    vending: (Listening, Arc<Api>, Limits),
    admin: (Listening, Arc<Admin>, Limits),
    page: Option<Page>,
    observing: Observing,
    metrics_address: SocketAddr,
    latch: Latch,
}

/// A process at work.
pub struct Running {
    tasks: Tasks,
    engine: Engine,
    store: Arc<dyn Store>,
    uses: Arc<Uses>,
    audit: Audit,
    reload: Arc<dyn Reload>,
    metrics_address: SocketAddr,
    _observing: Observing,
}

impl App {
    /// Makes every part, opens the store and binds the sockets, unless they are among the `inherited` ones.
    ///
    /// # Errors
    /// What the operator must mend, or wait for.
    pub async fn build(
        mut settings: Settings,
        ports: Ports,
        inherited: Vec<StdUnixListener>,
    ) -> Result<Self, StartError> {
        let (tasks, ready, cache) = (Tasks::new(), Ready::default(), TokenCache::default());
        let latch = ready.hold("start");
        let metrics = Arc::new(Metrics::new().map_err(|error| StartError::Failed(error.to_string()))?);
        // First the store, which waits for the process that owns it: the ports are that one's, too.
        let store = open_store(&settings).await?;
        let observe = Observe { metrics: Arc::clone(&metrics), ready: ready.clone(), cache: cache.clone() };
        let (listener, metrics_address) = bind_metrics(&settings).await?;
        let observing = observe.start(listener).map_err(|error| StartError::Failed(error.to_string()))?;
        let Ports { clock, entropy, .. } = ports.clone();
        let audit = open_audit(&settings, &ports, &metrics, &ready)?;
        audit.record(Event::new(audit::Kind::Start, "ok").detail(env!("CARGO_PKG_VERSION")));
        let store =
            Arc::new(MeteredStore::new(store, Arc::clone(&clock), Arc::clone(&metrics), ready.clone()));
        let (runs, keys): (Arc<dyn RunStore>, Arc<dyn Keys>) = (store.clone(), store.clone());
        let notices: Arc<dyn NoticeStore> = store.clone();
        let store: Arc<dyn Store> = store;
        let page = Page::prepare(&settings).await?;
        let setup = setup(&mut settings, &ports, &metrics).map_err(StartError::Failed)?;
        let look = Look::default();
        let ended = EndedRuns::load(runs, clock.now().wall).await;
        let ended = Arc::new(ended.map_err(|error| StartError::Failed(error.to_string()))?);
        let terms = terms(&settings, &setup, &ports, (&ended, &tasks, None)).map_err(StartError::Failed)?;
        look.closely(audit.is_on() || terms.policy.looks_closely());
        let handles = (tasks.clone(), ready.clone(), Arc::clone(&metrics), audit.clone());
        let engine = Engine::new(parts(&store, &cache, &ports, handles), setup);
        let notifier = notifier(&settings, &ports, (notices, engine.news()), &metrics, &audit).await?;
        let uses = Arc::new(Uses::new(Arc::clone(&store)));
        let in_memory = (cache.clone(), Arc::clone(&uses));
        let broker = Broker::new(engine.clone(), in_memory, Arc::clone(&clock), Arc::clone(&metrics));
        let consents =
            Consents::new(engine.clone(), Arc::clone(&clock), Arc::clone(&entropy), Arc::clone(&metrics));
        let desk = Arc::new(Desk::new(consents.clone(), Arc::clone(&clock), Arc::clone(&entropy)));
        let page = page.map(|page| {
            let (store, uses, metrics) = (Arc::clone(&store), Arc::clone(&uses), Arc::clone(&metrics));
            page.make(&ports, metrics, (consents, engine.clone(), store, uses, audit.clone(), tasks.clone()))
        });
        let api = Arc::new(Api {
            terms: ArcSwap::from_pointee(terms),
            broker,
            store: Arc::clone(&store),
            ended,
            news: watch::Sender::new(()),
            load: Load::default(),
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
            ids: RequestIds::new(&*entropy),
            metrics: Arc::clone(&metrics),
            audit: audit.clone(),
        });
        let reload = Arc::new(Reloader {
            path: settings.path.clone(),
            fixed: settings.fixed.clone(),
            keys: Arc::clone(&keys),
            engine: engine.clone(),
            notifier: notifier.clone(),
            api: Arc::clone(&api),
            look: look.clone(),
            page: page.as_ref().map(Page::handle),
            ports,
            metrics: Arc::clone(&metrics),
            audit: audit.clone(),
            turn: Mutex::default(),
        });
        let admin = Arc::new(Admin {
            engine: engine.clone(),
            store: Arc::clone(&store),
            uses: Arc::clone(&uses),
            cache,
            ready: ready.clone(),
            api: Arc::clone(&api),
            reload,
            keys: KeyRotation::new(keys, tasks.clone()),
            desk,
            started: clock.now(),
            clock,
            ids: RequestIds::new(&*entropy),
            audit: audit.clone(),
        });
        let (admin_socket, vending_socket) = open_sockets(&settings, inherited)?;
        let limits = |connections, per_uid| limits(connections, per_uid, settings.request_timeout);
        let vending_limits = limits(settings.fixed.max_connections, settings.fixed.max_connections_per_uid);
        Ok(Self {
            admin: (admin_socket.looking(look.clone()), admin, limits(ADMIN_CONNECTIONS, ADMIN_CONNECTIONS)),
            vending: (vending_socket.looking(look), api, vending_limits),
            tasks,
            metrics,
            ready,
            engine,
            notifier,
            store,
            uses,
            audit,
            page,
            observing,
            metrics_address,
            latch,
        })
    }

    /// Starts everything: first what the last process left in doubt, then the sockets.
    ///
    /// # Errors
    /// If the store does not say what was left.
    pub async fn start(self) -> Result<Running, StartError> {
        let failed = |error: StoreError| StartError::Failed(error.to_string());
        self.engine.recover().await.map_err(failed)?;
        self.engine.look_after().await.map_err(failed)?;
        self.tasks.spawn_until_stop(self.notifier.run());
        self.uses.save_now_and_then(&self.tasks);
        let (listener, handler, limits) = self.vending;
        let serving = server::serve(
            "vending",
            listener,
            handler,
            limits,
            self.tasks.clone(),
            Arc::clone(&self.metrics),
        );
        self.tasks.spawn_vital(serving);
        let (listener, handler, limits) = self.admin;
        let reload = Arc::clone(&handler.reload);
        let metrics = Arc::clone(&self.metrics);
        let serving = server::serve("admin", listener, handler, limits, self.tasks.clone(), metrics);
        self.tasks.spawn_vital(serving);
        if let Some(page) = self.page {
            page.start(&self.tasks, self.metrics);
        }
        drop(self.latch);
        tracing::info!(metrics = %self.metrics_address, waiting_for = ?self.ready.waiting_for(), "ready");
        Ok(Running {
            tasks: self.tasks,
            engine: self.engine,
            store: self.store,
            uses: self.uses,
            audit: self.audit,
            reload,
            metrics_address: self.metrics_address,
            _observing: self.observing,
        })
    }
}

impl Running {
    /// The handle to what runs.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Where `/metrics`, `/live` and `/ready` are: the configured port, or the one taken where that was 0.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Reads the configuration again. The log says what came of it.
    pub async fn reload(&self) {
        let result = self.reload.reload().await;
        let event = Event::new(audit::Kind::Reload, if result.is_ok() { "ok" } else { "refused" });
        self.audit.record(event.detail("SIGHUP"));
    }

    /// What a process does that may not wait for the rest: what a grant depends on is put where the next start finds it.
    pub async fn force(&self) {
        self.engine.spill().await;
        self.audit.record(Event::new(audit::Kind::Stop, "forced"));
        self.audit.close(PATIENCE_WHEN_FORCED).await;
    }

    /// Stops: no new connections, then requests, refreshes and what they have to write are finished, then the store is
    /// let go of.
    pub async fn stop(&self) {
        self.tasks.stop();
        self.tasks.stopped().await;
        self.uses.save().await;
        // Before the store, whose lock keeps the next process away from what lies beside it.
        self.audit.record(Event::new(audit::Kind::Stop, "ok"));
        self.audit.close(PATIENCE_FOR_AUDIT).await;
        self.store.close().await;
        tracing::info!("stopped");
    }
}

fn limits(connections: usize, connections_per_uid: usize, grace: Duration) -> Limits {
    Limits {
        connections,
        connections_per_uid,
        head: HEAD,
        headers: HEADERS,
        header_timeout: HEADER_TIMEOUT,
        grace,
    }
}

/// What the engine stands on.
fn parts(
    store: &Arc<dyn Store>,
    cache: &TokenCache,
    ports: &Ports,
    (tasks, ready, metrics, audit): (Tasks, Ready, Arc<Metrics>, Audit),
) -> Parts {
    Parts {
        store: Arc::clone(store),
        cache: cache.clone(),
        owner: ports.entropy.text(16),
        clock: Arc::clone(&ports.clock),
        entropy: Arc::clone(&ports.entropy),
        tasks,
        ready,
        metrics,
        audit,
    }
}

/// On what terms workers get something, by this configuration.
fn terms(
    settings: &Settings,
    setup: &Setup,
    ports: &Ports,
    runs: (&Arc<EndedRuns>, &Tasks, Option<&Arc<PassKeys>>),
) -> Result<Terms, String> {
    let (ended, tasks, keys_in_use) = runs;
    let clock = || Arc::clone(&ports.clock);
    let passes = settings.run_passes.as_ref().map(|passes| {
        let keys = match &passes.keys {
            KeySource::File(path) => Arc::new(PassKeys::file(path, clock())?),
            KeySource::Url(url) => match keys_in_use.filter(|keys| keys.are_at(url)) {
                // What was fetched is not thrown away because of a reload.
                Some(keys) => Arc::clone(keys),
                None => {
                    let http = HttpClient::new(None, settings.proxies.clone())?;
                    Arc::new(PassKeys::url(url.clone(), http, clock(), tasks.clone()))
                }
            },
        };
        Ok::<_, String>((passes.expected.clone(), keys))
    });
    Ok(Terms {
        policy: Policy::new(settings.callers.clone(), setup.services.clone(), overflow_uid()),
        request_timeout: settings.request_timeout,
        requests_per_second: settings.per_uid.requests_per_second,
        event_streams: settings.per_uid.event_streams,
        waiting_requests: settings.per_uid.waiting_requests,
        connect: settings.connect.as_ref().map(|connect| LoginUrl::at(connect.public_url.clone())),
        passes: Passes::new(passes.transpose()?, Arc::clone(ended), clock()),
    })
}
