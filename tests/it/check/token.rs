//! One real refresh by the sidecar, and the token that comes of it.

use bursar::check::Verdict;
use serde_json::json;

use super::{Wrong, good, steps, wrong};
use crate::support::sidecar::{Sidecar, request};
use crate::support::{ALICE, BOB, World};

/// A good set-up with alice connected, then what is wrong, then the check.
async fn assert_found(wrong: Wrong) {
    let world = good().await;
    let sidecar = world.connected().await;
    wrong.set_up(&world).await;
    reload(&sidecar).await;
    wrong.assert_found(&steps(&world, Some(ALICE)).await);
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

async fn reload(sidecar: &Sidecar) {
    let reply = request(&sidecar.admin_socket(), "POST", "/v1/reload", &[], "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[tokio::test]
async fn tokens_that_do_not_verify_are_found() {
    let refresh = |what: &str| json!({ "do": what, "grant_type": "refresh_token" });
    for wrong in [
        wrong(
            "a wrong audience",
            "token",
            &[
                "https://dev.snowflakecomputing.com",
                "> Settings > Audience",
                "external_oauth_audience_list = ('https://abc.snowflakecomputing.com')",
            ],
        )
        .edit("https://dev.snowflakecomputing.com", "https://abc.snowflakecomputing.com"),
        wrong(
            "a wrong user claim",
            "token",
            &["no usable `login`", "> Claims > Add Claim", "user_claim = \"sub\""],
        )
        .edit("kind     = \"snowflake\"", "kind     = \"snowflake\"\nuser_claim = \"login\""),
        wrong("an encrypted token", "token", &["JWE", "switch access token encryption off", "\"opaque\""])
            .fault(refresh("jwe")),
        wrong("an opaque token", "token", &["not a JWT", "custom authorization server"])
            .fault(refresh("opaque")),
        wrong(
            "a token for DPoP",
            "token",
            &["not a bearer token", "switch off `Require Demonstrating Proof"],
        )
        .fault(refresh("dpop")),
        wrong("other scopes", "token", &["scopes are not those asked for", "Scopes requested"])
            .fault(refresh("wrong_scope")),
        wrong("another user's token", "token", &["another user", "grant revoke"])
            .fault(refresh("wrong_subject")),
        wrong("an expired token", "token", &["expired when it came", "timedatectl"])
            .fault(refresh("expired")),
        wrong("a key that is not published", "token", &["does not publish", "> Settings"])
            .fault(refresh("unknown_kid")),
    ] {
        assert_found(wrong).await;
    }
}

#[tokio::test]
async fn a_policy_that_does_not_match_is_found() {
    let policy = json!({ "do": "error", "error": "access_denied", "grant_type": "refresh_token",
        "error_description": "Policy evaluation failed for this request, please check the policy configurations." });
    let found = wrong(
        "a policy",
        "refresh",
        &["access_denied", "Access Policies", "grant type refresh_token", "Assignments"],
    );
    assert_found(found.fault(policy).also(&["grant_type"])).await;
}

#[tokio::test]
async fn a_user_who_must_connect_is_found() {
    let world = good().await;
    let sidecar = world.connected().await;
    let found = wrong(
        "never connected",
        "refresh",
        &["never_connected", "have bob@example.com connect at https://bursar.example.com"],
    );
    found.assert_found(&steps(&world, Some(BOB)).await);
    world.fault(json!({ "do": "revoke_user", "user": ALICE })).await;
    let found = wrong("ended", "refresh", &["have alice@example.com connect at https://bursar.example.com"]);
    found.assert_found(&steps(&world, Some(ALICE)).await);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_role_that_was_not_consented_to_is_found_and_the_others_are_right() {
    let world = good().await;
    let sidecar = world.sidecar().await;
    let scopes = ["openid", "offline_access", "session:role:PUBLIC"];
    let consent = world.server.consent("ausdevsnowflake", ALICE, &scopes).unwrap();
    assert_eq!(sidecar.import("snowflake", ALICE, consent.expose()).await.status, 201);
    let steps = steps(&world, Some(ALICE)).await;
    wrong("a role", "refresh", &["role ANALYST", "> Scopes"]).assert_found(&steps);
    assert!(
        steps
            .iter()
            .any(|step| step.subject == "services.snowflake, role PUBLIC" && step.verdict == Verdict::Good)
    );
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_name_that_databricks_does_not_know_is_found() {
    let world = good().await;
    world.settings(json!({ "users": ["carol"] })).await;
    // The checks here are about this service: it becomes Databricks'.
    world.configure("kind     = \"snowflake\"", "kind     = \"databricks\"");
    let sidecar = world.sidecar().await;
    let consent = world.consent("snowflake", "carol");
    assert_eq!(sidecar.import("snowflake", "carol", &consent).await.status, 201);
    wrong(
        "no address",
        "token",
        &["sub is \"carol\"", "have sub be user.email", "subject_claim", "federation policy"],
    )
    .assert_found(&steps(&world, Some("carol")).await);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn without_a_sidecar_nobody_presents_a_refresh_token() {
    let world: World = good().await;
    wrong("no sidecar", "refresh", &["no sidecar answers", "bursar serve"])
        .assert_found(&steps(&world, Some(ALICE)).await);
}

#[tokio::test]
async fn the_admin_socket_shows_claims_and_no_token() {
    let world = good().await;
    let sidecar = world.connected().await;
    let ask = |target: &'static str| request_post(&sidecar, target);
    let reply = ask("/v1/grants/snowflake/alice@example.com/check").await;
    let shown = reply.json();
    assert_eq!(
        (reply.status, &shown["refreshed"], &shown["verified"]),
        (200, &json!(true), &json!(true)),
        "{shown:#}"
    );
    assert_eq!(shown["claims"]["aud"], "https://dev.snowflakecomputing.com");
    assert_eq!((&shown["claims"]["sub"], &shown["header"]["alg"]), (&json!(ALICE), &json!("RS256")));
    for token in world.issued().await["access_tokens"].as_array().unwrap() {
        let token = token.as_str().unwrap();
        let signature = token.rsplit('.').next().unwrap();
        assert!(!reply.body.contains(token) && !reply.body.contains(signature));
    }
    let before = world.token_requests().await;
    ask("/v1/grants/snowflake/alice@example.com/check?role=ANALYST").await;
    ask("/v1/grants/snowflake/alice@example.com/check?role=ANALYST").await;
    assert_eq!(world.token_requests().await, before + 1, "what is at hand will do for a role");
    ask("/v1/grants/snowflake/alice@example.com/check").await;
    assert_eq!(world.token_requests().await, before + 2, "and not for the default scopes");
    assert_eq!(
        ask("/v1/grants/snowflake/alice@example.com/check?role=NOSUCH").await.error().1,
        "invalid_request"
    );
    assert_eq!(ask("/v1/grants/nosuch/alice@example.com/check").await.error().1, "unknown_service");
    world.finish(sidecar).await;
}

async fn request_post(sidecar: &Sidecar, target: &str) -> crate::support::sidecar::Reply {
    request(&sidecar.admin_socket(), "POST", target, &[], "").await
}
