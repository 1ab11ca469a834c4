//! What becomes of a consent, at servers that differ in what else ends when one refresh token is revoked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bursar::audit::Audit;
use bursar::authorization_server::{
    AuthorizationServer, Exchange, Expected, Introspection, Reply, Revocation, Unverified,
};
use bursar::cache::TokenCache;
use bursar::clock::{SystemClock, Timestamp};
use bursar::entropy::SystemEntropy;
use bursar::jwt::{Claims, Verified};
use bursar::metrics::Metrics;
use bursar::model::{Failure, Grant, GrantId, GrantState, Life, Scope};
use bursar::ready::Ready;
use bursar::refresh::adopt::{Consented, Proven};
use bursar::refresh::plan::Recovery;
use bursar::refresh::setup::{ServerSetup, Setup};
use bursar::refresh::{Engine, Parts};
use bursar::secret::Secret;
use bursar::store::Store;
use bursar::store::seal::{Sealer, generate_key};
use bursar::store::sqlite::SqliteStore;
use bursar::tasks::Tasks;

use crate::support::engine::{grant, service};

const REGISTRATION: &str = "client at issuer";

/// Refuses everything but what a consent needs.
struct Server {
    alone: bool,
    deaf: AtomicBool,
    revoked: Mutex<Vec<Secret>>,
}

#[async_trait]
impl AuthorizationServer for Server {
    async fn refresh(&self, _: &Secret, _: &Scope, _: Duration) -> Reply {
        Exchange::NotSent("not now".to_owned()).into()
    }

    async fn client_credentials(&self, _: &Scope, _: Duration) -> Reply {
        Exchange::NotSent("not now".to_owned()).into()
    }

    async fn revoke(&self, refresh_token: &Secret) -> Revocation {
        if self.deaf.load(Ordering::Relaxed) {
            return Revocation::Failed { why: "deaf".to_owned(), retry_after: None };
        }
        self.revoked.lock().unwrap().push(refresh_token.clone());
        Revocation::Done
    }

    async fn introspect(&self, _: &Secret) -> Introspection {
        Introspection::NotOffered
    }

    async fn verify(&self, _: &Secret, _: &Expected<'_>, _: Timestamp) -> Result<Verified, Unverified> {
        Err(Unverified::NoKeys("none".to_owned()))
    }

    async fn read(&self, _: &Secret, _: &str, _: Timestamp) -> Result<Claims, Unverified> {
        Err(Unverified::NoKeys("none".to_owned()))
    }

    fn revokes_alone(&self) -> bool {
        self.alone
    }

    fn registration(&self) -> String {
        REGISTRATION.to_owned()
    }

    async fn reload_client_secret(&self) -> bool {
        false
    }
}

struct Scene {
    engine: Engine,
    store: Arc<dyn Store>,
    server: Arc<Server>,
    tasks: Tasks,
    _directory: tempfile::TempDir,
}

impl Scene {
    async fn start(alone: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sealer = Sealer::from_text(&generate_key(&SystemEntropy)).unwrap();
        let store = SqliteStore::open(&directory.path().join("bursar.db"), sealer).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let server = Arc::new(Server { alone, deaf: AtomicBool::new(false), revoked: Mutex::default() });
        let port: Arc<dyn AuthorizationServer> = server.clone();
        let recovery = Recovery { leeway: Duration::from_secs(30), deadline: Duration::from_secs(5) };
        let life = Life {
            ahead_percent: 75,
            floor: Duration::from_secs(30),
            ceiling: Duration::from_mins(20),
            min_ttl: Duration::from_mins(1),
            idle_after: Duration::from_hours(2),
            keep_alive: None,
        };
        let door = ServerSetup { server: port, recovery, requests_per_minute: 600, liveness: None };
        let setup = Setup {
            servers: HashMap::from([("dev".to_owned(), door)]),
            services: HashMap::from([(service().name, Arc::new(service()))]),
            life,
            lease: Duration::from_secs(10),
            warn_before: Duration::from_hours(72),
        };
        let tasks = Tasks::new();
        let parts = Parts {
            store: Arc::clone(&store),
            cache: TokenCache::default(),
            owner: "us".into(),
            clock: Arc::new(SystemClock::new(0)),
            entropy: Arc::new(SystemEntropy),
            tasks: tasks.clone(),
            ready: Ready::default(),
            metrics: Arc::new(Metrics::new().unwrap()),
            audit: Audit::none(),
        };
        Self { engine: Engine::new(parts, setup), store, server, tasks, _directory: directory }
    }

    /// `alice` is who it proves to be, by this account; or nothing is proven.
    async fn adopt(&self, token: &str, account: Option<&str>) -> Result<Grant, Failure> {
        let consented = Consented {
            refresh_token: Secret::new(token.to_owned()),
            registration: REGISTRATION.to_owned(),
            granted: Scope::from_wire("session:role:PUBLIC"),
        };
        let proven = account.map(|account| Proven { user: grant().user, subject: account.to_owned() });
        let proof = async move { proven.ok_or(Failure::Timeout) };
        self.engine.adopt(&service().name, consented, proof).await
    }

    async fn there(&self) -> Option<Grant> {
        self.store.grant(&GrantId::current(grant())).await.unwrap()
    }

    async fn told_of(&self, token: &str) {
        while !self.server.revoked.lock().unwrap().contains(&Secret::new(token.to_owned())) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) {
        self.tasks.stop();
        self.tasks.stopped().await;
        self.store.close().await;
    }
}

#[tokio::test]
async fn a_consent_that_comes_to_nothing_is_revoked_where_that_ends_nothing_else() {
    let scene = Scene::start(true).await;
    scene.adopt("first", Some("00u1")).await.unwrap();
    assert_eq!(scene.adopt("second", None).await.unwrap_err(), Failure::Timeout);
    scene.told_of("second").await;
    assert_eq!(scene.there().await.unwrap().state, GrantState::Active);
    scene.stop().await;
}

#[tokio::test]
async fn where_a_whole_consent_may_end_with_one_token_nothing_is_revoked_for_having_failed() {
    let scene = Scene::start(false).await;
    scene.adopt("first", Some("00u1")).await.unwrap();
    assert_eq!(scene.adopt("second", None).await.unwrap_err(), Failure::Timeout);
    assert!(scene.store.candidates().await.unwrap().is_empty(), "nor kept");
    assert!(scene.store.to_revoke().await.unwrap().is_empty());
    assert!(scene.server.revoked.lock().unwrap().is_empty());
    // Nor is its server told of an earlier end once the user has consented anew.
    scene.server.deaf.store(true, Ordering::Relaxed);
    let left = scene.engine.revoke(&grant(), Duration::from_secs(5)).await.unwrap().unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    scene.adopt("third", Some("00u1")).await.unwrap();
    assert!(scene.store.to_revoke().await.unwrap().is_empty());
    assert_eq!(scene.there().await.unwrap().state, GrantState::Active);
    scene.stop().await;
}

#[tokio::test]
async fn a_name_that_another_account_has_taken_does_not_take_the_grant_with_it() {
    let scene = Scene::start(true).await;
    let first = scene.adopt("first", Some("00u1")).await.unwrap();
    assert_eq!(scene.there().await.unwrap().subject.as_deref(), Some("00u1"));
    let refused = scene.adopt("second", Some("00u2")).await.unwrap_err();
    assert!(matches!(&refused, Failure::Refused { error, .. } if error == "another_account"), "{refused:?}");
    assert_eq!(scene.there().await.unwrap().version, first.version, "untouched");
    scene.told_of("second").await;
    scene.adopt("third", Some("00u1")).await.unwrap();
    // Who may say that the name has changed hands has done so.
    scene.engine.revoke(&grant(), Duration::from_secs(5)).await.unwrap();
    scene.adopt("fourth", Some("00u2")).await.unwrap();
    scene.stop().await;
}

#[tokio::test]
async fn consents_take_a_fifth_of_the_budget_at_most() {
    let scene = Scene::start(true).await;
    let admitted = (0..600).filter(|_| scene.engine.admits_consent("dev")).count();
    assert_eq!(admitted, 120);
    assert!(!scene.engine.admits_consent("another"));
    scene.stop().await;
}
