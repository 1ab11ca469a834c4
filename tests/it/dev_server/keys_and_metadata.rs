use std::collections::BTreeSet;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::*;

async fn kids(scene: &Scene) -> BTreeSet<String> {
    let keys = scene.get(&scene.endpoint("v1/keys")).await.json();
    keys["keys"].as_array().unwrap().iter().map(|key| text(key, "kid").to_owned()).collect()
}

async fn kid_of_a_new_token(scene: &Scene) -> String {
    let body = scene.refreshed(&scene.consent()).await;
    text(&header(text(&body, "access_token")), "kid").to_owned()
}

#[tokio::test]
async fn both_metadata_documents_are_at_all_three_places_and_name_the_issuer() {
    let scene = Scene::start().await;
    let issuer = scene.server.issuer(DevServer::DATABRICKS);
    let root = issuer.split("/oauth2/").next().unwrap();
    for url in [
        format!("{issuer}/.well-known/openid-configuration"),
        format!("{issuer}/.well-known/oauth-authorization-server"),
        format!("{root}/.well-known/oauth-authorization-server/oauth2/{}", DevServer::DATABRICKS),
        format!("{issuer}/.well-known/openid-configuration?client_id=0oadevbursar"),
    ] {
        let document = scene.get(&url).await.json();
        assert_eq!(document["issuer"], issuer.as_str());
        assert_eq!(document["token_endpoint"], format!("{issuer}/v1/token"));
        assert_eq!(document["jwks_uri"], format!("{issuer}/v1/keys"));
        assert_eq!(document["device_authorization_endpoint"], format!("{issuer}/v1/device/authorize"));
        assert_eq!(document["code_challenge_methods_supported"], json!(["S256"]));
        assert_eq!(document["authorization_response_iss_parameter_supported"], true);
        assert!(document["scopes_supported"].as_array().unwrap().contains(&json!("all-apis")));
    }
}

#[tokio::test]
async fn an_unknown_authorization_server_is_not_found_in_oktas_words() {
    let scene = Scene::start().await;
    let answer = scene.get(&format!("{}/v1/keys", scene.server.issuer("ausother"))).await;
    assert_eq!((answer.status, &answer.json()["errorCode"]), (404, &json!("E0000007")));
    assert_eq!(
        answer.json()["errorSummary"],
        "Not found: Resource not found: ausother (AuthorizationServer)"
    );
}

#[tokio::test]
async fn tokens_verify_with_the_published_keys() {
    let scene = Scene::start().await;
    let answer = scene.get(&scene.endpoint("v1/keys")).await;
    assert_eq!(answer.header("cache-control"), "max-age=86400, must-revalidate");
    let keys = answer.json();
    let body = scene.refreshed(&scene.consent()).await;
    for (token, audience) in
        [("access_token", "https://dev.snowflakecomputing.com"), ("id_token", "0oadevbursar")]
    {
        let token = text(&body, token);
        let kid = text(&header(token), "kid").to_owned();
        let jwk = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap();
        assert_eq!((&jwk["kty"], &jwk["alg"], &jwk["use"]), (&json!("RSA"), &json!("RS256"), &json!("sig")));
        let key = DecodingKey::from_jwk(&serde_json::from_value::<Jwk>(jwk.clone()).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[scene.server.issuer(DevServer::SNOWFLAKE)]);
        jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();
    }
}

#[tokio::test]
async fn a_rotation_makes_next_active_and_keeps_the_old_key_published_until_the_next_one() {
    let scene = Scene::start().await;
    let before = kids(&scene).await;
    let first = kid_of_a_new_token(&scene).await;
    assert!(before.len() == 2 && before.contains(&first));
    scene.order(json!({ "do": "rotate_keys" })).await;
    let second = kid_of_a_new_token(&scene).await;
    assert!(second != first && before.contains(&second), "it was published before it came into use");
    let between = kids(&scene).await;
    assert!(between.len() == 3 && between.contains(&first));
    scene.order(json!({ "do": "rotate_keys", "server": DevServer::SNOWFLAKE })).await;
    let after = kids(&scene).await;
    assert!(!after.contains(&first) && after.contains(&second));
    assert!(between.contains(&kid_of_a_new_token(&scene).await));
}

#[tokio::test]
async fn the_two_servers_have_keys_of_their_own() {
    let scene = Scene::start().await;
    let other = scene.get(&format!("{}/v1/keys", scene.server.issuer(DevServer::DATABRICKS))).await.json();
    let ours = kids(&scene).await;
    assert!(other["keys"].as_array().unwrap().iter().all(|key| !ours.contains(text(key, "kid"))));
}

#[tokio::test]
async fn the_lifetime_of_the_published_keys_is_a_setting() {
    let scene = Scene::start().await;
    scene.set(json!({ "keys_max_age": 5 })).await;
    let answer = scene.get(&scene.endpoint("v1/keys")).await;
    assert_eq!(answer.header("cache-control"), "max-age=5, must-revalidate");
}
