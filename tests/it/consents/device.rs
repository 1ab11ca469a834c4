//! A code that is typed elsewhere.

use super::*;

impl Sidecar {
    async fn begin_device(&self, roles: &[&str]) -> Value {
        let body = json!({ "service": "snowflake", "roles": roles });
        let reply = self.post("/v1/device-authorizations", &body).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        reply.json()
    }

    async fn device(&self, begun: &Value) -> Reply {
        let target = format!("/v1/device-authorizations/{}", begun["id"].as_str().unwrap());
        request(&self.admin_socket(), "GET", &target, &[], "").await
    }

    /// What has become of it, once it is decided.
    async fn decided(&self, begun: &Value) -> Value {
        for _ in 0..3000 {
            let state = self.device(begun).await.json();
            if state["state"] != "pending" {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still pending: {}", self.read_log());
    }
}

pub(super) async fn decide(uri: &str, user_code: &str, user: &str, action: &str) {
    let form = [("user_code", user_code), ("username", user), ("password", "password"), ("action", action)];
    let answer = post_form(uri, &form).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn decide_on(begun: &Value, user: &str, action: &str) {
    let text = |member: &str| begun[member].as_str().unwrap();
    decide(text("verification_uri"), text("user_code"), user, action).await;
}

async fn world() -> World {
    let world = World::recorded().await;
    world.settings(json!({ "device_interval": 1 })).await;
    world
}

#[tokio::test]
async fn a_device_waits_until_its_user_approves_and_sees_no_token() {
    let world = world().await;
    let sidecar = world.sidecar().await;
    let begun = sidecar.begin_device(&["ANALYST"]).await;
    for member in ["user_code", "verification_uri", "verification_uri_complete", "expires_at"] {
        assert!(begun[member].is_string(), "{member} in {begun}");
    }
    assert_eq!((&begun["interval"], &begun["expires_in"]), (&json!(1), &json!(600)));
    assert!(!begun.to_string().contains("sentinel"), "no device code: {begun}");
    assert_eq!(sidecar.device(&begun).await.json()["state"], "pending");
    decide_on(&begun, ALICE, "approve").await;
    let state = sidecar.decided(&begun).await;
    assert_eq!((&state["state"], &state["grant"]["user"]), (&json!("connected"), &json!(ALICE)), "{state}");
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    assert_eq!(sidecar.connects(&["\"ok\""]).await, "1");
    assert_eq!(sidecar.device(&json!({ "id": "nosuch" })).await.error(), (404, "not_found".to_owned()));
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
    assert_eq!(world.recorded_consents(), [("ok".to_owned(), ALICE.to_owned(), "device".to_owned())]);
}

#[tokio::test]
async fn the_user_s_no_a_policy_s_and_an_expired_code_are_told_apart() {
    let world = world().await;
    let sidecar = world.sidecar().await;
    let begun = sidecar.begin_device(&[]).await;
    decide_on(&begun, ALICE, "deny").await;
    let denied = sidecar.decided(&begun).await;
    assert_eq!(
        (&denied["state"], &denied["problem"]["result"]),
        (&json!("refused"), &json!("cancelled")),
        "{denied}"
    );
    assert_eq!(denied["problem"]["error"], "login_required");
    for (error, description, result) in [
        ("access_denied", "User is not assigned to the client application.", "not_allowed"),
        ("access_denied", "Policy evaluation failed for this request", "not_allowed"),
        ("expired_token", "The device code has expired.", "too_late"),
        ("invalid_grant", "The device code is invalid or has expired.", "not_taken"),
        ("unauthorized_client", "", "authorization_server_refused"),
    ] {
        let begun = sidecar.begin_device(&[]).await;
        world.fault(json!({ "do": "error", "error": error, "error_description": description })).await;
        let state = sidecar.decided(&begun).await;
        assert_eq!(state["problem"]["result"], result, "{error}: {state}");
    }
    let first = ("cancelled".to_owned(), "-".to_owned(), "device".to_owned());
    world.finish(sidecar).await;
    assert_eq!(world.recorded_consents()[0], first);
}

#[tokio::test]
async fn slow_down_is_heeded_for_good_and_a_silent_server_is_asked_again() {
    let world = world().await;
    let sidecar = world.sidecar().await;
    let slowed = sidecar.begin_device(&[]).await;
    world.fault(json!({ "do": "error", "error": "slow_down" })).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(
        world.token_requests().await,
        1,
        "six seconds between two questions from then on, no longer one"
    );
    decide_on(&slowed, ALICE, "approve").await;
    assert_eq!(sidecar.decided(&slowed).await["state"], "connected");

    let silent = sidecar.begin_device(&[]).await;
    world
        .fault(json!({ "do": "cut_before", "grant_type": "urn:ietf:params:oauth:grant-type:device_code" }))
        .await;
    decide_on(&silent, BOB, "approve").await;
    assert_eq!(sidecar.decided(&silent).await["grant"]["user"], BOB);
    let stats = world.stats().await;
    assert_eq!(stats["reuse_detected"], 0, "{stats:#}");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn few_wait_at_once_and_a_stop_ends_them() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    let mut begun = Vec::new();
    for _ in 0..64 {
        begun.push(sidecar.begin_device(&[]).await);
    }
    let one_more = sidecar.post("/v1/device-authorizations", &json!({ "service": "snowflake" })).await;
    assert_eq!(one_more.error(), (429, "too_many_requests".to_owned()));
    // Nobody waits for five seconds of silence, or for ten minutes.
    world.finish(sidecar).await;
}

#[tokio::test]
async fn where_it_is_not_offered_it_is_said() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    let body = json!({ "service": "snowflake", "roles": ["NOSUCH"] });
    assert_eq!(
        sidecar.post("/v1/device-authorizations", &body).await.error(),
        (400, "invalid_request".to_owned())
    );
    world.fault(json!({ "do": "error", "error": "unauthorized_client", "endpoint": "device" })).await;
    let refusal = sidecar.post("/v1/device-authorizations", &json!({ "service": "snowflake" })).await;
    assert_eq!(refused(&refusal), is(502, "authorization_server_refused", "authorization_server_refused"));
    world.finish(sidecar).await;
}
