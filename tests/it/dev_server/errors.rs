use super::*;

async fn error_of(scene: &Scene, form: &[(&str, &str)]) -> (u16, String, String) {
    let answer = scene.post("v1/token", form).await;
    let body = answer.json();
    (answer.status, answer.error(), body["error_description"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn failed_client_authentication_has_oauths_shape_for_a_known_client_and_oktas_for_an_unknown_one() {
    let scene = Scene::start().await;
    let url = scene.endpoint("v1/token");
    let refresh = refresh_form("whatever");
    let nobody = scene.post_bare(&url, &refresh).await;
    assert_eq!(nobody.status, 401);
    assert_eq!(
        nobody.json(),
        json!({ "error": "invalid_client", "error_description": "No client credentials found." })
    );
    let known = [("client_id", "0oadevbursar"), ("client_secret", "wrong")];
    let wrong = scene.post_bare(&url, &[&refresh[..], &known].concat()).await;
    assert_eq!(wrong.status, 401);
    let text = "The client secret supplied for a confidential client is invalid.";
    assert_eq!(wrong.json(), json!({ "error": "invalid_client", "error_description": text }));

    let unknown = [("client_id", "0oaother"), ("client_secret", "wrong")];
    let okta = scene.post_bare(&url, &[&refresh[..], &unknown].concat()).await;
    let body = okta.json();
    assert_eq!(okta.status, 401);
    assert_eq!(
        (&body["errorCode"], &body["errorLink"]),
        (&json!("invalid_client"), &json!("invalid_client"))
    );
    assert_eq!(body["errorSummary"], "Invalid value for 'client_id' parameter.");
    assert_eq!(body["errorCauses"], json!([]));
    assert!(super::text(&body, "errorId").starts_with("oae") && body.get("error").is_none());
}

#[tokio::test]
async fn two_ways_of_client_authentication_at_once_are_refused() {
    let scene = Scene::start().await;
    let secret = scene.server.client_secret().expose().to_owned();
    let form =
        [&refresh_form("x")[..], &[("client_id", "0oadevbursar"), ("client_secret", &secret)]].concat();
    let (status, error, text) = error_of(&scene, &form).await;
    assert_eq!((status, error.as_str()), (400, "invalid_request"));
    assert!(text.starts_with("Cannot supply multiple client credentials."));
}

#[tokio::test]
async fn malformed_token_requests_are_refused() {
    let scene = Scene::start().await;
    for form in [
        &[("grant_type", "refresh_token"), ("refresh_token", "a"), ("refresh_token", "a")][..],
        &[("grant_type", "refresh_token")],
        &[("refresh_token", "a")],
    ] {
        let (status, error, _) = error_of(&scene, form).await;
        assert_eq!((status, error.as_str()), (400, "invalid_request"), "{form:?}");
    }
    let basic = scene.basic();
    let body = encoded(&refresh_form(&scene.consent()));
    let json_type = [("authorization", basic.as_str()), ("content-type", "application/json")];
    let url = scene.endpoint("v1/token");
    let answer = send(&scene.tasks, "POST", &url, &json_type, &body).await.unwrap();
    assert_eq!(answer.error(), "invalid_request");
    let in_query =
        send(&scene.tasks, "POST", &format!("{url}?{body}"), &[json_type[0], ("content-type", FORM)], "")
            .await;
    assert_eq!(in_query.unwrap().error(), "invalid_request");
    let get = send(&scene.tasks, "GET", &url, &json_type, "").await.unwrap();
    assert_eq!(
        (get.status, get.header("allow"), &get.json()["errorCode"]),
        (405, "POST", &json!("E0000022"))
    );
}

#[tokio::test]
async fn grant_types_are_known_and_allowed_or_not() {
    let scene = Scene::start().await;
    let (status, error, _) = error_of(&scene, &[("grant_type", "implicit")]).await;
    assert_eq!((status, error.as_str()), (400, "unsupported_grant_type"));
    scene.set(json!({ "grant_types": ["authorization_code", "refresh_token"] })).await;
    let (status, error, text) =
        error_of(&scene, &[("grant_type", "client_credentials"), ("scope", "sql")]).await;
    assert_eq!((status, error.as_str()), (400, "unauthorized_client"));
    assert_eq!(
        text,
        "The client is not authorized to use the provided grant type. Configured grant types: [authorization_code, \
         refresh_token]"
    );
}

#[tokio::test]
async fn client_credentials_are_about_the_client_and_never_have_a_users_scopes() {
    let scene = Scene::start().await;
    let form = [("grant_type", "client_credentials"), ("scope", "session:role:PUBLIC")];
    let body = scene.post("v1/token", &form).await.json();
    let claims = claims(text(&body, "access_token"));
    assert_eq!((&claims["sub"], &claims["cid"]), (&json!("0oadevbursar"), &json!("0oadevbursar")));
    assert!(claims.get("uid").is_none() && body.get("refresh_token").is_none());
    assert_eq!(scene.introspect(text(&body, "access_token")).await["sub"], "0oadevbursar");
    for form in [&form[..1], &[form[0], ("scope", "offline_access")], &[form[0], ("scope", "openid")]] {
        let (status, error, text) = error_of(&scene, form).await;
        assert_eq!((status, error.as_str()), (400, "invalid_scope"), "{form:?}");
        assert_eq!(text, "One or more scopes are not configured for the authorization server resource.");
    }
}

#[tokio::test]
async fn the_password_grant_knows_the_users() {
    let scene = Scene::start().await;
    let form = |user, password| {
        [
            ("grant_type", "password"),
            ("username", user),
            ("password", password),
            ("scope", "openid offline_access"),
        ]
    };
    let body = scene.post("v1/token", &form(ALICE, "password")).await.json();
    scene.refreshed(text(&body, "refresh_token")).await;
    let (status, error, _) = error_of(&scene, &form(ALICE, "wrong")).await;
    assert_eq!((status, error.as_str()), (400, "invalid_grant"));
    let (status, error, text) = error_of(&scene, &form("mallory@example.com", "password")).await;
    assert_eq!((status, error.as_str()), (400, "access_denied"));
    assert_eq!(text, "User is not assigned to the client application.");
}

#[tokio::test]
async fn token_answers_are_not_stored_and_carry_a_date_and_a_request_id() {
    let scene = Scene::start().await;
    for answer in [scene.refresh(&scene.consent()).await, scene.refresh("unknown").await] {
        assert!(answer.header("cache-control").contains("no-store"));
        assert_eq!(answer.header("date"), "Fri, 15 Jan 2027 08:00:00 GMT");
        assert!(!answer.header("x-okta-request-id").is_empty());
    }
}
