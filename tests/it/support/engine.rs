//! The real engine in this process, on SQLite and the development server, with a hook around the store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bursar::audit::Audit;
use bursar::authorization_server::AuthorizationServer;
use bursar::authorization_server::client::{Client, Config};
use bursar::authorization_server::client_authentication::{ClientAuthentication, Method};
use bursar::authorization_server::http::{HttpClient, Proxies};
use bursar::cache::{CachedToken, TokenCache};
use bursar::clock::Clock;
use bursar::dev::authorization_server::DevServer;
use bursar::entropy::{Entropy, SystemEntropy};
use bursar::jwt::SigningAlgorithm;
use bursar::metrics::Metrics;
use bursar::model::{
    Failure, GrantKey, Kind, Life, RoleName, Scope, Service, ServiceName, SpeaksFor, TokenKey, UserName,
};
use bursar::ready::Ready;
use bursar::refresh::plan::Recovery;
use bursar::refresh::setup::{ServerSetup, Setup};
use bursar::refresh::{Engine, Parts};
use bursar::secret::Secret;
use bursar::store::Store;
use bursar::store::seal::Sealer;
use bursar::store::sqlite::SqliteStore;
use bursar::tasks::Tasks;

use super::store::{Hook, Hooked};
use super::{ALICE, World};

pub(crate) fn service() -> Service {
    Service {
        name: ServiceName::parse("snowflake").unwrap(),
        speaks_for: SpeaksFor::Users,
        authorization_server: "dev".into(),
        audience: "https://dev.snowflakecomputing.com".into(),
        scopes: Scope::from_wire("session:role:PUBLIC"),
        roles: [(RoleName::parse("ANALYST").unwrap(), Scope::from_wire("session:role:ANALYST"))].into(),
        user_claim: "sub".into(),
        opaque: false,
        kind: Kind::Snowflake,
        acr_values: None,
        max_age: None,
        password_grant: false,
    }
}

pub(crate) fn grant() -> GrantKey {
    GrantKey { service: service().name, user: UserName::parse(ALICE).unwrap() }
}

pub(crate) fn token(role: Option<&str>) -> TokenKey {
    TokenKey { grant: grant(), role: role.and_then(RoleName::parse) }
}

pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ready: Ready,
    pub(crate) tasks: Tasks,
}

impl Running {
    pub(crate) async fn start(
        world: &World,
        database: &Path,
        key: &Secret,
        hook: Arc<dyn Hook>,
        clock: Arc<dyn Clock>,
        keep_alive: Option<Duration>,
    ) -> Self {
        let inner = SqliteStore::open(database, Sealer::from_text(key).unwrap()).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(Hooked { inner: Arc::new(inner), hook });
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let metrics = Arc::new(Metrics::new().unwrap());
        let server = &world.server;
        let config = Config {
            name: "dev".into(),
            issuer: server.issuer(DevServer::SNOWFLAKE),
            endpoints: None,
            algorithms: vec![SigningAlgorithm::Rs256],
            request_timeout: Duration::from_secs(5),
        };
        let secret = Method::SecretBasic(server.client_secret().clone());
        let authentication = ClientAuthentication::new(server.client_id().to_owned(), secret, None);
        let http = HttpClient::new(None, Proxies::none()).unwrap();
        let (our_clock, our_entropy) = (Arc::clone(&clock), Arc::clone(&entropy));
        let client =
            Client::new(config, http, authentication, our_clock, our_entropy, Arc::clone(&metrics)).unwrap();
        let client: Arc<dyn AuthorizationServer> = Arc::new(client);
        let recovery = Recovery { leeway: Duration::from_secs(30), deadline: Duration::from_secs(5) };
        let (ready, tasks) = (Ready::default(), Tasks::new());
        let server = ServerSetup { server: client, recovery, requests_per_minute: 600, liveness: None };
        let service = service();
        let setup = Setup {
            servers: HashMap::from([("dev".to_owned(), server)]),
            services: HashMap::from([(service.name.clone(), Arc::new(service))]),
            life: Life {
                ahead_percent: 75,
                floor: Duration::from_secs(30),
                ceiling: Duration::from_mins(20),
                min_ttl: Duration::from_mins(1),
                idle_after: Duration::from_hours(2),
                keep_alive,
            },
            lease: Duration::from_secs(10),
            warn_before: Duration::from_hours(72),
        };
        let parts = Parts {
            store: Arc::clone(&store),
            cache: TokenCache::default(),
            owner: "us".into(),
            clock,
            entropy,
            tasks: tasks.clone(),
            ready: ready.clone(),
            metrics,
            audit: Audit::none(),
        };
        Self { engine: Engine::new(parts, setup), store, ready, tasks }
    }

    /// Until the user's consent is the grant; only what passes by itself may be in the way.
    pub(crate) async fn connect(&self, refresh_token: &Secret) {
        until_it_works(|| self.engine.import(grant(), refresh_token.clone())).await;
    }

    pub(crate) async fn token(&self, role: Option<&str>) -> Arc<CachedToken> {
        until_it_works(|| self.engine.token(&token(role), None)).await
    }

    pub(crate) async fn refresh(&self, role: Option<&str>) -> Arc<CachedToken> {
        until_it_works(|| self.engine.refresh(&token(role))).await
    }

    pub(crate) async fn stop(self) {
        self.tasks.stop();
        self.tasks.stopped().await;
        self.store.close().await;
    }
}

/// Asks again, for a while, as long as what is in the way passes by itself.
async fn until_it_works<T, F: Future<Output = Result<T, Failure>>>(mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(Failure::StoreUnavailable { .. } | Failure::ServerUnavailable { .. }) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(failure) => panic!("{failure:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), asking).await.expect("the grant works again within seconds")
}
