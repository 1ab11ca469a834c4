//! The embedded store: one SQLite file (WAL, `synchronous=FULL`), one process.
//!
//! A lock beside the file is held for the process's life. Whatever leases the file holds when it is opened belonged to
//! a process that is gone, and are void.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{QueryBuilder, Sqlite};

use crate::clock::{Moment, Timestamp};
use crate::model::{Expiry, Grant, GrantId, GrantKey, LastUse, RoleName, Scope, ServiceName, UserName};
use crate::secret::Digest;
use crate::store::keyring::Keyring;
use crate::store::row::{Reader, readable};
use crate::store::seal::Purpose;
use crate::store::spill;
use crate::store::{
    Begun, Candidate, Commit, Committed, InUse, Lease, Newest, PendingRevocation, Settled, Store, StoreError,
    StoredToken, Tombstone, Unused, Which,
};

mod absorb;
mod attempts;
mod candidates;
mod columns;
mod file;
mod keys;
mod notices;
mod reseal;
mod revocations;
mod runs;
mod upkeep;
mod uses;

use columns::{of_row, role_column};
pub(super) use file::beside;
pub use file::make_directory;

/// The adapter.
pub struct SqliteStore {
    // Of one connection: who holds it is alone with the file.
    pool: SqlitePool,
    // Sealing is done by whoever holds the connection, and so is changing the keys: nothing is written with keys that
    // have been replaced meanwhile.
    keyring: ArcSwap<Keyring>,
    // For what is sealed into a file, without the connection.
    spilling: Mutex<()>,
    // Whether there is anybody to be told of what happens to grants.
    keeps_notices: AtomicBool,
    path: PathBuf,
    // Held for its lock; the kernel lets go of it when the process ends, however it ends.
    _lock: std::fs::File,
}

/// Why a store could not be opened; the text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file.
    #[error("{path} is in use by process {holder}: one process at a time may own it")]
    InUse {
        /// The database file.
        path: String,
        /// The process id that the lock file names.
        holder: String,
    },
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl SqliteStore {
    /// Opens or makes the database file, migrates it, and absorbs what the last process could not commit.
    ///
    /// # Errors
    /// `InUse` at once if another process owns the file; the caller may try again. If a key is missing that rows are sealed
    /// with: then nothing has changed.
    pub async fn open(path: &Path, keyring: impl Into<Keyring>) -> Result<Self, OpenError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            OpenError::Failed(format!("{}: {what}: {error}", path.display()))
        };
        let lock = file::lock(path)?;
        // The file is made by us first, so that it is ours alone from the first moment; SQLite gives its WAL the same mode.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed("can't be written", &error))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("secure_delete", "ON")
            // What it sorts stays in memory: there is no directory but the database's where it could make a file.
            .pragma("temp_store", "MEMORY")
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await
            .map_err(|error| failed("can't be opened", &error))?;
        file::migrations().run(&pool).await.map_err(|error| failed("can't be migrated", &error))?;
        let keyring = Arc::new(keyring.into());
        let (current, spilling) = (ArcSwap::new(Arc::clone(&keyring)), Mutex::default());
        let (keeps_notices, path) = (AtomicBool::new(false), path.to_owned());
        let store = Self { pool, keyring: current, spilling, keeps_notices, path, _lock: lock };
        store.adopt(keyring).await.map_err(|error| failed("the key", &error))?;
        store.absorb_spilled().await.map_err(|error| failed("what the last process left", &error))?;
        sqlx::query("UPDATE grants SET lease_owner = NULL, lease_until = NULL WHERE lease_owner IS NOT NULL")
            .execute(&store.pool)
            .await
            .map_err(|error| failed("old leases", &error))?;
        Ok(store)
    }

    fn keys(&self) -> arc_swap::Guard<Arc<Keyring>> {
        self.keyring.load()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn grant(&self, id: &GrantId) -> Result<Option<Grant>, StoreError> {
        of_row(sqlx::query("SELECT * FROM grants WHERE service = ? AND user = ? AND candidate = ?"), id)
            .fetch_optional(&self.pool)
            .await?
            .map(|row| Reader::new("grants", &row).grant())
            .transpose()
    }

    async fn grants(
        &self,
        which: &Which,
        after: Option<&GrantKey>,
        limit: u32,
    ) -> Result<Vec<Grant>, StoreError> {
        // Only the conditions that there are, so that each finds its index.
        let mut query = QueryBuilder::<Sqlite>::new(
            "SELECT service, user, ended_reason, ended_at, rotation, registration, version, created_at, refreshed_at,
                attempt_wall, attempt_boot, attempt_boot_id, expires_at, expiry_known, granted_scope, subject
             FROM grants WHERE candidate = '' AND user <> ''",
        );
        if let Some(service) = &which.service {
            query.push(" AND service = ").push_bind(service.as_str());
        }
        if let Some(user) = &which.user {
            query.push(" AND user = ").push_bind(user.as_str());
        }
        match which.state.as_deref() {
            None => {}
            Some("active") => drop(query.push(" AND ended_at IS NULL")),
            Some(reason) => drop(query.push(" AND ended_reason = ").push_bind(reason)),
        }
        if let Some(moment) = which.ends_before {
            query
                .push(" AND ended_at IS NULL AND expires_at IS NOT NULL AND expires_at < ")
                .push_bind(moment.millis());
        }
        match (after, &which.service) {
            (None, _) => {}
            // Within one service it is the user's name that goes on: so the index is entered there.
            (Some(after), Some(service)) if after.service == *service => {
                query.push(" AND user > ").push_bind(after.user.as_str());
            }
            (Some(after), _) => {
                query.push(" AND (service, user) > (").push_bind(after.service.as_str()).push(", ");
                query.push_bind(after.user.as_str()).push(")");
            }
        }
        query.push(" ORDER BY service, user LIMIT ").push_bind(limit);
        let rows = query.build().fetch_all(&self.pool).await?;
        rows.iter().map(|row| Reader::new("grants", row).grant()).collect()
    }

    async fn count(&self) -> Result<Vec<(ServiceName, String, i64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT service, '' AS user, coalesce(ended_reason, 'active') AS state, count(*) AS grants
             FROM grants WHERE candidate = '' AND user <> '' GROUP BY 1, 3",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(readable("grants", &rows, |row| {
            let service =
                ServiceName::parse(row.get("service")?).ok_or_else(|| row.inconsistent("service"))?;
            Ok((service, row.get("state")?, row.get("grants")?))
        }))
    }

    async fn in_doubt(&self) -> Result<Vec<GrantId>, StoreError> {
        let rows = sqlx::query(
            "SELECT service, user, candidate FROM grants
             WHERE attempt_wall IS NOT NULL AND ended_at IS NULL AND user <> '' ORDER BY attempt_wall",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(readable("grants", &rows, Reader::id))
    }

    async fn access_token(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
    ) -> Result<Option<StoredToken>, StoreError> {
        let row = of_row(
            sqlx::query(
                "SELECT * FROM access_tokens WHERE service = ? AND user = ? AND candidate = ? AND role = ?",
            ),
            id,
        )
        .bind(role_column(role))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let row = Reader::new("access_tokens", &row);
        Ok(Some(StoredToken {
            token: self.keys().open(Purpose::AccessToken(id, role), row.get("access_token")?)?,
            scope: Scope::from_wire(row.get("scope")?),
            issued: row.issued()?,
            verified: row.digest("verified")?,
            version: row.get("version")?,
        }))
    }

    async fn begin(&self, id: &GrantId, lease: &Lease, now: &Moment) -> Result<Begun, StoreError> {
        self.begin_attempt(id, lease, now).await
    }

    async fn commit(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<Committed, StoreError> {
        self.commit_answer(id, version, answer).await
    }

    async fn settle(&self, id: &GrantId, version: i64, outcome: &Settled) -> Result<bool, StoreError> {
        self.settle_attempt(id, version, outcome).await
    }

    async fn mark_verified(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
        version: i64,
        against: Digest,
    ) -> Result<(), StoreError> {
        of_row(
            sqlx::query(
                "UPDATE access_tokens SET verified = ?
                 WHERE service = ? AND user = ? AND candidate = ? AND role = ? AND version = ?",
            )
            .bind(against.to_string()),
            id,
        )
        .bind(role_column(role))
        .bind(version)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn discard(&self, id: &GrantId, role: Option<&RoleName>, version: i64) -> Result<(), StoreError> {
        of_row(
            sqlx::query(
                "DELETE FROM access_tokens
                 WHERE service = ? AND user = ? AND candidate = ? AND role = ? AND version = ?",
            ),
            id,
        )
        .bind(role_column(role))
        .bind(version)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn imported_as(&self, service: &ServiceName, origin: Digest) -> Result<Option<Grant>, StoreError> {
        sqlx::query("SELECT * FROM grants WHERE service = ? AND origin = ? AND candidate = ''")
            .bind(service.as_str())
            .bind(origin.to_string())
            .fetch_optional(&self.pool)
            .await?
            .map(|row| Reader::new("grants", &row).grant())
            .transpose()
    }

    async fn add_candidate(
        &self,
        id: &GrantId,
        candidate: &Candidate,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.put_candidate(id, candidate, now).await
    }

    async fn abandoned(&self) -> Result<Vec<GrantId>, StoreError> {
        self.abandoned_consents().await
    }

    async fn promote(&self, candidate: &GrantId, user: &UserName) -> Result<bool, StoreError> {
        self.promote_candidate(candidate, user).await
    }

    async fn drop_candidate(&self, candidate: &GrantId) -> Result<(), StoreError> {
        self.forget_candidate(candidate).await
    }

    async fn ensure_client_grant(
        &self,
        id: &GrantId,
        registration: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.put_client_grant(id, registration, now).await
    }

    async fn revoke(&self, id: &GrantId, key: &GrantKey, now: Timestamp) -> Result<Tombstone, StoreError> {
        self.put_tombstone(id, key, now).await
    }

    async fn to_revoke(&self) -> Result<Vec<GrantKey>, StoreError> {
        self.keys_to_revoke().await
    }

    async fn revocations(&self, key: &GrantKey) -> Result<Vec<PendingRevocation>, StoreError> {
        self.revocations_of(key).await
    }

    async fn revoked_since(
        &self,
        service: &ServiceName,
        token: Digest,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.waits_to_be_revoked(service, token).await
    }

    async fn revoked(&self, key: &GrantKey, token: Digest) -> Result<(), StoreError> {
        self.forget_revocation(key, token).await
    }

    async fn candidates(&self) -> Result<Vec<GrantId>, StoreError> {
        self.candidate_rows().await
    }

    async fn erase(&self, key: &GrantKey) -> Result<bool, StoreError> {
        self.forget_tombstone(key).await
    }

    async fn in_use(&self, since: Timestamp) -> Result<Vec<InUse>, StoreError> {
        self.tokens_in_use(since).await
    }

    async fn unused(
        &self,
        service: &ServiceName,
        before: Timestamp,
        after: Option<&Unused>,
        limit: u32,
    ) -> Result<Vec<Unused>, StoreError> {
        self.unused_grants(service, before, after, limit).await
    }

    async fn newest(&self, id: &GrantId) -> Result<Option<Newest>, StoreError> {
        self.newest_refresh_token(id).await
    }

    async fn note_expiry(&self, id: &GrantId, expiry: Expiry) -> Result<(), StoreError> {
        self.put_expiry(id, expiry).await
    }

    async fn note_consent(
        &self,
        id: &GrantId,
        scope: &Scope,
        subject: Option<&str>,
    ) -> Result<(), StoreError> {
        self.put_consent(id, scope, subject).await
    }

    async fn roles_had(&self, keys: &[GrantKey]) -> Result<Vec<(GrantKey, RoleName)>, StoreError> {
        self.roles_with_tokens(keys).await
    }

    async fn note_uses(&self, uses: &[(GrantKey, LastUse)]) -> Result<(), StoreError> {
        self.put_uses(uses).await
    }

    async fn last_uses(&self, keys: &[GrantKey]) -> Result<Vec<(GrantKey, LastUse)>, StoreError> {
        self.uses_of(keys).await
    }

    async fn earliest_expiries(&self) -> Result<Vec<(ServiceName, Timestamp)>, StoreError> {
        self.first_expiries().await
    }

    async fn spill(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<(), StoreError> {
        let _alone = self.spilling.lock().unwrap_or_else(PoisonError::into_inner);
        spill::write(&self.keys(), &self.path, id, version, answer)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
