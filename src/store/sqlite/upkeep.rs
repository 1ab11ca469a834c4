//! What the upkeep of grants asks: which tokens are in use, which grants are not, and when they end by themselves.

use crate::clock::Timestamp;
use crate::model::{Expiry, GrantId, RoleName, ServiceName, TokenKey};
use crate::store::row::{Reader, readable};
use crate::store::seal::Purpose;
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::columns::of_row;
use crate::store::{InUse, Newest, StoreError, Unused};

impl SqliteStore {
    pub(super) async fn tokens_in_use(&self, since: Timestamp) -> Result<Vec<InUse>, StoreError> {
        let rows = sqlx::query(
            "SELECT t.service, t.user, role, t.version, asked_at, requested_wall, requested_boot, boot_id, expires_in, refresh_after
             FROM access_tokens t JOIN grants g USING (service, user, candidate)
             WHERE asked_at > ? AND candidate = '' AND ended_at IS NULL",
        )
        .bind(since.millis())
        .fetch_all(&self.pool)
        .await?;
        Ok(readable("access_tokens", &rows, |row| {
            let role = RoleName::parse(row.get("role")?);
            Ok(InUse {
                key: TokenKey { grant: row.key()?, role },
                issued: row.issued()?,
                version: row.get("version")?,
                asked_at: Timestamp::from_millis(row.get("asked_at")?),
            })
        }))
    }

    pub(super) async fn unused_grants(
        &self,
        service: &ServiceName,
        before: Timestamp,
        after: Option<&Unused>,
        limit: u32,
    ) -> Result<Vec<Unused>, StoreError> {
        let (since, user) = after.map_or((i64::MIN, ""), |after| (after.since.millis(), after.user.as_str()));
        let rows = sqlx::query(
            "SELECT service, user, refreshed_at FROM grants
             WHERE ended_at IS NULL AND candidate = '' AND user <> '' AND attempt_wall IS NULL
                AND service = ? AND refreshed_at < ? AND (refreshed_at, user) > (?, ?)
             ORDER BY refreshed_at, user LIMIT ?",
        )
        .bind(service.as_str())
        .bind(before.millis())
        .bind(since)
        .bind(user)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let row = Reader::new("grants", row);
                let since = Timestamp::from_millis(row.get("refreshed_at")?);
                Ok(Unused { user: row.key()?.user, since })
            })
            .collect()
    }

    pub(super) async fn newest_refresh_token(&self, id: &GrantId) -> Result<Option<Newest>, StoreError> {
        let row = of_row(
            sqlx::query(
                "SELECT service, user, refresh_token, version FROM grants
                 WHERE service = ? AND user = ? AND candidate = ? AND ended_at IS NULL AND attempt_wall IS NULL",
            ),
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let row = Reader::new("grants", &row);
        let refresh_token = self.keys().open(Purpose::RefreshToken(id), row.get("refresh_token")?)?;
        Ok(Some(Newest { refresh_token, version: row.get("version")? }))
    }

    pub(super) async fn put_expiry(&self, id: &GrantId, expiry: Expiry) -> Result<(), StoreError> {
        let (at, known) = match expiry {
            Expiry::Unknown => (None, false),
            Expiry::Never => (None, true),
            Expiry::At(at) => (Some(at.millis()), true),
        };
        let query = sqlx::query(
            "UPDATE grants SET expires_at = ?, expiry_known = ? WHERE service = ? AND user = ? AND candidate = ?",
        );
        of_row(query.bind(at).bind(known), id).execute(&self.pool).await?;
        Ok(())
    }

    pub(super) async fn first_expiries(&self) -> Result<Vec<(ServiceName, Timestamp)>, StoreError> {
        let rows = sqlx::query(
            "SELECT service, '' AS user, min(expires_at) AS earliest FROM grants
             WHERE expires_at IS NOT NULL AND ended_at IS NULL AND candidate = '' GROUP BY service",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(readable("grants", &rows, |row| {
            Ok((row.key()?.service, Timestamp::from_millis(row.get("earliest")?)))
        }))
    }
}
