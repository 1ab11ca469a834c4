//! Each reason not to believe who has signed in.

use serde_json::{Value, json};

use super::*;
use crate::jwt::tests::{HEADER, NOW, jwks, sign};

const ACCESS_TOKEN: &str = "an access token";
const NONCE: &str = "n0nce";

/// As Okta makes them, with all that can be asked for.
fn claims() -> Value {
    let hash = digest(&SHA256, ACCESS_TOKEN.as_bytes());
    json!({
        "ver": 1, "jti": "ID.x", "iss": "https://okta.example/oauth2/aus1", "aud": "client", "iat": NOW,
        "exp": NOW + 3600, "sub": "00u1", "preferred_username": "alice@example.com", "amr": ["pwd"],
        "auth_time": NOW - 10, "acr": "urn:okta:loa:2fa:any", "nonce": NONCE,
        "at_hash": URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]),
    })
}

/// With these claims changed, or left out where there is no value.
fn with(changes: &[(&str, Option<Value>)]) -> Value {
    let mut claims = claims();
    for (name, value) in changes {
        match value {
            Some(value) => claims[*name] = value.clone(),
            None => drop(claims.as_object_mut().unwrap().remove(*name)),
        }
    }
    claims
}

fn expecting<T>(look: impl FnOnce(&IdExpectation<'_>) -> T) -> T {
    let (nonce, access_token) = (Secret::new(NONCE.to_owned()), Secret::new(ACCESS_TOKEN.to_owned()));
    look(&IdExpectation {
        issuer: "https://okta.example/oauth2/aus1",
        client_id: "client",
        nonce: Some(&nonce),
        access_token: &access_token,
        max_age: Some(Duration::from_hours(1)),
        acr_values: Some("urn:okta:loa:2fa:any phr"),
    })
}

fn check(token: &Secret) -> Result<Identified, VerifyError> {
    expecting(|expected| identify(token, &jwks(), expected, Timestamp::from_secs(NOW)))
}

fn why(changes: &[(&str, Option<Value>)]) -> String {
    let token = sign(HEADER, &with(changes).to_string());
    check(&token).map_or_else(|error| format!("{error:?}"), |_| "believed".to_owned())
}

#[test]
fn a_whole_id_token_says_who_has_signed_in() {
    let identified = check(&sign(HEADER, &claims().to_string())).unwrap();
    assert_eq!(identified.subject, "00u1");
    assert_eq!(identified.preferred_username.as_deref(), Some("alice@example.com"));
}

#[test]
fn what_need_not_be_there_may_be_missing() {
    for name in ["at_hash", "preferred_username", "amr", "jti"] {
        assert_eq!(why(&[(name, None)]), "believed", "{name}");
    }
    assert_eq!(why(&[("azp", Some(json!("client")))]), "believed");
    let several = json!(["client", "another"]);
    assert_eq!(why(&[("aud", Some(several)), ("azp", Some(json!("client")))]), "believed");
}

type Changes<'a> = Vec<(&'a str, Option<Value>)>;

#[test]
fn each_claim_that_is_not_what_was_asked_for_is_a_reason() {
    let set = |name: &'static str, value: Value| vec![(name, Some(value))];
    let several = json!(["client", "another"]);
    let cases: Vec<(Changes<'_>, &str)> = vec![
        (set("iss", json!("https://okta.example/oauth2/aus1/")), "Issuer"),
        (vec![("iss", None)], "iss"),
        (set("aud", json!("another")), "Audience"),
        (vec![("aud", None)], "aud"),
        (set("aud", several.clone()), "azp"),
        (vec![("aud", Some(several)), ("azp", Some(json!("another")))], "Client"),
        (set("azp", json!("another")), "Client"),
        (set("azp", json!(7)), "Client"),
        (set("exp", json!(NOW - 3600)), "Expired"),
        (vec![("exp", None)], "exp"),
        (set("nbf", json!(NOW + 3600)), "NotYet"),
        (set("nonce", json!("another")), "Nonce"),
        (set("nonce", json!([NONCE])), "Nonce"),
        (vec![("nonce", None)], "Nonce"),
        (set("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA")), "AccessTokenHash"),
        (set("at_hash", json!(null)), "AccessTokenHash"),
        (set("auth_time", json!(NOW - 7200)), "SignedInTooLongAgo"),
        (vec![("auth_time", None)], "auth_time"),
        (set("acr", json!("urn:okta:loa:1fa:any")), "SignedInTooWeakly"),
        (vec![("acr", None)], "SignedInTooWeakly"),
        (set("sub", json!("")), "sub"),
        (vec![("sub", None)], "sub"),
    ];
    for (changes, reason) in cases {
        let said = why(&changes);
        assert!(said.contains(reason), "{changes:?}: {said}, not {reason}");
    }
}

#[test]
fn it_is_somebody_else_s_key_or_none_or_no_jwt() {
    let token = sign(HEADER, &claims().to_string()).expose().to_owned();
    let (signed, _) = token.rsplit_once('.').unwrap();
    let none = sign(r#"{"alg":"none","kid":"active"}"#, &claims().to_string());
    for token in [format!("{signed}."), format!("{signed}.AAAA"), none.expose().to_owned(), "x".to_owned()] {
        assert!(check(&Secret::new(token.clone())).is_err(), "{token}");
    }
}

#[test]
fn what_was_not_asked_for_is_not_looked_for() {
    let bare = with(&[("nonce", None), ("auth_time", None), ("acr", None)]);
    let token = sign(HEADER, &bare.to_string());
    let told = |expected: &IdExpectation<'_>| identify(&token, &jwks(), expected, Timestamp::from_secs(NOW));
    assert!(expecting(told).is_err());
    let nothing = expecting(|all| {
        told(&IdExpectation { nonce: None, max_age: None, acr_values: None, ..*all }).map(|who| who.subject)
    });
    assert_eq!(nothing.unwrap(), "00u1");
    let if_possible = with(&[("acr", None)]);
    let token = sign(HEADER, &if_possible.to_string());
    let less = expecting(|all| {
        let wanted = Some("urn:okta:loa:2fa:any:ifpossible");
        identify(&token, &jwks(), &IdExpectation { acr_values: wanted, ..*all }, Timestamp::from_secs(NOW))
            .map(|who| who.subject)
    });
    assert_eq!(less.unwrap(), "00u1", "`ifpossible` is what was written");
}

#[test]
fn a_leeway_is_for_clocks_and_no_more() {
    let seconds_old = |age: i64| why(&[("auth_time", Some(json!(NOW - 3600 - age)))]);
    assert_eq!(seconds_old(LEEWAY / 1000), "believed");
    assert_eq!(seconds_old(LEEWAY / 1000 + 1), "SignedInTooLongAgo");
}
