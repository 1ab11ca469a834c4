//! The embedded store: one SQLite file (WAL, `synchronous=FULL`), one process.
//!
//! A lock beside the file is held for the process's life. Whatever leases the file holds when it is opened belonged to
//! a process that is gone, and are void.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{SqlSafeStr as _, Sqlite, Transaction};

use crate::clock::{Moment, Timestamp};
use crate::model::{EndReason, Grant, GrantId, GrantKey, GrantState, RoleName, Scope, ServiceName, UserName};
use crate::secret::Secret;
use crate::store::row::{Reader, millis};
use crate::store::seal::{Purpose, Sealer};
use crate::store::spill::{self, Spilled};
use crate::store::{
    Attempt, Begun, Commit, Committed, Lease, Settled, Store, StoreError, StoredToken, Which,
};

/// What the seal check holds; any constant would do.
const CHECK: &str = "bursar";

/// The adapter.
pub struct SqliteStore {
    pool: SqlitePool,
    sealer: Sealer,
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
    /// `InUse` at once if another process owns the file; the caller may try again.
    pub async fn open(path: &Path, sealer: Sealer) -> Result<Self, OpenError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            OpenError::Failed(format!("{}: {what}: {error}", path.display()))
        };
        let lock = lock(path)?;
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
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options)
            .await
            .map_err(|error| failed("can't be opened", &error))?;
        migrations().run(&pool).await.map_err(|error| failed("can't be migrated", &error))?;
        let store = Self { pool, sealer, path: path.to_owned(), _lock: lock };
        store.check_key().await.map_err(|error| failed("the key", &error))?;
        store.absorb_spilled().await.map_err(|error| failed("what the last process left", &error))?;
        sqlx::query("UPDATE grants SET lease_owner = NULL, lease_until = NULL WHERE lease_owner IS NOT NULL")
            .execute(&store.pool)
            .await
            .map_err(|error| failed("old leases", &error))?;
        Ok(store)
    }

    async fn check_key(&self) -> Result<(), StoreError> {
        let sealed: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT sealed FROM seal_check").fetch_optional(&self.pool).await?;
        if let Some(sealed) = sealed {
            self.sealer.open(Purpose::Check, &sealed)?;
            return Ok(());
        }
        let sealed = self.sealer.seal(Purpose::Check, &Secret::new(CHECK.to_owned()))?;
        sqlx::query("INSERT INTO seal_check (id, sealed) VALUES (1, ?)").bind(sealed).execute(&self.pool).await?;
        Ok(())
    }

    async fn absorb_spilled(&self) -> Result<(), StoreError> {
        for file in spill::files(&self.path)? {
            let Spilled { id, version, answer } = spill::read(&self.sealer, &file)?;
            match self.commit(&id, version, &answer).await? {
                Committed::Done(_) => tracing::info!(grant = %id.key, "took up a refresh that the last process could not write"),
                Committed::Superseded => tracing::warn!(grant = %id.key, "a refresh that the last process could not write is out of date; dropped"),
            }
            spill::remove(&file)?;
        }
        Ok(())
    }

    async fn put_access_token(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        id: &GrantId,
        version: i64,
        answer: &Commit,
    ) -> Result<(), StoreError> {
        let sealed = self.sealer.seal(Purpose::AccessToken(id, answer.role.as_ref()), &answer.access_token)?;
        let issued = &answer.issued;
        of_row(
            sqlx::query(
                "INSERT OR REPLACE INTO access_tokens (service, user, candidate, role, version, access_token, scope,
                    verified, requested_wall, requested_boot, boot_id, expires_in, refresh_after)
                 VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?)",
            ),
            id,
        )
        .bind(role_column(answer.role.as_ref()))
        .bind(version)
        .bind(sealed)
        .bind(answer.scope.to_string())
        .bind(issued.requested_at.wall.millis())
        .bind(millis(issued.requested_at.boot))
        .bind(issued.requested_at.boot_id.to_string())
        .bind(millis(issued.expires_in))
        .bind(millis(issued.refresh_after))
        .execute(&mut **transaction)
        .await?;
        Ok(())
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

    async fn grants(&self, which: &Which, after: Option<&GrantKey>, limit: u32) -> Result<Vec<Grant>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM grants
             WHERE candidate = '' AND (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR user = ?2)
               AND (?3 IS NULL OR coalesce(ended_reason, 'active') = ?3)
               AND (?4 IS NULL OR (service, user) > (?4, ?5))
             ORDER BY service, user LIMIT ?6",
        )
        .bind(which.service.as_ref().map(ServiceName::as_str))
        .bind(which.user.as_ref().map(UserName::as_str))
        .bind(which.state.as_deref())
        .bind(after.map(|key| key.service.as_str()))
        .bind(after.map(|key| key.user.as_str()))
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Reader::new("grants", row).grant()).collect()
    }

    async fn count(&self) -> Result<Vec<(ServiceName, String, i64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT service, '' AS user, coalesce(ended_reason, 'active') AS state, count(*) AS grants
             FROM grants WHERE candidate = '' GROUP BY 1, 3",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let row = Reader::new("grants", row);
                let service = ServiceName::parse(row.get("service")?).ok_or_else(|| row.inconsistent("service"))?;
                Ok((service, row.get("state")?, row.get("grants")?))
            })
            .collect()
    }

    async fn in_doubt(&self) -> Result<Vec<GrantId>, StoreError> {
        let rows = sqlx::query(
            "SELECT service, user, candidate FROM grants
             WHERE attempt_wall IS NOT NULL AND ended_at IS NULL ORDER BY attempt_wall",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Reader::new("grants", row).id()).collect()
    }

    async fn access_token(&self, id: &GrantId, role: Option<&RoleName>) -> Result<Option<StoredToken>, StoreError> {
        let row = of_row(
            sqlx::query("SELECT * FROM access_tokens WHERE service = ? AND user = ? AND candidate = ? AND role = ?"),
            id,
        )
        .bind(role_column(role))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let row = Reader::new("access_tokens", &row);
        Ok(Some(StoredToken {
            token: self.sealer.open(Purpose::AccessToken(id, role), row.get("access_token")?)?,
            scope: Scope::from_wire(row.get("scope")?),
            issued: row.issued()?,
            verified: row.get("verified")?,
            version: row.get("version")?,
        }))
    }

    async fn begin(&self, id: &GrantId, lease: &Lease, now: &Moment) -> Result<Begun, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = of_row(sqlx::query("SELECT * FROM grants WHERE service = ? AND user = ? AND candidate = ?"), id)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(row) = row else { return Ok(Begun::Missing) };
        let row = Reader::new("grants", &row);
        if let GrantState::Ended { reason, since } = row.state()? {
            return Ok(Begun::Ended(reason, since));
        }
        if let (Some(owner), Some(until)) =
            (row.get::<Option<&str>>("lease_owner")?, row.get::<Option<i64>>("lease_until")?)
            && owner != lease.owner
            && until > millis(now.boot)
        {
            let left = u64::try_from(until - millis(now.boot)).unwrap_or(0);
            return Ok(Begun::Held(Duration::from_millis(left)));
        }
        let earlier = row.attempt()?;
        let since = earlier.unwrap_or(*now);
        sqlx::query(
            "UPDATE grants SET lease_owner = ?, lease_until = ?, attempt_wall = ?, attempt_boot = ?, attempt_boot_id = ?
             WHERE service = ? AND user = ? AND candidate = ?",
        )
        .bind(&lease.owner)
        .bind(millis(now.boot + lease.duration))
        .bind(since.wall.millis())
        .bind(millis(since.boot))
        .bind(since.boot_id.to_string())
        .bind(id.key.service.as_str())
        .bind(id.key.user.as_str())
        .bind(candidate_column(id))
        .execute(&mut *transaction)
        .await?;
        let attempt = Attempt {
            refresh_token: self.sealer.open(Purpose::RefreshToken(id), row.get("refresh_token")?)?,
            version: row.get("version")?,
            rotation: row.rotation()?,
            since,
            in_doubt: earlier.is_some(),
        };
        transaction.commit().await?;
        Ok(Begun::Attempt(attempt))
    }

    async fn commit(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<Committed, StoreError> {
        let sealed = answer
            .refresh_token
            .as_ref()
            .map(|token| self.sealer.seal(Purpose::RefreshToken(id), token))
            .transpose()?;
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let changed = sqlx::query(
            "UPDATE grants SET refresh_token = coalesce(?, refresh_token), rotation = ?, version = version + 1,
                refreshed_at = ?, attempt_wall = NULL, attempt_boot = NULL, attempt_boot_id = NULL,
                lease_owner = NULL, lease_until = NULL
             WHERE service = ? AND user = ? AND candidate = ? AND version = ? AND ended_at IS NULL",
        )
        .bind(sealed)
        .bind(answer.rotation.as_str())
        .bind(answer.now.millis())
        .bind(id.key.service.as_str())
        .bind(id.key.user.as_str())
        .bind(candidate_column(id))
        .bind(version)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if changed == 0 {
            return Ok(Committed::Superseded);
        }
        self.put_access_token(&mut transaction, id, version + 1, answer).await?;
        transaction.commit().await?;
        Ok(Committed::Done(version + 1))
    }

    async fn settle(&self, id: &GrantId, version: i64, outcome: &Settled) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let released = "UPDATE grants SET lease_owner = NULL, lease_until = NULL";
        let this = "WHERE service = ? AND user = ? AND candidate = ? AND version = ?";
        let changed = match outcome {
            Settled::InDoubt => of_row(sqlx::query(sqlx::AssertSqlSafe(format!("{released} {this}"))), id)
                .bind(version)
                .execute(&mut *transaction)
                .await?,
            Settled::Unchanged { in_doubt_since: doubt } => {
                let sql = format!("{released}, attempt_wall = ?, attempt_boot = ?, attempt_boot_id = ? {this}");
                let query = sqlx::query(sqlx::AssertSqlSafe(sql))
                    .bind(doubt.map(|moment| moment.wall.millis()))
                    .bind(doubt.map(|moment| millis(moment.boot)))
                    .bind(doubt.map(|moment| moment.boot_id.to_string()));
                of_row(query, id).bind(version).execute(&mut *transaction).await?
            }
            Settled::Ended(reason, since) => end(&mut transaction, id, version, *reason, *since).await?,
        };
        if changed.rows_affected() == 0 {
            tracing::warn!(grant = %id.key, "an attempt ended after its grant had moved on; left as it is");
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn mark_verified(&self, id: &GrantId, role: Option<&RoleName>, version: i64) -> Result<(), StoreError> {
        of_row(
            sqlx::query(
                "UPDATE access_tokens SET verified = 1
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

    async fn add_candidate(&self, id: &GrantId, token: &Secret, now: Timestamp) -> Result<bool, StoreError> {
        let sealed = self.sealer.seal(Purpose::RefreshToken(id), token)?;
        let added = of_row(
            sqlx::query(
                "INSERT INTO grants (service, user, candidate, rotation, version, refresh_token, created_at)
                 VALUES (?, ?, ?, 'unknown', 1, ?, ?) ON CONFLICT DO NOTHING",
            ),
            id,
        )
        .bind(sealed)
        .bind(now.millis())
        .execute(&self.pool)
        .await?
        .rows_affected();
        Ok(added == 1)
    }

    async fn promote(&self, candidate: &GrantId, user: &UserName) -> Result<bool, StoreError> {
        let proven = GrantId::current(GrantKey { service: candidate.key.service.clone(), user: user.clone() });
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = of_row(
            sqlx::query("SELECT * FROM grants WHERE service = ? AND user = ? AND candidate = ?"),
            candidate,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(false) };
        let row = Reader::new("grants", &row);
        let refresh_token = self.sealer.open(Purpose::RefreshToken(candidate), row.get("refresh_token")?)?;
        let tokens = of_row(
            sqlx::query("SELECT * FROM access_tokens WHERE service = ? AND user = ? AND candidate = ?"),
            candidate,
        )
        .fetch_all(&mut *transaction)
        .await?;
        // Versions only grow, so that a write that names one of the old grant's can't hit the new one.
        let version: Option<i64> =
            of_row(sqlx::query_scalar("SELECT version FROM grants WHERE service = ? AND user = ? AND candidate = ?"), &proven)
                .fetch_optional(&mut *transaction)
                .await?;
        of_row(sqlx::query("DELETE FROM grants WHERE service = ? AND user = ? AND candidate = ?"), &proven)
            .execute(&mut *transaction)
            .await?;
        // The row's key is part of what its seals are bound to: sealed anew under the new one.
        sqlx::query(
            "UPDATE grants SET user = ?, candidate = '', refresh_token = ?, version = max(version, ?) + 1
             WHERE service = ? AND user = ? AND candidate = ?",
        )
        .bind(user.as_str())
        .bind(self.sealer.seal(Purpose::RefreshToken(&proven), &refresh_token)?)
        .bind(version.unwrap_or(0))
        .bind(candidate.key.service.as_str())
        .bind(candidate.key.user.as_str())
        .bind(candidate_column(candidate))
        .execute(&mut *transaction)
        .await?;
        for token in &tokens {
            let token = Reader::new("access_tokens", token);
            let role = RoleName::parse(token.get("role")?);
            let opened =
                self.sealer.open(Purpose::AccessToken(candidate, role.as_ref()), token.get("access_token")?)?;
            of_row(
                sqlx::query("UPDATE access_tokens SET access_token = ? WHERE service = ? AND user = ? AND candidate = ? AND role = ?")
                    .bind(self.sealer.seal(Purpose::AccessToken(&proven, role.as_ref()), &opened)?),
                &proven,
            )
            .bind(role_column(role.as_ref()))
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    async fn drop_candidate(&self, candidate: &GrantId) -> Result<(), StoreError> {
        of_row(
            sqlx::query("DELETE FROM grants WHERE service = ? AND user = ? AND candidate = ? AND candidate <> ''"),
            candidate,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn spill(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<(), StoreError> {
        spill::write(&self.sealer, &self.path, id, version, answer)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

async fn end(
    transaction: &mut Transaction<'_, Sqlite>,
    id: &GrantId,
    version: i64,
    reason: EndReason,
    since: Timestamp,
) -> Result<sqlx::sqlite::SqliteQueryResult, StoreError> {
    let query = sqlx::query(
        "UPDATE grants SET lease_owner = NULL, lease_until = NULL, attempt_wall = NULL, attempt_boot = NULL,
            attempt_boot_id = NULL, ended_reason = ?, ended_at = ?
         WHERE service = ? AND user = ? AND candidate = ? AND version = ?",
    )
    .bind(reason.as_str())
    .bind(since.millis());
    let changed = of_row(query, id).bind(version).execute(&mut **transaction).await?;
    if changed.rows_affected() > 0 {
        of_row(sqlx::query("DELETE FROM access_tokens WHERE service = ? AND user = ? AND candidate = ?"), id)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(changed)
}

/// Binds the three columns that name a row.
fn of_row<'q, Q: Binds<'q>>(query: Q, id: &GrantId) -> Q {
    query
        .with(id.key.service.as_str().to_owned())
        .with(id.key.user.as_str().to_owned())
        .with(candidate_column(id))
}

/// Both kinds of sqlx queries take arguments the same way, but share no trait for it.
trait Binds<'q> {
    fn with(self, text: String) -> Self;
}

impl<'q> Binds<'q> for sqlx::query::Query<'q, Sqlite, SqliteArguments> {
    fn with(self, text: String) -> Self {
        self.bind(text)
    }
}

impl<'q, T> Binds<'q> for sqlx::query::QueryScalar<'q, Sqlite, T, SqliteArguments>
where
    (T,): for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow>,
{
    fn with(self, text: String) -> Self {
        self.bind(text)
    }
}

fn candidate_column(id: &GrantId) -> String {
    id.candidate.map(|digest| digest.to_string()).unwrap_or_default()
}

fn role_column(role: Option<&RoleName>) -> &str {
    role.map_or("", RoleName::as_str)
}

fn migrations() -> Migrator {
    Migrator::with_migrations(vec![Migration::new(
        1,
        "grants".into(),
        MigrationType::Simple,
        include_str!("migrations/sqlite/0001_grants.sql").into_sql_str(),
        false,
    )])
}

/// Takes the lock file beside the database, or says whose it is.
fn lock(path: &Path) -> Result<std::fs::File, OpenError> {
    let failed = |path: &Path, error: io::Error| OpenError::Failed(format!("{}: {error}", path.display()));
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed(directory, error))?;
    }
    let lock_path = beside(path, ".lock");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|error| failed(&lock_path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&lock_path).unwrap_or_default().trim().to_owned();
            return Err(OpenError::InUse { path: path.display().to_string(), holder });
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(failed(&lock_path, error)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|error| failed(&lock_path, error))?;
    Ok(file)
}

/// The path with a suffix to its file name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whatever SQLite or the pool reports means that the store does not work; the row's own faults are found by the reader.
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
