//! Services without users: tokens that speak for the client itself, on the same engine.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::sidecar::{Reply, Sidecar, request};
use crate::support::{ALICE, World};
use crate::vending::{claims, join_all};

async fn world() -> World {
    let world = World::start().await;
    world.configure(
        "[services.databricks]",
        "[services.reporting]\nauthorization_server = \"databricks\"\naudience = \"databricks\"\n\
         scopes = [\"all-apis\"]\ngrant = \"client_credentials\"\n\n[services.databricks]",
    );
    world
}

async fn ask(sidecar: &Sidecar) -> Reply {
    sidecar.get("/v1/token?service=reporting").await
}

async fn token_requests(world: &World) -> Value {
    world.stats().await["token_requests_by_grant_type"]["client_credentials"].clone()
}

#[tokio::test]
async fn a_token_for_the_client_is_had_without_a_user_and_survives_a_restart() {
    let world = world().await;
    let sidecar = world.sidecar().await;
    let replies = join_all((0..20).map(|_| ask(&sidecar))).await;
    let token = replies[0].token();
    assert!(replies.iter().all(|reply| reply.token() == token));
    assert_eq!(token_requests(&world).await, 1, "twenty at once make one");
    let body = ask(&sidecar).await.json();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["access_token", "expires_at", "expires_in", "scope", "service", "token_type"]);
    assert_eq!((&body["scope"], &body["service"]), (&json!("all-apis"), &json!("reporting")));
    let claims = claims(&token);
    assert_eq!((&claims["sub"], &claims["uid"]), (&claims["cid"], &Value::Null), "the client's own");
    sidecar.kill();
    let sidecar = world.sidecar().await;
    assert_eq!(ask(&sidecar).await.token(), token);
    assert_eq!(token_requests(&world).await, 1);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn it_is_refreshed_like_any_other_and_a_lost_answer_costs_nothing() {
    let world =
        World::with(bursar::dev::authorization_server::Rotation::Rotating, 0, Duration::from_secs(6)).await;
    world.configure(
        "[services.databricks]",
        "[services.reporting]\nauthorization_server = \"databricks\"\naudience = \"databricks\"\n\
         scopes = [\"all-apis\"]\ngrant = \"client_credentials\"\n\n[services.databricks]",
    );
    let sidecar = world.sidecar().await;
    world.fault(json!({ "do": "cut_after", "next": 1 })).await;
    let first = ask(&sidecar).await.token();
    assert_eq!(token_requests(&world).await, 2, "asked again at once: there is nothing to use up");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut next = ask(&sidecar).await.token();
    for _ in 0..40 {
        if next != first {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        next = ask(&sidecar).await.token();
    }
    assert_ne!(next, first);
    assert!(sidecar.counter("bursar_grants", &[]).await < 1.0, "it is nobody's grant");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_user_has_no_place_in_such_a_request_and_the_client_none_in_others() {
    let world = world().await;
    let sidecar = world.connected().await;
    for (target, parameter) in [
        (format!("/v1/token?service=reporting&user={ALICE}"), "user"),
        ("/v1/token?service=snowflake".to_owned(), "user"),
        ("/v1/token?service=reporting&role=X".to_owned(), "role"),
    ] {
        let reply = sidecar.get(&target).await;
        assert_eq!((reply.status, &reply.json()["parameter"]), (400, &json!(parameter)), "{target}");
    }
    let grants = request(&sidecar.admin_socket(), "GET", "/v1/grants", &[], "").await.json();
    assert_eq!(grants["grants"].as_array().unwrap().len(), 2, "alice's, and none of the client");
    let import = sidecar.import("reporting", ALICE, "sentinel-x").await;
    assert_eq!((import.status, &import.json()["parameter"]), (400, &json!("user")));
    let services = sidecar.get("/v1/services").await.json();
    let reporting =
        services["services"].as_array().unwrap().iter().find(|one| one["service"] == "reporting").unwrap();
    assert_eq!(reporting["users"], Value::Null);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_rule_for_it_names_no_users_and_without_a_rule_nothing_is_told() {
    let world = world().await;
    world.configure(
        "services = [\"*\"]\nusers    = [\"*\"]\nrun_pass = \"none\"",
        "services = [\"reporting\"]",
    );
    let sidecar = world.sidecar().await;
    ask(&sidecar).await.token();
    let denied = sidecar.get(&format!("/v1/token?service=snowflake&user={ALICE}")).await;
    assert_eq!(denied.error(), (403, "access_denied".to_owned()));
    for service in ["snowflake", "nosuch"] {
        let reply = sidecar.get(&format!("/v1/token?service={service}")).await;
        assert_eq!(reply.error(), (403, "access_denied".to_owned()), "{service}");
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_the_server_refuses_an_administrator_must_mend() {
    let world = world().await;
    world.settings(json!({ "grant_types": ["authorization_code", "refresh_token"] })).await;
    let sidecar = world.sidecar().await;
    let reply = ask(&sidecar).await;
    assert_eq!(reply.error(), (502, "authorization_server_refused".to_owned()));
    assert_eq!(reply.json()["authorization_server_error"], "unauthorized_client");
    assert!(reply.json()["hint"].as_str().unwrap().contains("Client Credentials"));
    let users = world.consent("databricks", ALICE);
    assert_eq!(sidecar.import("databricks", ALICE, &users).await.status, 201);
    assert_eq!(sidecar.refresh("databricks", ALICE, None).await.status, 200);
    let status = request(&sidecar.admin_socket(), "GET", "/v1/status", &[], "").await.json();
    assert_eq!(
        status["authorization_servers"][0]["state"], "open",
        "users of that server are not held up: {status}"
    );
    world.finish(sidecar).await;
}
