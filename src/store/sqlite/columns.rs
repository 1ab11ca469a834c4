//! How a row is named in a query, and what it means that a query fails.

use sqlx::Sqlite;
use sqlx::sqlite::SqliteArguments;

use crate::model::{GrantId, RoleName};
use crate::store::StoreError;

/// Binds the three columns that name a row.
pub(super) fn of_row<'q, Q: Binds<'q>>(query: Q, id: &GrantId) -> Q {
    query
        .with(id.key.service.as_str().to_owned())
        .with(id.key.user.as_str().to_owned())
        .with(candidate_column(id))
}

/// Both kinds of sqlx queries take arguments the same way, but share no trait for it.
pub(super) trait Binds<'q> {
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

pub(super) fn candidate_column(id: &GrantId) -> String {
    id.candidate.map(|digest| digest.to_string()).unwrap_or_default()
}

pub(super) fn role_column(role: Option<&RoleName>) -> &str {
    role.map_or("", RoleName::as_str)
}

/// Whatever SQLite or the pool reports means that the store does not work; the row's own faults are found by the reader.
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}
