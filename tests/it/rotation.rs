//! Refresh tokens that rotate, answers that get lost: no grant is, and no family is revoked behind anybody's back.

use std::time::Duration;

use bursar::dev::authorization_server::Rotation;
use serde_json::json;

use crate::support::{ALICE, BOB, World};

const ROLES: [Option<&str>; 3] = [None, Some("PUBLIC"), Some("ANALYST")];

#[tokio::test]
async fn each_refresh_presents_the_newest_token_once() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for round in 0..4 {
        for role in ROLES {
            let reply = sidecar.refresh("snowflake", ALICE, role).await;
            assert_eq!(reply.status, 200, "{round} {role:?}: {}", reply.body);
        }
    }
    let stats = world.stats().await;
    assert_eq!(stats["refreshes"], 12);
    assert_eq!(stats["presented_twice"], 0);
    assert_eq!(sidecar.grant("snowflake", ALICE).await["refresh_tokens"], "rotating");
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn roles_that_are_asked_for_at_the_same_time_queue_up() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let requests = ROLES.map(|role| sidecar.refresh("snowflake", ALICE, role));
    for reply in crate::vending::join_all(requests).await {
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let stats = world.stats().await;
    assert_eq!(stats["max_concurrent_token_requests_per_family"], 1);
    assert_eq!(stats["presented_twice"], 0);
    world.finish(sidecar).await;
}

/// A hundred answers lost after the server acted, over three roles.
async fn answers_are_lost(rotation: Rotation) {
    let world = World::with(rotation, 30, Duration::from_hours(1)).await;
    let sidecar = world.connected().await;
    let users = [ALICE, BOB, "carol@example.com"];
    for user in users {
        world.connect(&sidecar, user).await;
    }
    let before = world.token_requests().await;
    let losses = ["cut_after", "garbage", "truncated", "proxy_page"];
    // By turns, for each user has a pace of their own.
    for lost in 0..100 {
        world.fault(json!({ "do": losses[lost % losses.len()] })).await;
        let (user, role) = (users[lost % users.len()], ROLES[(lost / users.len()) % ROLES.len()]);
        let reply = sidecar.refresh("snowflake", user, role).await;
        assert_eq!(reply.status, 200, "{lost} {user} {role:?}: {}", reply.body);
    }
    for user in users {
        for role in ROLES {
            sidecar.token("snowflake", user, role).await.token();
        }
    }
    assert!(world.token_requests().await - before >= 200, "each lost answer was asked for again");
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_hundred_lost_answers_cost_nothing_when_tokens_rotate() {
    answers_are_lost(Rotation::Rotating).await;
}

#[tokio::test]
async fn a_hundred_lost_answers_cost_nothing_when_tokens_are_persistent() {
    answers_are_lost(Rotation::Persistent).await;
}

#[tokio::test]
async fn whatever_happens_to_an_answer_is_recovered_inside_the_leeway() {
    let world = World::start().await;
    world.configure("refresh_token_leeway", "request_timeout = \"1s\"\nrefresh_token_leeway");
    let sidecar = world.connected().await;
    for fault in [
        json!({ "do": "status", "status": 500, "acts": true }),
        json!({ "do": "status", "status": 502, "body": "<html>Bad gateway</html>", "content_type": "text/html" }),
        json!({ "do": "status", "status": 302 }),
        json!({ "do": "cut_before" }),
        json!({ "do": "hang_after" }),
        json!({ "do": "hang" }),
    ] {
        world.fault(fault.clone()).await;
        let reply = sidecar.refresh("snowflake", ALICE, Some("ANALYST")).await;
        assert_eq!(reply.status, 200, "{fault}: {}", reply.body);
    }
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn without_leeway_a_used_up_token_ends_as_lost_and_no_family_is_revoked() {
    let world = World::with(Rotation::Rotating, 0, Duration::from_hours(1)).await;
    world.configure("refresh_token_leeway", "request_timeout = \"500ms\"\nrefresh_token_leeway");
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "cut_after" })).await;
    let reply = sidecar.refresh("snowflake", ALICE, Some("ANALYST")).await;
    assert_eq!(reply.error(), (409, "login_required".to_owned()));
    assert_eq!(reply.json()["reason"], "lost");
    assert_eq!(sidecar.grant("snowflake", ALICE).await["state"], "lost");
    assert!(
        world.stats().await["requests"]["introspect"].as_u64().unwrap() >= 1,
        "asked before anything is replayed"
    );
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn without_leeway_a_token_that_was_not_used_up_goes_on() {
    let world = World::with(Rotation::Rotating, 0, Duration::from_hours(1)).await;
    world.configure("refresh_token_leeway", "request_timeout = \"500ms\"\nrefresh_token_leeway");
    let sidecar = world.connected().await;
    for fault in [json!({ "do": "cut_before" }), json!({ "do": "status", "status": 503 })] {
        world.fault(fault.clone()).await;
        let reply = sidecar.refresh("snowflake", ALICE, Some("ANALYST")).await;
        assert_eq!(reply.status, 200, "{fault}: {}", reply.body);
    }
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_keeps_the_one_there_is() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for fault in ["no_refresh_token", "same_refresh_token", "string_expires_in"] {
        world.fault(json!({ "do": fault })).await;
        let reply = sidecar.refresh("snowflake", ALICE, None).await;
        assert_eq!(reply.status, 200, "{fault}: {}", reply.body);
    }
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_grant_learns_that_its_tokens_are_persistent() {
    let world = World::with(Rotation::Persistent, 0, Duration::from_hours(1)).await;
    let sidecar = world.connected().await;
    assert_eq!(sidecar.grant("snowflake", ALICE).await["refresh_tokens"], "persistent");
    world.fault(json!({ "do": "cut_after" })).await;
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200, "replayed at will");
    assert_eq!(world.stats().await["requests"]["introspect"].as_u64().unwrap_or(0), 0);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_server_that_is_down_for_a_while_after_a_lost_answer_costs_nothing_inside_the_leeway() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!([{ "do": "cut_after" }, { "do": "status", "status": 502, "next": 1_000_000 }])).await;
    let impatient = async {
        let refresh = sidecar.refresh("snowflake", ALICE, Some("ANALYST"));
        let _left = tokio::time::timeout(Duration::from_millis(500), refresh).await;
        tokio::time::sleep(Duration::from_secs(12)).await;
    };
    impatient.await;
    world.fault(json!({ "do": "clear" })).await;
    while !sidecar.grant("snowflake", ALICE).await["in_doubt_since"].is_null() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sidecar.grant("snowflake", ALICE).await["state"], "active");
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_is_in_doubt_is_pursued_until_the_server_can_say() {
    let world = World::start().await;
    world.configure(
        "refresh_token_leeway = \"30s\"",
        "request_timeout = \"500ms\"\nrefresh_token_leeway = \"2s\"",
    );
    world.configure("[log]", "[refresh]\nlease = \"900ms\"\n[log]");
    world.settings(json!({ "leeway": 2 })).await;
    let sidecar = world.connected().await;
    // Never acted upon, and then nothing is to be heard for longer than the leeway.
    world.fault(json!({ "do": "status", "status": 502, "next": 1_000_000 })).await;
    world.fault(json!({ "do": "status", "status": 502, "next": 1_000_000, "endpoint": "introspect" })).await;
    let reply = sidecar.refresh("snowflake", ALICE, None).await;
    assert_eq!(reply.status, 503, "{}", reply.body);
    world.fault(json!({ "do": "clear" })).await;
    while !sidecar.grant("snowflake", ALICE).await["in_doubt_since"].is_null() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sidecar.grant("snowflake", ALICE).await["state"], "active", "asked, and it was not used up");
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}
