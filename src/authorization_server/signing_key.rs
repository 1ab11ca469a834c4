//! The key that our client assertions are signed with (`private_key_jwt`; RFC 7515).

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::guarded::{self, Holds};
use crate::secret::{Digest, Secret};

/// Okta, like everybody, refuses shorter ones.
const SHORTEST_MODULUS: usize = 2048 / 8;

/// A private key, and its id if the other side knows it by one.
pub struct SigningKey {
    pair: Pair,
    id: Option<String>,
    digest: Digest,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl SigningKey {
    /// From a PEM file: PKCS#8, PKCS#1 or SEC1; RSA of at least 2048 bits signs by RS256, P-256 by ES256.
    ///
    /// # Errors
    /// What is wrong with it, with its path.
    pub fn from_file(path: &Path, id: Option<String>) -> Result<Self, String> {
        let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
        let text = guarded::read(path, Holds::Secret).map_err(|error| failed(&error))?;
        let pem = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| failed(&error))?;
        let der = pem.secret_der();
        let pair = RsaKeyPair::from_pkcs8(der)
            .or_else(|_| RsaKeyPair::from_der(der))
            .map(Pair::Rsa)
            .or_else(|_| {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Pair::Ec)
            })
            .map_err(|_| failed(&"must be an RSA key or an EC key on P-256, unencrypted, in PEM"))?;
        if let Pair::Rsa(pair) = &pair
            && pair.public_modulus_len() < SHORTEST_MODULUS
        {
            return Err(failed(&"an RSA key must have at least 2048 bits"));
        }
        Ok(Self { pair, id, digest: Digest::of(der) })
    }

    /// The id that the other side knows it by.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it is the same key as `other`.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// Its public half, as a key set has it.
    pub(crate) fn public_jwk(&self) -> Value {
        use aws_lc_rs::signature::KeyPair as _;
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let kid = self.id.as_deref();
        match &self.pair {
            Pair::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let [n, e] = [n, e].map(|number| encode(number.big_endian_without_leading_zero()));
                json!({ "kty": "RSA", "kid": kid, "n": n, "e": e })
            }
            Pair::Ec(pair) => {
                // Behind the mark of an uncompressed point, both coordinates.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": encode(x), "y": encode(y) })
            }
        }
    }

    /// A JWT with these claims; `None` if the library refuses to sign.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> Option<Secret> {
        let mut header =
            json!({ "alg": if matches!(self.pair, Pair::Rsa(_)) { "RS256" } else { "ES256" }, "typ": "JWT" });
        if let (Some(header), Some(id)) = (header.as_object_mut(), &self.id) {
            header.insert("kid".to_owned(), Value::from(id.as_str()));
        }
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).ok()?;
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, signed.as_bytes()).ok()?.as_ref().to_vec(),
        };
        Some(Secret::new(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    };
    use base64::engine::general_purpose::STANDARD;

    fn write(directory: &tempfile::TempDir, der: &[u8]) -> std::path::PathBuf {
        let path = directory.path().join("key.pem");
        let text = STANDARD.encode(der);
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        crate::dev::write_private(&path, &pem).unwrap();
        path
    }

    fn parts(jwt: &Secret) -> (Vec<u8>, Vec<u8>, Value) {
        let (signed, signature) = jwt.expose().rsplit_once('.').unwrap();
        let header = signed.split('.').next().unwrap();
        let header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        (signed.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(signature).unwrap(), header)
    }

    #[test]
    fn both_kinds_of_keys_sign_what_their_public_halves_verify() {
        let directory = tempfile::tempdir().unwrap();
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let path = write(&directory, AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref());
        let key = SigningKey::from_file(&path, Some("first".into())).unwrap();
        let (signed, signature, header) = parts(&key.sign(&json!({"iss": "client"})).unwrap());
        assert_eq!(header, json!({"alg": "RS256", "typ": "JWT", "kid": "first"}));
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key())
            .verify(&signed, &signature)
            .unwrap();

        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let other = SigningKey::from_file(&write(&directory, pkcs8.as_ref()), None).unwrap();
        let (signed, signature, header) = parts(&other.sign(&json!({"iss": "client"})).unwrap());
        assert_eq!(header, json!({"alg": "ES256", "typ": "JWT"}));
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key())
            .verify(&signed, &signature)
            .unwrap();
        assert!(other.is(&other) && !other.is(&key));
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = write(&directory, b"no key");
        assert!(SigningKey::from_file(&path, None).err().unwrap().contains("key.pem"));
        assert!(SigningKey::from_file(&directory.path().join("gone"), None).is_err());
    }
}
