//! One RSA signing key, and what is published of it.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// 2048 bits, for RS256.
#[derive(Clone)]
pub(super) struct SigningKey {
    kid: String,
    pair: Arc<KeyPair>,
}

impl SigningKey {
    /// Takes a tenth of a second or more: not for the thread that answers requests.
    pub(super) fn generate() -> Result<Self, Unspecified> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, pair.public_key().as_ref()));
        Ok(Self { kid, pair: Arc::new(pair) })
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).ok()?;
        Some(signature)
    }

    /// The public half as a JWK (RFC 7517), with the members that Okta gives.
    pub(super) fn jwk(&self) -> Option<Value> {
        let (n, e) = modulus_and_exponent(self.pair.public_key().as_ref())?;
        Some(jwk(&self.kid, n, e))
    }

    /// The public half as a PEM file, line breaks and all: what a confused verifier would take as an HMAC key.
    pub(super) fn public_pem(&self) -> Option<String> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().ok()?;
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        Some(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n")))
    }
}

pub(super) fn jwk(kid: &str, n: &[u8], e: &[u8]) -> Value {
    let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
    json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": n, "e": e })
}

/// Takes an `RSAPublicKey` (RFC 8017 A.1.1) apart.
fn modulus_and_exponent(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    let (sequence, _) = element(SEQUENCE, der)?;
    let (n, rest) = element(INTEGER, sequence)?;
    let (e, _) = element(INTEGER, rest)?;
    // A DER integer whose first bit is set has a zero before it, a JWK's has not.
    Some((n.strip_prefix(&[0]).unwrap_or(n), e))
}

/// The content of the DER element that `der` begins with, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, short], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if short < 0x80 {
        (usize::from(short), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
        (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey};

    use super::*;

    #[test]
    fn a_verifier_that_reads_the_jwk_accepts_the_signature() {
        let key = SigningKey::generate().unwrap();
        let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.jwk().unwrap()).unwrap();
        let signature = URL_SAFE_NO_PAD.encode(key.sign(b"message").unwrap());
        let decoding = DecodingKey::from_jwk(&jwk).unwrap();
        assert!(jsonwebtoken::crypto::verify(&signature, b"message", &decoding, Algorithm::RS256).unwrap());
        assert!(!jsonwebtoken::crypto::verify(&signature, b"massage", &decoding, Algorithm::RS256).unwrap());
    }

    #[test]
    fn an_element_cut_short_is_none() {
        assert_eq!(element(2, &[2, 3, 1, 2]), None);
        assert_eq!(element(2, &[2, 0x82, 1]), None);
        assert_eq!(element(2, &[2, 1, 7, 9]), Some((&[7][..], &[9][..])));
    }
}
