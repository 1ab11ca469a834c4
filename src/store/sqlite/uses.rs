//! Who used which grant last, and what grants cover.

use sqlx::{QueryBuilder, Sqlite, Transaction};

use crate::model::{GrantId, GrantKey, LastUse, RoleName, RunId, Scope};
use crate::store::StoreError;
use crate::store::row::{Reader, readable};
use crate::store::sqlite::SqliteStore;
use crate::store::sqlite::columns::of_row;

/// Keys in one query: far fewer than the parameters that SQLite takes, and a short turn for whoever waits for the file.
const AT_ONCE: usize = 500;

impl SqliteStore {
    pub(super) async fn put_uses(&self, uses: &[(GrantKey, LastUse)]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for (key, last) in uses {
            sqlx::query(
                "INSERT INTO last_use (service, user, used_at, uid, unit, run)
                 SELECT service, user, ?, ?, ?, ? FROM grants WHERE service = ? AND user = ? AND candidate = ''
                 ON CONFLICT DO UPDATE SET used_at = excluded.used_at, uid = excluded.uid, unit = excluded.unit,
                    run = excluded.run
                 WHERE excluded.used_at >= used_at",
            )
            .bind(last.at.millis())
            .bind(i64::from(last.uid))
            .bind(last.unit.as_deref())
            .bind(last.run.as_ref().map(RunId::as_str))
            .bind(key.service.as_str())
            .bind(key.user.as_str())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    pub(super) async fn uses_of(&self, keys: &[GrantKey]) -> Result<Vec<(GrantKey, LastUse)>, StoreError> {
        let mut uses = Vec::new();
        for keys in keys.chunks(AT_ONCE) {
            let select = "SELECT service, user, used_at, uid, unit, run FROM last_use ";
            let rows = of_these(select, keys).build().fetch_all(&self.pool).await?;
            uses.extend(readable("last_use", &rows, |row| Ok((row.key()?, row.last_use()?))));
        }
        Ok(uses)
    }

    pub(super) async fn put_consent(
        &self,
        id: &GrantId,
        scope: &Scope,
        subject: Option<&str>,
    ) -> Result<(), StoreError> {
        let query = sqlx::query(
            "UPDATE grants SET granted_scope = ?, subject = COALESCE(?, subject) WHERE service = ? AND user = ? AND candidate = ?",
        );
        of_row(query.bind(scope.to_string()).bind(subject), id).execute(&self.pool).await?;
        Ok(())
    }

    pub(super) async fn roles_with_tokens(
        &self,
        keys: &[GrantKey],
    ) -> Result<Vec<(GrantKey, RoleName)>, StoreError> {
        let mut roles = Vec::new();
        for keys in keys.chunks(AT_ONCE) {
            let mut query = of_these("SELECT service, user, role FROM access_tokens ", keys);
            query.push(" AND candidate = '' AND role <> ''");
            let rows = query.build().fetch_all(&self.pool).await?;
            roles.extend(readable("access_tokens", &rows, |row: &Reader<'_>| {
                let role = RoleName::parse(row.get("role")?).ok_or_else(|| row.inconsistent("role"))?;
                Ok((row.key()?, role))
            }));
        }
        Ok(roles)
    }
}

/// What is selected, of the rows that these keys name.
fn of_these(select: &'static str, keys: &[GrantKey]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::<Sqlite>::new(select);
    query.push("WHERE (service, user) IN (");
    query.push_values(keys, |mut row, key| {
        row.push_bind(key.service.as_str().to_owned()).push_bind(key.user.as_str().to_owned());
    });
    query.push(")");
    query
}

/// The grant was erased, and with it who used it.
pub(super) async fn forget_use(
    transaction: &mut Transaction<'_, Sqlite>,
    key: &GrantKey,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM last_use WHERE service = ? AND user = ?")
        .bind(key.service.as_str())
        .bind(key.user.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
