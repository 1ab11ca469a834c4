use super::*;

#[tokio::test]
async fn an_access_token_has_oktas_claims_and_a_header_of_alg_and_kid() {
    let scene = Scene::start().await;
    let body = scene.refreshed(&scene.consent()).await;
    assert_eq!((text(&body, "token_type"), &body["expires_in"]), ("Bearer", &json!(3600)));
    assert_eq!(text(&body, "scope"), SCOPES.join(" "));
    let token = text(&body, "access_token");
    let names = |value: Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(header(token)), ["alg", "kid"]);
    let claims = claims(token);
    assert_eq!(
        names(claims.clone()),
        ["aud", "auth_time", "cid", "exp", "iat", "iss", "jti", "scp", "sub", "uid", "ver"]
    );
    assert_eq!(claims["iss"], scene.server.issuer(DevServer::SNOWFLAKE));
    assert_eq!(claims["aud"], "https://dev.snowflakecomputing.com");
    assert_eq!((&claims["ver"], &claims["sub"]), (&json!(1), &json!(ALICE)));
    assert_eq!((&claims["iat"], &claims["exp"]), (&json!(START), &json!(START + 3600)));
    assert_eq!(claims["scp"], json!(SCOPES));
    assert!(text(&claims, "jti").starts_with("AT.") && text(&claims, "uid").starts_with("00u"));
}

#[tokio::test]
async fn a_refresh_keeps_the_time_of_the_login_and_brings_an_id_token_about_the_uid() {
    let scene = Scene::start().await;
    let token = scene.consent();
    scene.advance(90);
    let body = scene.refreshed(&token).await;
    let (access, id) = (claims(text(&body, "access_token")), claims(text(&body, "id_token")));
    assert_eq!((&access["auth_time"], &access["iat"]), (&json!(START), &json!(START + 90)));
    assert_eq!(id["sub"], access["uid"]);
    assert_eq!((&id["aud"], &id["exp"]), (&json!("0oadevbursar"), &json!(START + 90 + 3600)));
    assert!(id.get("scp").is_none() && id.get("email").is_none());
}

#[tokio::test]
async fn a_rotated_token_is_good_within_the_leeway_and_each_use_gives_another_one() {
    let scene = Scene::start().await;
    let first = scene.consent();
    let second = text(&scene.refreshed(&first).await, "refresh_token").to_owned();
    assert_ne!(first, second);
    scene.advance(29);
    let third = text(&scene.refreshed(&first).await, "refresh_token").to_owned();
    assert!(third != second && third != first);
    // The second one was never used, and still it is retired: its 30 seconds run from the third one on.
    scene.advance(29);
    assert!(scene.is_active(&second).await && scene.is_active(&third).await);
    scene.advance(1);
    assert!(!scene.is_active(&second).await && scene.is_active(&third).await);
    scene.refreshed(&third).await;
}

#[tokio::test]
async fn a_replay_after_the_leeway_kills_the_newest_token_and_every_access_token_since_the_login() {
    let scene = Scene::start().await;
    let first = scene.consent();
    let one = scene.refreshed(&first).await;
    let two = scene.refreshed(text(&one, "refresh_token")).await;
    let other_login = scene.refreshed(&scene.consent()).await;
    scene.advance(30);
    assert!(scene.is_active(text(&one, "access_token")).await);
    assert_invalid_grant(&scene.refresh(&first).await);
    for body in [&one, &two] {
        assert!(!scene.is_active(text(body, "access_token")).await);
    }
    assert_invalid_grant(&scene.refresh(text(&two, "refresh_token")).await);
    assert!(scene.is_active(text(&other_login, "access_token")).await, "another family is none of it");
    let stats = scene.stats().await;
    assert_eq!(stats["reuse_detected"], 1);
    let revoked = json!([{ "user": ALICE, "server": DevServer::SNOWFLAKE, "reason": "reuse" }]);
    assert_eq!(stats["families_revoked"], revoked);
}

#[tokio::test]
async fn without_a_leeway_the_first_replay_kills() {
    let scene = Scene::start_as_okta(Rotation::Rotating, Duration::ZERO).await;
    let first = scene.consent();
    let second = text(&scene.refreshed(&first).await, "refresh_token").to_owned();
    assert_invalid_grant(&scene.refresh(&first).await);
    assert_invalid_grant(&scene.refresh(&second).await);
}

#[tokio::test]
async fn introspection_of_a_replayed_token_looks_and_kills_nothing() {
    let scene = Scene::start().await;
    let first = scene.consent();
    let second = text(&scene.refreshed(&first).await, "refresh_token").to_owned();
    scene.advance(31);
    assert!(!scene.is_active(&first).await);
    scene.refreshed(&second).await;
}

#[tokio::test]
async fn a_persistent_token_comes_back_as_it_went() {
    let scene = Scene::start_as_okta(Rotation::Persistent, LEEWAY).await;
    let token = scene.consent();
    for _ in 0..3 {
        assert_eq!(text(&scene.refreshed(&token).await, "refresh_token"), token);
        scene.advance(3600);
    }
}

#[tokio::test]
async fn rotation_does_not_prolong_the_life_of_a_family() {
    let scene = Scene::start().await;
    scene.set(json!({ "refresh_token_lifetime": 100 })).await;
    let first = scene.consent();
    scene.advance(60);
    let second = text(&scene.refreshed(&first).await, "refresh_token").to_owned();
    assert_eq!(scene.introspect(&second).await["exp"], START + 100);
    scene.advance(39);
    assert!(scene.is_active(&second).await);
    scene.advance(1);
    assert!(!scene.is_active(&second).await);
    assert_invalid_grant(&scene.refresh(&second).await);
}

#[tokio::test]
async fn a_token_that_is_not_used_for_the_idle_window_dies_and_each_use_begins_it_anew() {
    let scene = Scene::start().await;
    scene.set(json!({ "idle_window": 600 })).await;
    let (used, idle) = (scene.consent(), scene.consent());
    scene.advance(599);
    let next = text(&scene.refreshed(&used).await, "refresh_token").to_owned();
    scene.advance(1);
    assert_invalid_grant(&scene.refresh(&idle).await);
    scene.advance(598);
    scene.refreshed(&next).await;
}

#[tokio::test]
async fn a_refresh_may_ask_for_fewer_scopes_and_for_no_other_ones() {
    let scene = Scene::start().await;
    let token = scene.consent();
    let fewer = [&refresh_form(&token)[..], &[("scope", "session:role:ANALYST offline_access")]].concat();
    let answer = scene.post("v1/token", &fewer).await.json();
    assert_eq!(text(&answer, "scope"), "session:role:ANALYST offline_access");
    assert_eq!(
        claims(text(&answer, "access_token"))["scp"],
        json!(["session:role:ANALYST", "offline_access"])
    );
    assert!(answer.get("id_token").is_none());

    let token = text(&answer, "refresh_token");
    for scope in ["session:role:DATA_ENGINEER offline_access", "sql offline_access", "session:role:public"] {
        let other = [&refresh_form(token)[..], &[("scope", scope)]].concat();
        let refused = scene.post("v1/token", &other).await;
        assert_eq!((refused.status, refused.error()), (400, "invalid_scope".to_owned()), "{scope}");
    }
    // None of that used the token up, and without a scope it is still good for all.
    assert_eq!(text(&scene.refreshed(token).await, "scope"), SCOPES.join(" "));
}

#[tokio::test]
async fn without_offline_access_in_the_scope_no_refresh_token_comes_and_the_old_one_stays() {
    let scene = Scene::start().await;
    let token = scene.consent();
    let online = [&refresh_form(&token)[..], &[("scope", "session:role:ANALYST")]].concat();
    assert!(scene.post("v1/token", &online).await.json().get("refresh_token").is_none());
    scene.advance(31);
    scene.refreshed(&token).await;
}

#[tokio::test]
async fn another_servers_refresh_token_is_refused_and_unharmed() {
    let scene = Scene::start().await;
    let scopes = ["sql", "offline_access"];
    let token = scene.server.consent(DevServer::DATABRICKS, ALICE, &scopes).unwrap().expose().to_owned();
    assert_invalid_grant(&scene.refresh(&token).await);
    let url = format!("{}/v1/token", scene.server.issuer(DevServer::DATABRICKS));
    let secret = scene.server.client_secret().expose().to_owned();
    let client = [("client_id", "0oadevbursar"), ("client_secret", secret.as_str())];
    let answer = scene.post_bare(&url, &[&refresh_form(&token)[..], &client].concat()).await;
    assert_eq!(claims(text(&answer.json(), "access_token"))["aud"], "databricks");
}

#[tokio::test]
async fn there_is_consent_only_for_known_and_assigned_users_and_known_scopes() {
    let scene = Scene::start().await;
    let consent = |server, user, scopes: &[&str]| scene.server.consent(server, user, scopes).is_some();
    assert!(consent(DevServer::SNOWFLAKE, "carol@example.com", &SCOPES));
    assert!(!consent(DevServer::SNOWFLAKE, "mallory@example.com", &SCOPES));
    assert!(!consent(DevServer::SNOWFLAKE, "nobody@example.com", &SCOPES));
    assert!(!consent(DevServer::DATABRICKS, ALICE, &SCOPES));
    assert!(!consent(DevServer::SNOWFLAKE, ALICE, &["openid"]));
    assert!(!consent("ausother", ALICE, &SCOPES));
}
