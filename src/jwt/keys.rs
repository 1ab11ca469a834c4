//! Key sets (RFC 7517): which of a server's keys may verify its tokens.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

/// NIST SP 800-131A and RFC 7518 §3.3; the upper bound keeps one verification from costing seconds.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Okta publishes three. A set beyond this is not one.
const MOST_KEYS: usize = 100;

/// The keys of one document.
#[derive(Clone, Default)]
pub struct KeySet(HashMap<String, Result<DecodingKey, &'static str>>);

/// No key for a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// The token does not say which.
    #[error("the access token names no key (`kid`)")]
    Unnamed,
    /// The set has no such key; a newer one may.
    #[error("the access token is signed with a key that the authorization server does not publish")]
    Unknown,
    /// The set has it, but it must not be used.
    #[error("the access token is signed with a key that is not acceptable: {0}")]
    Unacceptable(&'static str),
}

/// Why a document was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeySet {
    /// Not `{"keys": […]}`.
    #[error("not a key set (RFC 7517)")]
    NotAKeySet,
    /// Nothing in it could verify a token.
    #[error("no usable key: RS256 with at least 2048 bits and a `kid` is needed")]
    NothingUsable,
}

impl KeySet {
    /// Reads a document. Keys of other kinds or uses are skipped (RFC 7517 §5), weak ones kept as refused.
    ///
    /// # Errors
    /// If it is no key set, or has no usable key: the set in use is better than this one.
    pub fn parse(document: &[u8]) -> Result<Self, BadKeySet> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document = serde_json::from_slice(document).map_err(|_| BadKeySet::NotAKeySet)?;
        let mut keys = HashMap::new();
        for jwk in document.keys.iter().take(MOST_KEYS) {
            if let Some((kid, key)) = read(jwk) {
                keys.entry(kid).or_insert(key);
            }
        }
        if keys.values().all(Result::is_err) { Err(BadKeySet::NothingUsable) } else { Ok(Self(keys)) }
    }

    /// The key that a token's header names; `kid` is compared byte for byte.
    ///
    /// # Errors
    /// Where there is none that may be used.
    pub fn find(&self, kid: Option<&str>) -> Result<&DecodingKey, NoKey> {
        let found = self.0.get(kid.ok_or(NoKey::Unnamed)?).ok_or(NoKey::Unknown)?;
        found.as_ref().map_err(|why| NoKey::Unacceptable(why))
    }

    /// How many keys may be used.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.0.values().filter(|key| key.is_ok()).count()
    }
}

/// A key for RS256 signatures, or why it must not be used; `None` for keys that are for something else.
fn read(jwk: &Value) -> Option<(String, Result<DecodingKey, &'static str>)> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let kid = text("kid")?.to_owned();
    let for_signatures = text("use").is_none_or(|usage| usage == "sig");
    let for_us = text("alg").is_none_or(|algorithm| algorithm == "RS256");
    if text("kty") != Some("RSA") || !for_signatures || !for_us {
        return None;
    }
    let number = |name: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(text(name)?).ok()?;
        let first = bytes.iter().position(|byte| *byte != 0)?;
        Some(bytes.get(first..)?.to_vec())
    };
    let key = match (number("n"), number("e")) {
        (Some(modulus), Some(exponent)) => {
            let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
            if !MODULUS_BITS.contains(&(modulus.len() * 8 - zeros)) {
                Err("its length is not between 2048 and 8192 bits")
            } else if exponent.last().is_none_or(|byte| byte % 2 == 0) || exponent == [1] {
                Err("its public exponent is not an odd number above 1")
            } else {
                Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
            }
        }
        _ => Err("it is malformed"),
    };
    Some((kid, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsa(kid: &str, bytes: usize) -> String {
        let modulus = URL_SAFE_NO_PAD.encode(vec![0xC1; bytes]);
        format!(r#"{{"kty":"RSA","use":"sig","alg":"RS256","kid":"{kid}","n":"{modulus}","e":"AQAB"}}"#)
    }

    fn parse(keys: &str) -> Result<KeySet, BadKeySet> {
        KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes())
    }

    #[test]
    fn keys_of_other_kinds_and_malformed_elements_are_skipped() {
        let set =
            parse(&format!(r#"1, {{"kty":"EC","kid":"e"}}, {{"kty":"RSA"}}, {}"#, rsa("a", 256))).unwrap();
        assert_eq!(set.usable(), 1);
        assert!(set.find(Some("a")).is_ok());
        assert_eq!(set.find(Some("A")).err(), Some(NoKey::Unknown));
        assert_eq!(set.find(None).err(), Some(NoKey::Unnamed));
    }

    #[test]
    fn a_weak_key_is_known_but_refused() {
        let set = parse(&format!("{}, {}", rsa("weak", 128), rsa("good", 256))).unwrap();
        assert!(matches!(set.find(Some("weak")), Err(NoKey::Unacceptable(_))));
    }

    #[test]
    fn a_modulus_padded_with_zeros_is_not_made_stronger() {
        let modulus = URL_SAFE_NO_PAD.encode([vec![0; 128], vec![0xC1; 128]].concat());
        let padded = format!(r#"{{"kty":"RSA","kid":"p","n":"{modulus}","e":"AQAB"}}"#);
        let set = parse(&format!("{padded}, {}", rsa("good", 256))).unwrap();
        assert!(matches!(set.find(Some("p")), Err(NoKey::Unacceptable(_))));
    }

    #[test]
    fn a_document_without_a_usable_key_is_refused() {
        assert_eq!(parse("").err(), Some(BadKeySet::NothingUsable));
        assert_eq!(parse(&rsa("weak", 64)).err(), Some(BadKeySet::NothingUsable));
        for bad in ["", "[]", "{}", r#"{"keys":1}"#, "<html>"] {
            assert_eq!(KeySet::parse(bad.as_bytes()).err(), Some(BadKeySet::NotAKeySet), "{bad}");
        }
    }
}
