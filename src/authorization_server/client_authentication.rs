//! How we prove who we are to the authorization server (RFC 6749 §2.3.1): `client_secret_basic`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Our id, our secret, and where the secret came from.
pub struct ClientAuthentication {
    client_id: String,
    secret: Mutex<Secret>,
    file: Option<PathBuf>,
}

impl ClientAuthentication {
    /// With the secret as it was read; from `file`, if it came from one that can be read again.
    #[must_use]
    pub fn new(client_id: String, secret: Secret, file: Option<PathBuf>) -> Self {
        Self { client_id, secret: Mutex::new(secret), file }
    }

    /// Our id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The `Authorization` header. Id and secret are form-encoded first, as the RFC says and few do.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        let secret = self.secret.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let pair = Zeroizing::new(format!("{}:{}", encode(&self.client_id), encode(secret.expose())));
        let mut header =
            HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair.as_bytes()))).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// Reads the secret's file again. Whether it holds another secret than before.
    #[must_use]
    pub fn reload(&self) -> bool {
        let Some(Ok(fresh)) = self.file.as_deref().map(read_secret_file) else { return false };
        let mut secret = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *secret != fresh;
        *secret = fresh;
        changed
    }
}

/// Reads a secret from a file, without the line's end that editors add.
///
/// # Errors
/// If it can't be read, or nothing is in it.
pub fn read_secret_file(path: &std::path::Path) -> Result<Secret, String> {
    let text = Zeroizing::new(
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?,
    );
    let secret = Secret::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if secret.is_empty() { Err(format!("{}: is empty", path.display())) } else { Ok(secret) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_and_secret_are_form_encoded_before_base64() {
        let client = ClientAuthentication::new("id:1".into(), Secret::new("s+/ =".into()), None);
        let header = client.header().unwrap();
        let encoded = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"id%3A1:s%2B%2F+%3D");
        assert!(header.is_sensitive());
    }

    #[test]
    fn a_changed_secret_file_is_noticed_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "one\n").unwrap();
        let client =
            ClientAuthentication::new("id".into(), read_secret_file(&path).unwrap(), Some(path.clone()));
        assert!(!client.reload());
        std::fs::write(&path, "two").unwrap();
        assert!(client.reload());
        assert!(!client.reload());
        std::fs::remove_file(&path).unwrap();
        assert!(!client.reload(), "a file that is gone leaves the secret");
    }
}
