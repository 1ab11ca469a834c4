use super::*;

#[tokio::test]
async fn the_control_url_describes_itself_and_its_settings() {
    let scene = Scene::start().await;
    let description = scene.get(&scene.server.control()).await.json();
    assert!(text(&description["calls"]["POST /control/faults"], "do").contains("hs256_public_key"));
    let settings = scene.get(&format!("{}/settings", scene.server.control())).await.json();
    assert_eq!((&settings["rotation"], &settings["leeway"]), (&json!("rotating"), &json!(30.0)));
    assert_eq!(settings["idle_window"], json!(7.0 * 86400.0));
}

#[tokio::test]
async fn what_is_added_is_known_from_then_on() {
    let scene = Scene::start().await;
    let (server, user) = (DevServer::SNOWFLAKE, "dave@example.com");
    let consent =
        json!({ "user": user, "server": server, "scopes": ["offline_access", "session:role:SYSADMIN"] });
    assert_eq!(scene.control("consents", &consent).await.status, 400);
    scene
        .set(json!({
            "users": [user], "scopes": { server: ["session:role:SYSADMIN"] }, "client_secret_add": "second+ %",
            "token_lifetime": 60, "rotation": "persistent",
        }))
        .await;
    let token = text(&scene.control("consents", &consent).await.json(), "refresh_token").to_owned();
    let client = [("client_id", "0oadevbursar"), ("client_secret", "second+ %")];
    let url = scene.endpoint("v1/token");
    let body = scene.post_bare(&url, &[&refresh_form(&token)[..], &client].concat()).await.json();
    assert_eq!((&body["expires_in"], text(&body, "refresh_token")), (&json!(60), token.as_str()));
    scene.refreshed(&token).await;
}

#[tokio::test]
async fn a_consent_by_control_is_by_default_for_snowflake_and_all_its_roles() {
    let scene = Scene::start().await;
    let body = scene.control("consents", &json!({ "user": ALICE })).await.json();
    let scope = text(&scene.refreshed(text(&body, "refresh_token")).await, "scope").to_owned();
    assert!(
        scope.contains("session:role-any") && scope.contains("offline_access") && scope.contains("openid")
    );
    for consent in
        [json!({}), json!({ "user": "mallory@example.com" }), json!({ "user": ALICE, "role": "x" })]
    {
        assert_eq!(scene.control("consents", &consent).await.status, 400, "{consent}");
    }
}

#[tokio::test]
async fn bad_settings_are_refused_and_change_nothing() {
    let scene = Scene::start().await;
    for settings in [
        json!({ "leeway": 61 }),
        json!({ "token_lifetime": 5, "colour": "blue" }),
        json!({ "token_lifetime": 5, "scopes": { "ausother": ["x"] } }),
        json!({ "token_lifetime": -1 }),
    ] {
        assert_eq!(scene.control("settings", &settings).await.status, 400, "{settings}");
    }
    assert_eq!(scene.refreshed(&scene.consent()).await["expires_in"], 3600);
    let not_there = scene.get(&format!("{}/nothing", scene.server.control())).await;
    assert_eq!(not_there.status, 404);
}
