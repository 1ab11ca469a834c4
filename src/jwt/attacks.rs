//! The attacks of RFC 8725 and its like, written out. docs/jwt.md says which there are, and which of them need no test.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::json;

use super::tests::{HEADER, NOW, check, claims, genuine_token, jwks, pair, sign, sign_text};
use super::*;

mod contents;

/// Why it is neither believed when it comes from the token endpoint nor when somebody shows it.
fn refused(token: &Secret, keys: &KeySet) -> VerifyError {
    let (alice, scope) = (UserName::parse("alice@example.com"), Scope::from_wire("session:role:PUBLIC"));
    let expected = Expectation {
        issuer: "https://okta.example/oauth2/aus1",
        audience: "https://sf.example",
        client_id: "client",
        user_claim: "sub",
        user: alice.as_ref(),
        scope: &scope,
    };
    let now = Timestamp::from_secs(NOW);
    let shown = introspect(token, keys, expected.issuer, expected.audience, now).unwrap_err();
    assert_eq!(verify(token, keys, &expected, now).unwrap_err(), shown);
    shown
}

/// A token with a signature of one's own choice.
fn forge(header: &str, signature: &[u8]) -> Secret {
    let signed = signed_text(header, &claims().to_string());
    Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn signed_text(header: &str, payload: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
}

/// A key on P-256, and the set that publishes it.
fn p256() -> (EcdsaKeyPair, KeySet) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let document = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "active",
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)}]});
    let keys = KeySet::parse(document.to_string().as_bytes(), &[SigningAlgorithm::Es256]).unwrap();
    (pair, keys)
}

#[test]
fn none_is_no_algorithm_however_it_is_spelled() {
    for none in ["none", "None", "NONE", "nOnE", "none ", " none", "none\u{0}", "nοne", ""] {
        let header = json!({"alg": none, "kid": "active"}).to_string();
        for signature in [&b""[..], b"none", &[0; 256]] {
            let token = forge(&header, signature);
            assert_eq!(refused(&token, &jwks()), VerifyError::Algorithm(none.into()));
        }
    }
    for header in
        [r#"{"kid":"active"}"#, r#"{"alg":null,"kid":"active"}"#, r#"{"alg":["RS256"],"kid":"active"}"#]
    {
        assert_eq!(refused(&forge(header, b""), &jwks()), VerifyError::NotAJwt, "{header}");
    }
}

#[test]
fn a_public_key_is_no_secret_for_hmac() {
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(pair().public_key()).unwrap();
    let base64 = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"));
    let modulus = pair().public_key().modulus().big_endian_without_leading_zero().to_vec();
    let jwk = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(&modulus), "e": "AQAB"}).to_string();
    let with_line_end = format!("{pem}\n");
    for secret in [
        pem.as_bytes(),
        with_line_end.as_bytes(),
        der.as_ref(),
        pair().public_key().as_ref(),
        jwk.as_bytes(),
        &modulus,
        b"",
    ] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        for algorithm in ["HS256", "hs256", "HS512"] {
            let header = json!({"alg": algorithm, "kid": "active"}).to_string();
            let tag = hmac::sign(&key, signed_text(&header, &claims().to_string()).as_bytes());
            let expected = VerifyError::Algorithm(algorithm.into());
            assert_eq!(refused(&forge(&header, tag.as_ref()), &jwks()), expected);
        }
        let tag = hmac::sign(&key, signed_text(HEADER, &claims().to_string()).as_bytes());
        assert_eq!(refused(&forge(HEADER, tag.as_ref()), &jwks()), VerifyError::Signature);
    }
}

#[test]
fn a_key_is_not_used_with_another_kind_s_algorithm() {
    let ec = r#"{"kty":"EC","crv":"P-256","kid":"ec","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    let modulus = pair().public_key().modulus().big_endian_without_leading_zero().to_vec();
    let rsa = json!({"kty": "RSA", "kid": "rsa", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB"});
    let document = format!(r#"{{"keys":[{ec},{rsa}]}}"#);
    let keys = KeySet::parse(document.as_bytes(), &SigningAlgorithm::ALL).unwrap();
    for (algorithm, kid) in
        [("ES256", "rsa"), ("EdDSA", "rsa"), ("RS256", "ec"), ("PS256", "ec"), ("EdDSA", "ec")]
    {
        let header = json!({"alg": algorithm, "kid": kid}).to_string();
        let found = refused(&sign(&header, &claims().to_string()), &keys);
        assert!(matches!(found, VerifyError::Key(NoKey::Unacceptable(_))), "{algorithm} {kid}: {found}");
    }
}

#[test]
fn an_empty_signature_and_one_of_another_length_are_wrong() {
    for signature in [vec![], vec![0; 1], vec![0; 255], vec![0; 256], vec![0; 257], vec![0xFF; 256]] {
        assert_eq!(refused(&forge(HEADER, &signature), &jwks()), VerifyError::Signature);
    }
}

/// CVE-2022-21449: zeros satisfy the equation of ECDSA for every key and every text.
#[test]
fn a_psychic_signature_is_wrong() {
    let (pair, keys) = p256();
    let header = r#"{"alg":"ES256","kid":"active"}"#;
    let good =
        pair.sign(&SystemRandom::new(), signed_text(header, &claims().to_string()).as_bytes()).unwrap();
    let expected = introspect(
        &forge(header, good.as_ref()),
        &keys,
        "https://okta.example/oauth2/aus1",
        "https://sf.example",
        Timestamp::from_secs(NOW),
    );
    assert!(expected.is_ok());
    // The group's order, which is zero there.
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&order[2 * at..2 * at + 2], 16).unwrap()).collect();
    let (zero, one) = (vec![0; 32], [vec![0; 31], vec![1]].concat());
    for r in [&zero, &one, &order] {
        for s in [&zero, &one, &order] {
            let forged = forge(header, &[r.as_slice(), s].concat());
            assert_eq!(refused(&forged, &keys), VerifyError::Signature);
        }
    }
    for signature in [vec![], vec![0; 63], vec![0; 65], [good.as_ref(), &[0]].concat()] {
        assert_eq!(refused(&forge(header, &signature), &keys), VerifyError::Signature);
    }
}

/// A point that is on no curve, or on a weaker one, says nothing about who holds a key.
#[test]
fn a_key_that_is_off_its_curve_vouches_for_nothing() {
    let (pair, _) = p256();
    let header = r#"{"alg":"ES256","kid":"active"}"#;
    let good =
        pair.sign(&SystemRandom::new(), signed_text(header, &claims().to_string()).as_bytes()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(&pair.public_key().as_ref()[1..33]);
    for y in [[0; 32], [1; 32], [0xFF; 32]] {
        let document = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "active", "x": x, "y": URL_SAFE_NO_PAD.encode(y)}]});
        let keys = KeySet::parse(document.to_string().as_bytes(), &[SigningAlgorithm::Es256]).unwrap();
        for signature in [good.as_ref(), &[0; 64]] {
            assert_eq!(refused(&forge(header, signature), &keys), VerifyError::Signature);
        }
    }
}

/// One way to write a token, so that nobody can make a second text of one that was logged, counted or refused.
#[test]
fn base64_is_taken_in_one_spelling_only() {
    let spelled = |engine: &GeneralPurpose, header: &str, payload: &str| {
        sign_text(&format!("{}.{}", engine.encode(header), engine.encode(payload)))
    };
    // As long as gives padding, and with letters that the alphabets write differently.
    let mut payload = claims();
    payload["x"] = json!("\u{fbff}\u{fbff}\u{3ff}");
    let mut payload = payload.to_string();
    while payload.len() % 3 != 1 || !STANDARD_NO_PAD.encode(&payload).contains(['+', '/']) {
        payload.push(' ');
    }
    let header = format!("{HEADER} ");
    assert!(header.len() % 3 != 0 && check(&spelled(&URL_SAFE_NO_PAD, &header, &payload)).is_ok());
    for engine in [&URL_SAFE, &STANDARD, &STANDARD_NO_PAD] {
        assert_eq!(refused(&spelled(engine, &header, &payload), &jwks()), VerifyError::NotAJwt);
    }
    let token = genuine_token();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    for engine in [&URL_SAFE, &STANDARD, &STANDARD_NO_PAD] {
        let other = format!("{signed}.{}", engine.encode(&signature));
        if other != token {
            assert_eq!(refused(&Secret::new(other), &jwks()), VerifyError::Signature);
        }
    }
    // 256 bytes leave four bits of the last letter over; they must be zero.
    let last = token.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).unwrap();
    assert_eq!(place % 16, 0);
    let trailing = format!("{}{}", &token[..token.len() - 1], &alphabet[place + 1..place + 2]);
    assert_eq!(refused(&Secret::new(trailing), &jwks()), VerifyError::Signature);
    for (from, to) in [(".", ". "), (".", "\n."), (".", "..")] {
        refused(&Secret::new(token.replacen(from, to, 1)), &jwks());
    }
    for other in [format!("{token}="), format!("{token}\n"), format!(" {token}"), format!("{token}.")] {
        refused(&Secret::new(other), &jwks());
    }
}

#[test]
fn a_signature_over_another_text_is_wrong() {
    let token = genuine_token();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    // Detached (RFC 7515 appendix F), unencoded (RFC 7797), and with the dot at another place.
    for other in [
        format!("{header}..{signature}"),
        format!("{header}.{}.{signature}", claims()),
        format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(r#"{"kid":"active","alg":"RS256"}"#)),
        format!("{}.{}{payload}.{signature}", &header[..header.len() - 1], &header[header.len() - 1..]),
    ] {
        refused(&Secret::new(other), &jwks());
    }
}

#[test]
fn a_weak_key_of_the_set_is_not_used() {
    let pair = pair().public_key();
    let (n, e) = (pair.modulus().big_endian_without_leading_zero(), URL_SAFE_NO_PAD.encode([1, 0, 1]));
    let good = json!({"kty": "RSA", "kid": "good", "n": URL_SAFE_NO_PAD.encode(n), "e": e});
    for (bytes, e) in
        [(64, "AQAB"), (128, "AQAB"), (255, "AQAB"), (1025, "AQAB"), (256, "AQ"), (256, "AQAA"), (256, "AA")]
    {
        let weak =
            json!({"kty": "RSA", "kid": "weak", "n": URL_SAFE_NO_PAD.encode(vec![0xC1; bytes]), "e": e});
        let document = json!({"keys": [weak, good]}).to_string();
        let keys = KeySet::parse(document.as_bytes(), &[SigningAlgorithm::Rs256]).unwrap();
        let found = refused(&forge(r#"{"alg":"RS256","kid":"weak"}"#, &vec![1; bytes]), &keys);
        assert!(matches!(found, VerifyError::Key(NoKey::Unacceptable(_))), "{bytes} {e}: {found}");
    }
}

#[test]
fn a_key_for_encryption_or_another_algorithm_is_not_used() {
    let pair = pair().public_key();
    let n = URL_SAFE_NO_PAD.encode(pair.modulus().big_endian_without_leading_zero());
    let good = json!({"kty": "RSA", "kid": "good", "n": n, "e": "AQAB"});
    for (member, value) in
        [("use", "enc"), ("alg", "RS512"), ("alg", "RSA-OAEP-256"), ("alg", "PS256"), ("kty", "oct")]
    {
        let mut other = json!({"kty": "RSA", "kid": "active", "n": n, "e": "AQAB"});
        other[member] = json!(value);
        let document = json!({"keys": [other, good]}).to_string();
        let keys = KeySet::parse(document.as_bytes(), &[SigningAlgorithm::Rs256]).unwrap();
        let found = refused(&sign(HEADER, &claims().to_string()), &keys);
        assert_eq!(found, VerifyError::Key(NoKey::Unknown), "{member} {value}");
    }
}
