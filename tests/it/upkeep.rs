//! What happens without anybody asking: refreshes ahead, within a budget, and questions to the authorization server.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bursar::dev::authorization_server::Rotation;
use serde_json::json;

use crate::support::sidecar::{Reply, Sidecar, request};
use crate::support::{ALICE, World};

fn token() -> String {
    format!("/v1/token?service=snowflake&user={ALICE}")
}

/// Rejects a token as a worker would whose service has refused it.
async fn reject(sidecar: &Sidecar, refused: &str) -> Reply {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, refused.as_bytes());
    let rejected = URL_SAFE_NO_PAD.encode(digest);
    sidecar.get(&format!("{}&rejected={rejected}", token())).await
}

async fn within(seconds: u64, what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(seconds), waiting).await.expect(what);
}

#[tokio::test]
async fn what_was_in_use_before_a_restart_is_refreshed_ahead_after_it() {
    let world = World::with(Rotation::Rotating, 30, Duration::from_secs(10)).await;
    let sidecar = world.connected().await;
    // By a refresh of its own, so that it is written that somebody asks for it.
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    sidecar.kill();
    let sidecar = world.sidecar().await;
    let before = world.token_requests().await;
    within(15, "the role's token is refreshed, and nobody asked", async || {
        world.token_requests().await > before
    })
    .await;
    let scopes = world.stats().await["refreshes_by_scope"].clone();
    assert!(scopes.as_object().unwrap().keys().any(|scope| scope.contains("ANALYST")), "{scopes}");
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_token_that_nobody_asks_for_is_left_to_end() {
    let world = World::with(Rotation::Rotating, 30, Duration::from_secs(6)).await;
    world.configure("[log]", "[refresh]\nidle_after = \"1s\"\n[log]");
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(world.token_requests().await, 0, "since the import");
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.status, 200, "on demand");
    assert_eq!(world.token_requests().await, 1);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_token_that_a_service_refused_is_replaced_once_a_minute_and_never_handed_out_again() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let first = sidecar.token("snowflake", ALICE, None).await.token();
    let (one, other) = tokio::join!(reject(&sidecar, &first), reject(&sidecar, &first));
    let second = one.token();
    assert_ne!(first, second);
    assert_eq!(other.token(), second, "one refresh for both");
    assert_eq!(reject(&sidecar, &first).await.token(), second, "it has been replaced already");
    assert_eq!(world.token_requests().await, 1);
    let too_often = reject(&sidecar, &second).await;
    assert_eq!(too_often.error(), (429, "too_many_requests".to_owned()));
    let wait: u64 = too_often.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(world.token_requests().await, 1);
    for malformed in ["", "x", "AAAA"] {
        let reply = sidecar.get(&format!("{}&rejected={malformed}", token())).await;
        assert_eq!(reply.error(), (400, "invalid_request".to_owned()), "{malformed:?}");
    }
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.token(), second);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_refused_token_is_not_handed_out_while_its_server_is_down() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let first = sidecar.token("snowflake", ALICE, None).await.token();
    world.stop_server().await;
    let reply = reject(&sidecar, &first).await;
    assert_eq!(reply.error(), (503, "authorization_server_unavailable".to_owned()));
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.token(), first, "others' service may take it");
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
}

#[tokio::test]
async fn beyond_the_budget_callers_wait_and_the_server_sees_no_more() {
    let world = World::start().await;
    world.configure("client_id", "requests_per_minute = 3\nclient_id");
    world.configure("path = ", "request_timeout = \"2s\"\npath = ");
    let sidecar = world.connected().await;
    // One was the import.
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    sidecar.refresh("snowflake", ALICE, None).await;
    let reply = sidecar.token("snowflake", ALICE, Some("PUBLIC")).await;
    assert_eq!(reply.error(), (504, "timeout".to_owned()), "a place is free in a minute");
    assert_eq!(world.token_requests().await, 2);
    let used = sidecar.metrics().await;
    assert!(
        used.contains("bursar_refresh_budget_used_ratio{authorization_server=\"snowflake\"} 1"),
        "{used}"
    );
    sidecar.kill();
    world.assert_nothing_was_lost().await;
}

#[tokio::test]
async fn a_deactivated_user_stops_being_served_within_the_time_that_is_configured() {
    let world = World::start().await;
    world.configure("client_id", "liveness = \"10s\"\nclient_id");
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    world.fault(json!({ "do": "deactivate_user", "user": ALICE })).await;
    let since = std::time::Instant::now();
    within(15, "the server says that the grant is over", async || {
        sidecar.token("snowflake", ALICE, None).await.status != 200
    })
    .await;
    assert!(since.elapsed() < Duration::from_secs(12), "{:?}", since.elapsed());
    let reply = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(reply.error(), (409, "login_required".to_owned()));
    assert_eq!(reply.json()["reason"], "revoked");
    assert_eq!(world.token_requests().await, 1, "asked, and then made sure of");
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
}

#[tokio::test]
async fn who_asks_again_after_a_while_gets_no_token_that_nobody_vouched_for() {
    let world = World::start().await;
    world.configure("client_id", "liveness = \"10s\"\nclient_id");
    let sidecar = world.connected().await;
    within(20, "the server is asked when the grant ends, and so says that it lives", async || {
        world.stats().await["requests"]["introspect"].as_u64().unwrap_or(0) >= 2
    })
    .await;
    // Nobody asks for a token, so nobody asks again whether its grant lives.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let asked = world.stats().await["requests"]["introspect"].as_u64().unwrap_or(0);
    world.fault(json!({ "do": "deactivate_user", "user": ALICE })).await;
    let reply = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(reply.error(), (409, "login_required".to_owned()));
    assert_eq!(world.stats().await["requests"]["introspect"].as_u64(), Some(asked + 1));
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
}

#[tokio::test]
async fn a_grant_that_ends_by_itself_is_known_to_and_said_to() {
    let world = World::start().await;
    world.settings(json!({ "refresh_token_lifetime": 3600 })).await;
    let sidecar = world.connected().await;
    within(20, "the server is asked", async || {
        !sidecar.grant("snowflake", ALICE).await["expires_at"].is_null()
    })
    .await;
    let listed =
        request(&sidecar.admin_socket(), "GET", "/v1/grants?ending=true&service=snowflake", &[], "").await;
    let listed = listed.json();
    assert_eq!(listed["grants"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&listed["grants"][0]["user"], &listed["grants"][0]["ending"]), (&json!(ALICE), &json!(true)));
    within(5, "and told", async || {
        sidecar.metrics().await.contains("bursar_grant_expiry_timestamp_seconds{service=\"snowflake\"} 1")
    })
    .await;
    // Once for each of alice's grants.
    within(5, "asked about", async || world.stats().await["requests"]["introspect"] == 2).await;
    sidecar.refresh("snowflake", ALICE, None).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.stats().await["requests"]["introspect"], 2, "once a day at most");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_budget_that_can_not_hold_the_grants_is_said_at_start_with_numbers() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    assert!(!sidecar.read_log().contains("can't hold these grants"));
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    world.configure("client_id", "requests_per_minute = 1\nclient_id");
    let sidecar = world.sidecar().await;
    let log = sidecar.read_log();
    let said = log.lines().find(|line| line.contains("can't hold these grants")).expect("it is said");
    assert!(said.contains("grants=1") && said.contains("needed_per_minute=1"), "{said}");
    world.finish(sidecar).await;
}
