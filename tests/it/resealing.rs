//! What a store does when its keys are changed, written against the ports (`src/store/keys.rs`).

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bursar::clock::{BootId, Moment, Timestamp};
use bursar::entropy::SystemEntropy;
use bursar::model::{GrantId, GrantKey, Issued, Rotation, Scope, ServiceName, UserName};
use bursar::secret::Secret;
use bursar::store::keyring::{KeyFiles, Keyring};
use bursar::store::keys::{Batch, Keys as _, Place};
use bursar::store::seal::{KeyId, generate_key};
use bursar::store::sqlite::SqliteStore;
use bursar::store::{Begun, Candidate, Commit, Committed, Lease, Store};

use crate::vending::join_all;

struct Scene(tempfile::TempDir);

impl Scene {
    /// With three keys: `one`, `two` and `three`.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["one", "two", "three"] {
            let path = directory.path().join(name);
            bursar::dev::write_private(&path, generate_key(&SystemEntropy).expose()).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn keys(&self, newest: &str, old: &[&str]) -> Keyring {
        let old = old.iter().map(|name| self.path(name)).collect();
        Keyring::from_files(&KeyFiles { newest: self.path(newest), old }).unwrap()
    }

    fn id(&self, name: &str) -> KeyId {
        self.keys(name, &[]).newest()
    }

    /// Whether the database, or what lies beside it, has these bytes, which are given in hexadecimal.
    fn somewhere_in_the_files(&self, hex: &str) -> bool {
        let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect();
        let files = std::fs::read_dir(self.0.path()).unwrap().flatten();
        files.filter(|file| file.file_name().to_str().unwrap().starts_with("bursar.db")).any(|file| {
            std::fs::read(file.path()).unwrap().windows(bytes.len()).any(|window| window == bytes)
        })
    }

    async fn open(&self, newest: &str, old: &[&str]) -> SqliteStore {
        self.try_open(newest, old).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn try_open(&self, newest: &str, old: &[&str]) -> Result<SqliteStore, String> {
        let opened = SqliteStore::open(&self.path("bursar.db"), self.keys(newest, old)).await;
        opened.map_err(|error| error.to_string())
    }
}

fn id(user: &str) -> GrantId {
    let service = ServiceName::parse("snowflake").unwrap();
    GrantId::current(GrantKey { service, user: UserName::parse(user).unwrap() })
}

fn now() -> Moment {
    Moment {
        wall: Timestamp::from_secs(1_800_000_000),
        boot: Duration::from_secs(1000),
        boot_id: BootId::parse("00000000000000000000000000000001").unwrap(),
    }
}

fn answer(refresh_token: &str) -> Commit {
    Commit {
        refresh_token: Some(Secret::new(refresh_token.to_owned())),
        rotation: Rotation::Rotating,
        role: None,
        access_token: Secret::new(format!("access-{refresh_token}")),
        scope: Scope::from_wire("a"),
        issued: Issued {
            requested_at: now(),
            expires_in: Duration::from_hours(1),
            refresh_after: Duration::from_mins(45),
        },
        now: now().wall,
        asked_at: now().wall,
    }
}

/// A refresh token that was handed in for nobody yet.
async fn hand_in(store: &SqliteStore, user: &str) -> GrantId {
    let token = Secret::new(format!("{user}-0"));
    let candidate = GrantId::candidate(id(user).key.service, token.digest());
    let handed_in =
        Candidate { refresh_token: token, registration: "client at issuer".to_owned(), consented: false };
    assert!(store.add_candidate(&candidate, &handed_in, now().wall).await.unwrap());
    candidate
}

async fn connect(store: &SqliteStore, user: &str) {
    let candidate = hand_in(store, user).await;
    assert!(store.promote(&candidate, &id(user).key.user).await.unwrap());
}

/// One exchange; the refresh token that it presented, and the version.
async fn begin(store: &SqliteStore, id: &GrantId) -> (Secret, i64) {
    let lease = Lease { owner: "us".to_owned(), duration: Duration::from_secs(10) };
    let begun = store.begin(id, &lease, &now()).await.unwrap();
    let Begun::Attempt(attempt) = begun else { panic!("{begun:?}") };
    (attempt.refresh_token, attempt.version)
}

async fn exchange(store: &SqliteStore, user: &str, refresh_token: &str) {
    let (_, version) = begin(store, &id(user)).await;
    let committed = store.commit(&id(user), version, &answer(refresh_token)).await.unwrap();
    assert_eq!(committed, Committed::Done(version + 1));
}

/// Everything, so many rows at a time: how many were resealed.
async fn reseal(store: &SqliteStore, limit: u32) -> u64 {
    let (mut place, mut resealed) = (Some(Place::default()), 0);
    while let Some(from) = place {
        let Batch { resealed: more, damaged, next } = store.reseal(&from, limit).await.unwrap();
        assert_eq!(damaged, []);
        assert!(more <= u64::from(limit));
        resealed += more;
        place = next;
    }
    resealed
}

async fn retired(store: &SqliteStore) -> Vec<KeyId> {
    store.retire(&HashMap::new()).await.unwrap().into_iter().map(|one| one.key).collect()
}

#[tokio::test]
async fn every_kind_of_sealed_value_is_sealed_anew_and_opens_with_the_new_key_alone() {
    let scene = Scene::new();
    let store = scene.open("one", &[]).await;
    for user in ["alice", "bob"] {
        connect(&store, user).await;
        exchange(&store, user, &format!("{user}-1")).await;
    }
    store.revoke(&id("bob"), &id("bob").key, now().wall).await.unwrap();
    let candidate = hand_in(&store, "carol").await;
    let own = GrantId::current(GrantKey { user: UserName::of_the_client(), ..id("x").key });
    store.ensure_client_grant(&own, "client at issuer", now().wall).await.unwrap();
    store.take(scene.keys("two", &["one"])).await.unwrap();
    // Alice's two tokens, bob's revocation, carol's candidate, the client's own row; bob's tombstone holds nothing.
    assert_eq!(store.count_old().await.unwrap(), 5);
    assert_eq!(reseal(&store, 1).await, 5);
    assert_eq!((store.count_old().await.unwrap(), reseal(&store, 1).await), (0, 0), "once");
    assert_eq!(retired(&store).await, [scene.id("one")]);
    assert_eq!(retired(&store).await, [scene.id("one")], "and says so again");
    let (old, new) = (scene.id("one").to_string(), scene.id("two").to_string());
    assert!(
        !scene.somewhere_in_the_files(&old),
        "nothing that the old key opens is left, in free space neither"
    );
    assert!(scene.somewhere_in_the_files(&new));
    store.close().await;
    drop(store);
    let store = scene.open("two", &[]).await;
    assert_eq!(begin(&store, &id("alice")).await.0, Secret::new("alice-1".into()));
    let token = store.access_token(&id("alice"), None).await.unwrap().unwrap();
    assert_eq!(token.token, Secret::new("access-alice-1".into()));
    assert_eq!(
        store.revocations(&id("bob").key).await.unwrap()[0].refresh_token,
        Secret::new("bob-1".into())
    );
    assert_eq!(begin(&store, &candidate).await.0, Secret::new("carol-0".into()));
    assert!(begin(&store, &own).await.0.is_empty());
}

#[tokio::test]
async fn exchanges_that_commit_while_rows_are_sealed_anew_are_not_lost() {
    let scene = Scene::new();
    let store = scene.open("one", &[]).await;
    let users: Vec<String> = (0..40).map(|number| format!("user{number}")).collect();
    for user in &users {
        connect(&store, user).await;
    }
    store.take(scene.keys("two", &["one"])).await.unwrap();
    let exchanges = join_all(users.iter().map(async |user| {
        for number in 1..=5 {
            let (presented, version) = begin(&store, &id(user)).await;
            assert_eq!(presented, Secret::new(format!("{user}-{}", number - 1)), "the newest");
            // As if the server took its time: the row may be sealed anew meanwhile.
            tokio::task::yield_now().await;
            let committed = store.commit(&id(user), version, &answer(&format!("{user}-{number}"))).await;
            assert_eq!(committed.unwrap(), Committed::Done(version + 1));
        }
    }));
    let rotations = async {
        let mut resealed = reseal(&store, 3).await;
        for (newest, old) in [("three", "two"), ("one", "three"), ("two", "one")] {
            store.take(scene.keys(newest, &[old])).await.unwrap();
            resealed += reseal(&store, 3).await;
            assert_eq!(retired(&store).await, [scene.id(old)]);
            store.take(scene.keys(newest, &[])).await.unwrap();
        }
        resealed
    };
    let (_, resealed) = tokio::join!(exchanges, rotations);
    assert!(resealed > 40, "{resealed}: both had to do");
    store.close().await;
    drop(store);
    let store = scene.open("two", &[]).await;
    for user in &users {
        assert_eq!(begin(&store, &id(user)).await.0, Secret::new(format!("{user}-5")));
    }
}

#[tokio::test]
async fn a_commit_that_waits_for_a_batch_is_what_stands_in_the_end() {
    let scene = Scene::new();
    let store = scene.open("one", &[]).await;
    connect(&store, "alice").await;
    let (alice, beginning, mut resealed) = (id("alice"), Place::default(), 0);
    for (round, (newest, old)) in (1..=20).zip([("two", "one"), ("one", "two")].into_iter().cycle()) {
        let (_, version) = begin(&store, &alice).await;
        store.take(scene.keys(newest, &[old])).await.unwrap();
        let answer = answer(&format!("alice-{round}"));
        // The connection is back by then: the batch, which asks for it first, is the first to have it.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (batch, committed) =
            tokio::join!(biased; store.reseal(&beginning, 1), store.commit(&alice, version, &answer));
        assert_eq!(committed.unwrap(), Committed::Done(version + 1));
        resealed += batch.unwrap().resealed;
        assert_eq!(begin(&store, &alice).await.0, Secret::new(format!("alice-{round}")));
    }
    assert!(resealed > 0, "the batch did come first");
}

#[tokio::test]
async fn whoever_leaves_in_the_middle_of_a_batch_leaves_it_undone() {
    let scene = Scene::new();
    let store = scene.open("one", &[]).await;
    for number in 0..50 {
        connect(&store, &format!("user{number}")).await;
    }
    store.take(scene.keys("two", &["one"])).await.unwrap();
    let mut left = BTreeSet::new();
    for polls in 1..40 {
        let place = Place::default();
        let mut batch = Box::pin(store.reseal(&place, 20));
        for _ in 0..polls {
            let polled = std::future::poll_fn(|context| std::task::Poll::Ready(batch.as_mut().poll(context)));
            if polled.await.is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        drop(batch);
        left.insert(store.count_old().await.unwrap());
    }
    assert!(left.iter().all(|left| [50, 30, 10, 0].contains(left)), "{left:?}: whole batches");
    reseal(&store, 20).await;
    assert_eq!(store.count_old().await.unwrap(), 0);
    for number in 0..50 {
        let user = format!("user{number}");
        assert_eq!(begin(&store, &id(&user)).await.0, Secret::new(format!("{user}-0")));
    }
}

#[tokio::test]
async fn keys_that_rows_need_can_not_be_taken_out_and_those_in_use_stay() {
    let scene = Scene::new();
    let store = scene.open("one", &[]).await;
    connect(&store, "alice").await;
    let refused = store.take(scene.keys("two", &["three"])).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("(1 with key {})", scene.id("one"))), "{refused}");
    assert_eq!(store.sealing_key(), scene.id("one"));
    store.take(scene.keys("two", &["one"])).await.unwrap();
    exchange(&store, "alice", "alice-1").await;
    connect(&store, "bob").await;
    let refused = store.take(scene.keys("one", &[])).await.unwrap_err().to_string();
    // Alice's and bob's refresh tokens, alice's access token.
    assert!(refused.contains(&format!("(3 with key {})", scene.id("two"))), "{refused}");
    exchange(&store, "bob", "bob-1").await;
    store.close().await;
    drop(store);
    let refused = scene.try_open("three", &["one"]).await.err().unwrap();
    assert!(refused.contains(&format!("4 with key {}", scene.id("two"))), "{refused}");
    let store = scene.open("two", &[]).await;
    assert_eq!(begin(&store, &id("bob")).await.0, Secret::new("bob-1".into()));
}

#[tokio::test]
async fn what_waits_to_be_written_while_the_keys_change_is_sealed_with_those_that_come() {
    let scene = Scene::new();
    let store = scene.open("one", &[]).await;
    connect(&store, "alice").await;
    let (alice, answer) = (id("alice"), answer("alice-1"));
    let (_, version) = begin(&store, &alice).await;
    let own = GrantId::current(GrantKey { user: UserName::of_the_client(), ..id("x").key });
    // Each time a new key is taken back, which nothing needs yet; and whoever writes comes right after.
    let meanwhile = async || store.take(scene.keys("two", &["one"])).await.unwrap();
    let back = async || store.take(scene.keys("one", &[])).await.unwrap();
    meanwhile().await;
    let ((), committed) = tokio::join!(back(), store.commit(&alice, version, &answer));
    assert_eq!(committed.unwrap(), Committed::Done(version + 1));
    meanwhile().await;
    let ((), candidate) = tokio::join!(back(), hand_in(&store, "bob"));
    meanwhile().await;
    let ((), made) = tokio::join!(back(), store.ensure_client_grant(&own, "client at issuer", now().wall));
    made.unwrap();
    assert_eq!(begin(&store, &alice).await.0, Secret::new("alice-1".into()));
    assert_eq!(begin(&store, &candidate).await.0, Secret::new("bob-0".into()));
    assert!(begin(&store, &own).await.0.is_empty());
}

#[tokio::test]
async fn an_answer_beside_the_store_keeps_its_key_needed_until_it_was_taken_up() {
    let scene = Scene::new();
    let store = scene.open("one", &[]).await;
    connect(&store, "alice").await;
    let (_, version) = begin(&store, &id("alice")).await;
    store.spill(&id("alice"), version, &answer("alice-1")).await.unwrap();
    store.take(scene.keys("two", &["one"])).await.unwrap();
    assert_eq!(reseal(&store, 10).await, 1);
    assert_eq!(retired(&store).await, [], "the file needs it");
    let refused = store.take(scene.keys("two", &[])).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("(1 with key {})", scene.id("one"))), "{refused}");
    store.close().await;
    drop(store);
    let refused = scene.try_open("two", &[]).await.err().unwrap();
    assert!(refused.contains(&format!("(1 with key {})", scene.id("one"))), "{refused}");
    let store = scene.open("two", &["one"]).await;
    assert_eq!(begin(&store, &id("alice")).await.0, Secret::new("alice-1".into()));
    assert_eq!(retired(&store).await, [scene.id("one")]);
    store.take(scene.keys("two", &[])).await.unwrap();
}

async fn execute(database: &Path, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
}

#[tokio::test]
async fn a_store_from_before_keys_could_be_replaced_knows_its_key() {
    let scene = Scene::new();
    let store = scene.open("one", &[]).await;
    connect(&store, "alice").await;
    store.close().await;
    drop(store);
    // As its first three migrations left it; what the check held does not matter, its key does.
    execute(
        &scene.path("bursar.db"),
        "DROP INDEX grants_sealed_by; DROP INDEX access_tokens_sealed_by; DROP INDEX revocations_sealed_by;
         ALTER TABLE grants DROP COLUMN sealed_by; ALTER TABLE access_tokens DROP COLUMN sealed_by;
         ALTER TABLE revocations DROP COLUMN sealed_by;
         CREATE TABLE seal_check (id INTEGER PRIMARY KEY CHECK (id = 1), sealed BLOB NOT NULL) STRICT;
         INSERT INTO seal_check SELECT 1, refresh_token FROM grants;
         DROP TABLE seal_keys;
         DELETE FROM _sqlx_migrations WHERE version = 5;",
    )
    .await;
    let refused = scene.try_open("two", &[]).await.err().unwrap();
    assert!(refused.contains(&format!("(1 with key {})", scene.id("one"))), "{refused}");
    let store = scene.open("one", &[]).await;
    assert_eq!(begin(&store, &id("alice")).await.0, Secret::new("alice-0".into()));
}
