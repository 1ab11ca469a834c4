//! The one place that names every part and wires them. No decisions live here.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use crate::admin::Admin;
use crate::admin::observe::{Observe, Observing};
use crate::api::Api;
use crate::authorization_server::AuthorizationServer;
use crate::authorization_server::client::{Client, Config};
use crate::authorization_server::client_authentication::ClientAuthentication;
use crate::authorization_server::http::HttpClient;
use crate::broker::Broker;
use crate::cache::TokenCache;
use crate::caller::overflow_uid;
use crate::clock::{Clock, SystemClock};
use crate::entropy::{Entropy, SystemEntropy};
use crate::metrics::Metrics;
use crate::model::ServiceName;
use crate::policy::Policy;
use crate::ready::{Latch, Ready};
use crate::refresh::plan::Recovery;
use crate::refresh::{Engine, Parts};
use crate::server::{self, Limits};
use crate::settings::{Server, Settings};
use crate::socket::{self, Listening};
use crate::store::metered::MeteredStore;
use crate::store::seal::Sealer;
use crate::store::sqlite::{OpenError, SqliteStore};
use crate::store::{Lease, Store};
use crate::tasks::Tasks;

/// How long to wait for the process that owns the store to end.
const PATIENCE_FOR_STORE: Duration = Duration::from_mins(1);
/// Between two looks whether it has.
const STEP: Duration = Duration::from_millis(100);
/// How often to look whether its port is free.
const PORT_TRIES: u32 = 50;
/// What is read of a head at all; what is too large below that is refused in our own words.
const HEAD: usize = 64 * 1024;
const HEADERS: usize = 256;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Administrators are few.
const ADMIN_CONNECTIONS: usize = 64;

/// What the outside world is to the process.
pub struct Ports {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Ports {
    /// The real ones.
    #[must_use]
    pub fn real() -> Self {
        let entropy = SystemEntropy;
        let mut boot = [0; 16];
        entropy.fill(&mut boot);
        Self { clock: Arc::new(SystemClock::new(u128::from_le_bytes(boot))), entropy: Arc::new(entropy) }
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
    store: Arc<dyn Store>,
    vending: (Listening, Arc<Api>, Limits),
    admin: (Listening, Arc<Admin>, Limits),
    observing: Observing,
    metrics_address: SocketAddr,
    latch: Latch,
}

/// A process at work.
pub struct Running {
    tasks: Tasks,
    engine: Engine,
    store: Arc<dyn Store>,
    metrics_address: SocketAddr,
    _observing: Observing,
}

impl App {
    /// Makes every part, opens the store and binds the sockets.
    ///
    /// # Errors
    /// What the operator must mend, or wait for.
    pub async fn build(settings: Settings, ports: Ports) -> Result<Self, StartError> {
        let Ports { clock, entropy } = ports;
        let (tasks, ready, cache) = (Tasks::new(), Ready::default(), TokenCache::default());
        let latch = ready.hold("start");
        let metrics = Arc::new(Metrics::new().map_err(|error| StartError::Failed(error.to_string()))?);
        // First the store, which waits for the process that owns it: the ports are that one's, too.
        let store = open_store(&settings).await?;
        let observe = Observe { metrics: Arc::clone(&metrics), ready: ready.clone(), cache: cache.clone() };
        let (listener, metrics_address) = bind_metrics(&settings).await?;
        let observing = observe.start(listener).map_err(|error| StartError::Failed(error.to_string()))?;
        let store: Arc<dyn Store> =
            Arc::new(MeteredStore::new(store, Arc::clone(&clock), Arc::clone(&metrics), ready.clone()));
        let services: HashMap<_, _> = settings
            .services
            .iter()
            .map(|service| (service.name.clone(), Arc::new(service.clone())))
            .collect();
        let engine = Engine::new(Parts {
            store: Arc::clone(&store),
            servers: servers(&settings, &clock, &metrics)?,
            services: services.clone(),
            cache: cache.clone(),
            life: settings.life,
            lease: Lease { owner: entropy.text(16), duration: settings.lease },
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            tasks: tasks.clone(),
            ready: ready.clone(),
            metrics: Arc::clone(&metrics),
        });
        let names: HashSet<ServiceName> = services.keys().cloned().collect();
        let broker =
            Broker::new(engine.clone(), cache, settings.life, Arc::clone(&clock), Arc::clone(&metrics));
        let api = Api {
            policy: Policy::new(settings.callers.clone(), services, overflow_uid()),
            broker,
            services: names.clone(),
            request_timeout: settings.request_timeout,
            entropy: Arc::clone(&entropy),
            metrics: Arc::clone(&metrics),
        };
        let admin = Admin { engine: engine.clone(), store: Arc::clone(&store), services: names, entropy };
        let bind = |config| socket::bind(config).map_err(StartError::Failed);
        let limits = |connections, connections_per_uid| Limits {
            connections,
            connections_per_uid,
            head: HEAD,
            headers: HEADERS,
            header_timeout: HEADER_TIMEOUT,
            grace: settings.request_timeout,
        };
        let vending_limits = limits(settings.max_connections, settings.max_connections_per_uid);
        Ok(Self {
            // In this order: who sees the vending socket may count on the other one.
            admin: (bind(&settings.admin)?, Arc::new(admin), limits(ADMIN_CONNECTIONS, ADMIN_CONNECTIONS)),
            vending: (bind(&settings.socket)?, Arc::new(api), vending_limits),
            tasks,
            metrics,
            ready,
            engine,
            store,
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
        self.engine.recover().await.map_err(|error| StartError::Failed(error.to_string()))?;
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
        let serving = server::serve("admin", listener, handler, limits, self.tasks.clone(), self.metrics);
        self.tasks.spawn_vital(serving);
        drop(self.latch);
        tracing::info!(metrics = %self.metrics_address, waiting_for = ?self.ready.waiting_for(), "ready");
        Ok(Running {
            tasks: self.tasks,
            engine: self.engine,
            store: self.store,
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

    /// What a process does that may not wait for the rest: what a grant depends on is put where the next start finds it.
    pub async fn force(&self) {
        self.engine.spill().await;
    }

    /// Stops: no new connections, then requests, refreshes and what they have to write are finished, then the store is
    /// let go of.
    pub async fn stop(&self) {
        self.tasks.stop();
        self.tasks.stopped().await;
        self.store.close().await;
        tracing::info!("stopped");
    }
}

/// The process whose store we have got may take a moment longer to let go of its port.
async fn bind_metrics(settings: &Settings) -> Result<(StdTcpListener, SocketAddr), StartError> {
    let bind = || {
        let listener = StdTcpListener::bind(settings.metrics)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, address))
    };
    let mut tries = 0;
    loop {
        match bind() {
            Ok(bound) => return Ok(bound),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries < PORT_TRIES => {
                tries += 1;
                tokio::time::sleep(STEP).await;
            }
            Err(error) => {
                return Err(StartError::Failed(format!("admin.metrics = \"{}\": {error}", settings.metrics)));
            }
        }
    }
}

async fn open_store(settings: &Settings) -> Result<SqliteStore, StartError> {
    let sealer = || Sealer::from_file(&settings.key_file).map_err(StartError::Failed);
    let mut waited = Duration::ZERO;
    loop {
        match SqliteStore::open(&settings.database, sealer()?).await {
            Ok(store) => return Ok(store),
            Err(OpenError::Failed(error)) => return Err(StartError::Failed(error)),
            Err(error @ OpenError::InUse { .. }) if waited >= PATIENCE_FOR_STORE => {
                return Err(StartError::InUse(error.to_string()));
            }
            Err(error @ OpenError::InUse { .. }) => {
                if waited.as_millis().is_multiple_of(5000) {
                    tracing::warn!(%error, "waiting for it to end");
                }
                tokio::time::sleep(STEP).await;
                waited += STEP;
            }
        }
    }
}

type Servers = HashMap<String, (Arc<dyn AuthorizationServer>, Recovery)>;

fn servers(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Result<Servers, StartError> {
    let make = |(name, server): (&String, &Server)| {
        let config = Config {
            name: name.clone(),
            issuer: server.issuer.clone(),
            request_timeout: server.request_timeout,
        };
        let http = HttpClient::new(server.ca_file.as_deref()).map_err(StartError::Failed)?;
        let authentication = ClientAuthentication::new(
            server.client_id.clone(),
            server.client_secret.clone(),
            server.client_secret_file.clone(),
        );
        let client = Client::new(config, http, authentication, Arc::clone(clock), Arc::clone(metrics))
            .map_err(|error| StartError::Failed(format!("{}: {error}", server.issuer)))?;
        let recovery = Recovery { leeway: server.leeway, deadline: server.request_timeout };
        Ok((name.clone(), (Arc::new(client) as Arc<dyn AuthorizationServer>, recovery)))
    };
    settings.servers.iter().map(make).collect()
}
