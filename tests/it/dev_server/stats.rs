use super::*;

use bursar::secret::Secret;

fn short_digest(token: &str) -> String {
    Secret::new(token.to_owned()).digest().to_string()[..16].to_owned()
}

#[tokio::test]
async fn requests_and_refresh_tokens_are_counted() {
    let scene = Scene::start().await;
    let first = scene.consent();
    let second = text(&scene.refreshed(&first).await, "refresh_token").to_owned();
    scene.refreshed(&first).await;
    scene.advance(31);
    scene.refresh(&second).await;
    scene.get(&scene.endpoint("v1/keys")).await;
    scene.post("v1/token", &[("grant_type", "client_credentials"), ("scope", "session:role:PUBLIC")]).await;
    let stats = scene.stats().await;
    assert_eq!(stats["requests"], json!({ "token": 4, "keys": 1 }));
    assert_eq!(stats["token_requests_by_grant_type"], json!({ "refresh_token": 3, "client_credentials": 1 }));
    assert_eq!(stats["refreshes"], 2);
    assert_eq!(stats["refreshes_by_scope"], json!({ SCOPES.join(" "): 2 }));
    assert_eq!(
        stats["refresh_tokens"][short_digest(&first)],
        json!({ "user": ALICE, "presented": 2, "accepted": 2, "presented_outside_leeway": 0 })
    );
    assert_eq!(
        stats["refresh_tokens"][short_digest(&second)],
        json!({ "user": ALICE, "presented": 1, "accepted": 0, "presented_outside_leeway": 1 })
    );
    assert_eq!((&stats["presented_twice"], &stats["reuse_detected"]), (&json!(1), &json!(1)));
    scene.control("reset-stats", &json!({})).await;
    assert_eq!(scene.stats().await["refresh_tokens"], json!({}));
}

#[tokio::test]
async fn requests_about_one_family_at_the_same_time_are_noticed() {
    let scene = Scene::start().await;
    let (one, other) = (scene.consent(), scene.consent());
    scene.order(json!({ "do": "delay", "seconds": 0.2, "next": 3 })).await;
    tokio::join!(scene.refresh(&one), scene.refresh(&other));
    assert_eq!(scene.stats().await["max_concurrent_token_requests_per_family"], 1);
    tokio::join!(scene.refresh(&other), scene.refresh(&other));
    assert_eq!(scene.stats().await["max_concurrent_token_requests_per_family"], 2);
}

#[tokio::test]
async fn a_client_that_gave_up_on_a_hanging_request_has_none_under_way() {
    let scene = Scene::start().await;
    let token = scene.consent();
    scene.order(json!({ "do": "hang" })).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), scene.refresh(&token)).await.is_err());
    scene.refreshed(&token).await;
    assert_eq!(scene.stats().await["max_concurrent_token_requests_per_family"], 1);
}

#[tokio::test]
async fn stats_show_no_token_and_the_list_of_issued_ones_shows_all() {
    let scene = Scene::start().await;
    scene.order(json!({ "do": "opaque" })).await;
    let first = scene.consent();
    let body = scene.refreshed(&first).await;
    let stats = scene.stats().await.to_string();
    let issued = scene.get(&format!("{}/issued", scene.server.control())).await.json();
    assert!(!stats.contains("sentinel"));
    assert_eq!(issued["access_tokens"], json!([body["access_token"]]));
    assert_eq!(issued["refresh_tokens"], json!([first, body["refresh_token"]]));
    assert_eq!(issued["id_tokens"], json!([body["id_token"]]));
}
