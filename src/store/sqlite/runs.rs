//! Runs that have ended.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::model::RunId;
use crate::store::row::readable;
use crate::store::sqlite::SqliteStore;
use crate::store::{RunStore, StoreError};

#[async_trait]
impl RunStore for SqliteStore {
    async fn end_run(&self, run: &RunId, until: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("DELETE FROM ended_runs WHERE until <= ?")
            .bind(now.millis())
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO ended_runs (run, until) VALUES (?, ?)
             ON CONFLICT (run) DO UPDATE SET until = max(until, excluded.until)",
        )
        .bind(run.as_str())
        .bind(until.millis())
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
    }

    async fn ended_runs(&self, now: Timestamp) -> Result<Vec<(RunId, Timestamp)>, StoreError> {
        let rows = sqlx::query("SELECT run, until FROM ended_runs WHERE until > ?")
            .bind(now.millis())
            .fetch_all(&self.pool)
            .await?;
        // A name that is none can't be in any pass either.
        Ok(readable("ended_runs", &rows, |row| {
            let run = RunId::parse(row.get("run")?).ok_or_else(|| row.inconsistent("run"))?;
            Ok((run, Timestamp::from_millis(row.get("until")?)))
        }))
    }
}
