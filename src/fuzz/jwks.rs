use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::jwt::keys::KeySet;
use crate::jwt::{SigningAlgorithm, introspect};
use crate::secret::Secret;

/// A key set's document.
pub fn jwks(input: &[u8]) -> bool {
    let Ok(set) = KeySet::parse(input, &SigningAlgorithm::ALL) else { return false };
    assert!(set.usable() >= 1);
    let document: Value = serde_json::from_slice(input).unwrap();
    let keys = document["keys"].as_array().unwrap();
    let mut found = 0;
    // A key without a name is for tokens that name none.
    for kid in keys.iter().map(|key| key["kid"].as_str()) {
        for algorithm in SigningAlgorithm::ALL {
            if set.find(kid, algorithm).is_ok() {
                found += 1;
                let of_this_name = keys
                    .iter()
                    .filter(|key| key["kid"].as_str().unwrap_or_default() == kid.unwrap_or_default());
                assert!(of_this_name.into_iter().any(|key| is_for(key, algorithm)), "{kid:?} {algorithm:?}");
                assert_forgeries_are_refused(&set, kid, algorithm);
            }
        }
    }
    assert!(found >= set.usable());
    // Nothing is good for what is not configured.
    for algorithm in SigningAlgorithm::ALL {
        if let Ok(narrow) = KeySet::parse(input, &[algorithm]) {
            assert!(narrow.usable() >= 1);
            assert!(SigningAlgorithm::ALL.iter().all(|other| narrow.allows(*other) == (*other == algorithm)));
        }
    }
    true
}

/// Whether the key says nothing against being used so, and is strong enough.
fn is_for(key: &Value, algorithm: SigningAlgorithm) -> bool {
    use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};
    let is = |name: &str, wanted: &str| key[name].as_str() == Some(wanted);
    let bytes = |name: &str| {
        let bytes = key[name].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).unwrap_or_default();
        bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>()
    };
    let kind = match algorithm {
        Rs256 | Ps256 => {
            let (modulus, exponent) = (bytes("n"), bytes("e"));
            let strong = (256..=1024).contains(&modulus.len())
                && modulus.first().is_some_and(|first| modulus.len() > 256 || *first >= 0x80);
            is("kty", "RSA") && strong && exponent.last().is_some_and(|last| last % 2 == 1) && exponent != [1]
        }
        Es256 => is("kty", "EC") && is("crv", "P-256"),
        EdDsa => is("kty", "OKP") && is("crv", "Ed25519"),
    };
    kind && key["use"].as_str().is_none_or(|usage| usage == "sig")
        && key["alg"].as_str().is_none_or(|named| named == algorithm.as_str())
}

/// No key vouches for what needs no key to be written: nothing, zeros, ones. A key on Ed25519 of small order would; a
/// server that publishes one has given up its own key.
fn assert_forgeries_are_refused(set: &KeySet, kid: Option<&str>, algorithm: SigningAlgorithm) {
    if algorithm == SigningAlgorithm::EdDsa {
        return;
    }
    let header = serde_json::json!({ "alg": algorithm.as_str(), "kid": kid }).to_string();
    let signed = format!("{}.e30", URL_SAFE_NO_PAD.encode(header));
    for forged in [vec![], vec![0; 64], vec![0; 256], [vec![0; 255], vec![1]].concat(), vec![0xFF; 64]] {
        let token = Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(forged)));
        let error = introspect(&token, set, "", "", Timestamp::from_secs(0)).unwrap_err();
        assert_eq!(error, crate::jwt::VerifyError::Signature);
    }
}
