use std::sync::OnceLock;

use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

pub(super) const NOW: i64 = 1_800_000_000;

/// One key pair for all tests; making one takes a while.
pub(super) fn pair() -> &'static KeyPair {
    static PAIR: OnceLock<KeyPair> = OnceLock::new();
    PAIR.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).unwrap())
}

pub(super) fn jwks() -> KeySet {
    let public = pair().public_key();
    let (n, e) = (
        public.modulus().big_endian_without_leading_zero(),
        public.exponent().big_endian_without_leading_zero(),
    );
    let document = json!({"keys": [{
        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": "active",
        "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e),
    }]});
    KeySet::parse(document.to_string().as_bytes(), &[SigningAlgorithm::Rs256]).unwrap()
}

pub(super) fn sign(header: &str, payload: &str) -> Secret {
    sign_bytes(header.as_bytes(), payload.as_bytes())
}

pub(super) fn sign_bytes(header: &[u8], payload: &[u8]) -> Secret {
    sign_text(&format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload)))
}

pub(super) fn sign_text(signed: &str) -> Secret {
    let mut signature = vec![0; pair().public_modulus_len()];
    let random = aws_lc_rs::rand::SystemRandom::new();
    pair().sign(&aws_lc_rs::signature::RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
    Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

pub(super) const HEADER: &str = r#"{"alg":"RS256","kid":"active"}"#;

pub(super) fn claims() -> Value {
    json!({
        "ver": 1, "jti": "AT.x", "iss": "https://okta.example/oauth2/aus1", "aud": "https://sf.example",
        "iat": NOW, "exp": NOW + 3600, "cid": "client", "uid": "00u1", "sub": "alice@example.com",
        "scp": ["offline_access", "session:role:PUBLIC"],
    })
}

pub(super) fn check(token: &Secret) -> Result<Verified, VerifyError> {
    let (alice, scope) = (
        UserName::parse("alice@example.com").unwrap(),
        Scope::from_wire("session:role:PUBLIC offline_access"),
    );
    let expected = Expectation {
        issuer: "https://okta.example/oauth2/aus1",
        audience: "https://sf.example",
        client_id: "client",
        user_claim: "sub",
        user: Some(&alice),
        scope: &scope,
    };
    verify(token, &jwks(), &expected, Timestamp::from_secs(NOW))
}

fn with(name: &str, value: Value) -> Result<Verified, VerifyError> {
    let mut claims = claims();
    claims[name] = value;
    check(&sign(HEADER, &claims.to_string()))
}

fn without(name: &str) -> Result<Verified, VerifyError> {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    check(&sign(HEADER, &claims.to_string()))
}

pub(super) fn genuine_token() -> String {
    let token = sign(HEADER, &claims().to_string());
    assert!(check(&token).is_ok());
    token.expose().to_owned()
}

#[test]
fn a_token_as_okta_makes_it_is_believed() {
    let verified = check(&sign(HEADER, &claims().to_string())).unwrap();
    assert_eq!(verified.user().unwrap().as_str(), "alice@example.com");
    assert_eq!(verified.expires_at(), Some(Timestamp::from_secs(NOW + 3600)));
}

#[test]
fn a_token_as_rfc_9068_makes_it_is_believed() {
    let mut claims = claims();
    let members = claims.as_object_mut().unwrap();
    members.remove("cid");
    members.remove("scp");
    members.insert("client_id".into(), json!("client"));
    members.insert("scope".into(), json!("session:role:PUBLIC"));
    members.insert("aud".into(), json!(["https://sf.example"]));
    assert!(check(&sign(HEADER, &claims.to_string())).is_ok());
}

#[test]
fn every_required_claim_is_required() {
    for claim in ["iss", "aud", "exp", "iat", "sub", "scp", "cid"] {
        assert_eq!(without(claim).unwrap_err(), VerifyError::Claim(claim.into()), "{claim}");
        assert!(with(claim, json!(null)).is_err(), "{claim} null");
        assert!(with(claim, json!({"a": 1})).is_err(), "{claim} object");
    }
}

#[test]
fn every_claim_is_compared() {
    assert!(matches!(with("iss", json!("https://okta.example/oauth2/aus1/")), Err(VerifyError::Issuer(_))));
    assert!(matches!(with("aud", json!("https://SF.example")), Err(VerifyError::Audience(_))));
    assert!(matches!(with("aud", json!([])), Err(VerifyError::Audience(_))));
    assert!(matches!(with("cid", json!("other")), Err(VerifyError::Client(_))));
    assert!(matches!(with("client_id", json!("other")), Err(VerifyError::Client(_))), "both must agree");
    assert!(matches!(with("sub", json!("mallory@example.com")), Err(VerifyError::User(_))));
    assert!(matches!(with("scp", json!(["session:role:ADMIN"])), Err(VerifyError::Scope { .. })));
    assert!(matches!(with("scp", json!([])), Err(VerifyError::Scope { .. })));
    assert!(
        matches!(
            with("scp", json!(["session:role:PUBLIC", "session:role:ADMIN"])),
            Err(VerifyError::Scope { .. })
        ),
        "more than was asked for"
    );
    assert!(
        matches!(with("scope", json!("session:role:ADMIN")), Err(VerifyError::Scope { .. })),
        "both must agree"
    );
}

#[test]
fn times_have_a_minute_of_leeway_and_no_more() {
    assert!(with("exp", json!(NOW - 59)).is_ok());
    assert_eq!(with("exp", json!(NOW - 60)).unwrap_err(), VerifyError::Expired);
    assert!(with("iat", json!(NOW + 60)).is_ok());
    assert_eq!(with("iat", json!(NOW + 61)).unwrap_err(), VerifyError::NotYetValid);
    assert_eq!(with("nbf", json!(NOW + 61)).unwrap_err(), VerifyError::NotYetValid);
    assert_eq!(with("nbf", json!("soon")).unwrap_err(), VerifyError::Claim("nbf".into()));
    assert_eq!(with("exp", json!(-1e300)).unwrap_err(), VerifyError::Expired);
    assert_eq!(with("exp", json!("1900000000")).unwrap_err(), VerifyError::Claim("exp".into()));
}

#[test]
fn the_algorithm_is_pinned_before_a_key_is_looked_for() {
    for algorithm in ["none", "None", "HS256", "RS384", "PS256", "ES256", ""] {
        let header = format!(r#"{{"alg":"{algorithm}","kid":"no such key"}}"#);
        let token = sign(&header, &claims().to_string());
        assert_eq!(check(&token).unwrap_err(), VerifyError::Algorithm(algorithm.into()));
    }
}

#[test]
fn an_unsigned_token_is_not_believed() {
    let signed = sign(HEADER, &claims().to_string());
    let bare = signed.expose().rsplit_once('.').unwrap().0.to_owned();
    assert_eq!(check(&Secret::new(format!("{bare}."))).unwrap_err(), VerifyError::Signature);
    assert_eq!(check(&Secret::new(bare)).unwrap_err(), VerifyError::NotAJwt);
}

#[test]
fn a_changed_payload_is_not_believed() {
    let signed = sign(HEADER, &claims().to_string());
    let parts: Vec<&str> = signed.expose().split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(claims().to_string().replace("alice", "malice"));
    assert_eq!(
        check(&Secret::new(format!("{}.{other}.{}", parts[0], parts[2]))).unwrap_err(),
        VerifyError::Signature
    );
}

#[test]
fn a_key_that_the_token_brings_along_is_never_used() {
    let jwk = r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#;
    let header = format!(
        r#"{{"alg":"RS256","kid":"other","jwk":{jwk},"jku":"http://127.0.0.1:1/","x5u":"http://127.0.0.1:1/"}}"#
    );
    assert_eq!(check(&sign(&header, &claims().to_string())).unwrap_err(), VerifyError::Key(NoKey::Unknown));
    assert_eq!(
        check(&sign(r#"{"alg":"RS256"}"#, &claims().to_string())).unwrap_err(),
        VerifyError::Key(NoKey::Unnamed)
    );
}

#[test]
fn critical_extensions_are_refused() {
    let header = r#"{"alg":"RS256","kid":"active","crit":["b64"],"b64":false}"#;
    assert_eq!(check(&sign(header, &claims().to_string())).unwrap_err(), VerifyError::Critical);
}

#[test]
fn a_claim_that_stands_twice_is_refused() {
    let payload = claims().to_string().replacen('{', r#"{"sub":"mallory@example.com","#, 1);
    assert_eq!(check(&sign(HEADER, &payload)).unwrap_err(), VerifyError::NotAJwt);
}

#[test]
fn five_parts_and_other_texts_are_told_apart() {
    assert_eq!(check(&Secret::new("a.b.c.d.e".into())).unwrap_err(), VerifyError::Encrypted);
    for text in ["", "opaque", "a.b", "a.b.c.d", "a.b.c.d.e.f", "ä.b.c", "e30.e30.e30", &"a.".repeat(70_000)]
    {
        assert_eq!(check(&Secret::new(text.to_owned())).unwrap_err(), VerifyError::NotAJwt, "{text:.20}");
    }
}

#[test]
fn an_error_says_nothing_of_the_token_but_names() {
    let token = sign(HEADER, &claims().to_string());
    let signature = token.expose().rsplit('.').next().unwrap().to_owned();
    for error in [
        check(&Secret::new(token.expose().replace("ey", "e"))).unwrap_err(),
        with("aud", json!("x")).unwrap_err(),
    ] {
        assert!(!format!("{error} {error:?}").contains(&signature[..20]));
    }
}
