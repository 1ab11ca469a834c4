//! Seals tokens at rest: AES-256-GCM, a nonce each, bound to the row that it lies in.
//!
//! Layout: format (1 byte) · key id (8) · nonce (12) · ciphertext and tag. Associated data is what the value is and
//! whose, each part with its length, and the key's id; so a value moved to another row, or another column, does not open.

use std::fmt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::model::{GrantId, GrantKey, RoleName};
use crate::secret::{Digest, Secret};

const FORMAT: u8 = 1;
const KEY_LENGTH: usize = 32;
const KEY_ID_LENGTH: usize = 8;
const NONCE_LENGTH: usize = 12;

/// What is sealed, and for which row.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// A grant's refresh token.
    RefreshToken(&'a GrantId),
    /// An access token of a grant.
    AccessToken(&'a GrantId, Option<&'a RoleName>),
    /// A refresh token, by its digest, that its server is to forget.
    Revocation(&'a GrantKey, Digest),
    /// The constant that tells whether the key is the store's.
    Check,
}

/// Why a sealed value did not open. Never says anything of what is inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key file is not what `bursar key generate` writes.
    #[error("the key is not 32 bytes in base64: make one with `bursar key generate`")]
    BadKey,
    /// Sealed with a key that was not given.
    #[error(
        "sealed with key {sealed}, but the key given is {given}: put the key that made this store into store.key_file"
    )]
    OtherKey {
        /// The id of the key that sealed it.
        sealed: KeyId,
        /// The id of ours.
        given: KeyId,
    },
    /// Made with our key, but damaged or moved here from elsewhere.
    #[error("a sealed value is damaged or belongs to another row")]
    Damaged,
}

/// Names a key without giving it away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; KEY_ID_LENGTH]);

/// Seals and opens with one key.
pub struct Sealer {
    id: KeyId,
    key: RandomizedNonceKey,
}

impl Sealer {
    /// From the text of a key file.
    ///
    /// # Errors
    /// If it is not 32 bytes in base64, with at most white space around it.
    pub fn from_text(text: &Secret) -> Result<Self, SealError> {
        let bytes =
            STANDARD.decode(text.expose().trim()).map(Zeroizing::new).map_err(|_| SealError::BadKey)?;
        if bytes.len() != KEY_LENGTH {
            return Err(SealError::BadKey);
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| SealError::BadKey)?;
        let mut labelled = Zeroizing::new(b"bursar store key id".to_vec());
        labelled.extend_from_slice(&bytes);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &labelled);
        let id = digest.as_ref().first_chunk().copied().ok_or(SealError::BadKey)?;
        Ok(Self { id: KeyId(id), key })
    }

    /// From a key file.
    ///
    /// # Errors
    /// What is wrong with it, with its path.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map(Secret::new).map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let advice = if missing { "; make one with `bursar key generate`" } else { "" };
            format!("{}: {error}{advice}", path.display())
        })?;
        Self::from_text(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub(super) fn seal(&self, purpose: Purpose<'_>, secret: &Secret) -> Result<Vec<u8>, SealError> {
        let mut inside = Zeroizing::new(secret.expose().as_bytes().to_vec());
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(self.associated(purpose)), &mut *inside)
            .map_err(|_| SealError::Damaged)?;
        let mut sealed = Vec::with_capacity(1 + KEY_ID_LENGTH + NONCE_LENGTH + inside.len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.id.0);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&inside);
        Ok(sealed)
    }

    pub(super) fn open(&self, purpose: Purpose<'_>, sealed: &[u8]) -> Result<Secret, SealError> {
        let (format, rest) = sealed.split_first().ok_or(SealError::Damaged)?;
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID_LENGTH>().ok_or(SealError::Damaged)?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LENGTH>().ok_or(SealError::Damaged)?;
        if *format != FORMAT {
            return Err(SealError::Damaged);
        }
        if *key_id != self.id.0 {
            return Err(SealError::OtherKey { sealed: KeyId(*key_id), given: self.id });
        }
        let mut inside = Zeroizing::new(ciphertext.to_vec());
        let plain = self
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(self.associated(purpose)),
                &mut inside,
            )
            .map_err(|_| SealError::Damaged)?;
        String::from_utf8(plain.to_vec()).map(Secret::new).map_err(|_| SealError::Damaged)
    }

    fn associated(&self, purpose: Purpose<'_>) -> Vec<u8> {
        let mut data = Vec::new();
        let mut part = |bytes: &[u8]| {
            data.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            data.extend_from_slice(bytes);
        };
        let (what, row, role) = match purpose {
            Purpose::RefreshToken(id) => ("refresh token", Some((&id.key, id.candidate)), None),
            Purpose::AccessToken(id, role) => ("access token", Some((&id.key, id.candidate)), role),
            Purpose::Revocation(key, token) => ("revocation", Some((key, Some(token))), None),
            Purpose::Check => ("check", None, None),
        };
        part(&self.id.0);
        part(what.as_bytes());
        if let Some((key, digest)) = row {
            part(key.service.as_str().as_bytes());
            part(key.user.as_str().as_bytes());
            part(digest.map(|digest| digest.to_string()).unwrap_or_default().as_bytes());
        }
        if let Some(role) = role {
            part(role.as_str().as_bytes());
        }
        data
    }
}

/// A new key, as one line of base64 without its end.
#[must_use]
pub fn generate_key(entropy: &dyn Entropy) -> Secret {
    let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
    entropy.fill(&mut *bytes);
    Secret::new(STANDARD.encode(*bytes))
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::model::{ServiceName, UserName};

    fn id(service: &str, user: &str) -> GrantId {
        GrantId::current(GrantKey {
            service: ServiceName::parse(service).unwrap(),
            user: UserName::parse(user).unwrap(),
        })
    }

    fn sealer() -> Sealer {
        Sealer::from_text(&generate_key(&SystemEntropy)).unwrap()
    }

    #[test]
    fn what_was_sealed_opens_for_its_own_row_only() {
        let sealer = sealer();
        let alice = id("ab", "c");
        let sealed = sealer.seal(Purpose::RefreshToken(&alice), &Secret::new("token".into())).unwrap();
        assert_eq!(sealer.open(Purpose::RefreshToken(&alice), &sealed).unwrap().expose(), "token");
        for other in [id("ab", "d"), id("a", "bc"), id("a", "b")] {
            let opened = sealer.open(Purpose::RefreshToken(&other), &sealed);
            assert_eq!(opened.unwrap_err(), SealError::Damaged);
        }
        assert!(sealer.open(Purpose::AccessToken(&alice, None), &sealed).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sealer = sealer();
        let alice = id("s", "alice");
        let sealed = sealer.seal(Purpose::RefreshToken(&alice), &Secret::new("token".into())).unwrap();
        for index in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[index] ^= 1;
            assert!(sealer.open(Purpose::RefreshToken(&alice), &flipped).is_err(), "byte {index}");
        }
        for length in 0..sealed.len() {
            assert!(
                sealer.open(Purpose::RefreshToken(&alice), &sealed[..length]).is_err(),
                "length {length}"
            );
        }
    }

    #[test]
    fn another_key_is_told_from_damage() {
        let (ours, theirs) = (sealer(), sealer());
        let sealed = theirs.seal(Purpose::Check, &Secret::new("x".into())).unwrap();
        let error = ours.open(Purpose::Check, &sealed).unwrap_err();
        assert_eq!(error, SealError::OtherKey { sealed: theirs.id, given: ours.id });
    }

    #[test]
    fn a_bad_key_file_is_refused() {
        for bad in ["", "AAAA", "not base64!", &STANDARD.encode([0; 31])] {
            assert!(Sealer::from_text(&Secret::new(bad.to_owned())).is_err(), "{bad}");
        }
        assert!(Sealer::from_text(&Secret::new(format!("{}\n", STANDARD.encode([7; 32])))).is_ok());
    }
}
