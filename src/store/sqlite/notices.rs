//! The outbox: what is to be told of grants.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use sqlx::{Sqlite, Transaction};

use crate::clock::Timestamp;
use crate::model::{EndReason, GrantId};
use crate::store::StoreError;
use crate::store::notices::{Dropped, EndedBy, Notice, NoticeKind, NoticeStore, What};
use crate::store::row::{Reader, readable};
use crate::store::sqlite::SqliteStore;

impl SqliteStore {
    /// A grant ends in this transaction. Of what was no user's grant yet, or is nobody's, there is nothing to tell.
    pub(super) async fn put_notice_of_end(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        id: &GrantId,
        (reason, by): (EndReason, EndedBy),
        since: Timestamp,
    ) -> Result<(), StoreError> {
        if id.candidate.is_some() || id.key.user.is_the_client() {
            return Ok(());
        }
        let notice = Notice {
            number: 0,
            key: id.key.clone(),
            what: What::Ended { reason, by },
            at: since,
            overtaken: false,
        };
        self.put_notice(transaction, &notice).await
    }

    async fn put_notice(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        notice: &Notice,
    ) -> Result<(), StoreError> {
        if !self.keeps_notices.load(Ordering::Acquire) {
            return Ok(());
        }
        let (reason, by, ends_at) = match notice.what {
            What::Ended { reason, by } => (Some(reason.as_str()), Some(by.as_str()), None),
            What::Ending { at } => (None, None, Some(at.millis())),
        };
        sqlx::query(
            "INSERT INTO notices (service, user, kind, at, reason, ended_by, ends_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(notice.key.service.as_str())
        .bind(notice.key.user.as_str())
        .bind(notice.what.kind().as_str())
        .bind(notice.at.millis())
        .bind(reason)
        .bind(by)
        .bind(ends_at)
        .execute(&mut **transaction)
        .await?;
        Ok(())
    }
}

#[async_trait]
impl NoticeStore for SqliteStore {
    async fn keep_notices(&self, keep: bool) -> Result<(), StoreError> {
        self.keeps_notices.store(keep, Ordering::Release);
        if !keep {
            // Whatever was being written saw the old word, and is written by now: there is one connection.
            sqlx::query("DELETE FROM notices").execute(&self.pool).await?;
            self.forget_the_log().await?;
        }
        Ok(())
    }

    async fn foresee_ends(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Notice>, StoreError> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        // In the words of the index, so that it is used.
        let rows = sqlx::query(
            "SELECT service, user, expires_at FROM grants
             WHERE expires_at IS NOT NULL AND ended_at IS NULL AND candidate = '' AND user <> ''
                AND (warned_of IS NULL OR abs(expires_at - warned_of) >= 86400000) AND expires_at < ?
             ORDER BY expires_at LIMIT ?",
        )
        .bind(before.millis())
        .bind(limit)
        .fetch_all(&mut *transaction)
        .await?;
        let notices = readable("grants", &rows, |row| {
            let what = What::Ending { at: Timestamp::from_millis(row.get("expires_at")?) };
            Ok(Notice { number: 0, key: row.key()?, what, at: now, overtaken: false })
        });
        for notice in &notices {
            sqlx::query(
                "UPDATE grants SET warned_of = expires_at WHERE service = ? AND user = ? AND candidate = ''",
            )
            .bind(notice.key.service.as_str())
            .bind(notice.key.user.as_str())
            .execute(&mut *transaction)
            .await?;
            self.put_notice(&mut transaction, notice).await?;
        }
        transaction.commit().await?;
        Ok(notices)
    }

    async fn notices(&self, after: i64, limit: u32) -> Result<Vec<Notice>, StoreError> {
        let rows = sqlx::query(
            "SELECT number, n.service, n.user, kind, at, reason, ended_by, ends_at,
                CASE kind
                    WHEN 'ended' THEN g.service IS NOT NULL AND g.ended_at IS NULL
                    ELSE g.service IS NULL OR g.ended_at IS NOT NULL OR g.warned_of IS NOT n.ends_at
                        OR g.expires_at IS NULL OR abs(g.expires_at - n.ends_at) >= 86400000
                END AS overtaken
             FROM notices n LEFT JOIN grants g
                ON g.service = n.service AND g.user = n.user AND g.candidate = ''
             WHERE number > ? ORDER BY number LIMIT ?",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        Ok(readable("notices", &rows, notice))
    }

    async fn forget_notice(&self, number: i64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM notices WHERE number = ?").bind(number).execute(&self.pool).await?;
        Ok(())
    }

    async fn wipe_notices(&self) -> Result<(), StoreError> {
        // Their users may have been erased meanwhile.
        self.forget_the_log().await
    }

    async fn drop_notices(&self, which: Dropped) -> Result<Vec<NoticeKind>, StoreError> {
        let query = match which {
            Dropped::OlderThan(then) => {
                sqlx::query("DELETE FROM notices WHERE at < ? RETURNING kind").bind(then.millis())
            }
            Dropped::Beyond(most) => sqlx::query(
                "DELETE FROM notices WHERE number <= (SELECT number FROM notices ORDER BY number DESC LIMIT 1 OFFSET ?)
                 RETURNING kind",
            )
            .bind(i64::from(most)),
        };
        let rows = query.fetch_all(&self.pool).await?;
        if !rows.is_empty() {
            self.forget_the_log().await?;
        }
        rows.iter().map(|row| kind(&Reader::new("notices", row))).collect()
    }
}

fn kind(row: &Reader<'_>) -> Result<NoticeKind, StoreError> {
    NoticeKind::parse(row.get("kind")?).ok_or_else(|| row.inconsistent("kind"))
}

fn notice(row: &Reader<'_>) -> Result<Notice, StoreError> {
    let what = match kind(row)? {
        NoticeKind::Ended => What::Ended {
            reason: row.get::<&str>("reason")?.parse().map_err(|()| row.inconsistent("reason"))?,
            by: EndedBy::parse(row.get("ended_by")?).ok_or_else(|| row.inconsistent("ended_by"))?,
        },
        NoticeKind::Ending => What::Ending { at: Timestamp::from_millis(row.get("ends_at")?) },
    };
    Ok(Notice {
        number: row.get("number")?,
        key: row.key()?,
        what,
        at: Timestamp::from_millis(row.get("at")?),
        overtaken: row.get("overtaken")?,
    })
}
