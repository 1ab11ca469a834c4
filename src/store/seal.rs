//! Seals tokens at rest: AES-256-GCM, a nonce each, bound to the row that it lies in.
//!
//! Layout: format (1 byte) · key id (8) · nonce (12) · ciphertext and tag. Associated data is what the value is and
//! whose, each part with its length, and the key's id; so a value moved to another row, or another column, does not open.

use std::fmt;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::guarded;
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
}

/// For people, with whose it is.
impl fmt::Display for Purpose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefreshToken(id) => write!(f, "refresh token of {}", id.key),
            Self::AccessToken(id, None) => write!(f, "access token of {}", id.key),
            Self::AccessToken(id, Some(role)) => write!(f, "access token for role {role} of {}", id.key),
            Self::Revocation(key, _) => write!(f, "refresh token to be revoked of {key}"),
        }
    }
}

/// Why a sealed value did not open. Never says anything of what is inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key file is not what `bursar key generate` writes.
    #[error("the key is not 32 bytes in base64: make one with `bursar key generate`")]
    BadKey,
    /// Keys that seal rows of this store were not given.
    #[error("{}", missing(.0))]
    MissingKeys(Vec<(KeyId, u64)>),
    /// Sealed with a key that is not among ours, although all that this store was sealed with are.
    #[error("sealed with key {0}, which is none of this store's: damaged, or from another store")]
    OtherKey(KeyId),
    /// Made with our key, but damaged or moved here from elsewhere.
    #[error("a sealed value is damaged or belongs to another row")]
    Damaged,
    /// One of the last two, and of what.
    #[error("the {what} can't be opened: {why}")]
    Unopened {
        /// What it should be, and whose.
        what: String,
        /// Why it is not.
        why: Box<SealError>,
    },
}

fn missing(keys: &[(KeyId, u64)]) -> String {
    let each: Vec<String> = keys.iter().map(|(key, rows)| format!("{rows} with key {key}")).collect();
    format!(
        "rows are sealed with a key that is not given ({}): put the key that made this store into store.key_file, or, \
         once there is a newer one, into store.old_key_files until `bursar key rotate` says that it is no longer needed",
        each.join(", ")
    )
}

/// Names a key without giving it away.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; KEY_ID_LENGTH]);

impl KeyId {
    /// As a column holds it.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key that a sealed value says it was made with.
    pub(super) fn of_sealed(sealed: &[u8]) -> Option<Self> {
        let (format, rest) = sealed.split_first()?;
        (*format == FORMAT).then(|| rest.first_chunk().copied().map(Self)).flatten()
    }
}

/// Seals and opens with one key.
pub struct Sealer {
    id: KeyId,
    key: RandomizedNonceKey,
    /// What keys for other purposes are derived from.
    root: Prk,
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
        let root = Salt::new(HKDF_SHA256, b"bursar store key").extract(&bytes);
        Ok(Self { id: KeyId(id), key, root })
    }

    /// From a key file.
    ///
    /// # Errors
    /// What is wrong with it, with its path.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let text = guarded::read_key(path)?;
        Self::from_text(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Names the key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// A key for another purpose (HKDF, RFC 5869), from which this one can't be had.
    pub(super) fn derive(&self, purpose: &[u8]) -> Option<Zeroizing<[u8; KEY_LENGTH]>> {
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        self.root.expand(&[purpose], HKDF_SHA256).and_then(|derived| derived.fill(&mut *key)).ok()?;
        Some(key)
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
            return Err(SealError::OtherKey(KeyId(*key_id)));
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
        let (what, (key, digest), role) = match purpose {
            Purpose::RefreshToken(id) => ("refresh token", (&id.key, id.candidate), None),
            Purpose::AccessToken(id, role) => ("access token", (&id.key, id.candidate), role),
            Purpose::Revocation(key, token) => ("revocation", (key, Some(token)), None),
        };
        part(&self.id.0);
        part(what.as_bytes());
        part(key.service.as_str().as_bytes());
        part(key.user.as_str().as_bytes());
        part(digest.map(|digest| digest.to_string()).unwrap_or_default().as_bytes());
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
    use proptest::prelude::*;

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

    /// Names of which some are alike, or run into each other.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{1,3}", "\\PC{1,20}"]
    }

    /// What is sealed, and for which row; `Purpose` borrows from it.
    #[derive(Clone, Debug, PartialEq)]
    enum Place {
        RefreshToken(GrantId),
        AccessToken(GrantId, Option<RoleName>),
        Revocation(GrantKey, Digest),
    }

    impl Place {
        fn purpose(&self) -> Purpose<'_> {
            match self {
                Self::RefreshToken(id) => Purpose::RefreshToken(id),
                Self::AccessToken(id, role) => Purpose::AccessToken(id, role.as_ref()),
                Self::Revocation(key, digest) => Purpose::Revocation(key, *digest),
            }
        }
    }

    fn place() -> impl Strategy<Value = Place> {
        let digest = || (0_u8..3).prop_map(|seed| Digest::of(&[seed]));
        (0..3, name(), name(), proptest::option::of(name()), proptest::option::of(digest()), digest())
            .prop_map(|(kind, service, user, role, candidate, token)| {
                let id = GrantId { candidate, ..id(&service, &user) };
                match kind {
                    0 => Place::RefreshToken(id),
                    1 => Place::AccessToken(id, role.as_deref().and_then(RoleName::parse)),
                    _ => Place::Revocation(id.key, token),
                }
            })
    }

    proptest! {
        #[test]
        fn a_value_opens_in_its_own_place_and_in_no_other(one in place(), other in place(), token in "\\PC{0,200}") {
            let sealer = sealer();
            let sealed = sealer.seal(one.purpose(), &Secret::new(token.clone())).unwrap();
            let opened = sealer.open(one.purpose(), &sealed).unwrap();
            prop_assert_eq!(opened.expose(), token.as_str());
            prop_assert_eq!(sealer.open(other.purpose(), &sealed).is_ok(), one == other);
        }

        #[test]
        fn whatever_is_changed_is_noticed(
            place in place(),
            token in "\\PC{0,200}",
            at: proptest::sample::Index,
            change in prop_oneof![(1_u8..=255).prop_map(Ok), proptest::collection::vec(any::<u8>(), 0..40).prop_map(Err)],
        ) {
            let sealer = sealer();
            let sealed = sealer.seal(place.purpose(), &Secret::new(token)).unwrap();
            let mut changed = sealed.clone();
            let at = at.index(sealed.len());
            match change {
                Ok(bits) => changed[at] ^= bits,
                Err(bytes) => drop(changed.splice(at.., bytes)),
            }
            prop_assume!(changed != sealed);
            prop_assert!(sealer.open(place.purpose(), &changed).is_err());
        }
    }

    #[test]
    fn another_key_is_told_from_damage() {
        let (ours, theirs) = (sealer(), sealer());
        let alice = id("s", "alice");
        let sealed = theirs.seal(Purpose::RefreshToken(&alice), &Secret::new("x".into())).unwrap();
        let error = ours.open(Purpose::RefreshToken(&alice), &sealed).unwrap_err();
        assert_eq!(error, SealError::OtherKey(theirs.id));
        assert_eq!(KeyId::of_sealed(&sealed), Some(theirs.id));
    }

    #[test]
    fn a_bad_key_file_is_refused() {
        for bad in ["", "AAAA", "not base64!", &STANDARD.encode([0; 31])] {
            assert!(Sealer::from_text(&Secret::new(bad.to_owned())).is_err(), "{bad}");
        }
        assert!(Sealer::from_text(&Secret::new(format!("{}\n", STANDARD.encode([7; 32])))).is_ok());
    }
}
