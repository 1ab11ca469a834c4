//! Rows become what the rest speaks of, or a named inconsistency; never a guess.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::clock::{BootId, Moment, Timestamp};
use crate::model::{
    EndReason, Expiry, Grant, GrantId, GrantKey, GrantState, Issued, LastUse, Rotation, RunId, Scope,
    ServiceName, UserName,
};
use crate::secret::Digest;
use crate::store::StoreError;

/// Reads columns of one row of one table.
pub(super) struct Reader<'a> {
    row: &'a SqliteRow,
    table: &'static str,
}

/// What can be read of many rows. One that can't be is said and left out: it must not stand in the way of all others.
pub(super) fn readable<'a, T>(
    table: &'static str,
    rows: &'a [SqliteRow],
    read: impl Fn(&Reader<'a>) -> Result<T, StoreError>,
) -> Vec<T> {
    let read = |row| {
        let read = read(&Reader::new(table, row));
        read.inspect_err(|error| tracing::error!(%error, "a row that can't be read is passed over")).ok()
    };
    rows.iter().filter_map(read).collect()
}

impl<'a> Reader<'a> {
    pub(super) fn new(table: &'static str, row: &'a SqliteRow) -> Self {
        Self { row, table }
    }

    pub(super) fn get<T>(&self, column: &'static str) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'a, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        self.row.try_get(column).map_err(|_| self.inconsistent(column))
    }

    pub(super) fn inconsistent(&self, column: &'static str) -> StoreError {
        let text = |column| self.row.try_get::<String, _>(column).unwrap_or_default();
        StoreError::Inconsistent {
            table: self.table,
            column,
            row: format!("{} of {}", text("service"), text("user")),
        }
    }

    pub(super) fn key(&self) -> Result<GrantKey, StoreError> {
        let user = match self.get("user")? {
            "" => UserName::of_the_client(),
            name => UserName::parse(name).ok_or_else(|| self.inconsistent("user"))?,
        };
        let service = ServiceName::parse(self.get("service")?).ok_or_else(|| self.inconsistent("service"))?;
        Ok(GrantKey { service, user })
    }

    pub(super) fn id(&self) -> Result<GrantId, StoreError> {
        Ok(GrantId { key: self.key()?, candidate: self.digest("candidate")? })
    }

    /// A digest, or nothing.
    pub(super) fn digest(&self, column: &'static str) -> Result<Option<Digest>, StoreError> {
        match self.get::<&str>(column)? {
            "" => Ok(None),
            text => Digest::parse(text).map(Some).ok_or_else(|| self.inconsistent(column)),
        }
    }

    pub(super) fn rotation(&self) -> Result<Rotation, StoreError> {
        self.get::<&str>("rotation")?.parse().map_err(|()| self.inconsistent("rotation"))
    }

    pub(super) fn state(&self) -> Result<GrantState, StoreError> {
        match (self.get::<Option<&str>>("ended_reason")?, self.get::<Option<i64>>("ended_at")?) {
            (None, None) => Ok(GrantState::Active),
            (Some(reason), Some(since)) => Ok(GrantState::Ended {
                reason: reason.parse::<EndReason>().map_err(|()| self.inconsistent("ended_reason"))?,
                since: Timestamp::from_millis(since),
            }),
            (Some(_), None) | (None, Some(_)) => Err(self.inconsistent("ended_at")),
        }
    }

    pub(super) fn attempt(&self) -> Result<Option<Moment>, StoreError> {
        let columns = (
            self.get::<Option<i64>>("attempt_wall")?,
            self.get::<Option<i64>>("attempt_boot")?,
            self.get::<Option<&str>>("attempt_boot_id")?,
        );
        match columns {
            (None, None, None) => Ok(None),
            (Some(wall), Some(boot), Some(boot_id)) => {
                self.moment(wall, boot, boot_id, "attempt_boot_id").map(Some)
            }
            _ => Err(self.inconsistent("attempt_wall")),
        }
    }

    pub(super) fn issued(&self) -> Result<Issued, StoreError> {
        Ok(Issued {
            requested_at: self.moment(
                self.get("requested_wall")?,
                self.get("requested_boot")?,
                self.get("boot_id")?,
                "boot_id",
            )?,
            expires_in: self.duration("expires_in")?,
            refresh_after: self.duration("refresh_after")?,
        })
    }

    fn expiry(&self) -> Result<Expiry, StoreError> {
        Ok(match (self.get::<Option<i64>>("expires_at")?, self.get::<bool>("expiry_known")?) {
            (Some(at), _) => Expiry::At(Timestamp::from_millis(at)),
            (None, true) => Expiry::Never,
            (None, false) => Expiry::Unknown,
        })
    }

    pub(super) fn grant(&self) -> Result<Grant, StoreError> {
        Ok(Grant {
            key: self.key()?,
            state: self.state()?,
            rotation: self.rotation()?,
            registration: self.get("registration")?,
            version: self.get("version")?,
            created_at: Timestamp::from_millis(self.get("created_at")?),
            refreshed_at: self.get::<Option<i64>>("refreshed_at")?.map(Timestamp::from_millis),
            in_doubt_since: self.attempt()?,
            expiry: self.expiry()?,
            subject: self.get("subject")?,
            granted_scope: self.get::<Option<&str>>("granted_scope")?.map(Scope::from_wire),
        })
    }

    pub(super) fn last_use(&self) -> Result<LastUse, StoreError> {
        let run = self.get::<Option<&str>>("run")?;
        Ok(LastUse {
            at: Timestamp::from_millis(self.get("used_at")?),
            uid: u32::try_from(self.get::<i64>("uid")?).map_err(|_| self.inconsistent("uid"))?,
            unit: self.get::<Option<&str>>("unit")?.map(str::to_owned),
            run: run.map(|run| RunId::parse(run).ok_or_else(|| self.inconsistent("run"))).transpose()?,
        })
    }

    fn moment(
        &self,
        wall: i64,
        boot: i64,
        boot_id: &str,
        column: &'static str,
    ) -> Result<Moment, StoreError> {
        Ok(Moment {
            wall: Timestamp::from_millis(wall),
            boot: Duration::from_millis(u64::try_from(boot).map_err(|_| self.inconsistent(column))?),
            boot_id: BootId::parse(boot_id).ok_or_else(|| self.inconsistent(column))?,
        })
    }

    fn duration(&self, column: &'static str) -> Result<Duration, StoreError> {
        u64::try_from(self.get::<i64>(column)?)
            .map(Duration::from_millis)
            .map_err(|_| self.inconsistent(column))
    }
}

/// Milliseconds, as columns hold them.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
