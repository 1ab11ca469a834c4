use super::*;

#[tokio::test]
async fn a_revoked_refresh_token_takes_its_access_tokens_with_it() {
    let scene = Scene::start().await;
    let body = scene.refreshed(&scene.consent()).await;
    let (access, refresh) = (text(&body, "access_token"), text(&body, "refresh_token"));
    let answer = scene.post("v1/revoke", &[("token", refresh), ("token_type_hint", "refresh_token")]).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(!scene.is_active(access).await && !scene.is_active(refresh).await);
    assert_invalid_grant(&scene.refresh(refresh).await);
    assert_eq!(scene.stats().await["families_revoked"][0]["reason"], "revoked");
}

#[tokio::test]
async fn a_revoked_access_token_leaves_the_refresh_token_alone() {
    let scene = Scene::start().await;
    let body = scene.refreshed(&scene.consent()).await;
    let access = text(&body, "access_token");
    assert_eq!(scene.post("v1/revoke", &[("token", access)]).await.status, 200);
    assert!(!scene.is_active(access).await);
    scene.refreshed(text(&body, "refresh_token")).await;
}

#[tokio::test]
async fn revoking_what_is_unknown_dead_or_of_another_server_is_answered_alike() {
    let scene = Scene::start().await;
    let other = scene.server.consent(DevServer::DATABRICKS, ALICE, &["sql", "offline_access"]).unwrap();
    for token in ["unknown", other.expose()] {
        let answer = scene.post("v1/revoke", &[("token", token)]).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    }
    assert_eq!(scene.stats().await["families_revoked"], json!([]));
    assert_eq!(scene.post("v1/revoke", &[]).await.error(), "invalid_request");
    let bare = scene.post_bare(&scene.endpoint("v1/revoke"), &[("token", "x")]).await;
    assert_eq!((bare.status, bare.error()), (401, "invalid_client".into()));
}

#[tokio::test]
async fn introspection_tells_about_live_tokens_and_nothing_about_others() {
    let scene = Scene::start().await;
    let body = scene.refreshed(&scene.consent()).await;
    let access = scene.introspect(text(&body, "access_token")).await;
    assert_eq!((&access["active"], text(&access, "username")), (&json!(true), ALICE));
    assert_eq!((&access["exp"], text(&access, "scope")), (&json!(START + 3600), SCOPES.join(" ").as_str()));
    let refresh = scene.introspect(text(&body, "refresh_token")).await;
    assert_eq!((text(&refresh, "client_id"), text(&refresh, "sub")), ("0oadevbursar", ALICE));
    assert!(refresh.get("exp").is_none(), "it lives without end");
    assert_eq!(scene.introspect(text(&body, "id_token")).await, json!({ "active": false }));
    scene.advance(3600);
    assert_eq!(scene.introspect(text(&body, "access_token")).await, json!({ "active": false }));
    let bare = scene.post_bare(&scene.endpoint("v1/introspect"), &[("token", "x")]).await;
    assert_eq!(bare.status, 401);
}

#[tokio::test]
async fn a_user_who_is_revoked_unassigned_or_deactivated_loses_all_grants() {
    for (kind, reason) in [
        ("revoke_user", "user_revoked"),
        ("unassign_user", "user_unassigned"),
        ("deactivate_user", "user_deactivated"),
    ] {
        let scene = Scene::start().await;
        let (one, two) = (scene.refreshed(&scene.consent()).await, scene.consent());
        scene.order(json!({ "do": kind, "user": ALICE })).await;
        assert_invalid_grant(&scene.refresh(text(&one, "refresh_token")).await);
        assert_invalid_grant(&scene.refresh(&two).await);
        assert!(!scene.is_active(text(&one, "access_token")).await);
        let revoked = scene.stats().await["families_revoked"].clone();
        assert_eq!((revoked.as_array().unwrap().len(), &revoked[0]["reason"]), (2, &json!(reason)));
        // Assigned again, they must connect again.
        scene.order(json!({ "do": "assign_user", "user": ALICE })).await;
        assert_invalid_grant(&scene.refresh(&two).await);
        scene.refreshed(&scene.consent()).await;
    }
}
