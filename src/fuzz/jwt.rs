use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::fuzz::LONGEST_COMPLAINT;
use crate::jwt::keys::KeySet;
use crate::jwt::{
    Expectation, SigningAlgorithm, VerifyError, claimed_expiry, claimed_text, introspect, verify,
};
use crate::model::{Scope, UserName};
use crate::secret::Secret;

pub(super) const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://company.okta.com/oauth2/aus1";
const AUDIENCE: &str = "https://abc12345.snowflakecomputing.com";
const CLIENT: &str = "0oa1abcd";
const USER: &str = "alice@example.com";

/// The one key that signs here; Ed25519, because it is fast and signs the same text alike every time.
static KEY: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(b"the key that signs while fuzzing").unwrap());

/// It and two keys that nobody has, so that each algorithm is looked into.
pub(super) static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let document = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": "fuzz", "x": URL_SAFE_NO_PAD.encode(KEY.public_key())},
        {"kty": "RSA", "kid": "rsa", "n": URL_SAFE_NO_PAD.encode([0xC1; 256]), "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    ]});
    KeySet::parse(document.to_string().as_bytes(), &SigningAlgorithm::ALL).unwrap()
});

/// The tokens that are genuine without anybody's doing here.
static ISSUED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let header = r#"{"alg":"EdDSA","kid":"fuzz"}"#;
    let okta = json!({"ver": 1, "jti": "AT.x", "iss": ISSUER, "aud": AUDIENCE, "iat": NOW, "exp": NOW + 3600, "cid": CLIENT,
        "uid": "00u1", "sub": USER, "scp": ["offline_access", "session:role:PUBLIC"]});
    let rfc_9068 = json!({"iss": ISSUER, "aud": [AUDIENCE], "iat": NOW, "exp": NOW + 3600, "client_id": CLIENT, "sub": USER,
        "scope": "session:role:PUBLIC"});
    [okta, rfc_9068].iter().map(|claims| signed(header, &claims.to_string())).collect()
});

/// A JWT as it comes; or, behind a `+`, a header, the line's end and a payload, which are then signed, so that what stands
/// behind the signature is reached too.
pub fn jwt(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    match text.strip_prefix('+').and_then(|text| text.split_once('\n')) {
        Some((header, payload)) => {
            let token = Secret::new(signed(header, payload));
            let accepted = look(&token);
            if accepted {
                assert_is_as_expected(header, payload);
            }
            accepted
        }
        None => {
            let accepted = look(&Secret::new(text.to_owned()));
            assert!(!accepted || ISSUED.iter().any(|issued| issued == text), "nobody signed {text}");
            accepted
        }
    }
}

pub(super) fn signed(header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = KEY.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Whether it is believed. What reads a token without believing it, or asks for less, must not see another one.
fn look(token: &Secret) -> bool {
    let (user, scope) =
        (UserName::parse(USER).unwrap(), Scope::from_wire("session:role:PUBLIC offline_access"));
    let expected = Expectation {
        issuer: ISSUER,
        audience: AUDIENCE,
        client_id: CLIENT,
        user_claim: "sub",
        user: Some(&user),
        scope: &scope,
    };
    let now = Timestamp::from_secs(NOW);
    let verified = verify(token, &KEYS, &expected, now);
    let read = introspect(token, &KEYS, ISSUER, AUDIENCE, now);
    for error in [verified.as_ref().err(), read.as_ref().err()].into_iter().flatten() {
        assert!(error.to_string().len() <= LONGEST_COMPLAINT);
    }
    if let Ok(claims) = &read {
        assert_eq!(claims.text("iss"), Some(ISSUER));
        assert!(claimed_expiry(token).is_some_and(|end| end > now));
    }
    let Ok(verified) = verified else { return false };
    assert!(matches!(read, Ok(_) | Err(VerifyError::Expired)), "only the leeway at its end is not the same");
    assert_eq!(verified.expires_at(), claimed_expiry(token));
    assert_eq!(verified.user(), Some(&user));
    assert_eq!(claimed_text(token, "sub").as_deref(), Some(USER));
    true
}

/// The same by another reader, which takes the last of members that stand twice.
fn assert_is_as_expected(header: &str, payload: &str) {
    let header: Value = serde_json::from_str(header).unwrap();
    assert_eq!((&header["alg"], &header["kid"]), (&json!("EdDSA"), &json!("fuzz")));
    assert!(header.get("crit").is_none());
    let claims: Value = serde_json::from_str(payload).unwrap();
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(ISSUER), &json!(USER)));
    let audience = &claims["aud"];
    assert!(audience == AUDIENCE || audience.as_array().is_some_and(|all| all.contains(&json!(AUDIENCE))));
    assert!([&claims["cid"], &claims["client_id"]].iter().any(|client| **client == CLIENT));
    let time = |name: &str| claims[name].as_f64().unwrap();
    assert!(time("exp") > 1_799_999_939.0 && time("iat") < 1_800_000_061.0);
    let words = |scope: &str| scope.split(' ').all(|word| word.is_empty() || scope_is_known(word));
    if let Some(scopes) = claims.get("scp") {
        // A server that writes several words into one element means the same.
        let list = scopes.as_array().cloned().unwrap_or_else(|| vec![scopes.clone()]);
        assert!(list.iter().all(|scope| scope.as_str().is_some_and(words)), "{scopes}");
    }
    if let Some(scope) = claims.get("scope") {
        assert!(scope.as_str().is_some_and(words), "{scope}");
    }
}

fn scope_is_known(word: &str) -> bool {
    word == "session:role:PUBLIC"
        || ["openid", "profile", "email", "address", "phone", "offline_access", "device_sso"].contains(&word)
}
