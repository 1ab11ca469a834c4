use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use url::{Url, form_urlencoded};

use crate::authorization_server::client_authentication::{ClientAuthentication, Method, read_secret_file};
use crate::authorization_server::signing_key::SigningKey;
use crate::clock::Timestamp;
use crate::entropy::SeededEntropy;
use crate::fuzz::LONGEST_COMPLAINT;
use crate::jwt::{SigningAlgorithm, introspect, keys::KeySet};

const ID: &str = "0oa:1/abcd";

/// A file with a key in PEM, or with a secret. Whether it is a key.
pub fn client_authentication(input: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(input).unwrap();
    secret(file.path(), input);
    key(file.path())
}

/// A secret is the file's text but for the line's end, and arrives as such.
fn secret(path: &Path, input: &[u8]) {
    let secret = match read_secret_file(path) {
        Ok(secret) => secret,
        Err(why) => {
            assert!(why.len() <= LONGEST_COMPLAINT);
            return;
        }
    };
    let text = secret.expose().to_owned();
    assert!(!text.is_empty() && input.starts_with(text.as_bytes()));
    assert!(input.iter().skip(text.len()).all(|byte| b"\r\n".contains(byte)));
    let endpoint = Url::parse("https://company.okta.com/oauth2/aus1/v1/token").unwrap();
    let client = ClientAuthentication::new(ID.to_owned(), Method::SecretBasic(secret), None);
    let proof = client.prove(&endpoint, Timestamp::from_secs(0), &SeededEntropy::new(1)).unwrap();
    let header = proof.authorization.unwrap();
    let pair = STANDARD.decode(header.to_str().unwrap().strip_prefix("Basic ").unwrap()).unwrap();
    let pair = String::from_utf8(pair).unwrap();
    let (id, secret) = pair.split_once(':').unwrap();
    assert_eq!((decoded(id), decoded(secret)), (ID.to_owned(), text));
}

fn decoded(text: &str) -> String {
    form_urlencoded::parse(text.as_bytes()).next().unwrap_or_default().0.into_owned()
}

/// A key that is taken signs what its public half verifies.
fn key(path: &Path) -> bool {
    let key = match SigningKey::from_file(path, Some("fuzz".to_owned())) {
        Ok(key) => key,
        Err(why) => {
            assert!(why.len() <= LONGEST_COMPLAINT);
            return false;
        }
    };
    let token = key.sign(&json!({"iss": "i", "aud": "a", "iat": 0, "exp": 60})).unwrap();
    let document = json!({ "keys": [key.public_jwk()] }).to_string();
    let keys = KeySet::parse(document.as_bytes(), &SigningAlgorithm::ALL).unwrap();
    introspect(&token, &keys, "i", "a", Timestamp::from_secs(0)).unwrap();
    true
}
