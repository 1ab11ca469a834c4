use super::*;

/// Well above what a loopback answer takes, and short enough to wait for.
const A_WHILE: Duration = Duration::from_millis(300);

/// Whether the server has rotated the token away: then it is no longer the newest and dies after the leeway.
async fn was_rotated(scene: &Scene, token: &str) -> bool {
    scene.advance(31);
    !scene.is_active(token).await
}

#[tokio::test]
async fn faults_that_answer_in_the_servers_place_do_not_act() {
    let scene = Scene::start().await;
    let token = scene.consent();
    scene
        .order(json!([
            { "do": "status", "status": 503, "body": "<p>down</p>", "content_type": "text/html" },
            { "do": "error", "error": "invalid_grant", "error_description": "No." },
            { "do": "error", "error": "invalid_client" },
            { "do": "rate_limit", "seconds": 7 },
        ]))
        .await;
    let down = scene.refresh(&token).await;
    assert_eq!(
        (down.status, down.body.as_str(), down.header("content-type")),
        (503, "<p>down</p>", "text/html")
    );
    let error = scene.refresh(&token).await;
    assert_eq!((error.status, error.json()["error_description"].clone()), (400, json!("No.")));
    assert_eq!(scene.refresh(&token).await.status, 401);
    let limited = scene.refresh(&token).await;
    assert_eq!((limited.status, limited.number("x-rate-limit-reset")), (429, START + 7));
    assert_eq!(limited.json()["errorCode"], "E0000047");
    assert!(!was_rotated(&scene, &token).await);
    let stats = scene.stats().await;
    assert_eq!((&stats["requests"]["token"], &stats["refreshes"]), (&json!(4), &json!(0)));
}

#[tokio::test]
async fn a_cut_before_acting_changes_nothing_and_one_after_loses_the_answer() {
    let scene = Scene::start().await;
    let (before, after) = (scene.consent(), scene.consent());
    scene.order(json!([{ "do": "cut_before" }, { "do": "cut_after" }])).await;
    assert!(scene.try_post("v1/token", &refresh_form(&before)).await.is_err());
    assert!(scene.try_post("v1/token", &refresh_form(&after)).await.is_err());
    assert!(was_rotated(&scene, &after).await);
    assert!(!was_rotated(&scene, &before).await);
}

#[tokio::test]
async fn a_lost_answer_can_be_had_again_within_the_leeway() {
    let scene = Scene::start().await;
    let token = scene.consent();
    scene.order(json!({ "do": "cut_after" })).await;
    scene.try_post("v1/token", &refresh_form(&token)).await.err().unwrap();
    scene.advance(29);
    scene.refreshed(&token).await;
}

#[tokio::test]
async fn answers_that_cannot_be_read_come_after_acting() {
    let scene = Scene::start().await;
    let tokens = [scene.consent(), scene.consent(), scene.consent(), scene.consent()];
    scene
        .order(json!([
            { "do": "garbage" }, { "do": "proxy_page" }, { "do": "truncated" },
            { "do": "status", "status": 500, "acts": true },
        ]))
        .await;
    let garbage = scene.refresh(&tokens[0]).await;
    assert_eq!((garbage.status, garbage.header("content-type")), (200, "application/json"));
    assert!(serde_json::from_str::<Value>(&garbage.body).is_err());
    let page = scene.refresh(&tokens[1]).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html"));
    let broken = scene.try_post("v1/token", &refresh_form(&tokens[2])).await;
    assert!(broken.err().unwrap().starts_with("broken body"));
    assert_eq!(scene.refresh(&tokens[3]).await.status, 500);
    for token in &tokens {
        assert!(was_rotated(&scene, token).await);
    }
}

#[tokio::test]
async fn hanging_requests_are_never_answered_and_one_of_them_has_acted() {
    let scene = Scene::start().await;
    let (idle, acted) = (scene.consent(), scene.consent());
    scene.order(json!([{ "do": "hang" }, { "do": "hang_after" }])).await;
    for token in [&idle, &acted] {
        assert!(tokio::time::timeout(A_WHILE, scene.refresh(token)).await.is_err());
    }
    assert!(was_rotated(&scene, &acted).await);
    assert!(!was_rotated(&scene, &idle).await);
}

#[tokio::test]
async fn a_delayed_request_is_acted_upon_although_its_client_has_left() {
    let scene = Scene::start().await;
    let token = scene.consent();
    scene.order(json!({ "do": "delay", "seconds": 0.3 })).await;
    assert!(tokio::time::timeout(A_WHILE / 3, scene.refresh(&token)).await.is_err());
    assert_eq!(scene.stats().await["refreshes"], 0);
    tokio::time::sleep(A_WHILE * 2).await;
    assert_eq!(scene.stats().await["refreshes"], 1);
}

#[tokio::test]
async fn altered_answers_keep_their_tokens_good() {
    let scene = Scene::start().await;
    let token = scene.consent();
    scene
        .order(json!([{ "do": "no_refresh_token" }, { "do": "same_refresh_token" }, { "do": "dpop" }]))
        .await;
    assert!(scene.refreshed(&token).await.get("refresh_token").is_none());
    assert_eq!(text(&scene.refreshed(&token).await, "refresh_token"), token);
    let dpop = scene.refreshed(&token).await;
    assert!(text(&dpop, "token_type") == "DPoP" && text(&dpop, "refresh_token") != token);
    scene.order(json!({ "do": "string_expires_in" })).await;
    assert_eq!(scene.refreshed(text(&dpop, "refresh_token")).await["expires_in"], "3600");
    assert_eq!(scene.stats().await["presented_twice"], 0);
}

#[tokio::test]
async fn faults_befall_the_endpoint_grant_type_and_server_that_they_are_meant_for() {
    let scene = Scene::start().await;
    scene
        .order(json!([
            { "do": "status", "status": 500, "endpoint": "keys" },
            { "do": "status", "status": 501, "endpoint": "introspect" },
            { "do": "status", "status": 502, "endpoint": "revoke" },
            { "do": "status", "status": 503, "endpoint": "authorize" },
            { "do": "status", "status": 504, "grant_type": "password" },
            { "do": "status", "status": 505, "server": DevServer::DATABRICKS },
            { "do": "wrong_issuer", "endpoint": "discovery" },
        ]))
        .await;
    scene.refreshed(&scene.consent()).await;
    assert_eq!(scene.get(&scene.endpoint("v1/keys")).await.status, 500);
    assert_eq!(scene.get(&scene.endpoint("v1/keys")).await.status, 200);
    assert_eq!(scene.post("v1/introspect", &[("token", "x")]).await.status, 501);
    assert_eq!(scene.post("v1/revoke", &[("token", "x")]).await.status, 502);
    assert_eq!(scene.get(&scene.endpoint("v1/authorize")).await.status, 503);
    let document = scene.endpoint(".well-known/openid-configuration");
    assert_eq!(scene.get(&document).await.json()["issuer"], "https://other.example.com/oauth2/ausother");
    assert_eq!(scene.get(&document).await.json()["issuer"], scene.server.issuer(DevServer::SNOWFLAKE));
    assert_eq!(scene.post("v1/token", &[("grant_type", "password")]).await.status, 504);
    let databricks = format!("{}/v1/token", scene.server.issuer(DevServer::DATABRICKS));
    assert_eq!(scene.post_bare(&databricks, &[]).await.status, 505);
}

#[tokio::test]
async fn faults_last_for_as_many_requests_as_ordered_or_until_cleared() {
    let scene = Scene::start().await;
    scene.order(json!([{ "do": "status", "status": 500, "next": 2 }, { "do": "hang", "next": 9 }])).await;
    for _ in 0..2 {
        assert_eq!(scene.refresh("unknown").await.status, 500);
    }
    scene.order(json!({ "do": "clear" })).await;
    assert_invalid_grant(&scene.refresh("unknown").await);
}

#[tokio::test]
async fn a_bad_order_is_refused_whole_with_what_would_be_good() {
    let scene = Scene::start().await;
    for (order, told) in [
        (json!([{ "do": "hang" }, { "do": "explode" }]), "cut_after"),
        (json!([{ "do": "hang" }, { "do": "hang", "secs": 1 }]), "grant_type"),
        (json!([{ "do": "hang" }, { "do": "rotate_keys", "server": "ausother" }]), "ausdevsnowflake"),
        (json!([{ "do": "hang" }, { "do": "revoke_user", "user": "nobody" }]), ALICE),
    ] {
        let answer = scene.control("faults", &order).await;
        assert!(answer.status == 400 && answer.error().contains(told), "{}", answer.body);
    }
    assert_invalid_grant(&scene.refresh("unknown").await);
}

#[tokio::test]
async fn a_stop_ends_hanging_connections_and_delays_at_once() {
    let scene = Scene::start().await;
    scene.order(json!([{ "do": "hang" }, { "do": "delay", "seconds": 600 }])).await;
    let token = scene.consent();
    for _ in 0..2 {
        assert!(tokio::time::timeout(A_WHILE / 3, scene.refresh(&token)).await.is_err());
    }
    scene.tasks.stop();
    tokio::time::timeout(Duration::from_secs(5), scene.tasks.stopped()).await.unwrap();
}
