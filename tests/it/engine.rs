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
use bursar::clock::{Clock, Moment, SystemClock, Timestamp};
use bursar::dev::authorization_server::DevServer;
use bursar::entropy::{Entropy, SystemEntropy};
use bursar::jwt::SigningAlgorithm;
use bursar::metrics::Metrics;
use bursar::model::{
    EndReason, Failure, Grant, GrantId, GrantKey, Kind, Life, RoleName, Scope, Service, ServiceName,
    SpeaksFor, TokenKey, UserName,
};
use bursar::ready::Ready;
use bursar::refresh::plan::Recovery;
use bursar::refresh::setup::Setup;
use bursar::refresh::{Engine, Parts};
use bursar::secret::{Digest, Secret};
use bursar::store::seal::{Sealer, generate_key};
use bursar::store::sqlite::SqliteStore;
use bursar::store::{
    Begun, Candidate, Commit, Committed, Lease, PendingRevocation, Settled, Store, StoreError, StoredToken,
    Tombstone, Which,
};
use bursar::tasks::Tasks;

use crate::support::{ALICE, World};

/// A store whose commits fail while the switch is on, as on a full disk.
struct Full {
    inner: SqliteStore,
    full: Arc<AtomicBool>,
}

fn full() -> StoreError {
    StoreError::Unavailable("database or disk is full".to_owned())
}

#[async_trait]
impl Store for Full {
    async fn grant(&self, id: &GrantId) -> Result<Option<Grant>, StoreError> {
        self.inner.grant(id).await
    }
    async fn grants(
        &self,
        which: &Which,
        after: Option<&GrantKey>,
        limit: u32,
    ) -> Result<Vec<Grant>, StoreError> {
        self.inner.grants(which, after, limit).await
    }
    async fn count(&self) -> Result<Vec<(ServiceName, String, i64)>, StoreError> {
        self.inner.count().await
    }
    async fn in_doubt(&self) -> Result<Vec<GrantId>, StoreError> {
        self.inner.in_doubt().await
    }
    async fn access_token(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
    ) -> Result<Option<StoredToken>, StoreError> {
        self.inner.access_token(id, role).await
    }
    async fn begin(&self, id: &GrantId, lease: &Lease, now: &Moment) -> Result<Begun, StoreError> {
        self.inner.begin(id, lease, now).await
    }
    async fn commit(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<Committed, StoreError> {
        if self.full.load(Ordering::Relaxed) {
            Err(full())
        } else {
            self.inner.commit(id, version, answer).await
        }
    }
    async fn settle(&self, id: &GrantId, version: i64, outcome: &Settled) -> Result<bool, StoreError> {
        self.inner.settle(id, version, outcome).await
    }
    async fn mark_verified(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
        version: i64,
        against: Digest,
    ) -> Result<(), StoreError> {
        self.inner.mark_verified(id, role, version, against).await
    }
    async fn discard(&self, id: &GrantId, role: Option<&RoleName>, version: i64) -> Result<(), StoreError> {
        self.inner.discard(id, role, version).await
    }
    async fn imported_as(&self, service: &ServiceName, origin: Digest) -> Result<Option<Grant>, StoreError> {
        self.inner.imported_as(service, origin).await
    }
    async fn add_candidate(
        &self,
        id: &GrantId,
        candidate: &Candidate,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.inner.add_candidate(id, candidate, now).await
    }
    async fn promote(&self, candidate: &GrantId, user: &UserName) -> Result<bool, StoreError> {
        self.inner.promote(candidate, user).await
    }
    async fn drop_candidate(&self, candidate: &GrantId) -> Result<(), StoreError> {
        self.inner.drop_candidate(candidate).await
    }
    async fn ensure_client_grant(
        &self,
        id: &GrantId,
        registration: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.inner.ensure_client_grant(id, registration, now).await
    }
    async fn revoke(&self, id: &GrantId, key: &GrantKey, now: Timestamp) -> Result<Tombstone, StoreError> {
        self.inner.revoke(id, key, now).await
    }
    async fn to_revoke(&self) -> Result<Vec<GrantKey>, StoreError> {
        self.inner.to_revoke().await
    }
    async fn revocations(&self, key: &GrantKey) -> Result<Vec<PendingRevocation>, StoreError> {
        self.inner.revocations(key).await
    }
    async fn revoked_since(
        &self,
        service: &ServiceName,
        token: Digest,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.inner.revoked_since(service, token).await
    }
    async fn revoked(&self, key: &GrantKey, token: Digest) -> Result<(), StoreError> {
        self.inner.revoked(key, token).await
    }
    async fn candidates(&self) -> Result<Vec<GrantId>, StoreError> {
        self.inner.candidates().await
    }
    async fn erase(&self, key: &GrantKey) -> Result<bool, StoreError> {
        self.inner.erase(key).await
    }
    async fn spill(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<(), StoreError> {
        self.inner.spill(id, version, answer).await
    }
    async fn close(&self) {
        self.inner.close().await;
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
        let store: Arc<dyn Store> = Arc::new(Full { inner, full: Arc::clone(&self.full) });
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
        let service = Self::service();
        let setup = Setup {
            servers: HashMap::from([("dev".to_owned(), (client, recovery))]),
            services: HashMap::from([(service.name.clone(), Arc::new(service))]),
            life: Life {
                ahead_percent: 75,
                floor: Duration::from_secs(30),
                ceiling: Duration::from_mins(20),
                min_ttl: Duration::from_mins(1),
            },
            lease: Duration::from_secs(10),
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
