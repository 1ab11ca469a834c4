//! Refresh tokens that were handed in, until they have proven whose they are.

use crate::clock::Timestamp;
use crate::model::{GrantId, GrantKey, RoleName, UserName};
use crate::store::row::{Reader, readable};
use crate::store::seal::Purpose;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::columns::{candidate_column, of_row, role_column};
use crate::store::{Candidate, StoreError};

impl SqliteStore {
    pub(super) async fn put_candidate(
        &self,
        id: &GrantId,
        candidate: &Candidate,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let sealed = self.keys().seal(Purpose::RefreshToken(id), &candidate.refresh_token)?;
        let added = of_row(
            sqlx::query(
                "INSERT INTO grants (service, user, candidate, origin, registration, rotation, version, refresh_token, created_at, consented)
                 VALUES (?, ?, ?, ?, ?, 'unknown', 1, ?, ?, ?)
                 -- Never presented yet: it belongs to whatever is configured by now.
                 ON CONFLICT DO UPDATE SET registration = excluded.registration
                     WHERE version = 1 AND attempt_wall IS NULL",
            ),
            id,
        )
        .bind(candidate_column(id))
        .bind(&candidate.registration)
        .bind(sealed)
        .bind(now.millis())
        .bind(candidate.consented)
        .execute(&mut *connection)
        .await?
        .rows_affected();
        Ok(added == 1)
    }

    pub(super) async fn abandoned_consents(&self) -> Result<Vec<GrantId>, StoreError> {
        let rows = sqlx::query(
            "SELECT service, user, candidate FROM grants WHERE candidate <> '' AND consented = 1",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(readable("grants", &rows, Reader::id))
    }

    pub(super) async fn promote_candidate(
        &self,
        candidate: &GrantId,
        user: &UserName,
    ) -> Result<bool, StoreError> {
        let proven =
            GrantId::current(GrantKey { service: candidate.key.service.clone(), user: user.clone() });
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = of_row(
            sqlx::query("SELECT * FROM grants WHERE service = ? AND user = ? AND candidate = ?"),
            candidate,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(false) };
        let row = Reader::new("grants", &row);
        let refresh_token = self.keys().open(Purpose::RefreshToken(candidate), row.get("refresh_token")?)?;
        let tokens = of_row(
            sqlx::query("SELECT * FROM access_tokens WHERE service = ? AND user = ? AND candidate = ?"),
            candidate,
        )
        .fetch_all(&mut *transaction)
        .await?;
        // Versions only grow, so that a write that names one of the old grant's can't hit the new one.
        let replaced: Option<i64> = of_row(
            sqlx::query_scalar("SELECT version FROM grants WHERE service = ? AND user = ? AND candidate = ?"),
            &proven,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let version = row.get::<i64>("version")?.max(replaced.unwrap_or(0)) + 1;
        of_row(sqlx::query("DELETE FROM grants WHERE service = ? AND user = ? AND candidate = ?"), &proven)
            .execute(&mut *transaction)
            .await?;
        // The row's key is part of what its seals are bound to: sealed anew under the new one.
        sqlx::query(
            "UPDATE grants SET user = ?, candidate = '', consented = 0, refresh_token = ?, version = ?
             WHERE service = ? AND user = ? AND candidate = ?",
        )
        .bind(user.as_str())
        .bind(self.keys().seal(Purpose::RefreshToken(&proven), &refresh_token)?)
        .bind(version)
        .bind(candidate.key.service.as_str())
        .bind(candidate.key.user.as_str())
        .bind(candidate_column(candidate))
        .execute(&mut *transaction)
        .await?;
        for token in &tokens {
            let token = Reader::new("access_tokens", token);
            let role = RoleName::parse(token.get("role")?);
            let opened = self
                .keys()
                .open(Purpose::AccessToken(candidate, role.as_ref()), token.get("access_token")?)?;
            of_row(
                sqlx::query("UPDATE access_tokens SET version = ?, access_token = ? WHERE service = ? AND user = ? AND candidate = ? AND role = ?")
                    .bind(version)
                    .bind(self.keys().seal(Purpose::AccessToken(&proven, role.as_ref()), &opened)?),
                &proven,
            )
            .bind(role_column(role.as_ref()))
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    pub(super) async fn forget_candidate(&self, candidate: &GrantId) -> Result<(), StoreError> {
        of_row(
            sqlx::query(
                "DELETE FROM grants WHERE service = ? AND user = ? AND candidate = ? AND candidate <> ''",
            ),
            candidate,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
