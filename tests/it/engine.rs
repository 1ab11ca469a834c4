//! The engine on a store that fails: nothing new is vended until the answer that a grant depends on is on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bursar::clock::SystemClock;
use bursar::entropy::SystemEntropy;
use bursar::model::{EndReason, Failure};
use bursar::secret::Secret;
use bursar::store::StoreError;
use bursar::store::seal::generate_key;

use crate::support::engine::{Running, grant, token};
use crate::support::store::Hook;
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

impl Scene {
    async fn start() -> Self {
        let world = World::start().await;
        Self { world, key: generate_key(&SystemEntropy), full: Arc::default() }
    }

    async fn engine(&self) -> Running {
        let path = self.world.path().join("engine.db");
        let full = Arc::new(Full(Arc::clone(&self.full)));
        Running::start(
            &self.world,
            &path,
            &self.key,
            full,
            Arc::new(SystemClock::new(0)),
            Some(Duration::from_secs(4)),
        )
        .await
    }

    async fn connected(&self) -> Running {
        let running = self.engine().await;
        let refresh_token = Secret::new(self.world.consent("snowflake", ALICE));
        running.engine.import(grant(), refresh_token).await.unwrap();
        running
    }
}

#[tokio::test]
async fn what_can_not_be_written_is_not_vended_and_not_lost() {
    let scene = Scene::start().await;
    let running = scene.connected().await;
    let before = running.engine.token(&token(None), None).await.unwrap();
    scene.full.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let failure = running.engine.token(&token(Some("ANALYST")), None).await.err();
        assert!(matches!(failure, Some(Failure::StoreUnavailable { .. })), "{failure:?}");
        let failure = running.engine.refresh(&token(None)).await.err();
        assert!(matches!(failure, Some(Failure::StoreUnavailable { .. })), "{failure:?}");
    }
    assert_eq!(
        scene.world.stats().await["refreshes"],
        2,
        "the import, and the one whose answer waits: no further ones"
    );
    assert_eq!(running.ready.waiting_for(), ["store"]);
    let alive = running.engine.token(&token(None), None).await.unwrap();
    assert_eq!(alive.token(), before.token(), "the previous token is vended while it lives");
    scene.full.store(false, Ordering::Relaxed);
    while !running.ready.waiting_for().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.engine.token(&token(Some("ANALYST")), None).await.unwrap();
    assert_eq!(scene.world.stats().await["refreshes"], 2, "what was kept is what is vended");
    running.engine.refresh(&token(None)).await.unwrap();
    scene.world.assert_nothing_was_lost().await;
    running.stop().await;
}

#[tokio::test]
async fn a_stop_in_that_state_puts_the_answer_beside_the_store_and_the_next_start_takes_it_up() {
    let scene = Scene::start().await;
    let running = scene.connected().await;
    scene.full.store(true, Ordering::Relaxed);
    assert!(running.engine.refresh(&token(None)).await.is_err());
    running.tasks.stop();
    running.tasks.stopped().await;
    let late = running.engine.refresh(&token(None)).await.err();
    assert!(matches!(late, Some(Failure::StoreUnavailable { .. })), "{late:?}: the store's token is used up");
    running.stop().await;
    scene.full.store(false, Ordering::Relaxed);
    let running = scene.engine().await;
    running.engine.refresh(&token(None)).await.unwrap();
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
    assert!(running.engine.refresh(&token(None)).await.is_err());
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
    running.engine.refresh(&token(None)).await.unwrap();
    scene.world.assert_nothing_was_lost().await;
    running.stop().await;
}

#[tokio::test]
async fn what_could_not_be_written_when_its_grant_was_revoked_is_revoked_once_it_is() {
    let scene = Scene::start().await;
    let running = scene.connected().await;
    scene.full.store(true, Ordering::Relaxed);
    let failure = running.engine.token(&token(Some("ANALYST")), None).await.err();
    assert!(matches!(failure, Some(Failure::StoreUnavailable { .. })), "{failure:?}");
    let left = running.engine.revoke(&grant(), Duration::from_secs(5)).await.unwrap().unwrap();
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
    let failure = running.engine.token(&token(None), None).await.err();
    assert!(
        matches!(failure, Some(Failure::LoginRequired { reason: EndReason::Revoked, .. })),
        "{failure:?}"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_grant_that_nobody_uses_is_kept_alive_and_a_stop_does_not_cut_that_in_two() {
    let scene = Scene::start().await;
    let running = scene.connected().await;
    // Three quarters of the four seconds after which it must be used.
    tokio::time::sleep(Duration::from_secs(3)).await;
    scene.world.fault(serde_json::json!({ "do": "delay", "seconds": 1 })).await;
    running.engine.look_after().await.unwrap();
    while scene.world.stats().await["refreshes"] != 1 || scene.world.token_requests().await != 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let id = bursar::model::GrantId::current(grant());
    let before = running.store.grant(&id).await.unwrap().unwrap();
    assert!(before.in_doubt_since.is_some(), "its refresh is under way");
    running.tasks.stop();
    running.tasks.stopped().await;
    let after = running.store.grant(&id).await.unwrap().unwrap();
    assert_eq!((after.version, after.in_doubt_since), (before.version + 1, None), "it was finished first");
    running.stop().await;
    scene.world.assert_nothing_was_lost().await;
}
