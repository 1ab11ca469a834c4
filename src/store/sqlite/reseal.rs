//! Rows that an older key seals, some at a time, sealed with the newest.

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Sqlite, Transaction};

use crate::model::RoleName;
use crate::store::StoreError;
use crate::store::keyring::Keyring;
use crate::store::keys::{Batch, Damaged, Place};
use crate::store::row::Reader;
use crate::store::seal::{KeyId, Purpose};
use crate::store::sqlite::SqliteStore;

/// Where sealed values are.
struct Table {
    holds: Holds,
    name: &'static str,
    /// The sealed column.
    sealed: &'static str,
    /// What tells a row from the others of its grant.
    columns: &'static str,
}

enum Holds {
    RefreshTokens,
    AccessTokens,
    Revocations,
}

const TABLES: [Table; 3] = [
    Table { holds: Holds::RefreshTokens, name: "grants", sealed: "refresh_token", columns: "candidate" },
    Table {
        holds: Holds::AccessTokens,
        name: "access_tokens",
        sealed: "access_token",
        columns: "candidate, role",
    },
    Table { holds: Holds::Revocations, name: "revocations", sealed: "refresh_token", columns: "token" },
];

impl SqliteStore {
    pub(super) async fn reseal_batch(&self, from: &Place, limit: u32) -> Result<Batch, StoreError> {
        // Read, sealed and written while nobody else can write: no commit of an exchange comes in between.
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let keyring = self.keyring.load_full();
        let (mut place, mut batch) = (from.clone(), Batch::default());
        while let Some(table) = TABLES.get(place.table) {
            let rows = rows_after(&mut transaction, table, &place, limit).await?;
            for row in &rows {
                let row = Reader::new(table.name, row);
                place.row = row.get("rowid")?;
                match anew(&keyring, table, &row) {
                    Ok(sealed) => {
                        write(&mut transaction, table, place.row, sealed).await?;
                        batch.resealed += 1;
                    }
                    Err(error) => batch.damaged.push(damaged(&row, &error)),
                }
            }
            if !rows.is_empty() {
                batch.next = Some(place);
                break;
            }
            place = next(&mut transaction, table, place, keyring.newest()).await?;
        }
        transaction.commit().await?;
        Ok(batch)
    }
}

async fn rows_after(
    transaction: &mut Transaction<'_, Sqlite>,
    table: &Table,
    place: &Place,
    limit: u32,
) -> Result<Vec<SqliteRow>, StoreError> {
    // What is no key of ours yet stands for "before the first": nothing is sealed by it.
    if place.key.is_empty() {
        return Ok(Vec::new());
    }
    let Table { name, sealed, columns, .. } = table;
    let sql = format!(
        "SELECT rowid, service, user, {columns}, sealed_by, {sealed} AS sealed FROM {name}
         WHERE sealed_by = ? AND rowid > ? ORDER BY rowid LIMIT ?"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(&place.key).bind(place.row).bind(limit);
    Ok(query.fetch_all(&mut **transaction).await?)
}

/// The beginning of the next key's rows, or of the next table.
async fn next(
    transaction: &mut Transaction<'_, Sqlite>,
    table: &Table,
    place: Place,
    newest: KeyId,
) -> Result<Place, StoreError> {
    let mut after = place.key;
    loop {
        let sql = format!("SELECT min(sealed_by) FROM {} WHERE sealed_by > ?", table.name);
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(after);
        let key: Option<Vec<u8>> = query.fetch_one(&mut **transaction).await?;
        match key {
            // Over all of them in one step.
            Some(key) if key == newest.as_bytes() => after = key,
            Some(key) => return Ok(Place { table: place.table, key, row: i64::MIN }),
            None => return Ok(Place { table: place.table + 1, ..Place::default() }),
        }
    }
}

fn anew(keyring: &Keyring, table: &Table, row: &Reader<'_>) -> Result<Vec<u8>, StoreError> {
    let again = |purpose: Purpose<'_>| {
        let opened = keyring.open(purpose, row.get("sealed")?)?;
        Ok(keyring.seal(purpose, &opened)?)
    };
    match table.holds {
        Holds::RefreshTokens => again(Purpose::RefreshToken(&row.id()?)),
        Holds::AccessTokens => {
            let (id, role) = (row.id()?, RoleName::parse(row.get("role")?));
            again(Purpose::AccessToken(&id, role.as_ref()))
        }
        Holds::Revocations => {
            let digest = row.digest("token")?.ok_or_else(|| row.inconsistent("token"))?;
            again(Purpose::Revocation(&row.key()?, digest))
        }
    }
}

async fn write(
    transaction: &mut Transaction<'_, Sqlite>,
    table: &Table,
    row: i64,
    sealed: Vec<u8>,
) -> Result<(), StoreError> {
    let sql = format!("UPDATE {} SET {} = ? WHERE rowid = ?", table.name, table.sealed);
    sqlx::query(AssertSqlSafe(sql)).bind(sealed).bind(row).execute(&mut **transaction).await?;
    Ok(())
}

fn damaged(row: &Reader<'_>, error: &StoreError) -> Damaged {
    let text = |column| row.get::<String>(column).unwrap_or_default();
    let key = row.get::<&[u8]>("sealed_by").ok().and_then(KeyId::from_bytes);
    Damaged { service: text("service"), user: text("user"), why: error.to_string(), key }
}
