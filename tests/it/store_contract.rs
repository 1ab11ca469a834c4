//! The store's contract (`src/store.rs`), written against the trait. Another adapter is another `fn open`.

use std::path::Path;
use std::time::Duration;

use bursar::clock::{BootId, Moment, Timestamp};
use bursar::entropy::SystemEntropy;
use bursar::model::{
    EndReason, GrantId, GrantKey, GrantState, Issued, LastUse, RoleName, Rotation, RunId, Scope, ServiceName,
    UserName,
};
use bursar::secret::{Digest, Secret};
use bursar::store::seal::{Sealer, generate_key};
use bursar::store::sqlite::{OpenError, SqliteStore};
use bursar::store::{Attempt, Begun, Candidate, Commit, Committed, Lease, Settled, Store, Tombstone, Which};

struct Scene {
    directory: tempfile::TempDir,
    key: Secret,
}

impl Scene {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), key: generate_key(&SystemEntropy) }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("bursar.db")
    }

    async fn open(&self) -> SqliteStore {
        open(&self.path(), &self.key).await.unwrap()
    }
}

async fn open(path: &Path, key: &Secret) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(path, Sealer::from_text(key).unwrap()).await
}

fn key(user: &str) -> GrantKey {
    GrantKey { service: ServiceName::parse("snowflake").unwrap(), user: UserName::parse(user).unwrap() }
}

fn id(user: &str) -> GrantId {
    GrantId::current(key(user))
}

fn secret(text: &str) -> Secret {
    Secret::new(format!("sentinel-{text}"))
}

fn at(seconds: u64) -> Moment {
    Moment {
        wall: Timestamp::from_secs(1_800_000_000 + i64::try_from(seconds).unwrap()),
        boot: Duration::from_secs(1000 + seconds),
        boot_id: BootId::parse("00000000000000000000000000000001").unwrap(),
    }
}

fn lease(owner: &str) -> Lease {
    Lease { owner: owner.to_owned(), duration: Duration::from_secs(10) }
}

fn answer(refresh_token: Option<&str>, access_token: &str, role: Option<&str>) -> Commit {
    Commit {
        refresh_token: refresh_token.map(secret),
        rotation: Rotation::Rotating,
        role: role.and_then(RoleName::parse),
        access_token: secret(access_token),
        scope: Scope::from_wire("a b"),
        issued: Issued {
            requested_at: at(1),
            expires_in: Duration::from_hours(1),
            refresh_after: Duration::from_mins(45),
        },
        now: at(2).wall,
        asked_at: at(2).wall,
    }
}

fn handed_in(refresh_token: &str) -> Candidate {
    Candidate {
        refresh_token: secret(refresh_token),
        registration: "client at issuer".to_owned(),
        consented: false,
    }
}

/// A grant of this user, as an import makes one.
async fn grant(store: &dyn Store, user: &str, refresh_token: &str) {
    let candidate = GrantId::candidate(key(user).service, secret(refresh_token).digest());
    assert!(store.add_candidate(&candidate, &handed_in(refresh_token), at(0).wall).await.unwrap());
    assert!(store.promote(&candidate, &key(user).user).await.unwrap());
}

async fn begin(store: &dyn Store, id: &GrantId, seconds: u64) -> Attempt {
    let begun = store.begin(id, &lease("us"), &at(seconds)).await.unwrap();
    let Begun::Attempt(attempt) = begun else { panic!("{begun:?}") };
    attempt
}

#[tokio::test]
async fn what_is_absent_is_no_error() {
    let scene = Scene::new();
    let store = scene.open().await;
    assert!(store.grant(&id("alice")).await.unwrap().is_none());
    assert!(store.access_token(&id("alice"), None).await.unwrap().is_none());
    assert!(matches!(store.begin(&id("alice"), &lease("us"), &at(0)).await.unwrap(), Begun::Missing));
    assert!(store.in_doubt().await.unwrap().is_empty());
    assert!(store.grants(&Which::default(), None, 10).await.unwrap().is_empty());
    let nobody = GrantId::candidate(key("x").service, secret("x").digest());
    assert!(!store.promote(&nobody, &key("alice").user).await.unwrap());
}

#[tokio::test]
async fn a_commit_is_there_after_a_restart_with_its_tokens_and_times() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    let attempt = begin(&store, &id("alice"), 0).await;
    assert_eq!(attempt.refresh_token, secret("r1"));
    let committed =
        store.commit(&id("alice"), attempt.version, &answer(Some("r2"), "a1", Some("ANALYST"))).await;
    assert_eq!(committed.unwrap(), Committed::Done(attempt.version + 1));
    store.close().await;
    drop(store);
    let store = scene.open().await;
    let token = store.access_token(&id("alice"), RoleName::parse("ANALYST").as_ref()).await.unwrap().unwrap();
    assert_eq!((&token.token, &token.scope), (&secret("a1"), &Scope::from_wire("a b")));
    assert_eq!(token.issued, answer(None, "", None).issued);
    assert!(token.verified.is_none(), "only what is marked so was verified");
    assert!(store.access_token(&id("alice"), None).await.unwrap().is_none(), "each role for itself");
    let attempt = begin(&store, &id("alice"), 5).await;
    assert_eq!((attempt.refresh_token, attempt.rotation), (secret("r2"), Rotation::Rotating));
    assert!(!attempt.in_doubt);
}

#[tokio::test]
async fn an_answer_without_a_refresh_token_keeps_the_old_one() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    let attempt = begin(&store, &id("alice"), 0).await;
    store.commit(&id("alice"), attempt.version, &answer(None, "a1", None)).await.unwrap();
    assert_eq!(begin(&store, &id("alice"), 5).await.refresh_token, secret("r1"));
}

#[tokio::test]
async fn a_write_against_another_version_changes_nothing() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    let attempt = begin(&store, &id("alice"), 0).await;
    let (stale, against) = (attempt.version - 1, Digest::of(b"configuration"));
    let superseded = store.commit(&id("alice"), stale, &answer(Some("r9"), "a9", None)).await.unwrap();
    assert_eq!(superseded, Committed::Superseded);
    let ended = Settled::Ended(EndReason::Revoked, at(1).wall);
    assert!(!store.settle(&id("alice"), stale, &ended).await.unwrap(), "and says so");
    assert_eq!(store.grant(&id("alice")).await.unwrap().unwrap().state, GrantState::Active);
    assert!(store.access_token(&id("alice"), None).await.unwrap().is_none());
    store.commit(&id("alice"), attempt.version, &answer(Some("r2"), "a1", None)).await.unwrap();
    store.mark_verified(&id("alice"), None, attempt.version, against).await.unwrap();
    store.discard(&id("alice"), None, attempt.version).await.unwrap();
    assert!(store.access_token(&id("alice"), None).await.unwrap().unwrap().verified.is_none());
    store.mark_verified(&id("alice"), None, attempt.version + 1, against).await.unwrap();
    assert_eq!(store.access_token(&id("alice"), None).await.unwrap().unwrap().verified, Some(against));
    store.discard(&id("alice"), None, attempt.version + 1).await.unwrap();
    assert!(store.access_token(&id("alice"), None).await.unwrap().is_none());
}

#[tokio::test]
async fn the_first_attempt_in_doubt_is_remembered_until_it_is_settled() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    begin(&store, &id("alice"), 3).await;
    store.close().await;
    drop(store);
    // As after a crash: the attempt is there, and its lease is void.
    let store = scene.open().await;
    assert_eq!(store.in_doubt().await.unwrap(), [id("alice")]);
    let again = begin(&store, &id("alice"), 8).await;
    assert!(again.in_doubt);
    assert_eq!(again.since, at(3));
    store.settle(&id("alice"), again.version, &Settled::InDoubt).await.unwrap();
    assert_eq!(store.grant(&id("alice")).await.unwrap().unwrap().in_doubt_since, Some(at(3)));
    let unchanged = Settled::Unchanged { in_doubt_since: Some(at(3)) };
    store.settle(&id("alice"), again.version, &unchanged).await.unwrap();
    assert!(begin(&store, &id("alice"), 9).await.in_doubt);
    store.settle(&id("alice"), again.version, &Settled::Unchanged { in_doubt_since: None }).await.unwrap();
    assert!(!begin(&store, &id("alice"), 10).await.in_doubt);
}

#[tokio::test]
async fn a_live_lease_keeps_others_out_and_a_dead_one_does_not() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    begin(&store, &id("alice"), 0).await;
    let held = store.begin(&id("alice"), &lease("them"), &at(4)).await.unwrap();
    assert!(matches!(held, Begun::Held(left) if left == Duration::from_secs(6)), "{held:?}");
    assert!(matches!(store.begin(&id("alice"), &lease("them"), &at(10)).await.unwrap(), Begun::Attempt(_)));
}

#[tokio::test]
async fn an_ended_grant_gives_no_attempt_and_has_no_tokens_until_it_is_replaced() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    let attempt = begin(&store, &id("alice"), 0).await;
    store.commit(&id("alice"), attempt.version, &answer(Some("r2"), "a1", None)).await.unwrap();
    let attempt = begin(&store, &id("alice"), 1).await;
    store.settle(&id("alice"), attempt.version, &Settled::Ended(EndReason::Lost, at(2).wall)).await.unwrap();
    assert!(matches!(
        store.begin(&id("alice"), &lease("us"), &at(3)).await.unwrap(),
        Begun::Ended(EndReason::Lost, since) if since == at(2).wall
    ));
    assert!(store.access_token(&id("alice"), None).await.unwrap().is_none());
    let late = store.commit(&id("alice"), attempt.version, &answer(Some("r3"), "a3", None)).await.unwrap();
    assert_eq!(late, Committed::Superseded, "an exchange in flight can't bring it back");
    let counted = store.count().await.unwrap();
    assert_eq!(counted, [(key("alice").service, "lost".to_owned(), 1)]);
    grant(&store, "alice", "r4").await;
    let revived = begin(&store, &id("alice"), 5).await;
    assert_eq!(revived.refresh_token, secret("r4"));
    assert!(revived.version > attempt.version, "versions only grow");
}

#[tokio::test]
async fn a_candidate_is_found_again_and_becomes_its_true_users_grant_with_its_tokens() {
    let scene = Scene::new();
    let store = scene.open().await;
    let candidate = GrantId::candidate(key("x").service, secret("r1").digest());
    assert!(store.add_candidate(&candidate, &handed_in("r1"), at(0).wall).await.unwrap());
    let attempt = begin(&store, &candidate, 0).await;
    store.commit(&candidate, attempt.version, &answer(Some("r2"), "a1", None)).await.unwrap();
    assert!(
        !store.add_candidate(&candidate, &handed_in("r1"), at(1).wall).await.unwrap(),
        "handed in before"
    );
    assert_eq!(store.access_token(&candidate, None).await.unwrap().unwrap().token, secret("a1"));
    assert!(store.grants(&Which::default(), None, 10).await.unwrap().is_empty(), "nothing is vended from it");
    assert!(store.promote(&candidate, &key("bob").user).await.unwrap());
    let token = store.access_token(&id("bob"), None).await.unwrap().unwrap();
    let known = store.grant(&id("bob")).await.unwrap().unwrap();
    assert_eq!((token.token, token.version), (secret("a1"), known.version));
    assert_eq!(known.registration, "client at issuer");
    let origin = store.imported_as(&key("bob").service, secret("r1").digest()).await.unwrap().unwrap();
    assert_eq!(origin.key, key("bob"), "what was handed in is known again");
    assert!(store.imported_as(&key("bob").service, secret("r2").digest()).await.unwrap().is_none());
    assert_eq!(begin(&store, &id("bob"), 2).await.refresh_token, secret("r2"));
    assert!(store.grant(&candidate).await.unwrap().is_none());
}

#[tokio::test]
async fn only_a_consent_that_made_no_grant_is_called_abandoned() {
    let scene = Scene::new();
    let store = scene.open().await;
    let service = || ServiceName::parse("snowflake").unwrap();
    let add = async |token: &str, consented: bool| {
        let candidate = GrantId::candidate(service(), secret(token).digest());
        let put = Candidate { consented, ..handed_in(token) };
        assert!(store.add_candidate(&candidate, &put, at(0).wall).await.unwrap());
        candidate
    };
    let (kept, abandoned, proven) = (add("r1", false).await, add("r2", true).await, add("r3", true).await);
    assert!(store.promote(&proven, &UserName::parse("alice").unwrap()).await.unwrap());
    assert_eq!(store.abandoned().await.unwrap().first(), Some(&abandoned));
    assert_eq!(store.abandoned().await.unwrap().len(), 1);
    store.revoke(&abandoned, &abandoned.key, at(1).wall).await.unwrap();
    assert!(store.abandoned().await.unwrap().is_empty());
    assert_eq!(store.candidates().await.unwrap(), [kept]);
}

#[tokio::test]
async fn grants_are_listed_in_order_filtered_and_paged() {
    let scene = Scene::new();
    let store = scene.open().await;
    for user in ["carol", "alice", "bob"] {
        grant(&store, user, user).await;
    }
    let users = |grants: Vec<bursar::model::Grant>| {
        grants.into_iter().map(|grant| grant.key.user.to_string()).collect::<Vec<_>>()
    };
    let all = Which::default();
    assert_eq!(users(store.grants(&all, None, 2).await.unwrap()), ["alice", "bob"]);
    assert_eq!(users(store.grants(&all, Some(&key("bob")), 2).await.unwrap()), ["carol"]);
    let bob = Which { user: Some(key("bob").user), ..Which::default() };
    assert_eq!(users(store.grants(&bob, None, 9).await.unwrap()), ["bob"]);
    let active = Which { state: Some("active".to_owned()), ..Which::default() };
    assert_eq!(store.grants(&active, None, 9).await.unwrap().len(), 3);
    let lost = Which { state: Some("lost".to_owned()), ..Which::default() };
    assert!(store.grants(&lost, None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn nothing_lies_in_the_file_in_clear() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    let attempt = begin(&store, &id("alice"), 0).await;
    store.commit(&id("alice"), attempt.version, &answer(Some("r2"), "a1", None)).await.unwrap();
    store.spill(&id("alice"), attempt.version + 1, &answer(Some("r3"), "a3", None)).await.unwrap();
    store.close().await;
    let mut looked = 0;
    for entry in walk(scene.directory.path()) {
        let content = std::fs::read(&entry).unwrap();
        assert!(!content.windows(8).any(|window| window == b"sentinel"), "{}", entry.display());
        looked += 1;
    }
    assert!(looked >= 3);
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn what_was_spilled_is_taken_up_first_and_once() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    let attempt = begin(&store, &id("alice"), 0).await;
    store.spill(&id("alice"), attempt.version, &answer(Some("r2"), "a2", Some("ANALYST"))).await.unwrap();
    store.close().await;
    drop(store);
    for _ in 0..2 {
        let store = scene.open().await;
        let token =
            store.access_token(&id("alice"), RoleName::parse("ANALYST").as_ref()).await.unwrap().unwrap();
        assert_eq!(token.token, secret("a2"));
        assert!(store.in_doubt().await.unwrap().is_empty(), "the answer settles the attempt");
        let next = begin(&store, &id("alice"), 5).await;
        assert_eq!((next.refresh_token, next.version), (secret("r2"), attempt.version + 1));
        store.settle(&id("alice"), next.version, &Settled::Unchanged { in_doubt_since: None }).await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn what_was_spilled_and_is_damaged_is_put_aside_and_holds_nobody_up() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    let attempt = begin(&store, &id("alice"), 0).await;
    store.spill(&id("alice"), attempt.version, &answer(Some("r2"), "a2", None)).await.unwrap();
    store.close().await;
    drop(store);
    let mut beside = std::fs::read_dir(scene.directory.path()).unwrap().flatten().map(|entry| entry.path());
    let unsaved = beside.find(|path| path.is_dir()).unwrap();
    let files =
        || std::fs::read_dir(&unsaved).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let good = files().pop().unwrap();
    let text = std::fs::read_to_string(&good).unwrap();
    // Not JSON, and JSON of which a sealed value was changed.
    std::fs::write(unsaved.join("half.json"), &text[..text.len() / 2]).unwrap();
    let sealed = text.split("access_token\":\"").nth(1).unwrap();
    let other = if sealed.starts_with("AA") { "BB" } else { "AA" };
    let changed = text.replacen(&sealed[..40], &format!("{}{other}", &sealed[..38]), 1);
    std::fs::write(&good, changed).unwrap();
    let store = scene.open().await;
    assert_eq!(begin(&store, &id("alice"), 5).await.refresh_token, secret("r1"));
    let aside = files();
    assert_eq!(aside.len(), 2, "{aside:?}");
    assert!(aside.iter().all(|path| path.extension().is_some_and(|kind| kind == "damaged")), "{aside:?}");
}

#[tokio::test]
async fn one_process_owns_the_file_and_another_key_damages_nothing() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    let second = open(&scene.path(), &scene.key).await;
    assert!(
        matches!(second, Err(OpenError::InUse { holder, .. }) if holder == std::process::id().to_string())
    );
    store.close().await;
    drop(store);
    let other = open(&scene.path(), &generate_key(&SystemEntropy)).await;
    assert!(
        matches!(&other, Err(OpenError::Failed(why)) if why.contains("store.key_file")),
        "{:?}",
        other.err()
    );
    drop(other);
    let store = scene.open().await;
    assert_eq!(begin(&store, &id("alice"), 0).await.refresh_token, secret("r1"));
}

#[tokio::test]
async fn a_tombstone_ends_a_grant_and_takes_in_what_comes_late() {
    let scene = Scene::new();
    let store = scene.open().await;
    grant(&store, "alice", "r1").await;
    let attempt = begin(&store, &id("alice"), 0).await;
    assert_eq!(store.revoke(&id("alice"), &key("alice"), at(1).wall).await.unwrap(), Tombstone::Put);
    assert_eq!(store.revoke(&id("alice"), &key("alice"), at(2).wall).await.unwrap(), Tombstone::AlreadyThere);
    assert_eq!(store.revoke(&id("bob"), &key("bob"), at(2).wall).await.unwrap(), Tombstone::Missing);
    let ended = store.begin(&id("alice"), &lease("us"), &at(2)).await.unwrap();
    assert!(matches!(ended, Begun::Ended(EndReason::Revoked, _)), "{ended:?}");
    let late = store.commit(&id("alice"), attempt.version, &answer(Some("r2"), "a2", None)).await.unwrap();
    assert_eq!(late, Committed::Revoked);
    assert!(
        store.access_token(&id("alice"), None).await.unwrap().is_none(),
        "nothing of it is kept to be vended"
    );
    let lost = Settled::Ended(EndReason::Lost, at(3).wall);
    assert!(!store.settle(&id("alice"), attempt.version, &lost).await.unwrap(), "it has ended already");
    store.close().await;
    drop(store);
    let store = scene.open().await;
    assert_eq!(store.to_revoke().await.unwrap(), [key("alice")]);
    let mut waiting = store.revocations(&key("alice")).await.unwrap();
    waiting.sort_by_key(|one| one.since);
    let tokens: Vec<_> = waiting.iter().map(|one| one.refresh_token.clone()).collect();
    assert_eq!(tokens, [secret("r1"), secret("r2")]);
    assert_eq!(waiting[0].registration, "client at issuer");
    let service = key("alice").service;
    assert_eq!(store.revoked_since(&service, secret("r1").digest()).await.unwrap(), Some(at(1).wall));
    assert_eq!(store.revoked_since(&service, secret("r3").digest()).await.unwrap(), None);
    // The next consent is another grant, and what waits outlives it.
    grant(&store, "alice", "r3").await;
    assert_eq!(begin(&store, &id("alice"), 9).await.refresh_token, secret("r3"));
    assert!(!store.erase(&key("alice")).await.unwrap(), "only what was revoked is forgotten");
    for token in ["r1", "r2"] {
        store.revoked(&key("alice"), secret(token).digest()).await.unwrap();
    }
    assert!(store.to_revoke().await.unwrap().is_empty());
    assert_eq!(store.revoke(&id("alice"), &key("alice"), at(10).wall).await.unwrap(), Tombstone::Put);
    assert!(store.erase(&key("alice")).await.unwrap());
    assert!(store.grant(&id("alice")).await.unwrap().is_none());
}

#[tokio::test]
async fn the_clients_own_row_is_nobodys_grant() {
    let scene = Scene::new();
    let store = scene.open().await;
    let own = GrantId::current(GrantKey { service: key("x").service, user: UserName::of_the_client() });
    for registration in ["client at issuer", "client at another"] {
        store.ensure_client_grant(&own, registration, at(0).wall).await.unwrap();
        assert_eq!(store.grant(&own).await.unwrap().unwrap().registration, registration);
    }
    assert!(store.grants(&Which::default(), None, 10).await.unwrap().is_empty());
    assert!(store.count().await.unwrap().is_empty());
    let attempt = begin(&store, &own, 1).await;
    assert_eq!(attempt.rotation, Rotation::Persistent, "there is nothing to use up");
    assert!(store.in_doubt().await.unwrap().is_empty());
    let done = store.commit(&own, attempt.version, &answer(None, "a1", None)).await.unwrap();
    assert_eq!(done, Committed::Done(attempt.version + 1));
}

fn last_use(seconds: u64, uid: u32) -> LastUse {
    let unit = (uid == 0).then(|| "airflow.service".to_owned());
    LastUse { at: at(seconds).wall, uid, unit, run: RunId::parse("run-1").filter(|_| uid == 0) }
}

#[tokio::test]
async fn who_used_a_grant_last_is_kept_until_it_is_erased() {
    let scene = Scene::new();
    let store = scene.open().await;
    let (alice, bob) = (key("alice"), key("bob"));
    grant(&store, "alice", "r1").await;
    let note = async |store: &dyn Store, user: &GrantKey, last: LastUse| {
        store.note_uses(&[(user.clone(), last)]).await.unwrap();
    };
    assert!(store.last_uses(std::slice::from_ref(&alice)).await.unwrap().is_empty());
    note(&store, &alice, last_use(5, 0)).await;
    note(&store, &alice, last_use(3, 1000)).await;
    note(&store, &bob, last_use(9, 1000)).await;
    let both = [bob.clone(), alice.clone()];
    assert_eq!(
        store.last_uses(&both).await.unwrap(),
        [(alice.clone(), last_use(5, 0))],
        "the latest, of grants"
    );
    note(&store, &alice, last_use(7, 1000)).await;
    store.close().await;
    drop(store);
    let store = scene.open().await;
    grant(&store, "alice", "r2").await;
    assert_eq!(
        store.last_uses(&both).await.unwrap(),
        [(alice.clone(), last_use(7, 1000))],
        "another consent is the same grant to whoever looks at it"
    );
    store.revoke(&id("alice"), &alice, at(10).wall).await.unwrap();
    assert_eq!(store.last_uses(&both).await.unwrap().len(), 1);
    assert!(store.erase(&alice).await.unwrap());
    assert!(store.last_uses(&both).await.unwrap().is_empty());
    note(&store, &alice, last_use(11, 1000)).await;
    assert!(store.last_uses(&both).await.unwrap().is_empty(), "what comes late does not bring it back");
}

#[tokio::test]
async fn more_grants_are_asked_about_than_fit_into_one_question() {
    let scene = Scene::new();
    let store = scene.open().await;
    let keys: Vec<GrantKey> = (0..1100).map(|number| key(&format!("user{number}"))).collect();
    for user in ["user0", "user1099"] {
        grant(&store, user, user).await;
    }
    let uses: Vec<_> = keys.iter().map(|key| (key.clone(), last_use(1, 0))).collect();
    store.note_uses(&uses).await.unwrap();
    assert_eq!(store.last_uses(&keys).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_grant_covers_is_known_once_it_has_been_said_and_of_that_consent_only() {
    let scene = Scene::new();
    let store = scene.open().await;
    let granted = async |store: &dyn Store| store.grant(&id("alice")).await.unwrap().unwrap().granted_scope;
    grant(&store, "alice", "r1").await;
    assert_eq!(granted(&store).await, None);
    let before = store.grant(&id("alice")).await.unwrap().unwrap().version;
    store.note_consent(&id("alice"), &Scope::from_wire("b a offline_access"), Some("00u1")).await.unwrap();
    store.close().await;
    drop(store);
    let store = scene.open().await;
    assert_eq!(granted(&store).await, Some(Scope::from_wire("a b offline_access")));
    let listed = store.grants(&Which::default(), None, 10).await.unwrap();
    assert_eq!(listed[0].granted_scope, Some(Scope::from_wire("a b offline_access")));
    assert_eq!(listed[0].subject.as_deref(), Some("00u1"));
    assert_eq!(listed[0].version, before, "no write of an exchange under way is in vain for it");
    grant(&store, "alice", "r2").await;
    assert_eq!(granted(&store).await, None);
}

#[tokio::test]
async fn the_roles_that_tokens_came_for_are_known_while_the_grant_lives() {
    let scene = Scene::new();
    let store = scene.open().await;
    let keys = [key("alice"), key("bob")];
    grant(&store, "alice", "r1").await;
    for role in [None, Some("ANALYST")] {
        let attempt = begin(&store, &id("alice"), 0).await;
        store.commit(&id("alice"), attempt.version, &answer(None, "a1", role)).await.unwrap();
    }
    let analyst = RoleName::parse("ANALYST").unwrap();
    assert_eq!(store.roles_had(&keys).await.unwrap(), [(key("alice"), analyst)]);
    store.revoke(&id("alice"), &key("alice"), at(1).wall).await.unwrap();
    assert!(store.roles_had(&keys).await.unwrap().is_empty());
}
