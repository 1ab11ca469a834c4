//! The last resort of a process that must stop while its store can't be written: the answer that a grant depends on
//! goes, sealed, into a file beside the database, and the next start takes it up before anything else.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::clock::{BootId, Moment, Timestamp};
use crate::model::{GrantId, GrantKey, Issued, RoleName, Scope, ServiceName, UserName};
use crate::secret::Digest;
use crate::store::keyring::Keyring;
use crate::store::row::millis;
use crate::store::seal::{KeyId, Purpose};
use crate::store::sqlite::beside;
use crate::store::{Commit, StoreError};

/// What a spill file held.
pub(super) struct Spilled {
    pub(super) id: GrantId,
    pub(super) version: i64,
    pub(super) answer: Commit,
}

/// The file's form. Tokens are sealed as they would be in the database.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    service: String,
    user: String,
    candidate: Option<String>,
    version: i64,
    refresh_token: Option<String>,
    rotation: String,
    role: Option<String>,
    access_token: String,
    scope: String,
    requested_wall: i64,
    requested_boot: i64,
    boot_id: String,
    expires_in: i64,
    refresh_after: i64,
    now: i64,
}

/// Writes and syncs one file; its name is a digest of the grant's key, so a later spill of the same grant replaces it.
pub(super) fn write(
    keys: &Keyring,
    database: &Path,
    id: &GrantId,
    version: i64,
    answer: &Commit,
) -> Result<(), StoreError> {
    let seal = |purpose, secret| keys.seal(purpose, secret).map(|sealed| STANDARD.encode(sealed));
    let refresh_token =
        answer.refresh_token.as_ref().map(|token| seal(Purpose::RefreshToken(id), token)).transpose()?;
    let issued = &answer.issued;
    let file = File {
        service: id.key.service.to_string(),
        user: id.key.user.to_string(),
        candidate: id.candidate.map(|digest| digest.to_string()),
        version,
        refresh_token,
        rotation: answer.rotation.to_string(),
        role: answer.role.as_ref().map(ToString::to_string),
        access_token: seal(Purpose::AccessToken(id, answer.role.as_ref()), &answer.access_token)?,
        scope: answer.scope.to_string(),
        requested_wall: issued.requested_at.wall.millis(),
        requested_boot: millis(issued.requested_at.boot),
        boot_id: issued.requested_at.boot_id.to_string(),
        expires_in: millis(issued.expires_in),
        refresh_after: millis(issued.refresh_after),
        now: answer.now.millis(),
    };
    let directory = directory(database);
    let named = Digest::of(format!("{id:?}").as_bytes());
    let path = directory.join(format!("{named}.json"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(unavailable(&directory))?;
    let temporary = path.with_extension("new");
    let write = || {
        let mut out = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        out.write_all(&serde_json::to_vec(&file)?)?;
        out.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        std::fs::File::open(&directory)?.sync_all()
    };
    write().map_err(unavailable(&path))
}

/// The files that wait to be taken up.
pub(super) fn files(database: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let directory = directory(database);
    match std::fs::read_dir(&directory) {
        Ok(entries) => Ok(entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unavailable(&directory)(error)),
    }
}

/// The key that each of the files is sealed with. What is no such file is found out by whoever reads it.
pub(super) fn sealed_by(database: &Path) -> Result<Vec<KeyId>, StoreError> {
    let key_of = |path: PathBuf| {
        let file: File = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        KeyId::of_sealed(&STANDARD.decode(file.access_token).ok()?)
    };
    Ok(files(database)?.into_iter().filter_map(key_of).collect())
}

/// Reads one back.
pub(super) fn read(keys: &Keyring, path: &Path) -> Result<Spilled, StoreError> {
    let text = std::fs::read(path).map_err(unavailable(path))?;
    let file: File = serde_json::from_slice(&text).map_err(|_| damaged(path))?;
    parse(keys, &file)?.ok_or_else(|| damaged(path))
}

fn damaged(path: &Path) -> StoreError {
    StoreError::Inconsistent { table: "spilled refreshes", column: "value", row: path.display().to_string() }
}

/// Kept for whoever may make sense of it, and never read again.
pub(super) fn put_aside(path: &Path) -> Result<(), StoreError> {
    std::fs::rename(path, path.with_extension("damaged")).map_err(unavailable(path))
}

/// Done with.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    std::fs::remove_file(path).map_err(unavailable(path))
}

fn parse(keys: &Keyring, file: &File) -> Result<Option<Spilled>, StoreError> {
    let key =
        || Some(GrantKey { service: ServiceName::parse(&file.service)?, user: UserName::parse(&file.user)? });
    let Some(key) = key() else { return Ok(None) };
    let id = GrantId { key, candidate: file.candidate.as_deref().and_then(Digest::parse) };
    let role = file.role.as_deref().and_then(RoleName::parse);
    let open = |purpose, text: &str| {
        keys.open(purpose, &STANDARD.decode(text).unwrap_or_default()).map_err(StoreError::from)
    };
    let refresh_token =
        file.refresh_token.as_deref().map(|text| open(Purpose::RefreshToken(&id), text)).transpose()?;
    let access_token = open(Purpose::AccessToken(&id, role.as_ref()), &file.access_token)?;
    let duration = |millis: i64| u64::try_from(millis).ok().map(Duration::from_millis);
    let answer = || {
        Some(Commit {
            refresh_token,
            rotation: file.rotation.parse().ok()?,
            role,
            access_token,
            scope: Scope::from_wire(&file.scope),
            issued: Issued {
                requested_at: Moment {
                    wall: Timestamp::from_millis(file.requested_wall),
                    boot: duration(file.requested_boot)?,
                    boot_id: BootId::parse(&file.boot_id)?,
                },
                expires_in: duration(file.expires_in)?,
                refresh_after: duration(file.refresh_after)?,
            },
            now: Timestamp::from_millis(file.now),
            asked_at: Timestamp::from_millis(file.now),
        })
    };
    Ok(answer().map(|answer| Spilled { id, version: file.version, answer }))
}

fn directory(database: &Path) -> PathBuf {
    beside(database, ".unsaved")
}

fn unavailable(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |error| StoreError::Unavailable(format!("{}: {error}", path.display()))
}
