//! The Nth operation of the store fails, or the Nth request's answer, for every N; the store can't be written, or is gone.
//! Afterwards the user still has a working grant, and no refresh token was presented outside its leeway.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bursar::clock::SystemClock;
use bursar::entropy::SystemEntropy;
use bursar::model::Failure;
use bursar::secret::Secret;
use bursar::store::StoreError;
use bursar::store::seal::generate_key;
use serde_json::{Value, json};

use crate::support::engine::{Running, token};
use crate::support::store::Hook;
use crate::support::{ALICE, World};

fn broken() -> StoreError {
    StoreError::Unavailable("on purpose".to_owned())
}

/// Fails one operation, either before it acts or after, when nobody hears that it did.
struct FailNth {
    left: AtomicU64,
    after: bool,
    failed: Mutex<Option<&'static str>>,
}

impl FailNth {
    fn new(nth: u64, after: bool) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(nth), after, failed: Mutex::default() })
    }

    fn count(&self, operation: &'static str) -> Result<(), StoreError> {
        // Runs below zero once it has failed.
        if self.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return Ok(());
        }
        *self.failed.lock().unwrap() = Some(operation);
        Err(broken())
    }
}

#[async_trait]
impl Hook for FailNth {
    async fn before(&self, operation: &'static str) -> Result<(), StoreError> {
        if self.after { Ok(()) } else { self.count(operation) }
    }

    async fn after(&self, operation: &'static str) -> Result<(), StoreError> {
        if self.after { self.count(operation) } else { Ok(()) }
    }
}

/// One world, and for each scenario a database of its own.
struct Scene {
    world: World,
    key: Secret,
    databases: AtomicU64,
}

impl Scene {
    async fn start() -> Self {
        let key = generate_key(&SystemEntropy);
        Self { world: World::start().await, key, databases: AtomicU64::new(0) }
    }

    fn database(&self) -> PathBuf {
        self.world.path().join(format!("{}.db", self.databases.fetch_add(1, Ordering::Relaxed)))
    }

    async fn engine(&self, database: &std::path::Path, hook: Arc<dyn Hook>) -> Running {
        Running::start(&self.world, database, &self.key, hook, Arc::new(SystemClock::new(0)), None).await
    }

    fn consent(&self) -> Secret {
        Secret::new(self.world.consent("snowflake", ALICE))
    }

    /// All that a grant goes through; `before` each step something may be made to go wrong.
    async fn play(&self, hook: Arc<dyn Hook>, before: impl AsyncFn(u32)) {
        let database = self.database();
        let running = self.engine(&database, Arc::clone(&hook)).await;
        before(0).await;
        running.connect(&self.consent()).await;
        running.token(None).await;
        before(1).await;
        running.token(Some("ANALYST")).await;
        before(2).await;
        running.refresh(None).await;
        running.stop().await;
        let running = self.engine(&database, hook).await;
        while running.engine.recover().await.is_err() {}
        while running.engine.look_after().await.is_err() {}
        before(3).await;
        running.token(Some("ANALYST")).await;
        running.refresh(Some("ANALYST")).await;
        // Whatever failed, nothing is in doubt or in memory alone any more.
        running.refresh(None).await;
        assert!(running.ready.waiting_for().is_empty());
        running.stop().await;
        self.world.assert_nothing_was_lost().await;
    }

    /// How many operations there were to fail.
    async fn fail_each_operation(&self, after: bool) -> u64 {
        for nth in 1.. {
            let hook = FailNth::new(nth, after);
            self.play(Arc::clone(&hook) as _, async |_| {}).await;
            if hook.failed.lock().unwrap().is_none() {
                return nth - 1;
            }
        }
        unreachable!("some run is clean")
    }
}

#[tokio::test]
async fn whichever_operation_of_the_store_fails_the_grant_works() {
    let operations = Scene::start().await.fail_each_operation(false).await;
    assert!(operations > 30, "{operations}");
}

#[tokio::test]
async fn whichever_operation_of_the_store_is_done_and_says_that_it_was_not_the_grant_works() {
    let operations = Scene::start().await.fail_each_operation(true).await;
    assert!(operations > 30, "{operations}");
}

/// Each kind of fault, at one endpoint, before each of these steps.
async fn requests_fail(endpoint: &str, faults: &[Value], steps: &[u32]) {
    let scene = Scene::start().await;
    for fault in faults {
        for step in steps {
            let fail = async |at: u32| {
                if at == *step {
                    let mut fault = fault.clone();
                    fault["endpoint"] = json!(endpoint);
                    scene.world.fault(fault).await;
                }
            };
            scene.play(FailNth::new(0, false), fail).await;
        }
    }
}

/// The steps at which metadata and keys are fetched.
const BY_A_NEW_PROCESS: [u32; 2] = [0, 3];

fn quick_faults() -> Vec<Value> {
    let unavailable = json!({ "do": "status", "status": 503 });
    let broken = |kind: &str| json!({ "do": kind });
    [broken("cut_before"), broken("cut_after"), broken("garbage"), unavailable].into()
}

#[tokio::test]
async fn whichever_token_request_fails_the_grant_works() {
    requests_fail("token", &quick_faults(), &[0, 1, 2, 3]).await;
}

#[tokio::test]
async fn whichever_request_for_keys_fails_the_grant_works() {
    requests_fail("keys", &quick_faults(), &BY_A_NEW_PROCESS).await;
}

#[tokio::test]
async fn whichever_request_for_metadata_fails_the_grant_works() {
    requests_fail("discovery", &quick_faults(), &BY_A_NEW_PROCESS).await;
}

#[tokio::test]
async fn whichever_token_request_hangs_after_it_was_acted_upon_the_grant_works() {
    requests_fail("token", &[json!({ "do": "hang_after" })], &[2]).await;
}

/// While the switch is on, these operations fail; all of them, if there are none.
struct Broken {
    on: AtomicBool,
    operations: &'static [&'static str],
}

#[async_trait]
impl Hook for Broken {
    async fn before(&self, operation: &'static str) -> Result<(), StoreError> {
        let meant = self.operations.is_empty() || self.operations.contains(&operation);
        if meant && self.on.load(Ordering::Relaxed) { Err(broken()) } else { Ok(()) }
    }
}

const WRITES: [&str; 14] = [
    "begin",
    "commit",
    "settle",
    "mark_verified",
    "discard",
    "add_candidate",
    "promote",
    "drop_candidate",
    "ensure_client_grant",
    "revoke",
    "revoked",
    "erase",
    "note_expiry",
    "spill",
];

/// While these operations fail, what lives is vended and nothing is presented; afterwards all is as before.
async fn the_store_breaks(operations: &'static [&'static str]) {
    let scene = Scene::start().await;
    let database = scene.database();
    let hook = Arc::new(Broken { on: AtomicBool::new(false), operations });
    let running = scene.engine(&database, Arc::clone(&hook) as _).await;
    running.connect(&scene.consent()).await;
    let alive = running.token(None).await;
    let requests = scene.world.token_requests().await;
    hook.on.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let vended = running.engine.token(&token(None), None).await.unwrap();
        assert_eq!(vended.token(), alive.token(), "from memory");
        for result in [
            running.engine.token(&token(Some("ANALYST")), None).await,
            running.engine.refresh(&token(None)).await,
            running.engine.import(crate::support::engine::grant(), scene.consent()).await.map(|_| vended),
        ] {
            let failure = result.err();
            assert!(matches!(failure, Some(Failure::StoreUnavailable { .. })), "{failure:?}");
        }
    }
    assert_eq!(
        scene.world.token_requests().await,
        requests,
        "nothing is presented that can't be written down"
    );
    hook.on.store(false, Ordering::Relaxed);
    running.token(Some("ANALYST")).await;
    running.refresh(None).await;
    running.connect(&scene.consent()).await;
    running.stop().await;
    let stats = scene.world.stats().await;
    assert_eq!(stats["presented_twice"], 0, "{stats:#}");
    scene.world.assert_nothing_was_lost().await;
}

#[tokio::test]
async fn on_a_read_only_store_what_lives_is_vended_and_nothing_is_presented() {
    the_store_breaks(&WRITES).await;
}

#[tokio::test]
async fn while_the_store_is_gone_what_lives_is_vended_and_nothing_is_presented() {
    the_store_breaks(&[]).await;
}
