use super::*;

use bursar::secret::Secret;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// RFC 7636 appendix B: the SHA-256 of that verifier.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://127.0.0.1:8127/callback/snowflake";

fn parameters() -> Vec<(&'static str, String)> {
    vec![
        ("client_id", "0oadevbursar".into()),
        ("response_type", "code".into()),
        ("redirect_uri", REDIRECT.into()),
        ("state", "s t/a&te".into()),
        ("nonce", "n0nce".into()),
        ("scope", "openid profile email offline_access session:role:ANALYST".into()),
        ("code_challenge", CHALLENGE.into()),
        ("code_challenge_method", "S256".into()),
    ]
}

/// The parameters with one changed, or left out if `value` is empty.
fn with(name: &'static str, value: &str) -> Vec<(&'static str, String)> {
    let mut parameters = parameters();
    parameters.retain(|(known, _)| *known != name);
    parameters.push((name, value.to_owned()));
    parameters
}

fn url(scene: &Scene, parameters: &[(&'static str, String)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{}?{query}", scene.endpoint("v1/authorize"))
}

/// What came back to the client.
fn callback(answer: &Answer) -> std::collections::BTreeMap<String, String> {
    assert_eq!(answer.status, 302, "{}", answer.body);
    let location = answer.header("location");
    assert!(location.starts_with(REDIRECT), "{location}");
    url::Url::parse(location).unwrap().query_pairs().into_owned().collect()
}

async fn log_in(scene: &Scene, parameters: &[(&'static str, String)], user: &str) -> Answer {
    let form = [("username", user), ("password", "password"), ("action", "login")];
    scene.post_bare(&url(scene, parameters), &form).await
}

async fn code(scene: &Scene) -> String {
    callback(&log_in(scene, &parameters(), ALICE).await)["code"].clone()
}

async fn redeem(scene: &Scene, code: &str, verifier: &str, redirect_uri: &str) -> Answer {
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("code_verifier", verifier),
        ("redirect_uri", redirect_uri),
    ];
    scene.post("v1/token", &form).await
}

#[tokio::test]
async fn a_login_through_the_form_gives_tokens_for_the_code() {
    let scene = Scene::start().await;
    let page = scene.get(&url(&scene, &parameters())).await;
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-type").starts_with("text/html") && page.body.contains("session:role:ANALYST")
    );

    let back = callback(&log_in(&scene, &parameters(), ALICE).await);
    assert_eq!(back["state"], "s t/a&te");
    assert_eq!(back["iss"], scene.server.issuer(DevServer::SNOWFLAKE));
    assert!(back["code"].contains("sentinel"));
    scene.advance(299);
    let body = redeem(&scene, &back["code"], VERIFIER, REDIRECT).await.json();
    let id = claims(text(&body, "id_token"));
    assert_eq!((text(&id, "nonce"), text(&id, "name"), text(&id, "email")), ("n0nce", "Alice", ALICE));
    assert_eq!(
        (&id["auth_time"], &id["iat"], &id["amr"]),
        (&json!(START), &json!(START + 299), &json!(["pwd"]))
    );
    assert_eq!(claims(text(&body, "access_token"))["auth_time"], START);
    scene.refreshed(text(&body, "refresh_token")).await;
}

#[tokio::test]
async fn without_offline_access_there_is_no_refresh_token() {
    let scene = Scene::start().await;
    let back = callback(&log_in(&scene, &with("scope", "session:role:ANALYST"), ALICE).await);
    let body = redeem(&scene, &back["code"], VERIFIER, REDIRECT).await.json();
    assert!(body.get("refresh_token").is_none() && body.get("id_token").is_none());
}

#[tokio::test]
async fn a_code_serves_once_and_a_second_use_takes_back_what_it_gave() {
    let scene = Scene::start().await;
    let code = code(&scene).await;
    let body = redeem(&scene, &code, VERIFIER, REDIRECT).await.json();
    let again = redeem(&scene, &code, VERIFIER, REDIRECT).await;
    assert_eq!(again.json()["error_description"], "The authorization code is invalid or has expired.");
    assert!(!scene.is_active(text(&body, "access_token")).await);
    assert!(!scene.is_active(text(&body, "refresh_token")).await);
}

#[tokio::test]
async fn a_code_is_bound_to_its_verifier_its_redirect_uri_its_server_and_five_minutes() {
    let scene = Scene::start().await;
    let wrong_verifier = redeem(&scene, &code(&scene).await, &"x".repeat(43), REDIRECT).await;
    assert_eq!(wrong_verifier.json()["error_description"], "PKCE verification failed.");
    let elsewhere =
        redeem(&scene, &code(&scene).await, VERIFIER, "http://127.0.0.1:8127/callback/other").await;
    assert!(text(&elsewhere.json(), "error_description").starts_with("The 'redirect_uri' does not match"));
    let late = code(&scene).await;
    scene.advance(300);
    for answer in
        [redeem(&scene, &late, VERIFIER, REDIRECT).await, redeem(&scene, "none", VERIFIER, REDIRECT).await]
    {
        assert_eq!((answer.status, answer.error()), (400, "invalid_grant".into()));
    }
    let without_verifier = [("grant_type", "authorization_code"), ("code", "x"), ("redirect_uri", REDIRECT)];
    assert_eq!(scene.post("v1/token", &without_verifier).await.error(), "invalid_request");
}

#[tokio::test]
async fn what_cannot_be_told_to_the_client_is_shown_to_the_user() {
    let scene = Scene::start().await;
    let mut twice = parameters();
    twice.push(("state", "again".into()));
    let unsafe_requests = [
        with("client_id", "0oaother"),
        with("redirect_uri", ""),
        with("redirect_uri", "https://evil.example.com/callback/snowflake"),
        with("redirect_uri", "http://127.0.0.1:8127/callback/../evil"),
        with("redirect_uri", "http://127.0.0.1:8127/callback/x/../snowflake"),
        with("redirect_uri", "http://127.0.0.1:8127/callback/snowflake?x=1"),
        with("redirect_uri", "http://localhost:8127/callback/snowflake"),
        with("redirect_uri", "http://127.0.0.1:8127@evil.example.com/callback/x"),
        twice,
    ];
    for parameters in unsafe_requests {
        let answer = scene.get(&url(&scene, &parameters)).await;
        assert_eq!(answer.status, 400, "{parameters:?}");
        assert!(
            answer.header("content-type").starts_with("text/html")
                && !answer.headers.contains_key("location")
        );
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_at_the_redirect_uri() {
    let scene = Scene::start().await;
    let cases = [
        (with("state", ""), "invalid_request"),
        (with("response_type", ""), "invalid_request"),
        (with("response_type", "token"), "unsupported_response_type"),
        (with("response_mode", "fragment"), "invalid_request"),
        (with("scope", ""), "invalid_scope"),
        (with("scope", "openid session:role:ROOT"), "invalid_scope"),
        (with("scope", "sql"), "invalid_scope"),
        (with("code_challenge", ""), "invalid_request"),
        (with("code_challenge", "short"), "invalid_request"),
        (with("code_challenge_method", "plain"), "invalid_request"),
        (with("code_challenge_method", ""), "invalid_request"),
        (with("prompt", "none"), "login_required"),
        (with("prompt", "none login"), "invalid_request"),
        (with("acr_values", "phr"), "unmet_authentication_requirements"),
        (with("max_age", "soon"), "invalid_request"),
    ];
    for (parameters, error) in cases {
        let back = callback(&scene.get(&url(&scene, &parameters)).await);
        assert_eq!(back["error"], error, "{parameters:?}");
        assert_eq!(back["iss"], scene.server.issuer(DevServer::SNOWFLAKE));
        assert!(!back.contains_key("code"));
    }
}

#[tokio::test]
async fn a_user_can_cancel_mistype_or_not_be_assigned() {
    let scene = Scene::start().await;
    let url = url(&scene, &parameters());
    let cancelled = callback(&scene.post_bare(&url, &[("action", "cancel")]).await);
    assert_eq!((cancelled["error"].as_str(), cancelled["state"].as_str()), ("access_denied", "s t/a&te"));
    let mistyped = scene.post_bare(&url, &[("username", ALICE), ("password", "passw0rd")]).await;
    assert_eq!(mistyped.status, 401);
    assert!(mistyped.body.contains("Unable to sign in") && mistyped.body.contains(ALICE));
    let unassigned = callback(&log_in(&scene, &parameters(), "mallory@example.com").await);
    assert_eq!(unassigned["error"], "access_denied");
    assert_eq!(unassigned["error_description"], "User is not assigned to the client application.");
}

#[tokio::test]
async fn an_added_redirect_uri_is_matched_character_by_character() {
    let scene = Scene::start().await;
    let uri = "https://bursar.example.com/callback/snowflake?tenant=1";
    scene.set(json!({ "redirect_uris": [uri] })).await;
    let answer = log_in(&scene, &with("redirect_uri", uri), ALICE).await;
    assert!(
        answer.header("location").starts_with("https://bursar.example.com/callback/snowflake?tenant=1&code=")
    );
    assert_eq!(scene.get(&url(&scene, &with("redirect_uri", &format!("{uri}&x=1")))).await.status, 400);
}

#[tokio::test]
async fn a_reachable_authentication_class_is_claimed_in_both_tokens_and_after_a_refresh() {
    let scene = Scene::start().await;
    let acr = "urn:okta:loa:1fa:any";
    let back = callback(&log_in(&scene, &with("acr_values", &format!("phrh {acr}")), ALICE).await);
    let body = redeem(&scene, &back["code"], VERIFIER, REDIRECT).await.json();
    let again = scene.refreshed(text(&body, "refresh_token")).await;
    for token in [text(&body, "access_token"), text(&body, "id_token"), text(&again, "access_token")] {
        assert_eq!(claims(token)["acr"], acr);
    }
}

#[tokio::test]
async fn every_secret_that_is_handed_out_holds_the_word_that_leak_searches_look_for() {
    let scene = Scene::start().await;
    let secrets =
        [scene.server.client_secret().clone(), Secret::new(scene.consent()), Secret::new(code(&scene).await)];
    assert!(secrets.iter().all(|secret| secret.expose().contains("sentinel")));
}
