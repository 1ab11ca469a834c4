//! The engine on a store that fails: nothing new is vended until the answer that a grant depends on is on disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bursar::authorization_server::AuthorizationServer;
use bursar::authorization_server::client::{Client, Config};
use bursar::authorization_server::client_authentication::{ClientAuthentication, Method};
use bursar::authorization_server::http::{HttpClient, Proxies};
use bursar::cache::TokenCache;
use bursar::clock::{Clock, SystemClock};
use bursar::dev::authorization_server::DevServer;
use bursar::entropy::{Entropy, SystemEntropy};
use bursar::jwt::SigningAlgorithm;
use bursar::metrics::Metrics;
use bursar::model::{
    EndReason, Failure, GrantKey, Kind, Life, RoleName, Scope, Service, ServiceName, SpeaksFor, TokenKey,
    UserName,
};
use bursar::ready::Ready;
use bursar::refresh::plan::Recovery;
use bursar::refresh::setup::{ServerSetup, Setup};
use bursar::refresh::{Engine, Parts};
use bursar::secret::Secret;
use bursar::store::seal::{Sealer, generate_key};
use bursar::store::sqlite::SqliteStore;
use bursar::store::{Store, StoreError};
use bursar::tasks::Tasks;

use crate::support::store::{Hook, Hooked};
use crate::support::{ALICE, World};

/// Commits fail while the switch is on, as on a full disk.
struct Full(Arc<AtomicBool>);

#[async_trait]
impl Hook for Full {
    async fn before(&self, operation: &'static str) -> Result<(), StoreError> {
        if operation == "commit" && self.0.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("database or disk is full".to_owned()));
        }
        Ok(())
    }
}

struct Scene {
    world: World,
    key: Secret,
    full: Arc<AtomicBool>,
}

struct Running {
    engine: Engine,
    store: Arc<dyn Store>,
    ready: Ready,
    tasks: Tasks,
}

impl Scene {
    async fn start() -> Self {
        let world = World::start().await;
        Self { world, key: generate_key(&SystemEntropy), full: Arc::default() }
    }

    fn service() -> Service {
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
        }
    }

    fn token(role: Option<&str>) -> TokenKey {
        TokenKey { grant: Self::grant(), role: role.and_then(RoleName::parse) }
    }

    fn grant() -> GrantKey {
        GrantKey { service: Self::service().name, user: UserName::parse(ALICE).unwrap() }
    }

    async fn engine(&self) -> Running {
        let path = self.world.path().join("engine.db");
        let inner = SqliteStore::open(&path, Sealer::from_text(&self.key).unwrap()).await.unwrap();
        let store: Arc<dyn Store> =
            Arc::new(Hooked { inner: Arc::new(inner), hook: Arc::new(Full(Arc::clone(&self.full))) });
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(0));
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let metrics = Arc::new(Metrics::new().unwrap());
        let server = &self.world.server;
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
        let service = Self::service();
        let setup = Setup {
            servers: HashMap::from([("dev".to_owned(), server)]),
            services: HashMap::from([(service.name.clone(), Arc::new(service))]),
            life: Life {
                ahead_percent: 75,
                floor: Duration::from_secs(30),
                ceiling: Duration::from_mins(20),
                min_ttl: Duration::from_mins(1),
                idle_after: Duration::from_hours(2),
                keep_alive: None,
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
        };
        let engine = Engine::new(parts, setup);
        Running { engine, store, ready, tasks }
    }

    async fn connected(&self) -> Running {
        let running = self.engine().await;
        let refresh_token = Secret::new(self.world.consent("snowflake", ALICE));
        running.engine.import(Self::grant(), refresh_token).await.unwrap();
        running
    }
}

impl Running {
    async fn stop(self) {
        self.tasks.stop();
        self.tasks.stopped().await;
        self.store.close().await;
    }
}

#[tokio::test]
async fn what_can_not_be_written_is_not_vended_and_not_lost() {
    let scene = Scene::start().await;
    let running = scene.connected().await;
    let before = running.engine.token(&Scene::token(None), None).await.unwrap();
    scene.full.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let failure = running.engine.token(&Scene::token(Some("ANALYST")), None).await.err();
        assert!(matches!(failure, Some(Failure::StoreUnavailable { .. })), "{failure:?}");
        let failure = running.engine.refresh(&Scene::token(None)).await.err();
        assert!(matches!(failure, Some(Failure::StoreUnavailable { .. })), "{failure:?}");
    }
    assert_eq!(
        scene.world.stats().await["refreshes"],
        2,
        "the import, and the one whose answer waits: no further ones"
    );
    assert_eq!(running.ready.waiting_for(), ["store"]);
    let alive = running.engine.token(&Scene::token(None), None).await.unwrap();
    assert_eq!(alive.token(), before.token(), "the previous token is vended while it lives");
    scene.full.store(false, Ordering::Relaxed);
    while !running.ready.waiting_for().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.engine.token(&Scene::token(Some("ANALYST")), None).await.unwrap();
    assert_eq!(scene.world.stats().await["refreshes"], 2, "what was kept is what is vended");
    running.engine.refresh(&Scene::token(None)).await.unwrap();
    scene.world.assert_nothing_was_lost().await;
    running.stop().await;
}

#[tokio::test]
async fn a_stop_in_that_state_puts_the_answer_beside_the_store_and_the_next_start_takes_it_up() {
    let scene = Scene::start().await;
    let running = scene.connected().await;
    scene.full.store(true, Ordering::Relaxed);
    assert!(running.engine.refresh(&Scene::token(None)).await.is_err());
    running.tasks.stop();
    running.tasks.stopped().await;
    let late = running.engine.refresh(&Scene::token(None)).await.err();
    assert!(matches!(late, Some(Failure::StoreUnavailable { .. })), "{late:?}: the store's token is used up");
    running.stop().await;
    scene.full.store(false, Ordering::Relaxed);
    let running = scene.engine().await;
    running.engine.refresh(&Scene::token(None)).await.unwrap();
    let stats = scene.world.stats().await;
    assert_eq!((&stats["refreshes"], &stats["presented_twice"]), (&3.into(), &0.into()), "{stats:#}");
    scene.world.assert_nothing_was_lost().await;
    running.stop().await;
}

#[tokio::test]
async fn an_answer_that_can_not_be_written_after_a_doubt_is_not_presented_over() {
    let scene = Scene::start().await;
    let running = scene.connected().await;
    scene.full.store(true, Ordering::Relaxed);
    scene.world.fault(serde_json::json!({ "do": "cut_after" })).await;
    assert!(running.engine.refresh(&Scene::token(None)).await.is_err());
    // Whoever goes after the doubt must find that there is none: the newest token is in memory.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        scene.world.stats().await["refreshes"],
        3,
        "the import, the lost answer, and the one that is kept"
    );
    scene.full.store(false, Ordering::Relaxed);
    while !running.ready.waiting_for().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.engine.refresh(&Scene::token(None)).await.unwrap();
    scene.world.assert_nothing_was_lost().await;
    running.stop().await;
}

#[tokio::test]
async fn what_could_not_be_written_when_its_grant_was_revoked_is_revoked_once_it_is() {
    let scene = Scene::start().await;
    let running = scene.connected().await;
    scene.full.store(true, Ordering::Relaxed);
    let failure = running.engine.token(&Scene::token(Some("ANALYST")), None).await.err();
    assert!(matches!(failure, Some(Failure::StoreUnavailable { .. })), "{failure:?}");
    let left = running.engine.revoke(&Scene::grant(), Duration::from_secs(5)).await.unwrap().unwrap();
    assert!(left.iter().any(|left| left.contains("can't be written")), "{left:?}");
    scene.full.store(false, Ordering::Relaxed);
    let told = async {
        loop {
            let stats = scene.world.stats().await;
            if stats["requests"]["revoke"].as_u64() >= Some(2)
                && stats["families_revoked"][0]["reason"] == "revoked"
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told)
        .await
        .expect("the token that came last is revoked too");
    let failure = running.engine.token(&Scene::token(None), None).await.err();
    assert!(
        matches!(failure, Some(Failure::LoginRequired { reason: EndReason::Revoked, .. })),
        "{failure:?}"
    );
    running.stop().await;
}
