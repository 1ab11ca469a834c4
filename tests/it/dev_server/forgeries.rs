use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::*;

/// An access token with one thing wrong.
async fn forged(scene: &Scene, kind: &str) -> String {
    scene.order(json!({ "do": kind })).await;
    let body = scene.refreshed(&scene.consent()).await;
    assert_eq!((text(&body, "token_type"), &body["expires_in"]), ("Bearer", &json!(3600)));
    assert!(body["refresh_token"].is_string(), "all else is as it should be");
    text(&body, "access_token").to_owned()
}

/// Whether the signature is that of the published key with the token's `kid`.
async fn is_signed(scene: &Scene, token: &str) -> bool {
    let keys = scene.get(&scene.endpoint("v1/keys")).await.json();
    let kid = header(token)["kid"].clone();
    let Some(jwk) = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid) else {
        return false;
    };
    let key = DecodingKey::from_jwk(&serde_json::from_value::<Jwk>(jwk.clone()).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    validation.required_spec_claims.clear();
    jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
}

#[tokio::test]
async fn wrong_claims_are_properly_signed() {
    let scene = Scene::start().await;
    for (kind, claim, value) in [
        ("wrong_issuer", "iss", json!("https://other.example.com/oauth2/ausother")),
        ("wrong_audience", "aud", json!("https://other.example.com")),
        ("wrong_subject", "sub", json!("bob@example.com")),
        ("wrong_client", "cid", json!("0oaother")),
        ("wrong_scope", "scp", json!(["session:role:ACCOUNTADMIN"])),
        ("expired", "exp", json!(START - 3600)),
        ("not_yet_valid", "nbf", json!(START + 3600)),
        ("no_exp", "exp", Value::Null),
    ] {
        let token = forged(&scene, kind).await;
        assert_eq!(claims(&token)[claim], value, "{kind}");
        assert!(is_signed(&scene, &token).await, "{kind}");
    }
    assert_eq!(claims(&forged(&scene, "id_token").await)["aud"], "0oadevbursar");
}

#[tokio::test]
async fn another_users_tokens_agree_with_each_other() {
    let scene = Scene::start().await;
    scene.order(json!({ "do": "wrong_subject", "user": "carol@example.com" })).await;
    let body = scene.refreshed(&scene.consent()).await;
    let (access, id) = (claims(text(&body, "access_token")), claims(text(&body, "id_token")));
    assert_eq!((&access["sub"], &access["uid"]), (&json!("carol@example.com"), &id["sub"]));
    let own = scene.refreshed(text(&body, "refresh_token")).await;
    assert_eq!(claims(text(&own, "access_token"))["sub"], ALICE);
}

#[tokio::test]
async fn wrong_headers_and_signatures_do_not_verify() {
    let scene = Scene::start().await;
    let active = header(&forged(&scene, "wrong_scope").await)["kid"].clone();

    let none = forged(&scene, "alg_none").await;
    assert!(header(&none)["alg"] == "none" && none.ends_with('.'));
    let hmac = forged(&scene, "hs256_public_key").await;
    assert!(header(&hmac)["alg"] == "HS256" && header(&hmac)["kid"] == active);
    let wrong_key = forged(&scene, "wrong_key").await;
    assert!(header(&wrong_key)["kid"] == active && !is_signed(&scene, &wrong_key).await);
    let unknown = forged(&scene, "unknown_kid").await;
    assert!(header(&unknown)["kid"] != active && !is_signed(&scene, &unknown).await);
    assert!(header(&forged(&scene, "no_kid").await).get("kid").is_none());
    let crit = forged(&scene, "crit").await;
    assert_eq!(header(&crit)["crit"], json!(["urn:example:unknown"]));
    let jwe = forged(&scene, "jwe").await;
    assert!(jwe.split('.').count() == 5 && header(&jwe)["enc"] == "A256GCM");
    assert!(!forged(&scene, "opaque").await.contains('.'));
}

#[tokio::test]
async fn a_weak_key_is_published_only_once_it_is_asked_for() {
    let scene = Scene::start().await;
    let published = async || scene.get(&scene.endpoint("v1/keys")).await.body.contains("weak-1024-bit-key");
    assert!(!published().await);
    let token = forged(&scene, "weak_key").await;
    assert!(published().await && header(&token)["kid"] == "weak-1024-bit-key");
    assert_eq!(token.split('.').nth(2).unwrap().len(), 171, "128 bytes");
}
