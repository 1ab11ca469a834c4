//! Which keys the rows need, and other keys in place of those in use.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use sqlx::{Row as _, SqliteConnection};

use crate::store::StoreError;
use crate::store::keyring::Keyring;
use crate::store::keys::{Batch, Keys, Place, Retired};
use crate::store::seal::{KeyId, SealError};
use crate::store::spill;
use crate::store::sqlite::SqliteStore;

#[async_trait]
impl Keys for SqliteStore {
    async fn take(&self, keyring: Keyring) -> Result<(), StoreError> {
        // A reload mostly brings the same, and must not depend on a disk that works.
        if **self.keys() == keyring {
            return Ok(());
        }
        self.adopt(Arc::new(keyring)).await
    }

    fn sealing_key(&self) -> KeyId {
        self.keys().newest()
    }

    async fn count_old(&self) -> Result<u64, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let newest = self.keys().newest();
        // Two ranges of the index each, which end before the rows that need nothing.
        let count = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM grants WHERE sealed_by > x'' AND sealed_by < ?1)
                + (SELECT count(*) FROM grants WHERE sealed_by > ?1)
                + (SELECT count(*) FROM access_tokens WHERE sealed_by < ?1)
                + (SELECT count(*) FROM access_tokens WHERE sealed_by > ?1)
                + (SELECT count(*) FROM revocations WHERE sealed_by < ?1)
                + (SELECT count(*) FROM revocations WHERE sealed_by > ?1)",
        );
        let count: i64 = count.bind(newest.as_bytes()).fetch_one(&mut *connection).await?;
        Ok(count.unsigned_abs())
    }

    async fn reseal(&self, from: &Place, limit: u32) -> Result<Batch, StoreError> {
        self.reseal_batch(from, limit).await
    }

    async fn retire(&self, damaged: &HashMap<KeyId, u64>) -> Result<Vec<Retired>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let keyring = self.keyring.load_full();
        let spilled = spill::sealed_by(&self.path)?;
        let mut needed = Vec::new();
        for key in known(&mut connection).await? {
            let beyond_help = damaged.get(&key).copied().unwrap_or(0);
            let rows = count(&mut connection, key).await?;
            if key == keyring.newest() || rows > beyond_help || spilled.contains(&key) {
                needed.push(key);
                continue;
            }
            sqlx::query("DELETE FROM seal_keys WHERE id = ?")
                .bind(key.as_bytes())
                .execute(&mut *connection)
                .await?;
        }
        drop(connection);
        // What the old keys sealed was overwritten in the database, and still stands in its write-ahead log.
        self.forget_the_log().await?;
        let retired = keyring.old().filter(|(key, _)| !needed.contains(key));
        Ok(retired.map(|(key, file)| Retired { key, file: file.to_owned() }).collect())
    }
}

impl SqliteStore {
    /// Works with these keys from now on, if they open what there is. Whoever leaves in between leaves nothing half-done.
    pub(super) async fn adopt(&self, keyring: Arc<Keyring>) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut missing = Vec::new();
        let known = known(&mut connection).await?;
        for key in &known {
            if !keyring.has(*key) {
                missing.push((*key, count(&mut connection, *key).await?));
            }
        }
        missing.retain(|(_, rows)| *rows > 0);
        refuse(self.spilled_without(&keyring, &known)?.into_iter().chain(missing))?;
        // Before anything is sealed with it, so that it is missed when it is gone.
        sqlx::query("INSERT OR IGNORE INTO seal_keys VALUES (?)")
            .bind(keyring.newest().as_bytes())
            .execute(&mut *connection)
            .await?;
        let _alone = self.spilling.lock().unwrap_or_else(PoisonError::into_inner);
        refuse(self.spilled_without(&keyring, &known)?)?;
        self.keyring.store(keyring);
        Ok(())
    }

    /// Answers beside the store that are for the next start, and that these keys don't open.
    /// A key that the store never had is a damaged file's, and not missing.
    fn spilled_without(&self, keyring: &Keyring, known: &[KeyId]) -> Result<Vec<(KeyId, u64)>, StoreError> {
        let keys = spill::sealed_by(&self.path)?;
        let missing = keys.into_iter().filter(|key| !keyring.has(*key) && known.contains(key));
        Ok(missing.map(|key| (key, 1)).collect())
    }
}

fn refuse(missing: impl IntoIterator<Item = (KeyId, u64)>) -> Result<(), StoreError> {
    let mut each: Vec<(KeyId, u64)> = Vec::new();
    for (key, rows) in missing {
        match each.iter_mut().find(|(known, _)| *known == key) {
            Some((_, sum)) => *sum += rows,
            None => each.push((key, rows)),
        }
    }
    if each.is_empty() { Ok(()) } else { Err(SealError::MissingKeys(each).into()) }
}

/// The keys that rows may be sealed with.
async fn known(connection: &mut SqliteConnection) -> Result<Vec<KeyId>, StoreError> {
    let rows = sqlx::query("SELECT id FROM seal_keys").fetch_all(connection).await?;
    let id = |row: &sqlx::sqlite::SqliteRow| KeyId::from_bytes(row.try_get("id").ok()?);
    Ok(rows.iter().filter_map(id).collect())
}

/// How many rows are sealed with this one.
async fn count(connection: &mut SqliteConnection, key: KeyId) -> Result<u64, StoreError> {
    let count = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM grants WHERE sealed_by = ?1)
            + (SELECT count(*) FROM access_tokens WHERE sealed_by = ?1)
            + (SELECT count(*) FROM revocations WHERE sealed_by = ?1)",
    );
    let count: i64 = count.bind(key.as_bytes()).fetch_one(connection).await?;
    Ok(count.unsigned_abs())
}
