//! Every refusal through the real socket: status, code, order.

use std::time::Duration;

use serde_json::json;

use crate::support::sidecar::request;
use crate::support::{ALICE, BOB, World};

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_request_of_the_wrong_shape_is_told_which_parameter() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    for (query, parameter) in [
        ("", "service"),
        ("service=snowflake", "user"),
        ("service=snowflake&user=a&user=b", "user"),
        ("service=snowflake&user=a&scope=x", "scope"),
        ("service=snowflake&user=a&min_ttl=soon", "min_ttl"),
        ("service=snowflake&user=a%0Ab", "user"),
        ("service=snowflake&user=a&role=", "role"),
    ] {
        let reply = sidecar.get(&format!("/v1/token?{query}")).await;
        assert_eq!(reply.error(), is(400, "invalid_request"), "{query}");
        assert_eq!(reply.json()["parameter"], parameter, "{query}");
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn refusals_come_in_the_contracts_order() {
    let world = World::start().await;
    world.configure(r#"services = ["*"]"#, r#"services = ["snowflake:ANALYST", "databricks"]"#);
    world.configure(r#"users    = ["*"]"#, r#"users    = ["*@example.com"]"#);
    let sidecar = world.connected().await;
    // A malformed request is refused as such even where no rule would allow it.
    assert_eq!(sidecar.get("/v1/token?service=nosuch&user=").await.error(), is(400, "invalid_request"));
    for (service, user, role) in [
        ("nosuch", ALICE, None),
        ("snowflake", ALICE, None),
        ("snowflake", ALICE, Some("PUBLIC")),
        ("snowflake", ALICE, Some("NOSUCH")),
        ("snowflake", "alice@example.org", Some("ANALYST")),
        ("snowflake", "nobody@example.org", Some("ANALYST")),
    ] {
        let reply = sidecar.token(service, user, role).await;
        assert_eq!(reply.error(), is(403, "access_denied"), "{service} {user} {role:?}");
    }
    let role = sidecar.token("databricks", ALICE, Some("NOSUCH")).await;
    assert_eq!(role.error(), is(400, "invalid_request"), "the rule allows the whole service");
    assert_eq!(role.json()["parameter"], "role");
    assert_eq!(sidecar.token("databricks", BOB, None).await.error(), is(409, "login_required"));
    assert_eq!(sidecar.token("databricks", BOB, None).await.json()["reason"], "never_connected");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn only_a_rule_for_all_services_learns_that_one_does_not_exist() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.token("nosuch", ALICE, None).await.error(), is(404, "unknown_service"));
    assert_eq!(sidecar.get("/v1/nosuch").await.error(), is(404, "not_found"));
    let reply = request(&sidecar.socket(), "POST", "/v1/token", &[], "").await;
    assert_eq!(reply.error(), is(405, "invalid_request"));
    assert_eq!(reply.headers["allow"], "GET, HEAD");
    let metrics = sidecar.metrics().await;
    assert!(
        metrics.contains(r#"bursar_token_requests_total{result="unknown_service",service="unknown"} 1"#),
        "{metrics}"
    );
    assert!(!metrics.contains("nosuch"), "no request becomes a label");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_denied_request_touches_neither_cache_nor_store_and_looks_the_same_for_all() {
    let world = World::start().await;
    world.configure(r#"users    = ["*"]"#, &format!("users    = [\"{BOB}\"]"));
    let sidecar = world.connected().await;
    let before = sidecar.counter("bursar_store_operations_total", &[]).await;
    let mut bodies = Vec::new();
    for user in [ALICE, "nobody@example.com"] {
        let reply = sidecar.token("snowflake", user, None).await;
        let mut body = reply.json();
        body["request_id"] = json!(null);
        bodies.push((reply.status, body.to_string()));
    }
    assert_eq!(bodies[0], bodies[1], "an existing and a missing user");
    assert_eq!(bodies[0].0, 403);
    assert_eq!(sidecar.counter("bursar_store_operations_total", &[]).await.to_bits(), before.to_bits());
    assert_eq!(world.token_requests().await, 0);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn who_must_act_is_told_by_status_and_code() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let ask = |role| sidecar.token("snowflake", ALICE, Some(role));
    world.fault(json!({ "do": "error", "error": "access_denied" })).await;
    let reply = ask("ANALYST").await;
    assert_eq!(reply.error(), is(502, "authorization_server_refused"));
    assert_eq!(reply.json()["authorization_server_error"], "access_denied");
    assert!(reply.json()["hint"].as_str().unwrap().contains("Access Policies"));
    assert_eq!(ask("ANALYST").await.error(), is(502, "authorization_server_refused"), "from memory");
    assert_eq!(world.token_requests().await, 1, "one misconfigured token is no storm");
    assert_eq!(sidecar.grant("snowflake", ALICE).await["state"], "active", "the grant is kept");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    ask("ANALYST").await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_rate_limit_pauses_the_server_and_says_for_how_long() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "rate_limit", "seconds": 40 })).await;
    for _ in 0..3 {
        let reply = sidecar.token("snowflake", ALICE, Some("ANALYST")).await;
        assert_eq!(reply.error(), is(503, "authorization_server_unavailable"));
        let wait: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((35..=42).contains(&wait), "{wait}");
    }
    assert_eq!(world.token_requests().await, 1);
    sidecar.token("databricks", ALICE, None).await.token();
    sidecar.token("snowflake", ALICE, None).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_refresh_that_takes_longer_than_the_caller_may_wait_goes_on() {
    let world = World::start().await;
    world.configure("[admin]", "request_timeout = \"300ms\"\n[admin]");
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "delay", "seconds": 1 })).await;
    let reply = sidecar.token("snowflake", ALICE, Some("ANALYST")).await;
    assert_eq!(reply.error(), is(504, "timeout"));
    assert!(reply.headers.contains_key("retry-after"));
    while world.stats().await["refreshes"] != 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    assert_eq!(world.token_requests().await, 1);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn an_ended_grant_says_so_at_once_and_after_a_restart_and_an_import_revives_it() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "revoke_user", "user": ALICE })).await;
    let refreshed = sidecar.refresh("snowflake", ALICE, None).await;
    assert_eq!(refreshed.error(), is(409, "login_required"));
    let requests = world.token_requests().await;
    let ended = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(ended.error(), is(409, "login_required"));
    assert_eq!(ended.json()["reason"], "revoked");
    assert!(ended.json()["since"].is_string());
    while sidecar.counter("bursar_grants", &["revoked"]).await < 1.0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.token("snowflake", ALICE, Some("ANALYST")).await.json()["reason"], "revoked");
    assert_eq!(world.token_requests().await, requests, "nothing is sent for a grant that has ended");
    world.connect(&sidecar, ALICE).await;
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_role_that_was_not_granted_is_told_from_one_that_the_server_does_not_have() {
    let world = World::start().await;
    world.configure(
        r#"roles    = ["PUBLIC", "ANALYST"]"#,
        r#"roles    = ["PUBLIC", "ANALYST", "DATA_ENGINEER"]"#,
    );
    let sidecar = world.connected().await;
    for _ in 0..3 {
        let reply = sidecar.token("snowflake", ALICE, Some("DATA_ENGINEER")).await;
        assert_eq!(reply.error(), is(409, "login_required"));
        assert_eq!(reply.json()["reason"], "role_not_granted");
    }
    assert_eq!(world.token_requests().await, 2, "the role, and whether the defaults work; then from memory");
    world.fault(json!({ "do": "error", "error": "invalid_scope", "next": 2 })).await;
    let reply = sidecar.token("snowflake", ALICE, Some("ANALYST")).await;
    assert_eq!(reply.error(), is(502, "authorization_server_refused"), "not even the defaults work");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn an_unreachable_server_is_said_to_be_unavailable() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.stop_server().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    let reply = sidecar.token("snowflake", ALICE, Some("ANALYST")).await;
    assert_eq!(reply.error(), is(503, "authorization_server_unavailable"));
    assert!(reply.headers.contains_key("retry-after"));
    assert!(
        sidecar
            .metrics()
            .await
            .contains(r#"bursar_authorization_server_up{authorization_server="snowflake"} 0"#)
    );
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
}

#[tokio::test]
async fn a_head_beyond_any_need_is_refused_in_our_own_words() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    let long = "x".repeat(20_000);
    let reply = request(&sidecar.socket(), "GET", "/v1/token", &[("x-padding", &long)], "").await;
    assert_eq!(reply.error(), is(431, "too_large"));
    let reply = request(&sidecar.socket(), "GET", "/v1/token", &[("x-many", "1"); 100], "").await;
    assert_eq!(reply.error(), is(431, "too_large"));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn request_ids_are_the_callers_own_if_they_are_sane() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    let ask = |id: &'static str| async {
        let socket = sidecar.socket();
        request(&socket, "GET", "/v1/token", &[("x-request-id", id)], "").await.headers["x-request-id"]
            .clone()
    };
    assert_eq!(ask("run-17.step_3").await, "run-17.step_3");
    assert_ne!(ask("a b").await, "a b");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_grant_of_another_server_is_neither_presented_nor_ended_nor_is_its_token_vended() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let issuer = |id| world.server.issuer(id);
    use bursar::dev::authorization_server::DevServer;
    let (snowflake, databricks) = (issuer(DevServer::SNOWFLAKE), issuer(DevServer::DATABRICKS));
    world.configure(&snowflake, "elsewhere");
    world.configure(&databricks, &snowflake);
    world.configure("elsewhere", &databricks);
    let sidecar = world.sidecar().await;
    for reply in
        [sidecar.token("snowflake", ALICE, None).await, sidecar.refresh("snowflake", ALICE, None).await]
    {
        assert_eq!(reply.error(), is(502, "authorization_server_refused"), "{}", reply.body);
        assert_eq!(reply.json()["authorization_server_error"], "wrong_authorization_server");
    }
    assert_eq!(world.token_requests().await, 0);
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    world.configure(&databricks, "elsewhere");
    world.configure(&snowflake, &databricks);
    world.configure("elsewhere", &snowflake);
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200, "put right, it works again");
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_stored_token_is_verified_anew_when_the_configuration_has_changed() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let before = sidecar.token("snowflake", ALICE, None).await.token();
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    world.configure(r#"scopes   = ["session:role:PUBLIC"]"#, r#"scopes   = ["session:role:ANALYST"]"#);
    let sidecar = world.sidecar().await;
    let after = sidecar.token("snowflake", ALICE, None).await;
    assert_ne!(after.token(), before);
    assert_eq!(after.json()["scope"], "session:role:ANALYST");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn one_users_trouble_and_missing_grants_do_not_shut_the_door_for_others() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    world.fault(json!({ "do": "rate_limit", "seconds": 1 })).await;
    assert_eq!(sidecar.token("snowflake", ALICE, Some("ANALYST")).await.status, 503);
    assert_eq!(sidecar.token("snowflake", "nobody@example.com", None).await.status, 409, "whatever the door");
    for role in [Some("ANALYST"), Some("PUBLIC")] {
        // Until the window is over; who has no grant takes nobody's place at the door.
        while sidecar.token("snowflake", BOB, role).await.status == 503 {
            assert_eq!(sidecar.token("snowflake", "nobody@example.com", None).await.status, 409);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        sidecar.token("snowflake", BOB, role).await.token();
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_the_next_free_place_is_given_away() {
    let world = World::start().await;
    world.configure("[admin]", "max_connections_per_uid = 2\n[admin]");
    let sidecar = world.connected().await;
    let open = || tokio::net::UnixStream::connect(sidecar.socket());
    let (first, _second) = (open().await.unwrap(), open().await.unwrap());
    while sidecar.counter("bursar_connections", &["vending"]).await < 2.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let reply = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(reply.error(), is(429, "too_many_requests"));
    assert_eq!(reply.headers["retry-after"], "1");
    let refused = sidecar.counter("bursar_requests_refused_total", &["connections_per_uid"]).await;
    assert!(refused > 0.0);
    drop(first);
    while sidecar.counter("bursar_connections", &["vending"]).await > 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sidecar.token("snowflake", ALICE, None).await.token();
    world.finish(sidecar).await;
}

/// Changes the database as somebody would who has its file.
async fn tamper(world: &World, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.path().join("bursar.db"));
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

#[tokio::test]
async fn a_damaged_row_is_our_own_fault_and_nobody_elses_trouble() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    tamper(&world, "UPDATE grants SET refresh_token = zeroblob(80) WHERE user = 'alice@example.com'").await;
    tamper(&world, "UPDATE access_tokens SET access_token = zeroblob(80) WHERE user = 'alice@example.com'")
        .await;
    let sidecar = world.sidecar().await;
    let reply = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(reply.error(), is(500, "internal"));
    assert!(!reply.body.contains("seal"), "nothing internal is told: {}", reply.body);
    let id = reply.headers["x-request-id"].to_str().unwrap().to_owned();
    assert!(
        sidecar.read_log().lines().any(|line| line.contains(&id) && line.contains("damaged")),
        "the log says it"
    );
    sidecar.token("snowflake", BOB, None).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_store_that_can_not_be_read_is_the_operators_to_mend() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    tamper(&world, "ALTER TABLE grants RENAME TO hidden").await;
    sidecar.token("snowflake", ALICE, None).await.token();
    let reply = sidecar.token("snowflake", BOB, None).await;
    assert_eq!(reply.error(), is(503, "store_unavailable"));
    assert!(reply.headers.contains_key("retry-after"));
    assert_eq!(sidecar.get("/v1/grants").await.error(), is(503, "store_unavailable"));
    tamper(&world, "ALTER TABLE hidden RENAME TO grants").await;
    assert_eq!(sidecar.token("snowflake", BOB, None).await.json()["reason"], "never_connected");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn who_must_connect_hears_where() {
    let world = World::start().await;
    world.configure(
        "[log]",
        "[connect]\npublic_url = \"https://bursar.example.com\"\nlisten = \"127.0.0.1:0\"\n\n[log]",
    );
    let sidecar = world.sidecar().await;
    let url = |reply: &crate::support::sidecar::Reply| reply.json()["login_url"].clone();
    let reply = sidecar.token("snowflake", BOB, None).await;
    assert_eq!(url(&reply), "https://bursar.example.com/?service=snowflake");
    let reply = sidecar.token("snowflake", BOB, Some("ANALYST")).await;
    assert_eq!(url(&reply), "https://bursar.example.com/?service=snowflake&role=ANALYST");
    assert_eq!(
        url(&sidecar.refresh("snowflake", BOB, None).await),
        url(&sidecar.token("snowflake", BOB, None).await)
    );
    assert!(sidecar.token("snowflake", BOB, Some("NOSUCH")).await.json().get("login_url").is_none());
    world.finish(sidecar).await;
}
