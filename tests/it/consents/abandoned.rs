//! What becomes of a consent when the store fails, or the process dies, between the code's exchange and the grant.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bursar::clock::SystemClock;
use bursar::consent::{Ask, Callback, Consents, Purpose};
use bursar::entropy::SystemEntropy;
use bursar::metrics::Metrics;
use bursar::store::StoreError;
use bursar::store::seal::generate_key;
use nix::sys::signal::Signal::SIGKILL;

use super::*;
use crate::support::engine::{self, Running};
use crate::support::sidecar::ended_by;
use crate::support::store::Hook;

/// One operation fails each time.
struct Failing(&'static str);

#[async_trait]
impl Hook for Failing {
    async fn before(&self, operation: &'static str) -> Result<(), StoreError> {
        if operation == self.0 { Err(StoreError::Unavailable("disk full".to_owned())) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_consent_that_can_not_be_kept_is_given_back() {
    for operation in ["add_candidate", "promote"] {
        let world = World::warm().await;
        let clock = Arc::new(SystemClock::new(0));
        let (database, key) = (world.path().join("engine.db"), generate_key(&SystemEntropy));
        let hook = Arc::new(Failing(operation));
        let running = Running::start(&world, &database, &key, hook, clock.clone(), None).await;
        running.engine.recover().await.unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let consents = Consents::new(running.engine.clone(), clock, Arc::new(SystemEntropy), metrics);
        let ask = Ask {
            service: engine::service().name,
            purpose: Purpose::Connect(Vec::new()),
            redirect_uri: url::Url::parse("http://127.0.0.1:8976/callback/dev").unwrap(),
            login_hint: None,
        };
        let (url, pending) = consents.begin(&ask).await.unwrap();
        let query = sign_in(&json!({ "authorization_url": url.as_str() }), ALICE).await;
        let refused = consents.finish(&pending, &Callback::read(&query).unwrap(), None).await.unwrap_err();
        assert_eq!(refused.word(), "store_unavailable", "{operation}");
        for _ in 0..2000 {
            if world.stats().await["families_revoked"] != json!([]) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(world.stats().await["families_revoked"][0]["reason"], "revoked", "{operation}");
        assert!(running.store.candidates().await.unwrap().is_empty(), "{operation}");
        running.stop().await;
    }
}

/// The daemon dies of it.
async fn post_and_die(socket: PathBuf, target: String, body: String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let length = body.len();
    let request = format!("POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}");
    let _sent = stream.write_all(request.as_bytes()).await;
    let _answered = stream.read_u8().await;
}

/// A user signs in, and the process kills itself at that step of what follows.
async fn die_at(world: &World, fail_point: &str) {
    let sidecar = Sidecar::spawn_to_die_at(world.path(), fail_point).ready().await;
    let begun = sidecar.begin("snowflake", &[]).await;
    let query = sign_in(&begun, ALICE).await;
    let target = format!("/v1/authorizations/{}", begun["id"].as_str().unwrap());
    post_and_die(sidecar.admin_socket(), target, json!({ "query": query }).to_string()).await;
    let (status, log) = sidecar.ended().await;
    assert!(ended_by(status, SIGKILL), "{fail_point}: {status}: {log}");
}

#[tokio::test]
async fn a_consent_that_was_half_way_when_the_process_died_is_given_back_and_what_was_handed_in_is_not() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    // Handed in for the wrong user: kept until it is handed in for the right one.
    let bobs = world.consent("snowflake", BOB);
    assert_eq!(sidecar.import("snowflake", ALICE, &bobs).await.error(), (409, "user_mismatch".to_owned()));
    sidecar.kill();
    die_at(&world, "consented").await;
    assert_eq!(world.stats().await["families_revoked"], json!([]));

    let sidecar = world.sidecar().await;
    assert_eq!(world.given_back(&sidecar).await, 1);
    assert!(sidecar.grant("snowflake", ALICE).await.is_null(), "no half grant");
    assert_eq!(sidecar.import("snowflake", BOB, &bobs).await.status, 201);
    assert_eq!(sidecar.log_in("snowflake", &[], ALICE).await.status, 201);
    sidecar.token("snowflake", ALICE, None).await.token();
    assert_eq!(world.given_back(&sidecar).await, 1);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_consent_whose_grant_was_made_when_the_process_died_is_kept() {
    let world = World::warm().await;
    die_at(&world, "adopted").await;
    let sidecar = world.sidecar().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}
