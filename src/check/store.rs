//! The store: asked of the sidecar while one runs, for then it has the file; else opened as a start does.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use hyper::Method;
use nix::unistd::{Uid, geteuid};
use serde_json::Value;

use crate::authorization_server::registration;
use crate::check::{Ports, Step};
use crate::model::UserName;
use crate::settings::{Problem, Settings};
use crate::store::keyring::{KeyFiles, Keyring};
use crate::store::sqlite::{OpenError, SqliteStore};
use crate::store::{Store as _, StoreError, Which};

/// Grants that are looked at for their users' names.
const MOST_GRANTS: u32 = 1000;

/// The keys whose files open it.
const KEYS: [&str; 2] = ["store.key_file", "store.old_key_files"];

/// What is known of the grants, as far as anybody could be asked.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether a sidecar answers.
    pub(super) running: bool,
    /// Living grants by service.
    pub(super) grants: Option<BTreeMap<String, u64>>,
    /// Whose.
    pub(super) users: BTreeSet<UserName>,
}

pub(super) async fn look(settings: &Settings, problems: &[Problem], ports: &Ports) -> (Found, Vec<Step>) {
    let admin = &settings.fixed.admin.path;
    match ports.sidecar.ask(admin, Method::GET, "/v1/status").await {
        Ok((status, body)) if status.is_success() => {
            let grants = format!("/v1/grants?state=active&limit={MOST_GRANTS}");
            let grants = ports.sidecar.ask(admin, Method::GET, &grants).await;
            let grants = grants.map(|(_, grants)| grants).unwrap_or_default();
            let steps = [Some(judge_status(settings, &body)), judge_configuration(settings, &body)];
            (served(&body, &grants), steps.into_iter().flatten().collect())
        }
        Ok((status, _)) => {
            let message = format!("the sidecar answers {status} to GET /v1/status");
            let step = Step::bad("store", "store.url", message, "read the sidecar's log");
            (Found { running: true, ..Found::default() }, vec![step])
        }
        Err(_) if problems.iter().any(|problem| KEYS.contains(&problem.key.as_str())) => {
            let why = "no sidecar answers, and the key that would open it can't be read here";
            let remedy =
                "start bursar (`systemctl start bursar`), and run the check again: the sidecar is asked then";
            (Found::default(), vec![Step::untold("store", "store.url", why).and_do(remedy)])
        }
        Err(why) => {
            let mut found = Found::default();
            let step = open(&settings.fixed.database, &settings.keys, &why, &mut found).await;
            (found, vec![step])
        }
    }
}

fn served(status: &Value, grants: &Value) -> Found {
    let active = |states: &Value| states.get("active").and_then(Value::as_u64).unwrap_or(0);
    let counts = status.get("grants").and_then(Value::as_object);
    let name = |grant: &Value| UserName::parse(grant.get("user")?.as_str()?);
    // Of those that there are too many of, nothing can be said of a name that is not among the first.
    let all = grants.get("next_cursor").is_none_or(Value::is_null);
    let grants = grants.get("grants").and_then(Value::as_array).filter(|_| all);
    Found {
        running: true,
        grants: counts
            .map(|counts| counts.iter().map(|(name, states)| (name.clone(), active(states))).collect()),
        users: grants.into_iter().flatten().filter_map(name).collect(),
    }
}

fn judge_status(settings: &Settings, status: &Value) -> Step {
    let number = |name: &str| status.get(name).and_then(Value::as_u64).unwrap_or(0);
    let waiting = status.get("waiting_for").and_then(Value::as_array).cloned().unwrap_or_default();
    let waiting: Vec<&str> = waiting.iter().filter_map(Value::as_str).collect();
    let version = status.get("version").and_then(Value::as_str).unwrap_or("of another version");
    let database = settings.fixed.database.display();
    if !waiting.is_empty() {
        let message = format!("the sidecar that has {database} waits for: {}", waiting.join(", "));
        return Step::bad(
            "store",
            "store.url",
            message,
            "read the sidecar's log; GET /ready says when it is over",
        );
    }
    let old = number("rows_sealed_with_old_keys");
    if old > 0 {
        let message = format!("{old} rows are still sealed with older keys");
        return Step::doubtful("store", "store.old_key_files", message, "bursar key rotate");
    }
    Step::good("store", "store.url", format!("open in the running sidecar, bursar {version}, with its key"))
}

/// Whether the sidecar works with what was read here, as far as it tells.
fn judge_configuration(settings: &Settings, status: &Value) -> Option<Step> {
    let text = |of: &Value, name: &str| of.get(name).and_then(Value::as_str).map(str::to_owned);
    let theirs = status.get("authorization_servers")?.as_array()?.iter();
    let theirs: Option<BTreeMap<String, String>> =
        theirs.map(|server| Some((text(server, "name")?, text(server, "registration")?))).collect();
    let ours = settings
        .servers
        .iter()
        .map(|(name, server)| (name.clone(), registration(&server.client_id, &server.issuer)))
        .collect();
    (theirs? != ours).then(|| {
        let message = "the running sidecar works with other authorization servers than this file names";
        Step::doubtful("configuration", "the running sidecar", message, "systemctl reload bursar, or SIGHUP")
    })
}

/// As a start does, but only what is there: what check made could belong to the wrong user.
async fn open(database: &Path, keys: &KeyFiles, why_no_sidecar: &str, found: &mut Found) -> Step {
    let (bad, shown) =
        (|message, remedy: String| Step::bad("store", "store.url", message, remedy), database.display());
    let owner = match std::fs::metadata(database) {
        Ok(metadata) => metadata.uid(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Step::untold(
                "store",
                "store.url",
                format!("{shown}: not made yet; the first start makes it"),
            );
        }
        Err(error) => {
            let remedy = "run the check as the user that bursar runs as, or as root".to_owned();
            return Step::untold("store", "store.url", format!("{shown}: {error}")).and_do(remedy);
        }
    };
    if let Some(step) = judge_owner(database, owner, geteuid()) {
        return step;
    }
    let keyring = match Keyring::from_files(keys) {
        Ok(keyring) => keyring,
        Err(problems) => {
            let problems: Vec<String> = problems.into_iter().map(|problem| problem.why).collect();
            return bad(problems.join("; "), "put the key back that was in store.key_file".to_owned());
        }
    };
    match SqliteStore::open(database, keyring).await {
        Ok(store) => {
            let counted = count(&store, found).await;
            store.close().await;
            match counted {
                Ok(()) => {
                    let message = format!("{shown}: opens, is of this version, and its key opens its rows");
                    Step::good("store", "store.url", message)
                }
                Err(error) => {
                    bad(error.to_string(), "look at the disk: is it full, or read-only?".to_owned())
                }
            }
        }
        Err(error @ OpenError::InUse { .. }) => {
            let message = format!("{error}; its admin socket does not answer: {why_no_sidecar}");
            let remedy = "run the check with that process's configuration, as its user or as root";
            Step::untold("store", "store.url", message).and_do(remedy)
        }
        Err(OpenError::Failed(why)) if why.contains(": the key: ") => {
            let remedy = "name the file with the key that these rows were sealed with in store.old_key_files; if that key is \
                          lost, move the database away and have the users connect again";
            Step::bad("store", "store.key_file", why, remedy)
        }
        Err(OpenError::Failed(why)) => {
            let remedy = format!(
                "make {shown} and its directory readable and writable for this user; a file that is no \
                                  database goes out of the way, and the users connect again"
            );
            bad(why, remedy)
        }
    }
}

/// Opened as somebody else, it would get files beside it that the sidecar can't write.
fn judge_owner(database: &Path, owner: u32, us: Uid) -> Option<Step> {
    let shown = database.display();
    if owner == us.as_raw() {
        return None;
    }
    let message = format!("{shown}: belongs to uid {owner}, and this is uid {us}");
    let chown =
        format!("chown it to the user that bursar runs as, with {shown}-wal, {shown}-shm and {shown}.lock");
    Some(if us.is_root() {
        let remedy = format!(
            "if bursar runs as that user, start it (`systemctl start bursar`) and run the check again, for the sidecar is asked \
             then; or run it as that user, where that may read the secrets. Else {chown}"
        );
        Step::untold("store", "store.url", message).and_do(remedy)
    } else {
        Step::bad(
            "store",
            "store.url",
            message,
            format!("run the check as that user if bursar does; else {chown}"),
        )
    })
}

async fn count(store: &SqliteStore, found: &mut Found) -> Result<(), StoreError> {
    let mut grants = BTreeMap::new();
    for (service, state, count) in store.count().await? {
        if state == "active" {
            *grants.entry(service.to_string()).or_default() += u64::try_from(count).unwrap_or(0);
        }
    }
    found.grants = Some(grants);
    let living = Which { state: Some("active".to_owned()), ..Which::default() };
    let grants = store.grants(&living, None, MOST_GRANTS).await?;
    if grants.len() < MOST_GRANTS as usize {
        found.users = grants.into_iter().map(|grant| grant.key.user).collect();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn another_users_store_is_not_opened_and_wrong_unless_root_looks() {
        let judge = |owner, us| judge_owner(Path::new("/x/bursar.db"), owner, Uid::from_raw(us));
        assert_eq!(judge(7, 7), None);
        for (owner, us, verdict) in [(8, 7, Verdict::Bad), (0, 7, Verdict::Bad), (7, 0, Verdict::Untold)] {
            let step = judge(owner, us).unwrap();
            assert_eq!(step.verdict, verdict, "{step:?}");
            assert!(step.remedy.as_deref().unwrap_or_default().contains("/x/bursar.db-wal"), "{step:?}");
        }
    }
}
