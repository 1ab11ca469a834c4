//! The keys of a store: the newest seals and opens, the older ones only open what a rotation has not come to yet.

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::store::seal::{KeyId, Purpose, SealError, Sealer};

/// Where the keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// The one that seals.
    pub newest: PathBuf,
    /// Those that still open.
    pub old: Vec<PathBuf>,
}

/// What is wrong with one of the files.
#[derive(Debug)]
pub struct BadKeyFile {
    /// Whether it is one of the old ones.
    pub old: bool,
    /// What is wrong, with its path.
    pub why: String,
}

/// The keys, each once.
pub struct Keyring {
    newest: Sealer,
    old: Vec<(Sealer, PathBuf)>,
}

impl Keyring {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with each of those that are not as they should be.
    pub fn from_files(files: &KeyFiles) -> Result<Self, Vec<BadKeyFile>> {
        let mut bad = Vec::new();
        let mut read =
            |path: &Path, old| Sealer::from_file(path).map_err(|why| bad.push(BadKeyFile { old, why })).ok();
        let newest = read(&files.newest, false);
        let old: Vec<(Sealer, PathBuf)> =
            files.old.iter().filter_map(|path| Some((read(path, true)?, path.clone()))).collect();
        let named = |newest: &Sealer| (newest.id(), files.newest.clone());
        let mut seen: Vec<(KeyId, PathBuf)> = newest.iter().map(named).collect();
        for (sealer, path) in &old {
            match seen.iter().find(|(id, _)| *id == sealer.id()) {
                Some((_, other)) => bad.push(BadKeyFile {
                    old: true,
                    why: format!(
                        "{}: holds the same key as {}: name each key once; a new one is made with `bursar key generate`",
                        path.display(),
                        other.display()
                    ),
                }),
                None => seen.push((sealer.id(), path.clone())),
            }
        }
        match newest {
            Some(newest) if bad.is_empty() => Ok(Self { newest, old }),
            Some(_) | None => Err(bad),
        }
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn newest(&self) -> KeyId {
        self.newest.id()
    }

    /// A key for another purpose from each of them, the newest first.
    #[must_use]
    pub fn derive(&self, purpose: &[u8]) -> Vec<Zeroizing<[u8; 32]>> {
        let sealers = std::iter::once(&self.newest).chain(self.old.iter().map(|(sealer, _)| sealer));
        sealers.filter_map(|sealer| sealer.derive(purpose)).collect()
    }

    /// The ids of the others, and the files that they came from.
    pub(super) fn old(&self) -> impl Iterator<Item = (KeyId, &Path)> {
        self.old.iter().map(|(sealer, path)| (sealer.id(), path.as_path()))
    }

    pub(super) fn has(&self, key: KeyId) -> bool {
        self.sealer(key).is_some()
    }

    pub(super) fn seal(&self, purpose: Purpose<'_>, secret: &Secret) -> Result<Vec<u8>, SealError> {
        self.newest.seal(purpose, secret)
    }

    /// By the key that the value names, whichever of ours it is.
    pub(super) fn open(&self, purpose: Purpose<'_>, sealed: &[u8]) -> Result<Secret, SealError> {
        let opened = match KeyId::of_sealed(sealed) {
            Some(key) => {
                self.sealer(key).map_or(Err(SealError::OtherKey(key)), |sealer| sealer.open(purpose, sealed))
            }
            None => Err(SealError::Damaged),
        };
        opened.map_err(|why| SealError::Unopened { what: purpose.to_string(), why: Box::new(why) })
    }

    fn sealer(&self, key: KeyId) -> Option<&Sealer> {
        std::iter::once(&self.newest)
            .chain(self.old.iter().map(|(sealer, _)| sealer))
            .find(|one| one.id() == key)
    }

    fn ids(&self) -> Vec<KeyId> {
        std::iter::once(self.newest()).chain(self.old().map(|(id, _)| id)).collect()
    }
}

/// One key alone.
impl From<Sealer> for Keyring {
    fn from(newest: Sealer) -> Self {
        Self { newest, old: Vec::new() }
    }
}

/// The same keys, in the same order.
impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        self.ids() == other.ids()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.ids()).finish()
    }
}

impl fmt::Display for BadKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::model::{GrantId, GrantKey, ServiceName, UserName};
    use crate::store::seal::generate_key;

    fn write_private(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn files(directory: &Path, newest: &str, old: &[&str]) -> KeyFiles {
        let path = |name: &str| directory.join(name);
        KeyFiles { newest: path(newest), old: old.iter().map(|name| path(name)).collect() }
    }

    #[test]
    fn the_newest_seals_and_every_one_opens() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            write_private(&directory.path().join(name), generate_key(&SystemEntropy).expose());
        }
        let ring = |newest, old: &[&str]| Keyring::from_files(&files(directory.path(), newest, old)).unwrap();
        let (one, two, both) = (ring("one", &[]), ring("two", &[]), ring("two", &["one"]));
        let user = UserName::parse("alice").unwrap();
        let id = GrantId::current(GrantKey { service: ServiceName::parse("s").unwrap(), user });
        let purpose = Purpose::RefreshToken(&id);
        let by_one = one.seal(purpose, &Secret::new("token".into())).unwrap();
        let by_both = both.seal(purpose, &Secret::new("token".into())).unwrap();
        assert_eq!(both.open(purpose, &by_one).unwrap().expose(), "token");
        assert_eq!(two.open(purpose, &by_both).unwrap().expose(), "token");
        let unopened = one.open(purpose, &by_both).unwrap_err().to_string();
        assert!(unopened.contains("refresh token of s of alice"), "{unopened}");
        assert!(unopened.contains(&format!("sealed with key {}", two.newest())), "{unopened}");
    }

    #[test]
    fn each_file_that_is_not_as_it_should_be_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let key = generate_key(&SystemEntropy);
        for (name, text) in [("key", key.expose()), ("same", key.expose()), ("short", "AAAA")] {
            write_private(&directory.path().join(name), text);
        }
        let bad = Keyring::from_files(&files(directory.path(), "short", &["key", "missing", "same", "key"]));
        let bad: Vec<(bool, String)> = bad.unwrap_err().into_iter().map(|bad| (bad.old, bad.why)).collect();
        let expected = [
            (false, "short: the key is not 32 bytes"),
            (true, "missing: "),
            (true, "same: holds the same key as "),
            (true, "key: holds the same key as "),
        ];
        assert_eq!(bad.len(), expected.len(), "{bad:?}");
        for ((old, why), (expected_old, expected)) in bad.iter().zip(expected) {
            assert!(*old == expected_old && why.contains(expected), "{why}");
        }
        for (_, why) in bad {
            assert!(!why.contains(key.expose()), "a key is not repeated");
        }
    }
}
