//! Opens and binds what the process stands on.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::app::{Ports, StartError};
use crate::audit::Audit;
use crate::authorization_server::client::{Client, Config};
use crate::authorization_server::client_authentication::ClientAuthentication;
use crate::authorization_server::http::{HttpClient, Proxies};
use crate::metrics::Metrics;
use crate::model::LoginUrl;
use crate::notify::webhook::Webhook;
use crate::notify::{self, Notifier};
use crate::ready::Ready;
use crate::refresh::plan::Recovery;
use crate::refresh::setup::{ServerSetup, Setup};
use crate::settings::{Server, Settings};
use crate::socket::{self, Listening};
use crate::store::keyring::{KeyFiles, Keyring};
use crate::store::notices::NoticeStore;
use crate::store::sqlite::{OpenError, SqliteStore};

/// How long to wait for the process that owns the store to end.
const PATIENCE_FOR_STORE: Duration = Duration::from_mins(1);
/// Between two looks whether it has.
const STEP: Duration = Duration::from_millis(100);
/// How often to look whether its port is free.
const PORT_TRIES: u32 = 50;

/// The process whose store we have got may take a moment longer to let go of its port.
pub(super) async fn bind_metrics(settings: &Settings) -> Result<(StdTcpListener, SocketAddr), StartError> {
    bind("admin.metrics", settings.fixed.metrics).await
}

pub(super) async fn bind(key: &str, address: SocketAddr) -> Result<(StdTcpListener, SocketAddr), StartError> {
    let bind = || {
        let listener = StdTcpListener::bind(address)?;
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
                return Err(StartError::Failed(format!("{key} = \"{address}\": {error}")));
            }
        }
    }
}

pub(super) async fn open_store(settings: &Settings) -> Result<SqliteStore, StartError> {
    let keys = || read_keys(&settings.keys).map_err(|problems| StartError::Failed(problems.join("; ")));
    let mut waited = Duration::ZERO;
    loop {
        match SqliteStore::open(&settings.fixed.database, keys()?).await {
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

pub(super) fn open_audit(
    settings: &Settings,
    ports: &Ports,
    metrics: &Arc<Metrics>,
    ready: &Ready,
) -> Result<Audit, StartError> {
    let Some(config) = &settings.fixed.audit else { return Ok(Audit::none()) };
    let sources = (Arc::clone(&ports.clock), &*ports.entropy);
    let (database, metrics, ready) = (&settings.fixed.database, Arc::clone(metrics), ready.clone());
    Audit::open(config, settings.audit, database, sources, metrics, ready).map_err(StartError::Failed)
}

/// The keys that the store is sealed with, or what is wrong with their files.
pub(super) fn read_keys(files: &KeyFiles) -> Result<Keyring, Vec<String>> {
    Keyring::from_files(files).map_err(|bad| bad.into_iter().map(|bad| bad.why).collect())
}

/// What the engine works with.
pub(super) fn setup(settings: &mut Settings, ports: &Ports, metrics: &Arc<Metrics>) -> Result<Setup, String> {
    let servers = servers(std::mem::take(&mut settings.servers), &settings.proxies, ports, metrics)?;
    let services = settings.services.iter().map(|service| (service.name.clone(), Arc::new(service.clone())));
    Ok(Setup {
        servers,
        services: services.collect(),
        life: settings.life,
        lease: settings.lease,
        warn_before: settings.notify.warn_before,
    })
}

/// In this order: who sees the vending socket may count on the other one.
pub(super) fn open_sockets(
    settings: &Settings,
    mut inherited: Vec<StdUnixListener>,
) -> Result<(Listening, Listening), StartError> {
    let mut open = |config| socket::open(config, &mut inherited).map_err(StartError::Failed);
    let (admin, vending) = (open(&settings.fixed.admin)?, open(&settings.fixed.socket)?);
    match inherited.first() {
        Some(unknown) => Err(StartError::Failed(socket::not_ours(unknown))),
        None => Ok((admin, vending)),
    }
}

/// Who says that a grant has ended, or will. Before anything can end.
pub(super) async fn notifier(
    settings: &Settings,
    ports: &Ports,
    (store, news): (Arc<dyn NoticeStore>, Arc<Notify>),
    metrics: &Arc<Metrics>,
    audit: &Audit,
) -> Result<Notifier, StartError> {
    let parts = notify::Parts {
        store,
        clock: Arc::clone(&ports.clock),
        entropy: Arc::clone(&ports.entropy),
        metrics: Arc::clone(metrics),
        audit: audit.clone(),
        news,
    };
    let notifier = Notifier::new(parts, notify_terms(settings).map_err(StartError::Failed)?);
    notifier.prepare().await.map_err(|error| StartError::Failed(error.to_string()))?;
    Ok(notifier)
}

/// Who is told that a grant has ended, or will.
pub(super) fn notify_terms(settings: &Settings) -> Result<notify::Terms, String> {
    let webhook = settings.notify.webhook.as_ref().map(|webhook| {
        let http = HttpClient::new(None, settings.proxies.clone())?;
        Ok::<_, String>(Webhook::new(webhook.url.clone(), webhook.secret_file.clone(), http))
    });
    Ok(notify::Terms {
        warn_before: settings.notify.warn_before,
        webhook: webhook.transpose()?,
        login: settings.connect.as_ref().map(|connect| LoginUrl::at(connect.public_url.clone())),
    })
}

fn servers(
    servers: BTreeMap<String, Server>,
    proxies: &Proxies,
    ports: &Ports,
    metrics: &Arc<Metrics>,
) -> Result<HashMap<String, ServerSetup>, String> {
    // The system's certificates are many: read once.
    let plain = HttpClient::new(None, proxies.clone())?;
    let make = |(name, server): (String, Server)| {
        let config = Config {
            name: name.clone(),
            issuer: server.issuer.clone(),
            endpoints: server.endpoints.map(Arc::new),
            algorithms: server.algorithms,
            request_timeout: server.request_timeout,
        };
        let http = match server.ca_file {
            Some(file) => HttpClient::new(Some(&file), proxies.clone())?,
            None => plain.clone(),
        };
        let authentication =
            ClientAuthentication::new(server.client_id, server.authentication, server.authentication_file);
        let (clock, entropy) = (Arc::clone(&ports.clock), Arc::clone(&ports.entropy));
        let client = Client::new(config, http, authentication, clock, entropy, Arc::clone(metrics))
            .map_err(|error| format!("{}: {error}", server.issuer))?;
        let recovery = Recovery { leeway: server.leeway, deadline: server.request_timeout };
        let server_setup = ServerSetup {
            server: Arc::new(client),
            recovery,
            requests_per_minute: server.requests_per_minute,
            liveness: server.liveness,
        };
        Ok((name, server_setup))
    };
    servers.into_iter().map(make).collect()
}
