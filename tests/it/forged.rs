//! Tokens that are not what they must be: never vended, and the grant survives each of them.

use std::time::Duration;

use serde_json::json;

use crate::support::{ALICE, World};

#[tokio::test]
async fn a_forged_token_is_never_vended_and_the_grant_survives() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for fault in [
        "alg_none",
        "hs256_public_key",
        "wrong_key",
        "no_kid",
        "wrong_issuer",
        "wrong_audience",
        "wrong_subject",
        "wrong_client",
        "wrong_scope",
        "expired",
        "not_yet_valid",
        "no_exp",
        "crit",
        "id_token",
        "jwe",
        "opaque",
        "dpop",
    ] {
        let version = world.stats().await["refreshes"].as_u64().unwrap();
        world.fault(json!({ "do": fault })).await;
        let reply = sidecar.refresh("snowflake", ALICE, Some("ANALYST")).await;
        assert_eq!(reply.error(), (502, "token_invalid".to_owned()), "{fault}: {}", reply.body);
        assert!(reply.json()["hint"].is_string(), "{fault}");
        let asked = sidecar.token("snowflake", ALICE, Some("ANALYST")).await;
        if asked.status == 200 {
            assert!(version > 1, "{fault}: only an earlier, good token may still be vended");
        }
        let again = sidecar.refresh("snowflake", ALICE, Some("ANALYST")).await;
        assert_eq!(again.status, 200, "{fault}: {}", again.body);
        let good = sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
        assert_eq!(good.split('.').count(), 3, "{fault}");
    }
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_forged_token_is_not_vended_after_a_restart_either() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "wrong_subject" })).await;
    let reply = sidecar.token("snowflake", ALICE, Some("ANALYST")).await;
    assert_eq!(reply.error(), (502, "token_invalid".to_owned()));
    assert!(sidecar.read_log().contains("another user's token"));
    sidecar.kill();
    let sidecar = world.sidecar().await;
    let token = sidecar.token("snowflake", ALICE, Some("ANALYST")).await;
    assert_eq!(token.status, 200, "a new one: {}", token.body);
    assert_eq!(world.token_requests().await, 2);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_token_with_five_parts_gets_a_clear_answer() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "jwe" })).await;
    let hint = sidecar.token("snowflake", ALICE, Some("ANALYST")).await.json()["hint"].clone();
    assert!(hint.as_str().unwrap().contains("encrypted"), "{hint}");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_weak_key_and_an_unknown_one_are_not_taken() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for fault in ["weak_key", "unknown_kid"] {
        world.fault(json!({ "do": fault })).await;
        let reply = sidecar.token("databricks", ALICE, None).await;
        assert_eq!(reply.status, 200, "what was imported is good: {}", reply.body);
        let reply = sidecar.refresh("databricks", ALICE, None).await;
        assert!(matches!(reply.status, 502 | 503), "{fault}: {}", reply.body);
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn an_opaque_service_hands_its_tokens_on_unread() {
    let world = World::start().await;
    world.configure("kind     = \"databricks\"", "kind     = \"databricks\"\naccess_token = \"opaque\"");
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "opaque" })).await;
    assert_eq!(sidecar.refresh("databricks", ALICE, None).await.status, 200);
    let token = sidecar.token("databricks", ALICE, None).await.token();
    assert_ne!(token.split('.').count(), 3);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_rotated_key_is_fetched_once_and_an_invented_one_does_not_drive_traffic() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let keys = |stats: serde_json::Value| stats["requests"]["keys"].as_u64().unwrap_or(0);
    assert_eq!(keys(world.stats().await), 0, "fetched at the import");
    world.fault(json!({ "do": "rotate_keys" })).await;
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200, "published ahead, as Okta does");
    assert_eq!(keys(world.stats().await), 0);
    world.fault(json!([{ "do": "rotate_keys" }, { "do": "rotate_keys" }])).await;
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    assert_eq!(keys(world.stats().await), 1, "a key that is not in the set is looked for at once");
    for _ in 0..5 {
        world.fault(json!({ "do": "unknown_kid" })).await;
        let reply = sidecar.refresh("snowflake", ALICE, None).await;
        let unavailable = (503, "authorization_server_unavailable".to_owned());
        assert_eq!(reply.error(), unavailable, "{}", reply.body);
    }
    assert_eq!(keys(world.stats().await), 1, "within the cooldown of that");
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn when_no_keys_can_be_had_the_token_waits_and_the_grant_is_safe() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    world.fault(json!({ "do": "garbage", "endpoint": "keys", "next": 1 })).await;
    let refresh_token = world.consent("snowflake", ALICE);
    let reply = sidecar.import("snowflake", ALICE, &refresh_token).await;
    assert_eq!(reply.error(), (503, "authorization_server_unavailable".to_owned()), "{}", reply.body);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let again = sidecar.import("snowflake", ALICE, &refresh_token).await;
    assert_eq!(again.status, 201, "{}", again.body);
    assert_eq!(world.token_requests().await, 1, "the second import took up what the first one got");
    world.finish(sidecar).await;
}
