//! The page where users connect, from the configuration to its listener.

use std::net::TcpListener as StdTcpListener;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::app::open::{bind, read_keys};
use crate::app::{Ports, StartError, limits};
use crate::audit::Audit;
use crate::connect::seal::Keys;
use crate::connect::terms::{Place, Terms};
use crate::connect::tls::{Certificate, Door, Files, Reading};
use crate::connect::{Connect, Parts};
use crate::consent::Consents;
use crate::metrics::Metrics;
use crate::refresh::Engine;
use crate::server;
use crate::settings::Settings;
use crate::store::Store;
use crate::store::keyring::Keyring;
use crate::tasks::Tasks;
use crate::uses::Uses;

/// Browsers are many, and have several connections each; a proxy has few.
const CONNECTIONS: usize = 512;
/// Of one address, unless that is this machine's: several browsers of an office.
const CONNECTIONS_OF_ONE: usize = 32;
/// Longer than a request to an authorization server may take.
const GRACE: std::time::Duration = std::time::Duration::from_secs(20);

/// What the configuration says of it, and what it names is read.
pub(super) struct Configured {
    terms: Terms,
    keys: Keys,
    certificate: Reading,
}

/// And its address is bound.
pub(super) struct Prepared {
    configured: Configured,
    listener: TcpListener,
}

/// Made, not started.
pub(super) struct Page {
    listener: TcpListener,
    certificate: Certificate,
    connect: Arc<Connect>,
}

/// What a reload needs of it.
pub(super) struct PageHandle {
    certificate: Certificate,
    connect: Arc<Connect>,
}

/// `None` where there is no page.
pub(super) fn read(settings: &Settings, keyring: &Keyring) -> Result<Option<Configured>, String> {
    let Some(connect) = settings.connect.clone() else { return Ok(None) };
    let files = connect.tls.map(|tls| Files { certificate: tls.certificate, private_key: tls.private_key });
    let place = |(name, server): (&String, &crate::settings::Server)| {
        let endpoints = server.endpoints.as_ref();
        let endpoint = endpoints.and_then(|endpoints| endpoints.authorization_endpoint.as_ref());
        let known = (server.issuer.as_str(), server.client_id.as_str());
        (name.clone(), Place::of(known, server.okta_domain.as_deref(), endpoint))
    };
    let services = settings.services.iter().filter(|service| service.has_users());
    let terms = Terms {
        public_url: connect.public_url,
        return_to: connect.return_to,
        servers: settings.servers.iter().map(place).collect(),
        behind_proxy: files.is_none(),
        services: services.cloned().map(Arc::new).collect(),
    };
    let certificate = Reading::of(files).map_err(|error| format!("[connect] {error}"))?;
    Ok(Some(Configured { terms, keys: Keys::of(keyring), certificate }))
}

impl Prepared {
    pub(super) fn make(
        self,
        ports: &Ports,
        metrics: Arc<Metrics>,
        (consents, engine, store, uses, audit, tasks): (
            Consents,
            Engine,
            Arc<dyn Store>,
            Arc<Uses>,
            Audit,
            Tasks,
        ),
    ) -> Page {
        let (clock, entropy) = (Arc::clone(&ports.clock), Arc::clone(&ports.entropy));
        let Configured { terms, keys, certificate } = self.configured;
        let parts = Parts { terms, consents, engine, store, uses, clock, entropy, audit, metrics, tasks };
        let page = Page {
            listener: self.listener,
            certificate: Certificate::default(),
            connect: Arc::new(Connect::new(parts, keys)),
        };
        page.certificate.replace(certificate);
        page
    }
}

impl Page {
    /// `None` where there is no page.
    pub(super) async fn prepare(settings: &Settings) -> Result<Option<Prepared>, StartError> {
        let Some(address) = settings.fixed.connect else { return Ok(None) };
        let keyring =
            read_keys(&settings.keys).map_err(|problems| StartError::Failed(problems.join("; ")))?;
        let configured = read(settings, &keyring).map_err(StartError::Failed)?;
        let Some(configured) = configured else { return Ok(None) };
        let (listener, _address): (StdTcpListener, _) = bind("connect.listen", address).await?;
        let listener =
            TcpListener::from_std(listener).map_err(|error| StartError::Failed(error.to_string()))?;
        Ok(Some(Prepared { configured, listener }))
    }

    pub(super) fn handle(&self) -> PageHandle {
        PageHandle { certificate: self.certificate.clone(), connect: Arc::clone(&self.connect) }
    }

    pub(super) fn start(self, tasks: &Tasks, metrics: Arc<Metrics>) {
        let limits = limits(CONNECTIONS, CONNECTIONS_OF_ONE, GRACE);
        let door = Door::new(self.listener, self.certificate.clone());
        tasks.spawn_vital(server::serve("connect", door, self.connect, limits, tasks.clone(), metrics));
        tasks.spawn_until_stop(self.certificate.look_after());
    }
}

impl PageHandle {
    /// From now on so.
    pub(super) fn replace(&self, configured: Configured) {
        self.certificate.replace(configured.certificate);
        self.connect.replace(configured.terms, configured.keys);
    }
}
