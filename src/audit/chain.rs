//! What holds the lines together: each ends with a keyed hash of itself and of the one before.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::guarded;
use crate::secret::{Digest, Secret};

const LENGTH: usize = 32;
/// What a line's end looks like, around the mac's text.
const BEFORE_MAC: &str = ",\"mac\":\"";
const AFTER_MAC: &str = "\"}";

/// An HMAC-SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac([u8; LENGTH]);

impl Mac {
    /// What stands before the first line of all.
    pub const NOTHING: Self = Self([0; LENGTH]);

    /// From base64url without padding: only the one spelling that is written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

/// Base64url without padding.
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// A point in the chain: the last line so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number; lines are counted from 1.
    pub seq: u64,
    /// Its hash.
    pub mac: Mac,
}

impl Link {
    /// Before the first line of all.
    pub const NONE: Self = Self { seq: 0, mac: Mac::NOTHING };
}

/// The key of the hashes. Who has it can make lines up.
#[derive(Clone)]
pub struct Key {
    key: hmac::Key,
    id: String,
}

impl Key {
    /// From the text of a key file, as `bursar key generate` prints it.
    ///
    /// # Errors
    /// If it is not 32 bytes in base64, with at most white space around it.
    pub fn from_text(text: &Secret) -> Result<Self, &'static str> {
        let wrong = "the key is not 32 bytes in base64: make one with `bursar key generate`";
        let bytes = STANDARD.decode(text.expose().trim()).map(Zeroizing::new).map_err(|_| wrong)?;
        if bytes.len() != LENGTH {
            return Err(wrong);
        }
        let mut labelled = Zeroizing::new(b"bursar audit key id".to_vec());
        labelled.extend_from_slice(&bytes);
        let id = Digest::of(&labelled).to_string().chars().take(8).collect();
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &bytes), id })
    }

    /// From a key file.
    ///
    /// # Errors
    /// What is wrong with it, with its path.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let text = guarded::read_key(path)?;
        Self::from_text(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// From a key file that is made if it is not there. It is on disk before a line depends on it.
    ///
    /// # Errors
    /// What is wrong with it, with its path.
    pub fn from_own_file(path: &Path, entropy: &dyn Entropy) -> Result<Self, String> {
        let make = || {
            let mut bytes = Zeroizing::new([0; LENGTH]);
            entropy.fill(&mut *bytes);
            let text = Zeroizing::new(format!("{}\n", STANDARD.encode(*bytes)));
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
            let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
            if written.is_err() {
                // Half a key would be in the way of the next start.
                let _nothing_better_to_do = std::fs::remove_file(path);
            }
            written?;
            match path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
                Some(directory) => std::fs::File::open(directory)?.sync_all(),
                None => Ok(()),
            }
        };
        match make() {
            Ok(()) => tracing::info!(path = %path.display(), "made a key for the audit log"),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
        Self::from_file(path)
    }

    /// Names the key without giving it away.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// One that tests can make up.
    #[cfg(test)]
    pub(super) fn for_tests(byte: u8) -> Self {
        Self::from_text(&Secret::new(STANDARD.encode([byte; LENGTH]))).unwrap()
    }

    /// The hash of a line without its own hash, `body`, after the line whose hash is `before`.
    #[must_use]
    pub fn mac(&self, before: &Mac, body: &[u8]) -> Mac {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&before.0);
        context.update(body);
        let mut mac = [0; LENGTH];
        for (to, from) in mac.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        Mac(mac)
    }
}

/// Puts the hash at the end of a line, which is a JSON object, and says what it is.
pub(super) fn close(line: &mut String, key: &Key, before: &Mac) -> Mac {
    if line.ends_with('}') {
        line.pop();
    }
    let mac = key.mac(before, line.as_bytes());
    line.push_str(&format!("{BEFORE_MAC}{mac}{AFTER_MAC}\n"));
    mac
}

/// What a line without its end of line consists of: what its hash covers, and the hash. `None` if it is no whole line.
pub(super) fn split(line: &[u8]) -> Option<(&[u8], Mac)> {
    let text = std::str::from_utf8(line).ok()?;
    let (body, mac) = text.strip_suffix(AFTER_MAC)?.rsplit_once(BEFORE_MAC)?;
    Some((body.as_bytes(), Mac::parse(mac)?))
}

/// The last line's number and hash, as they are kept outside the log, so that a log whose end was cut off is told from
/// one that is whole.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Of a fixed length: the file is written over in place.
    seq: String,
    mac: String,
    key: String,
    /// Keyed, so that only a head that was once written can be put in this one's place.
    check: String,
}

/// What a head file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// There is none.
    Missing,
    /// It can't be read, with the reason.
    Damaged(String),
    /// Written with another key, whose id this is.
    OtherKey(String, Link),
    /// The last line's number and hash.
    Is(Link),
}

impl Head {
    /// Reads the file.
    #[must_use]
    pub fn read(path: &Path, key: &Key) -> Self {
        let read = || match std::fs::read(path) {
            Ok(bytes) => Self::parse(&bytes, key),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::Missing,
            Err(error) => Self::Damaged(error.to_string()),
        };
        // Who looks while it is written over may see half of either.
        let seen = (0..3).map(|_| read()).find(|head| !matches!(head, Self::Damaged(_)));
        seen.unwrap_or_else(read)
    }

    fn parse(bytes: &[u8], key: &Key) -> Self {
        let parsed = serde_json::from_slice::<Written>(bytes).ok().and_then(|written| {
            let link = Link { seq: written.seq.parse().ok()?, mac: Mac::parse(&written.mac)? };
            Some((link, written))
        });
        match parsed {
            None => Self::Damaged("it is not a head that was written here".to_owned()),
            Some((link, written)) if written.key != key.id => Self::OtherKey(written.key, link),
            Some((link, written)) if Mac::parse(&written.check) == Some(check(key, &link)) => Self::Is(link),
            Some(_) => Self::Damaged("its check is wrong: it was changed".to_owned()),
        }
    }

    /// What the file holds for this link: always as many bytes.
    pub(super) fn bytes(link: &Link, key: &Key) -> Vec<u8> {
        let written = Written {
            seq: format!("{:020}", link.seq),
            mac: link.mac.to_string(),
            key: key.id.clone(),
            check: check(key, link).to_string(),
        };
        let mut bytes = serde_json::to_vec(&written).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

fn check(key: &Key, link: &Link) -> Mac {
    // No line begins like this.
    key.mac(&link.mac, format!("head {}", link.seq).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key::for_tests(byte)
    }

    #[test]
    fn a_line_is_taken_apart_as_it_was_put_together() {
        let mut line = r#"{"a":",\"mac\":\""}"#.to_owned();
        let mac = close(&mut line, &key(1), &Mac::NOTHING);
        let (body, found) = split(line.trim_end().as_bytes()).unwrap();
        assert_eq!(found, mac);
        assert_eq!(key(1).mac(&Mac::NOTHING, body), mac);
        assert_ne!(key(2).mac(&Mac::NOTHING, body), mac);
        assert_ne!(key(1).mac(&mac, body), mac, "the line before counts");
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
    }

    #[test]
    fn a_head_is_read_back_and_one_that_was_changed_is_not_believed() {
        let link = Link { seq: 17, mac: key(1).mac(&Mac::NOTHING, b"x") };
        let bytes = Head::bytes(&link, &key(1));
        assert_eq!(Head::parse(&bytes, &key(1)), Head::Is(link));
        assert_eq!(Head::parse(&bytes, &key(2)), Head::OtherKey(key(1).id().to_owned(), link));
        let changed = String::from_utf8(bytes.clone()).unwrap().replace("017", "016");
        assert!(matches!(Head::parse(changed.as_bytes(), &key(1)), Head::Damaged(_)));
        let other = Head::bytes(&Link { seq: u64::MAX, ..link }, &key(1));
        assert_eq!(bytes.len(), other.len(), "so that one can be written over the other");
    }

    #[test]
    fn a_key_of_our_own_is_made_once_and_kept_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = Key::from_own_file(&path, &crate::entropy::SystemEntropy).unwrap();
        let again = Key::from_own_file(&path, &crate::entropy::SystemEntropy).unwrap();
        assert_eq!(made.id(), again.id());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "short").unwrap();
        assert!(Key::from_own_file(&path, &crate::entropy::SystemEntropy).is_err());
    }
}
