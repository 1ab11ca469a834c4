use super::*;

#[tokio::test]
async fn every_token_answer_tells_the_rate_limit() {
    let scene = Scene::start().await;
    let answer = scene.refresh(&scene.consent()).await;
    assert_eq!((answer.number("x-rate-limit-limit"), answer.number("x-rate-limit-remaining")), (2000, 1999));
    assert_eq!(answer.number("x-rate-limit-reset"), START + 60);
}

#[tokio::test]
async fn beyond_the_limit_comes_429_without_retry_after_and_nothing_is_rotated() {
    let scene = Scene::start().await;
    scene.set(json!({ "requests_per_minute": 1 })).await;
    let token = scene.consent();
    scene.refresh("unknown").await;
    scene.advance(20);
    let answer = scene.refresh(&token).await;
    assert_eq!(answer.status, 429);
    let body = answer.json();
    assert_eq!(body["errorCode"], "E0000047");
    assert_eq!(body["errorSummary"], "API call exceeded rate limit due to too many requests.");
    assert_eq!((answer.number("x-rate-limit-limit"), answer.number("x-rate-limit-remaining")), (1, 0));
    assert_eq!(answer.number("x-rate-limit-reset"), START + 60);
    assert!(!answer.headers.contains_key("retry-after"));
    scene.advance(40);
    let next = text(&scene.refreshed(&token).await, "refresh_token").to_owned();
    assert_ne!(next, token);
    assert_eq!(scene.stats().await["rate_limited"], 1);
}

#[tokio::test]
async fn a_user_has_four_token_requests_in_a_second_and_another_user_is_not_concerned() {
    let scene = Scene::start_as_okta(Rotation::Rotating, LEEWAY).await;
    let mut token = scene.consent();
    for _ in 0..4 {
        token = text(&scene.refreshed(&token).await, "refresh_token").to_owned();
    }
    let refused = scene.refresh(&token).await;
    assert_eq!((refused.status, refused.number("x-rate-limit-limit")), (429, 4));
    assert_eq!(refused.headers.get_all("x-rate-limit-limit").iter().count(), 1);
    assert_eq!(refused.number("x-rate-limit-reset"), START + 1);
    let bobs = scene.server.consent(DevServer::SNOWFLAKE, "bob@example.com", &SCOPES).unwrap();
    scene.refreshed(bobs.expose()).await;
    scene.advance(1);
    scene.refreshed(&token).await;
}

#[tokio::test]
async fn keys_and_metadata_are_not_limited() {
    let scene = Scene::start().await;
    scene.set(json!({ "requests_per_minute": 1 })).await;
    for path in ["v1/keys", ".well-known/openid-configuration", "v1/keys", ".well-known/openid-configuration"]
    {
        assert_eq!(scene.get(&scene.endpoint(path)).await.status, 200);
    }
}
