//! How we prove who we are to the authorization server: RFC 6749 §2.3.1, or a JWT signed by our own key (RFC 7523 §2.2).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use serde_json::json;
use url::Url;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use crate::authorization_server::signing_key::SigningKey;
use crate::clock::Timestamp;
use crate::entropy::Entropy;
use crate::guarded::{self, Holds};
use crate::secret::Secret;

/// How long an assertion is good for: Okta takes up to an hour, and clocks differ.
const ASSERTION_LIFE: Duration = Duration::from_mins(5);
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What proves who we are, and from which file it can be read again.
pub struct ClientAuthentication {
    client_id: String,
    method: Mutex<Arc<Method>>,
    file: Option<PathBuf>,
}

/// One method a request (RFC 6749 §2.3).
pub enum Method {
    /// The secret in a header.
    SecretBasic(Secret),
    /// The secret in the form.
    SecretPost(Secret),
    /// An assertion in the form.
    PrivateKeyJwt(SigningKey),
    /// Nothing but our id: a public client.
    None,
}

/// Its name, and nothing of what proves it.
impl std::fmt::Debug for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SecretBasic(_) => "client_secret_basic",
            Self::SecretPost(_) => "client_secret_post",
            Self::PrivateKeyJwt(_) => "private_key_jwt",
            Self::None => "none",
        })
    }
}

/// What goes into one request.
pub(crate) struct Proof {
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) parameters: Vec<(&'static str, Secret)>,
}

impl ClientAuthentication {
    /// By `method`, as it was read from `file`, if it came from one that can be read again.
    #[must_use]
    pub fn new(client_id: String, method: Method, file: Option<PathBuf>) -> Self {
        Self { client_id, method: Mutex::new(Arc::new(method)), file }
    }

    /// Our id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Whether what proves who we are puts our id into the form.
    pub(crate) fn names_itself(&self) -> bool {
        !matches!(&**self.lock(), Method::SecretBasic(_))
    }

    /// What to put into a request to `endpoint`. `None` where the key does not sign, or the secret has no form that a
    /// header takes.
    pub(crate) fn prove(&self, endpoint: &Url, now: Timestamp, entropy: &dyn Entropy) -> Option<Proof> {
        let id = || ("client_id", Secret::new(self.client_id.clone()));
        let method = Arc::clone(&self.lock());
        Some(match &*method {
            Method::SecretBasic(secret) => {
                Proof { authorization: Some(self.basic(secret)?), parameters: Vec::new() }
            }
            Method::SecretPost(secret) => {
                Proof { authorization: None, parameters: vec![id(), ("client_secret", secret.clone())] }
            }
            Method::PrivateKeyJwt(key) => {
                let assertion = key.sign(&json!({
                    "iss": self.client_id,
                    "sub": self.client_id,
                    // The very endpoint that it is sent to: that is what Okta compares with.
                    "aud": endpoint.as_str(),
                    // Without `iat`, which a server whose clock is behind ours would refuse.
                    "exp": now.plus(ASSERTION_LIFE).secs(),
                    "jti": entropy.text(16),
                }))?;
                let kind = Secret::new(ASSERTION_TYPE.to_owned());
                let parameters = vec![id(), ("client_assertion_type", kind), ("client_assertion", assertion)];
                Proof { authorization: None, parameters }
            }
            Method::None => Proof { authorization: None, parameters: vec![id()] },
        })
    }

    /// Reads the file of the secret or key again. Whether it holds another one than before; where it can't be read, or
    /// has become readable for others, the old one stays and the log says why.
    #[must_use]
    pub fn reload(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let mut method = self.lock();
        let secret = |old: &Secret| Ok(Some(read_secret_file(file)?).filter(|fresh| fresh != old));
        let fresh: Result<Option<Method>, String> = match &**method {
            Method::SecretBasic(old) => secret(old).map(|fresh| fresh.map(Method::SecretBasic)),
            Method::SecretPost(old) => secret(old).map(|fresh| fresh.map(Method::SecretPost)),
            Method::PrivateKeyJwt(old) => SigningKey::from_file(file, old.id().map(str::to_owned))
                .map(|fresh| Some(fresh).filter(|fresh| !fresh.is(old)).map(Method::PrivateKeyJwt)),
            Method::None => Ok(None),
        };
        match fresh {
            Ok(Some(fresh)) => *method = Arc::new(fresh),
            Ok(None) => return false,
            Err(problem) => {
                tracing::warn!(%problem, "the client's secret can't be read again; the one in use stays");
                return false;
            }
        }
        true
    }

    /// The `Authorization` header. Id and secret are form-encoded first, as the RFC says and few do.
    fn basic(&self, secret: &Secret) -> Option<HeaderValue> {
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let pair = Zeroizing::new(format!("{}:{}", encode(&self.client_id), encode(secret.expose())));
        let mut header =
            HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.as_bytes()))).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Method>> {
        self.method.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a secret from a file, without the line's end that editors add.
///
/// # Errors
/// If it can't be read, others can read it too, or nothing is in it.
pub fn read_secret_file(path: &Path) -> Result<Secret, String> {
    let text = guarded::read(path, Holds::Secret).map_err(|error| format!("{}: {error}", path.display()))?;
    let secret = Secret::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if secret.is_empty() { Err(format!("{}: is empty", path.display())) } else { Ok(secret) }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::dev::write_private;
    use crate::entropy::SystemEntropy;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    fn prove(client: &ClientAuthentication) -> Proof {
        let endpoint = Url::parse("https://okta.example/oauth2/aus1/v1/token").unwrap();
        client.prove(&endpoint, Timestamp::from_secs(1_800_000_000), &SystemEntropy).unwrap()
    }

    fn named(proof: &Proof) -> Vec<(&str, &str)> {
        proof.parameters.iter().map(|(name, value)| (*name, value.expose())).collect()
    }

    #[test]
    fn id_and_secret_are_form_encoded_before_base64() {
        let secret = Method::SecretBasic(Secret::new("s+/ =".into()));
        let proof = prove(&ClientAuthentication::new("id:1".into(), secret, None));
        let header = proof.authorization.as_ref().unwrap();
        let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"id%3A1:s%2B%2F+%3D");
        assert!(header.is_sensitive() && proof.parameters.is_empty(), "one method at a time");
    }

    #[test]
    fn a_secret_in_the_form_and_a_client_without_one_use_no_header() {
        let post = Method::SecretPost(Secret::new("s".into()));
        let proof = prove(&ClientAuthentication::new("id".into(), post, None));
        assert_eq!(named(&proof), [("client_id", "id"), ("client_secret", "s")]);
        assert!(proof.authorization.is_none());
        let proof = prove(&ClientAuthentication::new("id".into(), Method::None, None));
        assert_eq!(named(&proof), [("client_id", "id")]);
        assert!(proof.authorization.is_none());
    }

    fn write_key(path: &Path) {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let text = STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        write_private(path, &pem).unwrap();
    }

    #[test]
    fn an_assertion_is_for_one_endpoint_for_minutes_and_good_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        write_key(&path);
        let key = SigningKey::from_file(&path, None).unwrap();
        let client = ClientAuthentication::new("id".into(), Method::PrivateKeyJwt(key), Some(path.clone()));
        let claims = |proof: &Proof| -> Value {
            let parameters = named(proof);
            assert_eq!(parameters[..2], [("client_id", "id"), ("client_assertion_type", ASSERTION_TYPE)]);
            let payload = parameters[2].1.split('.').nth(1).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
        };
        let [first, second] = [claims(&prove(&client)), claims(&prove(&client))];
        assert_eq!((&first["iss"], &first["sub"]), (&json!("id"), &json!("id")));
        assert_eq!(first["aud"], "https://okta.example/oauth2/aus1/v1/token");
        assert_eq!(first["exp"], 1_800_000_300);
        assert_ne!(first["jti"], second["jti"]);
        assert!(!client.reload(), "the same key");
        write_key(&path);
        assert!(client.reload() && !client.reload());
    }

    #[test]
    fn a_changed_secret_file_is_noticed_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write_private(&path, "one\n").unwrap();
        let secret = Method::SecretBasic(read_secret_file(&path).unwrap());
        let client = ClientAuthentication::new("id".into(), secret, Some(path.clone()));
        assert!(!client.reload());
        write_private(&path, "two").unwrap();
        assert!(client.reload());
        assert!(!client.reload());
        write_private(&path, "three").unwrap();
        for opened in [directory.path(), &path] {
            std::fs::set_permissions(opened, Permissions::from_mode(0o755)).unwrap();
        }
        assert!(!client.reload(), "everybody can read this one");
        std::fs::remove_file(&path).unwrap();
        assert!(!client.reload(), "a file that is gone leaves the secret");
    }
}
