//! One exchange in the database: lease and write-ahead, the answer in one transaction, or an end without one.

use std::time::Duration;

use sqlx::{Sqlite, Transaction};

use crate::clock::{Moment, Timestamp};
use crate::model::{EndReason, GrantId, GrantState};
use crate::store::notices::EndedBy;
use crate::store::row::{Reader, millis};
use crate::store::seal::Purpose;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::columns::{candidate_column, of_row, role_column};
use crate::store::{Attempt, Begun, Commit, Committed, Lease, Settled, StoreError};

impl SqliteStore {
    pub(super) async fn begin_attempt(
        &self,
        id: &GrantId,
        lease: &Lease,
        now: &Moment,
    ) -> Result<Begun, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row =
            of_row(sqlx::query("SELECT * FROM grants WHERE service = ? AND user = ? AND candidate = ?"), id)
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
            refresh_token: self.keys().open(Purpose::RefreshToken(id), row.get("refresh_token")?)?,
            version: row.get("version")?,
            rotation: row.rotation()?,
            since,
            in_doubt: earlier.is_some(),
        };
        transaction.commit().await?;
        Ok(Begun::Attempt(attempt))
    }

    pub(super) async fn commit_answer(
        &self,
        id: &GrantId,
        version: i64,
        answer: &Commit,
    ) -> Result<Committed, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let sealed = answer
            .refresh_token
            .as_ref()
            .map(|token| self.keys().seal(Purpose::RefreshToken(id), token))
            .transpose()?;
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
            let token = answer.refresh_token.as_ref();
            let revoked = self.revoke_late_answer(&mut transaction, id, version, token, answer.now).await?;
            transaction.commit().await?;
            return Ok(if revoked { Committed::Revoked } else { Committed::Superseded });
        }
        self.put_access_token(&mut transaction, id, version + 1, answer).await?;
        transaction.commit().await?;
        Ok(Committed::Done(version + 1))
    }

    pub(super) async fn settle_attempt(
        &self,
        id: &GrantId,
        version: i64,
        outcome: &Settled,
    ) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let released = "UPDATE grants SET lease_owner = NULL, lease_until = NULL";
        let this = "WHERE service = ? AND user = ? AND candidate = ? AND version = ?";
        let changed = match outcome {
            Settled::InDoubt => {
                of_row(sqlx::query(sqlx::AssertSqlSafe(format!("{released} {this}"))), id)
                    .bind(version)
                    .execute(&mut *transaction)
                    .await?
            }
            Settled::Unchanged { in_doubt_since: doubt } => {
                let sql =
                    format!("{released}, attempt_wall = ?, attempt_boot = ?, attempt_boot_id = ? {this}");
                let query = sqlx::query(sqlx::AssertSqlSafe(sql))
                    .bind(doubt.map(|moment| moment.wall.millis()))
                    .bind(doubt.map(|moment| millis(moment.boot)))
                    .bind(doubt.map(|moment| moment.boot_id.to_string()));
                of_row(query, id).bind(version).execute(&mut *transaction).await?
            }
            Settled::Ended(reason, since) => {
                let changed = end(&mut transaction, id, version, *reason, *since).await?;
                if changed.rows_affected() > 0 {
                    let how = (*reason, EndedBy::AuthorizationServer);
                    self.put_notice_of_end(&mut transaction, id, how, *since).await?;
                }
                changed
            }
        };
        if changed.rows_affected() == 0 {
            tracing::warn!(grant = %id.key, "an attempt ended after its grant had moved on; left as it is");
        }
        transaction.commit().await?;
        Ok(changed.rows_affected() > 0)
    }

    async fn put_access_token(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        id: &GrantId,
        version: i64,
        answer: &Commit,
    ) -> Result<(), StoreError> {
        let sealed =
            self.keys().seal(Purpose::AccessToken(id, answer.role.as_ref()), &answer.access_token)?;
        let issued = &answer.issued;
        of_row(
            sqlx::query(
                "INSERT OR REPLACE INTO access_tokens (service, user, candidate, role, version, access_token, scope,
                    verified, requested_wall, requested_boot, boot_id, expires_in, refresh_after, asked_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?, '', ?, ?, ?, ?, ?, ?)",
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
        .bind(answer.asked_at.millis())
        .execute(&mut **transaction)
        .await?;
        Ok(())
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
         WHERE ended_at IS NULL AND service = ? AND user = ? AND candidate = ? AND version = ?",
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
