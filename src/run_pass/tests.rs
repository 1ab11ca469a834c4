use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;

/// Keys of the platform, and what signs with them.
struct Platform(Ed25519KeyPair);

impl Platform {
    fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    fn keys(&self) -> KeySet {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        let document = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "p", "x": x }] });
        KeySet::parse(document.to_string().as_bytes(), &ALGORITHMS).unwrap()
    }

    fn sign(&self, claims: &Value) -> Secret {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", part(r#"{"alg":"EdDSA","kid":"p"}"#), part(&claims.to_string()));
        let signature = self.0.sign(signed.as_bytes());
        Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://workflows.example", "aud": ["bursar", "x"], "jti": "run-1", "sub": "alice",
        "iat": NOW, "exp": NOW + 3600, "services": ["snowflake:ANALYST", "databricks"],
    })
}

fn expected() -> Expectation {
    Expectation {
        issuer: "https://workflows.example".into(),
        audience: "bursar".into(),
        max_lifetime: Duration::from_hours(2),
    }
}

fn judge(claims: &Value) -> Result<RunPass, Unbelieved> {
    let platform = Platform::new();
    verify(&platform.sign(claims), &platform.keys(), &expected(), Timestamp::from_secs(NOW))
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[test]
fn a_pass_says_who_and_what_and_for_how_long() {
    let pass = judge(&claims()).unwrap();
    assert_eq!((pass.run().as_str(), pass.user().as_str()), ("run-1", "alice"));
    assert_eq!(pass.expires_at(), Timestamp::from_secs(NOW + 3600));
    let (snowflake, databricks) =
        (ServiceName::parse("snowflake").unwrap(), ServiceName::parse("databricks").unwrap());
    let (analyst, public) = (RoleName::parse("ANALYST"), RoleName::parse("PUBLIC"));
    assert!(pass.covers(&snowflake, analyst.as_ref()) && pass.covers(&databricks, None));
    assert!(pass.covers(&databricks, public.as_ref()), "a whole service is all its roles");
    assert!(!pass.covers(&snowflake, None) && !pass.covers(&snowflake, public.as_ref()));
}

#[test]
fn each_claim_that_is_missing_wrong_or_of_another_type_is_named() {
    for (name, value, why) in [
        ("iss", json!("https://workflows.example/"), Unbelieved::Issuer),
        ("iss", json!(["https://workflows.example"]), Unbelieved::Claim("iss")),
        ("aud", json!("bursa"), Unbelieved::Audience),
        ("aud", Value::Null, Unbelieved::Claim("aud")),
        ("exp", Value::Null, Unbelieved::Claim("exp")),
        ("exp", json!("1800003600"), Unbelieved::Claim("exp")),
        ("exp", json!(NOW), Unbelieved::Expired),
        ("exp", json!(NOW - 1), Unbelieved::Expired),
        ("exp", json!(NOW + 7201), Unbelieved::TooLong),
        ("iat", json!(NOW - 3601), Unbelieved::TooLong),
        ("iat", json!(NOW + 61), Unbelieved::NotYetValid),
        ("iat", json!("now"), Unbelieved::Claim("iat")),
        ("nbf", json!(NOW + 61), Unbelieved::NotYetValid),
        ("nbf", json!([]), Unbelieved::Claim("nbf")),
        ("jti", json!(""), Unbelieved::Claim("jti")),
        ("jti", json!(7), Unbelieved::Claim("jti")),
        ("jti", json!("a\nb"), Unbelieved::Claim("jti")),
        ("sub", json!(""), Unbelieved::Claim("sub")),
        ("sub", json!(["alice"]), Unbelieved::Claim("sub")),
        ("services", Value::Null, Unbelieved::Claim("services")),
        ("services", json!([1]), Unbelieved::Claim("services")),
        ("services", json!(["snowflake:"]), Unbelieved::Claim("services")),
        ("services", json!(vec!["a"; MOST_ENTITLEMENTS + 1]), Unbelieved::Claim("services")),
    ] {
        assert_eq!(judge(&with(name, value.clone())).err(), Some(why), "{name} = {value}");
    }
    for name in ["iss", "aud", "exp", "jti", "sub", "services"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        assert!(judge(&claims).is_err(), "without {name}");
    }
}

#[test]
fn a_pass_without_iat_may_live_as_long_from_now() {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove("iat");
    claims["exp"] = json!(NOW + 7200 + 60);
    assert!(judge(&claims).is_ok());
    claims["exp"] = json!(NOW + 7200 + 61);
    assert_eq!(judge(&claims).err(), Some(Unbelieved::TooLong));
}

#[test]
fn no_services_is_a_pass_for_nothing() {
    let pass = judge(&with("services", json!([]))).unwrap();
    assert!(!pass.covers(&ServiceName::parse("snowflake").unwrap(), None));
}

#[test]
fn a_pass_that_is_changed_signed_by_another_or_by_nobody_is_not_believed() {
    let (platform, other) = (Platform::new(), Platform::new());
    let judge = |pass: &str| {
        verify(&Secret::new(pass.to_owned()), &platform.keys(), &expected(), Timestamp::from_secs(NOW)).err()
    };
    let good = platform.sign(&claims());
    assert_eq!(judge(good.expose()), None);
    assert_eq!(judge(other.sign(&claims()).expose()), Some(Unbelieved::Signature));
    let parts: Vec<&str> = good.expose().split('.').collect();
    let mut richer = claims();
    richer["services"] = json!(["*"]);
    let richer = URL_SAFE_NO_PAD.encode(richer.to_string());
    assert_eq!(judge(&format!("{}.{richer}.{}", parts[0], parts[2])), Some(Unbelieved::Signature));
    assert_eq!(judge(&format!("{}.{}.", parts[0], parts[1])), Some(Unbelieved::Signature));
    let header = |header: &str| format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), parts[1], parts[2]);
    assert_eq!(judge(&header(r#"{"alg":"none"}"#)), Some(Unbelieved::Algorithm));
    assert_eq!(judge(&header(r#"{"alg":"HS256","kid":"p"}"#)), Some(Unbelieved::Algorithm));
    assert_eq!(judge(&header(r#"{"alg":"PS256","kid":"p"}"#)), Some(Unbelieved::Algorithm));
    assert_eq!(judge(&header(r#"{"alg":"EdDSA","kid":"q"}"#)), Some(Unbelieved::Key));
    assert_eq!(judge(&header(r#"{"alg":"ES256","kid":"p"}"#)), Some(Unbelieved::Key));
    assert_eq!(judge(&header(r#"{"alg":"EdDSA","kid":"p","crit":["b64"]}"#)), Some(Unbelieved::Critical));
    assert_eq!(judge("a.b"), Some(Unbelieved::Malformed));
}
