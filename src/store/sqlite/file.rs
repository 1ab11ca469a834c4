//! The database file: whose it is, and what shape it has.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::store::sqlite::OpenError;

pub(super) fn migrations() -> Migrator {
    let files = [
        ("grants", include_str!("../migrations/sqlite/0001_grants.sql")),
        ("revocations", include_str!("../migrations/sqlite/0002_revocations.sql")),
        ("upkeep", include_str!("../migrations/sqlite/0003_upkeep.sql")),
        ("ended_runs", include_str!("../migrations/sqlite/0004_ended_runs.sql")),
        ("keys", include_str!("../migrations/sqlite/0005_keys.sql")),
        ("notices", include_str!("../migrations/sqlite/0006_notices.sql")),
        ("last_use", include_str!("../migrations/sqlite/0007_last_use.sql")),
        ("granted_scope", include_str!("../migrations/sqlite/0008_granted_scope.sql")),
        ("consents", include_str!("../migrations/sqlite/0009_consents.sql")),
    ];
    let migration = |(version, (name, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(files).map(migration).collect())
}

/// Makes the directory that the database is to be in, for us alone, unless it is there.
///
/// # Errors
/// What the system says, with the path.
pub fn make_directory(path: &Path) -> Result<(), OpenError> {
    let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) else {
        return Ok(());
    };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| OpenError::Failed(format!("{}: {error}", directory.display())))
}

/// Takes the lock file beside the database, or says whose it is.
pub(super) fn lock(path: &Path) -> Result<std::fs::File, OpenError> {
    let failed = |path: &Path, error: io::Error| OpenError::Failed(format!("{}: {error}", path.display()));
    make_directory(path)?;
    let lock_path = beside(path, ".lock");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|error| failed(&lock_path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&lock_path).unwrap_or_default().trim().to_owned();
            return Err(OpenError::InUse { path: path.display().to_string(), holder });
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(failed(&lock_path, error)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(|error| failed(&lock_path, error))?;
    Ok(file)
}

/// The path with a suffix to its file name.
pub(in crate::store) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
