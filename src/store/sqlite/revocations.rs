//! Grants that were revoked here, until their authorization server has heard of it; and a user's last traces.

use sqlx::{Sqlite, Transaction};

use crate::clock::Timestamp;
use crate::model::{EndReason, GrantId, GrantKey, GrantState, ServiceName};
use crate::secret::{Digest, Secret};
use crate::store::notices::EndedBy;
use crate::store::row::{Reader, readable};
use crate::store::seal::Purpose;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::columns::{candidate_column, of_row};
use crate::store::sqlite::uses::forget_use;
use crate::store::{PendingRevocation, StoreError, Tombstone};

impl SqliteStore {
    pub(super) async fn put_tombstone(
        &self,
        id: &GrantId,
        key: &GrantKey,
        now: Timestamp,
    ) -> Result<Tombstone, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row =
            of_row(sqlx::query("SELECT * FROM grants WHERE service = ? AND user = ? AND candidate = ?"), id)
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(row) = row else { return Ok(Tombstone::Missing) };
        let row = Reader::new("grants", &row);
        let sealed: &[u8] = row.get("refresh_token")?;
        if sealed.is_empty() {
            return Ok(Tombstone::AlreadyThere);
        }
        let lived = row.state()? == GrantState::Active;
        let opened = self.keys().open(Purpose::RefreshToken(id), sealed);
        // That it ends here must not depend on it.
        let found = match &opened {
            Ok(token) => {
                self.put_revocation(&mut transaction, key, row.get("registration")?, token, now).await?;
                if lived { Tombstone::Put } else { Tombstone::PutAfterEnd }
            }
            Err(error) => {
                tracing::error!(%error, "revoked here, and its server can't be told");
                Tombstone::Unreadable
            }
        };
        let query = if id.candidate.is_some() {
            of_row(sqlx::query("DELETE FROM grants WHERE service = ? AND user = ? AND candidate = ?"), id)
        } else {
            // The version stays: an exchange under way is told from a later grant's by it, and its answer is revoked too.
            let ended = sqlx::query(
                "UPDATE grants SET refresh_token = x'', ended_reason = ?, ended_at = ?, lease_owner = NULL,
                    lease_until = NULL, attempt_wall = NULL, attempt_boot = NULL, attempt_boot_id = NULL
                 WHERE service = ? AND user = ? AND candidate = ?",
            );
            of_row(ended.bind(EndReason::Revoked.as_str()).bind(now.millis()), id)
        };
        query.execute(&mut *transaction).await?;
        if lived {
            self.put_notice_of_end(&mut transaction, id, (EndReason::Revoked, EndedBy::Us), now).await?;
        }
        of_row(sqlx::query("DELETE FROM access_tokens WHERE service = ? AND user = ? AND candidate = ?"), id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(found)
    }

    /// An answer came for a grant that was revoked while its exchange was under way: what it brought goes the same way.
    /// `false` if the row is no tombstone.
    pub(super) async fn revoke_late_answer(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        id: &GrantId,
        version: i64,
        refresh_token: Option<&Secret>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let row =
            of_row(sqlx::query("SELECT * FROM grants WHERE service = ? AND user = ? AND candidate = ?"), id)
                .fetch_optional(&mut **transaction)
                .await?;
        let Some(row) = row else { return Ok(false) };
        let row = Reader::new("grants", &row);
        let ended = matches!(row.state()?, GrantState::Ended { .. });
        if !ended || row.get::<i64>("version")? != version || !row.get::<&[u8]>("refresh_token")?.is_empty() {
            return Ok(false);
        }
        if let Some(refresh_token) = refresh_token {
            self.put_revocation(transaction, &id.key, row.get("registration")?, refresh_token, now).await?;
        }
        Ok(true)
    }

    async fn put_revocation(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        key: &GrantKey,
        registration: &str,
        refresh_token: &Secret,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let digest = refresh_token.digest();
        sqlx::query(
            "INSERT OR REPLACE INTO revocations (service, user, token, registration, refresh_token, revoked_at)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(key.service.as_str())
        .bind(key.user.as_str())
        .bind(digest.to_string())
        .bind(registration)
        .bind(self.keys().seal(Purpose::Revocation(key, digest), refresh_token)?)
        .bind(now.millis())
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }

    pub(super) async fn keys_to_revoke(&self) -> Result<Vec<GrantKey>, StoreError> {
        let rows =
            sqlx::query("SELECT service, user, min(revoked_at) FROM revocations GROUP BY 1, 2 ORDER BY 3")
                .fetch_all(&self.pool)
                .await?;
        Ok(readable("revocations", &rows, Reader::key))
    }

    pub(super) async fn revocations_of(&self, key: &GrantKey) -> Result<Vec<PendingRevocation>, StoreError> {
        let rows = sqlx::query("SELECT * FROM revocations WHERE service = ? AND user = ?")
            .bind(key.service.as_str())
            .bind(key.user.as_str())
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let row = Reader::new("revocations", row);
                let token = row.digest("token")?.ok_or_else(|| row.inconsistent("token"))?;
                let purpose = Purpose::Revocation(key, token);
                Ok(PendingRevocation {
                    refresh_token: self.keys().open(purpose, row.get("refresh_token")?)?,
                    registration: row.get("registration")?,
                    since: Timestamp::from_millis(row.get("revoked_at")?),
                })
            })
            .collect()
    }

    pub(super) async fn waits_to_be_revoked(
        &self,
        service: &ServiceName,
        token: Digest,
    ) -> Result<Option<Timestamp>, StoreError> {
        let since =
            sqlx::query_scalar("SELECT min(revoked_at) FROM revocations WHERE service = ? AND token = ?");
        let since: Option<i64> =
            since.bind(service.as_str()).bind(token.to_string()).fetch_one(&self.pool).await?;
        Ok(since.map(Timestamp::from_millis))
    }

    pub(super) async fn forget_revocation(&self, key: &GrantKey, token: Digest) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM revocations WHERE service = ? AND user = ? AND token = ?")
            .bind(key.service.as_str())
            .bind(key.user.as_str())
            .bind(token.to_string())
            .execute(&self.pool)
            .await?;
        self.forget_the_log().await
    }

    pub(super) async fn candidate_rows(&self) -> Result<Vec<GrantId>, StoreError> {
        let rows = sqlx::query("SELECT service, user, candidate FROM grants WHERE candidate <> ''")
            .fetch_all(&self.pool)
            .await?;
        Ok(readable("grants", &rows, Reader::id))
    }

    pub(super) async fn forget_tombstone(&self, key: &GrantKey) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // `secure_delete` overwrites what stood there.
        let erased = sqlx::query(
            "DELETE FROM grants WHERE service = ? AND user = ? AND candidate = '' AND refresh_token = x''",
        )
        .bind(key.service.as_str())
        .bind(key.user.as_str())
        .execute(&mut *transaction)
        .await?
        .rows_affected();
        if erased > 0 {
            forget_use(&mut transaction, key).await?;
        }
        transaction.commit().await?;
        self.forget_the_log().await?;
        Ok(erased > 0)
    }

    /// What was overwritten in the database still stands in its write-ahead log, until that begins anew.
    pub(super) async fn forget_the_log(&self) -> Result<(), StoreError> {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.pool).await?;
        Ok(())
    }

    pub(super) async fn put_client_grant(
        &self,
        id: &GrantId,
        registration: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        // Nothing of the client's can be used up, so its row is like that of a refresh token that persists.
        let query = sqlx::query(
            "INSERT INTO grants (service, user, candidate, origin, registration, rotation, version, refresh_token, created_at)
             VALUES (?, ?, ?, '', ?, 'persistent', 1, ?, ?)
             ON CONFLICT DO UPDATE SET registration = excluded.registration, ended_reason = NULL, ended_at = NULL",
        )
        .bind(id.key.service.as_str())
        .bind(id.key.user.as_str())
        .bind(candidate_column(id))
        .bind(registration)
        .bind(self.keys().seal(Purpose::RefreshToken(id), &Secret::new(String::new()))?)
        .bind(now.millis());
        query.execute(&mut *connection).await?;
        Ok(())
    }
}
