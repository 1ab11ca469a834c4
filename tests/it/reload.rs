//! The configuration is read again beside the one in use, and takes its place whole or not at all.

use std::time::Duration;

use nix::sys::signal::Signal::SIGHUP;
use serde_json::{Value, json};

use crate::support::sidecar::{Reply, Sidecar, request};
use crate::support::{ALICE, World};

async fn reload(sidecar: &Sidecar) -> Reply {
    request(&sidecar.admin_socket(), "POST", "/v1/reload", &[], "").await
}

async fn reloads(sidecar: &Sidecar, result: &str) -> u64 {
    let label = format!("result=\"{result}\"");
    let count = sidecar.counter("bursar_reloads_total", &[&label]).await;
    // Small and whole.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of a few")]
    let count = count as u64;
    count
}

#[tokio::test]
async fn a_new_rule_and_a_new_role_hold_from_the_signal_on() {
    let world = World::start().await;
    world.configure(
        "services = [\"*\"]\nusers    = [\"*\"]",
        "services = [\"snowflake:PUBLIC\"]\nusers    = [\"*\"]",
    );
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, Some("PUBLIC")).await.token();
    assert_eq!(sidecar.token("snowflake", ALICE, Some("ANALYST")).await.status, 403);
    world.configure("snowflake:PUBLIC", "snowflake:ANALYST");
    sidecar.signal(SIGHUP);
    while reloads(&sidecar, "ok").await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    assert_eq!(sidecar.token("snowflake", ALICE, Some("PUBLIC")).await.status, 403, "no longer");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_file_with_a_mistake_changes_nothing_and_says_why() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let token = sidecar.token("snowflake", ALICE, None).await.token();
    world.configure("[log]", "[logs]");
    let reply = reload(&sidecar).await;
    assert_eq!(reply.error(), (400, "invalid_request".to_owned()));
    let problems = reply.json()["problems"].clone();
    assert!(problems[0].as_str().unwrap().contains("logs: unknown key"), "{problems}");
    world.configure("[logs]", "[log]");
    world.configure("metrics = \"127.0.0.1:0\"", "metrics = \"127.0.0.1:1\"");
    let reply = reload(&sidecar).await;
    assert!(reply.json()["problems"][0].as_str().unwrap().contains("[admin] has changed"), "{}", reply.body);
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.token(), token);
    assert_eq!(reloads(&sidecar, "refused").await, 2);
    world.configure("metrics = \"127.0.0.1:1\"", "metrics = \"127.0.0.1:0\"");
    assert_eq!(reload(&sidecar).await.json(), json!({ "reloaded": true }));
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.token(), token, "verified already, as before");
    assert_eq!(world.token_requests().await, 0);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_was_verified_against_the_old_configuration_is_looked_at_again() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    world.configure("https://dev.snowflakecomputing.com", "https://other.snowflakecomputing.com");
    assert_eq!(reload(&sidecar).await.status, 200);
    let reply = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(reply.error(), (502, "token_invalid".to_owned()));
    world.configure("https://other.snowflakecomputing.com", "https://dev.snowflakecomputing.com");
    assert_eq!(reload(&sidecar).await.status, 200);
    sidecar.token("snowflake", ALICE, None).await.token();
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_pause_that_the_server_asked_for_outlives_a_reload_and_a_service_can_come_and_go() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "rate_limit", "seconds": 60, "next": 1 })).await;
    assert_eq!(sidecar.token("snowflake", ALICE, Some("ANALYST")).await.status, 503);
    world.configure(
        "[services.databricks]",
        "[services.later]\nauthorization_server = \"databricks\"\naudience = \"databricks\"\nscopes = [\"all-apis\"]\n\
         [services.databricks]",
    );
    let requests = world.token_requests().await;
    assert_eq!(reload(&sidecar).await.status, 200);
    assert_eq!(sidecar.token("snowflake", ALICE, Some("ANALYST")).await.status, 503);
    assert_eq!(world.token_requests().await, requests, "still paused");
    let later = sidecar.token("later", ALICE, None).await;
    assert_eq!(later.json()["reason"], "never_connected");
    let status = request(&sidecar.admin_socket(), "GET", "/v1/status", &[], "").await.json();
    let snowflake =
        status["authorization_servers"].as_array().unwrap().iter().find(|one| one["name"] == "snowflake");
    assert_eq!(snowflake.unwrap()["state"], "waiting", "{status:#}");
    assert!(snowflake.unwrap()["waiting_seconds"].as_u64().unwrap() > 30);
    world.configure("[services.later]", "[services.later2]");
    assert_eq!(reload(&sidecar).await.status, 200);
    assert_eq!(sidecar.token("later", ALICE, None).await.error(), (404, "unknown_service".to_owned()));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn requests_go_on_while_it_is_reloaded_again_and_again() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let reloading = async {
        for _ in 0..50 {
            assert_eq!(reload(&sidecar).await.status, 200);
        }
    };
    let asking = async {
        for _ in 0..300 {
            sidecar.token("snowflake", ALICE, None).await.token();
        }
    };
    tokio::join!(reloading, asking);
    assert_eq!(world.token_requests().await, 0, "what is stored is good");
    let status: Value = request(&sidecar.admin_socket(), "GET", "/v1/status", &[], "").await.json();
    assert_eq!((&status["ready"], &status["version"]), (&json!(true), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(status["grants"], json!({ "databricks": { "active": 1 }, "snowflake": { "active": 1 } }));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn other_scopes_are_had_at_the_first_request_after_a_reload() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let before = sidecar.token("snowflake", ALICE, None).await.json();
    assert_eq!(before["scope"], "session:role:PUBLIC");
    world.configure("scopes   = [\"session:role:PUBLIC\"]", "scopes   = [\"session:role:ANALYST\"]");
    assert_eq!(reload(&sidecar).await.status, 200);
    let after = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(after.json()["scope"], "session:role:ANALYST", "{}", after.body);
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn an_opaque_token_of_the_old_configuration_is_not_handed_out() {
    let world = World::start().await;
    world.configure("kind     = \"snowflake\"", "kind     = \"snowflake\"\naccess_token = \"opaque\"");
    let sidecar = world.connected().await;
    let before = sidecar.token("snowflake", ALICE, None).await.token();
    world.configure("scopes   = [\"session:role:PUBLIC\"]", "scopes   = [\"session:role:ANALYST\"]");
    assert_eq!(reload(&sidecar).await.status, 200);
    let after = sidecar.token("snowflake", ALICE, None).await;
    assert_ne!(after.token(), before);
    assert_eq!(after.json()["scope"], "session:role:ANALYST");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_secret_that_is_put_right_works_from_the_reload_on() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let right = world.spoil_secret();
    let sidecar = world.sidecar().await;
    assert_eq!(
        sidecar.refresh("snowflake", ALICE, None).await.error(),
        (502, "authorization_server_refused".to_owned())
    );
    let other = world.path().join("right-secret");
    bursar::dev::write_private(&other, &right).unwrap();
    world.configure("/client-secret\"", "/right-secret\"");
    assert_eq!(reload(&sidecar).await.status, 200);
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}
