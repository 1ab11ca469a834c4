use super::*;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

async fn begin(scene: &Scene) -> Value {
    let answer =
        scene.post("v1/device/authorize", &[("scope", "openid offline_access session:role:PUBLIC")]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

async fn poll(scene: &Scene, device_code: &str) -> Answer {
    scene.post("v1/token", &[("grant_type", GRANT), ("device_code", device_code)]).await
}

async fn decide(scene: &Scene, begun: &Value, user: &str, action: &str) -> Answer {
    let form = [
        ("user_code", text(begun, "user_code")),
        ("username", user),
        ("password", "password"),
        ("action", action),
    ];
    scene.post_bare(text(begun, "verification_uri"), &form).await
}

#[tokio::test]
async fn a_device_waits_until_its_user_approves() {
    let scene = Scene::start().await;
    let begun = begin(&scene).await;
    assert_eq!((&begun["interval"], &begun["expires_in"]), (&json!(5), &json!(600)));
    let device_code = text(&begun, "device_code");
    assert!(device_code.contains("sentinel"));
    assert_eq!(poll(&scene, device_code).await.error(), "authorization_pending");
    assert_eq!(poll(&scene, device_code).await.error(), "slow_down");
    let page = scene.get(text(&begun, "verification_uri_complete")).await;
    assert!(page.status == 200 && page.body.contains(text(&begun, "user_code")));
    assert_eq!(decide(&scene, &begun, ALICE, "approve").await.status, 200);
    scene.advance(9);
    assert_eq!(poll(&scene, device_code).await.error(), "slow_down", "the interval has grown to 10 seconds");
    scene.advance(15);
    let body = poll(&scene, device_code).await.json();
    assert_eq!(claims(text(&body, "access_token"))["sub"], ALICE);
    scene.refreshed(text(&body, "refresh_token")).await;
    assert_eq!(poll(&scene, device_code).await.error(), "invalid_grant");
}

#[tokio::test]
async fn a_device_is_denied_or_too_late() {
    let scene = Scene::start().await;
    let denied = begin(&scene).await;
    assert_eq!(decide(&scene, &denied, "mallory@example.com", "approve").await.status, 403);
    assert_eq!(decide(&scene, &denied, ALICE, "deny").await.status, 200);
    assert_eq!(poll(&scene, text(&denied, "device_code")).await.error(), "access_denied");
    assert_eq!(decide(&scene, &denied, ALICE, "approve").await.status, 400, "it was decided");
    let late = begin(&scene).await;
    scene.advance(600);
    assert_eq!(decide(&scene, &late, ALICE, "approve").await.status, 400);
    assert_eq!(poll(&scene, text(&late, "device_code")).await.error(), "expired_token");
    assert_eq!(scene.post("v1/device/authorize", &[("scope", "sql")]).await.error(), "invalid_scope");
}
