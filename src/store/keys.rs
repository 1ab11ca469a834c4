//! The keys that a store is sealed with, and how they are changed while it serves. The port; adapters are below.
//!
//! Every sealed value names its key, so a rotation has nothing to remember: what is left to do is what the rows say, whoever
//! began it and however that ended. What is written meanwhile is sealed with the newest key anyway.

use std::collections::HashMap;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::store::StoreError;
use crate::store::keyring::Keyring;
use crate::store::seal::KeyId;

/// A store whose keys can be changed.
#[async_trait]
pub trait Keys: Send + Sync {
    /// Opens and seals with these keys from now on. If rows are sealed with one that is not among them, everything stays
    /// as it is.
    async fn take(&self, keyring: Keyring) -> Result<(), StoreError>;

    /// The id of the key that seals.
    fn sealing_key(&self) -> KeyId;

    /// How many rows are sealed with another key than the newest.
    async fn count_old(&self) -> Result<u64, StoreError>;

    /// Seals rows anew that are sealed with another key than the newest, at most `limit` after `from`, and all of them or
    /// none: nothing that is written at the same time is lost. Rows that don't open stay as they are.
    async fn reseal(&self, from: &Place, limit: u32) -> Result<Batch, StoreError>;

    /// Once everything was gone through: forgets the keys that no row needs any more, but for so many that did not open
    /// even with their key; and says which of the older keys in use are not needed.
    async fn retire(&self, damaged: &HashMap<KeyId, u64>) -> Result<Vec<Retired>, StoreError>;
}

/// How far a rotation has got; from the beginning by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub(super) table: usize,
    /// As the column holds it, which may be anything.
    pub(super) key: Vec<u8>,
    pub(super) row: i64,
}

/// What became of some rows.
#[derive(Debug, Default)]
pub struct Batch {
    /// How many were sealed anew.
    pub resealed: u64,
    /// Those that do not open.
    pub damaged: Vec<Damaged>,
    /// Where to go on, unless that was the last.
    pub next: Option<Place>,
}

/// A row that does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The service that the row names.
    pub service: String,
    /// The user that it names.
    pub user: String,
    /// Why not, and what it should have been.
    pub why: String,
    /// The key that it says it was sealed with, if it names one at all.
    pub key: Option<KeyId>,
}

/// A key that no row needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Its id.
    pub key: KeyId,
    /// The file that it came from.
    pub file: PathBuf,
}
