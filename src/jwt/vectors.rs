//! Project Wycheproof's vectors through the verifier: the key read from a key set as a server publishes it, the signature
//! by the call that every token goes through.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use wycheproof::TestResult;
use wycheproof::{ecdsa, eddsa, rsa_pkcs1_verify as pkcs1, rsa_pss_verify as pss};

use super::*;

/// How many signatures were believed and not.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    believed: usize,
    refused: usize,
}

impl Seen {
    /// One vector.
    fn see(&mut self, key: &KeySet, algorithm: SigningAlgorithm, vector: &Vector<'_>) {
        let key = key.find(Some("k"), algorithm).unwrap();
        let believed = is_signed(vector.message, &URL_SAFE_NO_PAD.encode(vector.signature), key, algorithm);
        assert_eq!(believed, vector.good, "{}", vector.name);
        if believed {
            self.believed += 1;
        } else {
            self.refused += 1;
        }
    }
}

struct Vector<'a> {
    name: String,
    message: &'a [u8],
    signature: &'a [u8],
    good: bool,
}

/// The key of a group, as the key set's rules take it.
fn key(jwk: &Value, algorithm: SigningAlgorithm) -> KeySet {
    let mut jwk = jwk.clone();
    jwk["kid"] = json!("k");
    let document = json!({"keys": [jwk]}).to_string();
    KeySet::parse(document.as_bytes(), &[algorithm]).unwrap()
}

fn rsa(n: &[u8], e: &[u8]) -> Value {
    json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e)})
}

fn p256(key: &wycheproof::EcdsaPublic) -> Value {
    // Behind the mark of an uncompressed point, both coordinates with their zeros.
    let (x, y) = key.key[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
}

#[test]
fn rs256_agrees_with_every_vector() {
    let mut seen = Seen::default();
    use pkcs1::TestName::{Rsa2048Sha256, Rsa3072Sha256, Rsa4096Sha256, Rsa8192Sha256};
    for name in [Rsa2048Sha256, Rsa3072Sha256, Rsa4096Sha256, Rsa8192Sha256] {
        for group in pkcs1::TestSet::load(name).unwrap().test_groups {
            let keys = key(&rsa(&group.key.n, &group.key.e), SigningAlgorithm::Rs256);
            for test in &group.tests {
                // "Acceptable" is one kind: the hash's name without the NULL that RFC 8017 §A.2.4 demands when a
                // signature is made, and advises to tolerate. No server makes such ones, and one way to write a signature is enough.
                let lenient = test.result == TestResult::Acceptable;
                assert_eq!(
                    lenient,
                    test.flags.contains(&pkcs1::TestFlag::MissingNull),
                    "{name:?} {}",
                    test.tc_id
                );
                seen.see(
                    &keys,
                    SigningAlgorithm::Rs256,
                    &Vector {
                        name: format!("{name:?} {} {}", test.tc_id, test.comment),
                        message: &test.msg,
                        signature: &test.sig,
                        good: test.result == TestResult::Valid,
                    },
                );
            }
        }
    }
    assert_eq!(seen, Seen { believed: 31, refused: 1003 });
}

/// RFC 7518 §3.5: the hash for the mask is SHA-256 and the salt as long as it, else it is not PS256, however valid.
#[test]
fn ps256_agrees_with_every_vector_and_takes_no_other_parameters() {
    use pss::TestName as Name;
    let mut seen = Seen::default();
    for name in [
        Name::RsaPss2048Sha256Mgf1SaltLen32,
        Name::RsaPss2048Sha256Mgf1SaltLen32WithParams,
        Name::RsaPss3072Sha256Mgf1SaltLen32,
        Name::RsaPss3072Sha256Mgf1SaltLen32WithParams,
        Name::RsaPss4096Sha256Mgf1SaltLen32,
        Name::RsaPss2048Sha256Mgf1SaltLen0,
        Name::RsaPss2048Sha256Mgf1SaltLen0WithParams,
        Name::RsaPss2048Sha256Mgf1Sha1_20,
        Name::RsaPss2048Sha512Mgf1Sha256SaltLen32WithParams,
    ] {
        for group in pss::TestSet::load(name).unwrap().test_groups {
            let keys = key(&rsa(&group.key.n, &group.key.e), SigningAlgorithm::Ps256);
            let sha256 = wycheproof::HashFunction::Sha2_256;
            let is_ps256 = group.hash == sha256 && group.mgf_hash == Some(sha256) && group.salt_size == 32;
            // What is wrong by other parameters may be right by ours: only what is right by them tells.
            let telling = group.tests.iter().filter(|test| is_ps256 || test.result == TestResult::Valid);
            for test in telling {
                seen.see(
                    &keys,
                    SigningAlgorithm::Ps256,
                    &Vector {
                        name: format!("{name:?} {} {}", test.tc_id, test.comment),
                        message: &test.msg,
                        signature: &test.sig,
                        good: is_ps256 && test.result == TestResult::Valid,
                    },
                );
            }
        }
    }
    assert_eq!(seen, Seen { believed: 315, refused: 542 });
}

#[test]
fn es256_agrees_with_every_vector() {
    let mut seen = Seen::default();
    for group in ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap().test_groups {
        let keys = key(&p256(&group.key), SigningAlgorithm::Es256);
        for test in &group.tests {
            seen.see(
                &keys,
                SigningAlgorithm::Es256,
                &Vector {
                    name: format!("{} {}", test.tc_id, test.comment),
                    message: &test.msg,
                    signature: &test.sig,
                    good: test.result == TestResult::Valid,
                },
            );
        }
    }
    assert_eq!(seen, Seen { believed: 173, refused: 89 });
}

/// RFC 7518 §3.4: r and s side by side, and nothing else.
#[test]
fn es256_takes_no_signature_in_asn_1() {
    let mut seen = Seen::default();
    for group in ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap().test_groups {
        let keys = key(&p256(&group.key), SigningAlgorithm::Es256);
        for test in &group.tests {
            seen.see(
                &keys,
                SigningAlgorithm::Es256,
                &Vector {
                    name: format!("{} {}", test.tc_id, test.comment),
                    message: &test.msg,
                    signature: &test.sig,
                    good: false,
                },
            );
        }
    }
    assert_eq!(seen, Seen { believed: 0, refused: 484 });
}

#[test]
fn eddsa_agrees_with_every_vector() {
    let mut seen = Seen::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(&*group.key.pk)});
        let keys = key(&jwk, SigningAlgorithm::EdDsa);
        for test in &group.tests {
            seen.see(
                &keys,
                SigningAlgorithm::EdDsa,
                &Vector {
                    name: format!("{} {}", test.tc_id, test.comment),
                    message: &test.msg,
                    signature: &test.sig,
                    good: test.result == TestResult::Valid,
                },
            );
        }
    }
    assert_eq!(seen, Seen { believed: 88, refused: 63 });
}
