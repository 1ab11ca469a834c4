//! The password of a legacy service user.

use super::*;
use crate::import::{bursar, text};

const PATH: &str = "/v1/password-grants";

fn login(password: &str) -> Value {
    json!({ "service": "snowflake", "username": ALICE, "password": password })
}

async fn world() -> World {
    let world = World::recorded().await;
    world.configure("[services.snowflake]\n", "[services.snowflake]\npassword_grant = true\n");
    world
}

#[tokio::test]
async fn a_password_is_not_taken_unless_the_configuration_says_so() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    world.control_stats_reset().await;
    let reply = sidecar.post(PATH, &login("password")).await;
    assert_eq!(refused(&reply), is(400, "invalid_request", "not_offered"));
    assert!(reply.json()["detail"].as_str().unwrap().contains("password_grant"), "{}", reply.body);
    assert_eq!(world.token_requests().await, 0, "it went nowhere");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_right_password_connects_a_wrong_one_does_not_and_neither_is_kept_anywhere() {
    let world = world().await;
    let sidecar = world.sidecar().await;
    for wrong in ["hunter2-wrong", "hunter2-also-wrong"] {
        let reply = sidecar.post(PATH, &login(wrong)).await;
        assert_eq!(refused(&reply), is(409, "login_required", "not_taken"));
        assert!(!reply.body.contains("hunter2"), "{}", reply.body);
    }
    for malformed in [json!({ "service": "snowflake", "password": "hunter2" }), json!(["hunter2"]), login("")]
    {
        let reply = sidecar.post(PATH, &malformed).await;
        assert_eq!(reply.error(), (400, "invalid_request".to_owned()));
        assert!(!reply.body.contains("hunter2"), "{}", reply.body);
    }
    let reply = sidecar.post(PATH, &login("password")).await;
    assert_eq!((reply.status, &reply.json()["user"]), (201, &json!(ALICE)), "{}", reply.body);
    sidecar.token("snowflake", ALICE, None).await.token();
    let log = sidecar.read_log();
    assert_eq!(log.matches("RFC 9700").count(), 3, "each time: {log}");
    world.finish(sidecar).await;
    let words: Vec<String> = world.recorded_consents().into_iter().map(|(result, ..)| result).collect();
    let invalid = "invalid_request";
    assert_eq!(words, ["not_taken", "not_taken", invalid, invalid, invalid, "ok"]);
    let audit = std::fs::read_to_string(world.path().join("audit.jsonl")).unwrap();
    let database = std::fs::read(world.path().join("bursar.db")).unwrap();
    for place in [log.as_bytes(), audit.as_bytes(), &database] {
        assert!(!place.windows(7).any(|window| window == b"hunter2"));
    }
}

#[tokio::test]
async fn the_command_reads_it_from_stdin_and_warns_each_time() {
    let world = world().await;
    let sidecar = world.sidecar().await;
    let command = ["login", "--service", "snowflake", "--password-stdin", "--username", ALICE];
    for (stdin, code) in [("wrong\n", 75), ("\n", 64), ("password\r\n", 0), ("password", 0)] {
        let output = bursar(&sidecar, &command, stdin).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stdin:?}: {said}");
        assert!(said.contains("RFC 9700"), "{said}");
        if code == 0 {
            assert!(text(&output.stdout).starts_with("connected: snowflake of alice@example.com (scopes "));
        }
    }
    let without = bursar(&sidecar, &["login", "--service", "snowflake", "--username", ALICE], "").await;
    assert_eq!(without.status.code(), Some(64));
    world.finish(sidecar).await;
}
