//! What is signed may still be meant for something else, or for somebody else's parser.

use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{forge, p256, refused, signed_text};
use crate::jwt::tests::{HEADER, NOW, check, claims, genuine_token, jwks, sign, sign_bytes};
use crate::jwt::*;

#[test]
fn what_must_be_understood_and_is_not_is_refused() {
    for crit in
        [json!(["b64"]), json!(["exp"]), json!(["alg"]), json!([]), json!("b64"), json!(null), json!({})]
    {
        let header = json!({"alg": "RS256", "kid": "active", "b64": false, "crit": crit}).to_string();
        let found = refused(&sign(&header, &claims().to_string()), &jwks());
        assert_eq!(found, VerifyError::Critical, "{crit}");
    }
}

/// A header may say anything: a key of the forger's own, and where to find it.
#[test]
fn no_key_or_address_of_the_token_is_looked_at() {
    let (other, _) = p256();
    let modulus = URL_SAFE_NO_PAD.encode([0xC1; 256]);
    let jwk = json!({"kty": "RSA", "kid": "active", "n": modulus, "e": "AQAB"});
    // Nobody listens there; that nobody is asked, the type shows: there is nothing to ask with.
    let address = "http://127.0.0.1:1/keys";
    for (member, value) in [
        ("jku", json!(address)),
        ("jwk", jwk),
        ("x5u", json!(address)),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
    ] {
        let mut header = json!({"alg": "RS256", "kid": "active"});
        header[member] = value.clone();
        assert!(check(&sign(&header.to_string(), &claims().to_string())).is_ok(), "{member} says nothing");
        let signature = other.sign(&SystemRandom::new(), b"x").unwrap();
        assert_eq!(refused(&forge(&header.to_string(), signature.as_ref()), &jwks()), VerifyError::Signature);
        header.as_object_mut().unwrap().remove("kid");
        let nameless = sign(&header.to_string(), &claims().to_string());
        assert_eq!(refused(&nameless, &jwks()), VerifyError::Key(NoKey::Unnamed), "{member}");
    }
}

#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let long = "k".repeat(40_000);
    for kid in [
        "../../../../dev/null",
        "/proc/self/environ",
        "active' OR '1'='1",
        "active'; DROP TABLE grants; --",
        "active\u{0}",
        "active ",
        "ACTIVE",
        "http://127.0.0.1:1/keys",
        "$(id)",
        "*",
        "",
        &long,
    ] {
        let header = json!({"alg": "RS256", "kid": kid}).to_string();
        let found = refused(&sign(&header, &claims().to_string()), &jwks());
        assert_eq!(found, VerifyError::Key(NoKey::Unknown), "{kid:.30}");
        assert!(found.to_string().len() < 200, "it is not repeated");
    }
    for kid in [json!(1), json!(null), json!(["active"]), json!({"active": 1})] {
        let header = json!({"alg": "RS256", "kid": kid}).to_string();
        let found = refused(&sign(&header, &claims().to_string()), &jwks());
        assert_eq!(found, VerifyError::Key(NoKey::Unnamed), "{kid}");
    }
}

#[test]
fn members_that_stand_twice_are_refused_in_header_and_claims() {
    for header in [
        r#"{"alg":"RS256","kid":"active","alg":"none"}"#,
        r#"{"alg":"none","kid":"active","alg":"RS256"}"#,
        r#"{"alg":"RS256","kid":"other","kid":"active"}"#,
        r#"{"alg":"RS256","kid":"active","k\u0069d":"active"}"#,
    ] {
        assert_eq!(refused(&sign(header, &claims().to_string()), &jwks()), VerifyError::NotAJwt, "{header}");
    }
    for claim in ["iss", "aud", "sub", "exp", "scp", "cid"] {
        let twice = claims().to_string().replacen('{', &format!(r#"{{"{claim}":{},"#, claims()[claim]), 1);
        assert_eq!(refused(&sign(HEADER, &twice), &jwks()), VerifyError::NotAJwt, "{claim}");
    }
}

/// RFC 8725 §2.6, §3.7.
#[test]
fn json_is_utf_8() {
    let utf_16: Vec<u8> = claims().to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut latin_1 = claims().to_string().replace("alice", "al\u{e9}ce").into_bytes();
    let at = latin_1.windows(2).position(|two| two == "\u{e9}".as_bytes()).unwrap();
    latin_1.splice(at..at + 2, [0xE9]);
    let marked = [b"\xEF\xBB\xBF", claims().to_string().as_bytes()].concat();
    for payload in [utf_16, latin_1, marked] {
        assert_eq!(refused(&sign_bytes(HEADER.as_bytes(), &payload), &jwks()), VerifyError::NotAJwt);
    }
}

#[test]
fn a_token_that_is_deep_or_huge_costs_little() {
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(refused(&sign(HEADER, &deep), &jwks()), VerifyError::NotAJwt);
    assert_eq!(refused(&sign(&deep, &claims().to_string()), &jwks()), VerifyError::NotAJwt);
    let deep_claim = claims().to_string().replacen('{', &format!(r#"{{"x":{deep},"#), 1);
    assert_eq!(refused(&sign(HEADER, &deep_claim), &jwks()), VerifyError::NotAJwt);
    let mut huge = claims();
    huge["x"] = json!("x".repeat(LONGEST));
    assert_eq!(refused(&sign(HEADER, &huge.to_string()), &jwks()), VerifyError::NotAJwt);
    assert_eq!(refused(&Secret::new(".".repeat(LONGEST)), &jwks()), VerifyError::NotAJwt);
}

#[test]
fn neither_an_encrypted_nor_a_nested_token_is_opened() {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RSA-OAEP-256","enc":"A256GCM","zip":"DEF"}"#);
    let encrypted = Secret::new(format!("{header}.a2V5.aXY.dGV4dA.dGFn"));
    assert_eq!(refused(&encrypted, &jwks()), VerifyError::Encrypted);
    let nested = sign(r#"{"alg":"RS256","kid":"active","cty":"JWT"}"#, &genuine_token());
    assert_eq!(refused(&nested, &jwks()), VerifyError::NotAJwt);
    // RFC 7515 §7.2: the same in JSON.
    let token = genuine_token();
    let parts: Vec<&str> = token.split('.').collect();
    for json in [
        json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}),
        json!({"payload": parts[1], "signatures": [{"protected": parts[0], "signature": parts[2]}]}),
    ] {
        assert_eq!(refused(&Secret::new(json.to_string()), &jwks()), VerifyError::NotAJwt);
    }
}

/// Okta signs all of these with the same keys.
#[test]
fn another_kind_of_jwt_is_no_access_token() {
    let issuer = claims()["iss"].clone();
    let id_token = json!({"ver": 1, "jti": "ID.x", "iss": issuer, "aud": "client", "sub": "alice@example.com", "iat": NOW,
        "exp": NOW + 3600, "amr": ["pwd"], "nonce": "n", "auth_time": NOW, "at_hash": "x", "preferred_username": "alice@example.com"});
    let found = refused(&sign(HEADER, &id_token.to_string()), &jwks());
    assert_eq!(found, VerifyError::Audience("\"client\"".into()));
    // Even where a client is called like the service.
    let mut confused = id_token.clone();
    confused["aud"] = json!("https://sf.example");
    let found = check(&sign(HEADER, &confused.to_string())).unwrap_err();
    assert_eq!(found, VerifyError::Claim("cid".into()));

    let logout = json!({"iss": issuer, "aud": "https://sf.example", "iat": NOW, "jti": "x", "sub": "alice@example.com",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}}});
    assert_eq!(refused(&sign(HEADER, &logout.to_string()), &jwks()), VerifyError::Claim("exp".into()));

    let run_pass = json!({"iss": "https://workflows.example.com", "aud": "bursar", "jti": "run", "iat": NOW,
        "exp": NOW + 3600, "sub": "alice@example.com", "services": ["snowflake:ANALYST"]});
    let found = refused(&sign(HEADER, &run_pass.to_string()), &jwks());
    assert_eq!(found, VerifyError::Issuer("https://workflows.example.com".into()));

    let assertion = json!({"iss": "client", "sub": "client", "aud": "https://okta.example/oauth2/aus1/v1/token",
        "iat": NOW, "exp": NOW + 300, "jti": "x"});
    assert_eq!(refused(&sign(HEADER, &assertion.to_string()), &jwks()), VerifyError::Issuer("client".into()));
}

#[test]
fn what_is_repeated_of_a_token_is_short() {
    let long = "\u{10ffff}".repeat(5000);
    let mut found = vec![refused(&sign(&json!({"alg": long}).to_string(), &claims().to_string()), &jwks())];
    found.push(refused(
        &sign(&json!({"alg": "RS256", "typ": long}).to_string(), &claims().to_string()),
        &jwks(),
    ));
    for (claim, value) in [
        ("iss", json!(long)),
        ("aud", json!(long)),
        ("aud", json!([long])),
        ("cid", json!(long)),
        ("scp", json!([long])),
    ] {
        let mut claims = claims();
        claims[claim] = value;
        found.push(check(&sign(HEADER, &claims.to_string())).unwrap_err());
    }
    for error in found {
        assert!(error.to_string().len() < 3000, "{}", error.to_string().len());
    }
}

/// RFC 8725 §3.11. That Okta says nothing, and others `JWT`, keeps us from asking for `at+jwt`.
#[test]
fn a_token_that_says_to_be_of_another_type_is_none() {
    let typed = |typ: Value| {
        sign(&json!({"alg": "RS256", "kid": "active", "typ": typ}).to_string(), &claims().to_string())
    };
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt"] {
        assert!(check(&typed(json!(typ))).is_ok(), "{typ}");
    }
    for typ in
        ["logout+jwt", "dpop+jwt", "secevent+jwt", "global-token-revocation+jwt", "JOSE", "", "application/"]
    {
        assert_eq!(refused(&typed(json!(typ)), &jwks()), VerifyError::Type(typ.into()));
    }
    for typ in [json!(null), json!(1), json!(["JWT"])] {
        assert_eq!(refused(&typed(typ), &jwks()), VerifyError::NotAJwt);
    }
}

#[test]
fn one_issuer_s_token_is_not_another_s() {
    for other in [
        "https://okta.example/oauth2/aus2",
        "https://okta.example/oauth2/aus1/",
        "https://okta.example",
        "https://OKTA.example/oauth2/aus1",
        "https://okta.example/oauth2/aus1\u{0}",
    ] {
        let mut claims = claims();
        claims["iss"] = json!(other);
        let found = refused(&sign(HEADER, &claims.to_string()), &jwks());
        assert_eq!(found, VerifyError::Issuer(other.into()), "by the same key");
    }
    // The other's own key, under the name that ours has.
    let theirs = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let mut signature = vec![0; theirs.public_modulus_len()];
    let text = signed_text(HEADER, &claims().to_string());
    let scheme = &aws_lc_rs::signature::RSA_PKCS1_SHA256;
    theirs.sign(scheme, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    assert_eq!(refused(&forge(HEADER, &signature), &jwks()), VerifyError::Signature);
}
