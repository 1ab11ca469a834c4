//! Key sets (RFC 7517): which of a server's keys may verify its tokens.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use crate::jwt::SigningAlgorithm;

/// NIST SP 800-131A and RFC 7518 §3.3; the upper bound keeps one verification from costing seconds.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Okta publishes three. A set beyond this is not one.
const MOST_KEYS: usize = 100;

/// The keys of one document, and the algorithms that they may be used with.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, Result<Key, &'static str>>,
    algorithms: Vec<SigningAlgorithm>,
}

/// A key, and what it is good for: one algorithm where the document names it (RFC 8725 §3.1).
#[derive(Clone)]
struct Key {
    decoding: DecodingKey,
    algorithms: Vec<SigningAlgorithm>,
}

/// No key for a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// The token does not say which.
    #[error("the token names no key (`kid`)")]
    Unnamed,
    /// The set has no such key; a newer one may.
    #[error("the token is signed with a key that the authorization server does not publish")]
    Unknown,
    /// The set has it, but it must not be used.
    #[error("the token is signed with a key that is not acceptable: {0}")]
    Unacceptable(&'static str),
}

/// Why a document was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeySet {
    /// Not `{"keys": […]}`.
    #[error("not a key set (RFC 7517)")]
    NotAKeySet,
    /// Nothing in it could verify a token.
    #[error("no usable key: one for one of signing_algorithms is needed, RSA with at least 2048 bits")]
    NothingUsable,
}

impl KeySet {
    /// Reads a document. Keys of other kinds or uses are skipped (RFC 7517 §5), weak ones kept as refused.
    ///
    /// # Errors
    /// If it is no key set, or has no usable key: the set in use is better than this one.
    pub fn parse(document: &[u8], algorithms: &[SigningAlgorithm]) -> Result<Self, BadKeySet> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        // A list would be taken by the order of the members.
        if !document.trim_ascii_start().starts_with(b"{") {
            return Err(BadKeySet::NotAKeySet);
        }
        let document: Document = serde_json::from_slice(document).map_err(|_| BadKeySet::NotAKeySet)?;
        let mut keys = HashMap::new();
        for jwk in document.keys.iter().take(MOST_KEYS) {
            if let Some((kid, key)) = read(jwk, algorithms) {
                keys.entry(kid).or_insert(key);
            }
        }
        if keys.values().all(Result::is_err) {
            return Err(BadKeySet::NothingUsable);
        }
        Ok(Self { keys, algorithms: algorithms.to_vec() })
    }

    /// Whether tokens may be signed with this algorithm at all: decided by configuration, before a key is looked for.
    #[must_use]
    pub fn allows(&self, algorithm: SigningAlgorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// The key that a token's header names; `kid` is compared byte for byte. A token that names none gets the key without
    /// a name, if there is one.
    ///
    /// # Errors
    /// Where there is none that may be used with `algorithm`.
    pub fn find(&self, kid: Option<&str>, algorithm: SigningAlgorithm) -> Result<&DecodingKey, NoKey> {
        let found = match kid {
            Some(kid) => self.keys.get(kid).ok_or(NoKey::Unknown)?,
            None => self.keys.get("").ok_or(NoKey::Unnamed)?,
        };
        let key = found.as_ref().map_err(|why| NoKey::Unacceptable(why))?;
        if key.algorithms.contains(&algorithm) {
            Ok(&key.decoding)
        } else {
            Err(NoKey::Unacceptable("it is for another algorithm"))
        }
    }

    /// How many keys may be used.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.keys.values().filter(|key| key.is_ok()).count()
    }
}

/// A key for signatures, or why it must not be used; `None` for keys that are for something else.
fn read(jwk: &Value, allowed: &[SigningAlgorithm]) -> Option<(String, Result<Key, &'static str>)> {
    use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    // RFC 7517 §4.5: optional, and a set of one key needs none.
    let kid = text("kid").unwrap_or_default().to_owned();
    if text("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    let of_its_kind: &[SigningAlgorithm] = match (text("kty")?, text("crv")) {
        ("RSA", _) => &[Rs256, Ps256],
        ("EC", Some("P-256")) => &[Es256],
        ("OKP", Some("Ed25519")) => &[EdDsa],
        _ => return None,
    };
    let algorithms: Vec<SigningAlgorithm> = of_its_kind
        .iter()
        .copied()
        .filter(|algorithm| allowed.contains(algorithm))
        .filter(|algorithm| text("alg").is_none_or(|alg| alg == algorithm.as_str()))
        .collect();
    let decoding = match algorithms.first()? {
        Rs256 | Ps256 => rsa(text("n"), text("e")),
        Es256 => coordinate(text("x"))
            .zip(coordinate(text("y")))
            .and_then(|(x, y)| DecodingKey::from_ec_components(x, y).ok())
            .ok_or(MALFORMED),
        EdDsa => coordinate(text("x")).and_then(|x| DecodingKey::from_ed_components(x).ok()).ok_or(MALFORMED),
    };
    // Of what has no name nobody would miss it.
    if kid.is_empty() && decoding.is_err() {
        return None;
    }
    Some((kid, decoding.map(|decoding| Key { decoding, algorithms })))
}

const MALFORMED: &str = "it is malformed";

/// 32 bytes, zeros and all (RFC 7518 §6.2.1.2, RFC 8037 §2): coordinates of other lengths, one behind the other, could make
/// up another point. Whether it is on its curve is looked at with each signature.
fn coordinate(text: Option<&str>) -> Option<&str> {
    text.filter(|text| URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32))
}

fn rsa(modulus: Option<&str>, exponent: Option<&str>) -> Result<DecodingKey, &'static str> {
    let number = |text: Option<&str>| {
        let bytes = URL_SAFE_NO_PAD.decode(text?).ok()?;
        let first = bytes.iter().position(|byte| *byte != 0)?;
        Some(bytes.get(first..)?.to_vec())
    };
    let (Some(modulus), Some(exponent)) = (number(modulus), number(exponent)) else { return Err(MALFORMED) };
    let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !MODULUS_BITS.contains(&(modulus.len() * 8 - zeros)) {
        Err("its length is not between 2048 and 8192 bits")
    } else if exponent.last().is_none_or(|byte| byte % 2 == 0) || exponent == [1] {
        Err("its public exponent is not an odd number above 1")
    } else {
        Ok(DecodingKey::from_rsa_raw_components(&modulus, &exponent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SigningAlgorithm::{EdDsa, Es256, Ps256, Rs256};

    fn rsa(kid: &str, bytes: usize) -> String {
        let modulus = URL_SAFE_NO_PAD.encode(vec![0xC1; bytes]);
        format!(r#"{{"kty":"RSA","use":"sig","alg":"RS256","kid":"{kid}","n":"{modulus}","e":"AQAB"}}"#)
    }

    fn parse(keys: &str) -> Result<KeySet, BadKeySet> {
        KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes(), &[Rs256])
    }

    #[test]
    fn keys_of_other_kinds_and_malformed_elements_are_skipped() {
        let set =
            parse(&format!(r#"1, {{"kty":"EC","kid":"e"}}, {{"kty":"RSA"}}, {}"#, rsa("a", 256))).unwrap();
        assert_eq!(set.usable(), 1);
        assert!(set.find(Some("a"), Rs256).is_ok());
        assert_eq!(set.find(Some("A"), Rs256).err(), Some(NoKey::Unknown));
        assert_eq!(set.find(None, Rs256).err(), Some(NoKey::Unnamed));
    }

    #[test]
    fn a_key_without_a_name_is_for_tokens_that_name_none() {
        let set = parse(&format!("{}, {}", rsa("", 256).replace(r#""kid":"","#, ""), rsa("a", 256))).unwrap();
        assert!(set.find(None, Rs256).is_ok());
        assert_eq!((set.usable(), set.find(Some("b"), Rs256).err()), (2, Some(NoKey::Unknown)));
    }

    #[test]
    fn a_weak_key_is_known_but_refused() {
        let set = parse(&format!("{}, {}", rsa("weak", 128), rsa("good", 256))).unwrap();
        assert!(matches!(set.find(Some("weak"), Rs256), Err(NoKey::Unacceptable(_))));
    }

    #[test]
    fn a_modulus_padded_with_zeros_is_not_made_stronger() {
        let modulus = URL_SAFE_NO_PAD.encode([vec![0; 128], vec![0xC1; 128]].concat());
        let padded = format!(r#"{{"kty":"RSA","kid":"p","n":"{modulus}","e":"AQAB"}}"#);
        let set = parse(&format!("{padded}, {}", rsa("good", 256))).unwrap();
        assert!(matches!(set.find(Some("p"), Rs256), Err(NoKey::Unacceptable(_))));
    }

    #[test]
    fn a_coordinate_has_its_whole_length() {
        let key = |x: usize, y: usize| {
            let [x, y] = [x, y].map(|bytes| URL_SAFE_NO_PAD.encode(vec![1; bytes]));
            format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"e","x":"{x}","y":"{y}"}}]}}"#)
        };
        assert!(KeySet::parse(key(32, 32).as_bytes(), &[Es256]).is_ok());
        for (x, y) in [(31, 33), (33, 31), (31, 32), (0, 64), (64, 0)] {
            let found = KeySet::parse(key(x, y).as_bytes(), &[Es256]).err();
            assert_eq!(found, Some(BadKeySet::NothingUsable), "{x} {y}");
        }
        let short = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"e","x":"AAAA"}]}"#;
        assert_eq!(KeySet::parse(short.as_bytes(), &[EdDsa]).err(), Some(BadKeySet::NothingUsable));
    }

    #[test]
    fn a_document_without_a_usable_key_is_refused() {
        assert_eq!(parse("").err(), Some(BadKeySet::NothingUsable));
        assert_eq!(parse(&rsa("weak", 64)).err(), Some(BadKeySet::NothingUsable));
        for bad in ["", "[]", "[[]]", "{}", r#"{"keys":1}"#, "<html>"] {
            assert_eq!(KeySet::parse(bad.as_bytes(), &[Rs256]).err(), Some(BadKeySet::NotAKeySet), "{bad}");
        }
    }

    #[test]
    fn a_key_is_good_for_the_algorithm_that_it_names_and_those_that_are_configured() {
        let untied = rsa("untied", 256).replace(r#""alg":"RS256","#, "");
        let ec = r#"{"kty":"EC","crv":"P-256","kid":"ec","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        let ed =
            r#"{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let document = format!(r#"{{"keys":[{},{untied},{ec},{ed}]}}"#, rsa("tied", 256));
        let set = KeySet::parse(document.as_bytes(), &[Rs256, Ps256, Es256, EdDsa]).unwrap();
        for (kid, good) in [
            ("tied", [true, false, false, false]),
            ("untied", [true, true, false, false]),
            ("ec", [false, false, true, false]),
            ("ed", [false, false, false, true]),
        ] {
            let found = [Rs256, Ps256, Es256, EdDsa].map(|algorithm| set.find(Some(kid), algorithm).is_ok());
            assert_eq!(found, good, "{kid}");
        }
        let narrow = KeySet::parse(document.as_bytes(), &[Es256]).unwrap();
        assert_eq!((narrow.usable(), narrow.allows(Rs256)), (1, false));
    }
}
