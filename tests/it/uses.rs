//! Who used a grant last, and which roles it covers: as administrators see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bursar::cache::Usage;
use bursar::clock::Timestamp;
use bursar::dev::authorization_server::Rotation;
use bursar::entropy::SystemEntropy;
use bursar::model::{Asker, GrantId, GrantKey, LastUse, RunId, ServiceName, UserName};
use bursar::secret::Secret;
use bursar::store::seal::{Sealer, generate_key};
use bursar::store::sqlite::SqliteStore;
use bursar::store::{Candidate, Store, StoreError};
use bursar::uses::Uses;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::events::Stream;
use crate::import::{bursar, text};
use crate::support::platform::{ISSUER, Key, claims, publish};
use crate::support::sidecar::{Sidecar, request};
use crate::support::store::{Hook, Hooked};
use crate::support::{ALICE, BOB, World};

async fn used(sidecar: &Sidecar, user: &str) -> (Value, Value) {
    let grant = sidecar.grant("snowflake", user).await;
    (grant["last_used_at"].clone(), grant["last_used_by"].clone())
}

fn us() -> Value {
    json!({ "uid": nix::unistd::getuid().as_raw(), "unit": null, "run": null })
}

#[tokio::test]
async fn who_used_a_grant_last_is_seen_at_once_and_after_a_restart() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    assert_eq!(used(&sidecar, ALICE).await, (Value::Null, Value::Null), "no caller has had any of it");
    sidecar.token("snowflake", ALICE, None).await.token();
    let (at, by) = used(&sidecar, ALICE).await;
    assert!(at.is_string());
    assert_eq!(by, us());
    let shown = bursar(&sidecar, &["grant", "show", "--service", "snowflake", "--user", ALICE], "").await;
    let shown = text(&shown.stdout);
    let line = format!("last_used_by    uid {}", us()["uid"]);
    assert!(shown.contains(&line) && shown.contains(at.as_str().unwrap()), "{shown}");
    let listed = bursar(&sidecar, &["grant", "list", "--service", "snowflake"], "").await;
    assert!(text(&listed.stdout).contains(at.as_str().unwrap()), "{}", text(&listed.stdout));
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let sidecar = world.sidecar().await;
    assert_eq!(used(&sidecar, ALICE).await, (at, by));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn the_same_question_again_on_a_connection_is_a_use_as_well() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let mut connection = UnixStream::connect(sidecar.socket()).await.unwrap();
    let mut ask = async || {
        let question =
            format!("GET /v1/token?service=snowflake&user={ALICE} HTTP/1.1\r\nHost: bursar\r\n\r\n");
        connection.write_all(question.as_bytes()).await.unwrap();
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"}") {
            let read = connection.read(&mut buffer).await.unwrap();
            assert!(read > 0);
            answer.extend_from_slice(&buffer[..read]);
        }
    };
    for _ in 0..2 {
        ask().await;
    }
    let (first, _) = used(&sidecar, ALICE).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    ask().await;
    let (last, by) = used(&sidecar, ALICE).await;
    assert_ne!(first, last);
    assert_eq!(by, us());
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_run_is_named_that_showed_its_pass_and_a_listener_uses_what_it_hears() {
    let world = World::start().await;
    let (key, file) = (Key::new("RS256", "k1"), world.path().join("platform.json"));
    publish(&file, &[&key]);
    let section = format!(
        "[run_passes]\nissuer = \"{ISSUER}\"\naudience = \"bursar\"\njwks_file = \"{}\"\n\n[log]",
        file.display()
    );
    world.configure("[log]", &section);
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    let pass = key.sign(&claims("run-7", ALICE, &["snowflake"]));
    let authorization = format!("Bearer {pass}");
    let headers = [("authorization", authorization.as_str())];
    request(&sidecar.socket(), "GET", "/v1/token?service=snowflake", &headers, "").await.token();
    assert_eq!(used(&sidecar, ALICE).await.1["run"], "run-7");
    let mut stream = Stream::open(&sidecar, &format!("service=snowflake&user={BOB}")).await;
    assert_eq!(stream.next().await.0, "token");
    assert_eq!(used(&sidecar, BOB).await.1, us());
    drop(stream);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_refresh_that_nobody_asked_for_is_no_use() {
    let world = World::with(Rotation::Rotating, 30, Duration::from_secs(6)).await;
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    let (at, _) = used(&sidecar, ALICE).await;
    let refreshed = sidecar.grant("snowflake", ALICE).await["refreshed_at"].clone();
    until("it is refreshed ahead", async || {
        sidecar.grant("snowflake", ALICE).await["refreshed_at"] != refreshed
    })
    .await;
    assert_eq!(used(&sidecar, ALICE).await.0, at);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn an_erased_users_uses_are_forgotten_saved_or_not() {
    let world = World::start().await;
    let mut sidecar = world.connected().await;
    for saved in [true, false] {
        sidecar.token("snowflake", ALICE, None).await.token();
        if saved {
            sidecar.stop().await;
            sidecar = world.sidecar().await;
        }
        assert_eq!(used(&sidecar, ALICE).await.1, us());
        let erased = request(&sidecar.admin_socket(), "DELETE", &format!("/v1/users/{ALICE}"), &[], "").await;
        assert_eq!(erased.status, 200, "{}", erased.body);
        world.connect(&sidecar, ALICE).await;
        assert_eq!(used(&sidecar, ALICE).await, (Value::Null, Value::Null), "saved: {saved}");
    }
    world.finish(sidecar).await;
}

async fn world_with_a_role_that_nobody_has() -> World {
    let world = World::start().await;
    world.configure(
        r#"roles    = ["PUBLIC", "ANALYST"]"#,
        r#"roles    = ["PUBLIC", "ANALYST", "DATA_ENGINEER"]"#,
    );
    world
}

#[tokio::test]
async fn a_role_is_known_to_be_granted_once_a_token_came_for_it() {
    let world = world_with_a_role_that_nobody_has().await;
    world.fault(json!({ "do": "status", "status": 503, "next": 100_000, "endpoint": "introspect" })).await;
    let sidecar = world.connected().await;
    let grant = sidecar.grant("snowflake", ALICE).await;
    assert_eq!(grant["granted_scope"], Value::Null);
    let nothing = json!({ "ANALYST": "unknown", "DATA_ENGINEER": "unknown", "PUBLIC": "unknown" });
    assert_eq!(grant["granted_roles"], nothing);
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    assert_eq!(sidecar.token("snowflake", ALICE, Some("DATA_ENGINEER")).await.status, 409);
    let some = json!({ "ANALYST": "granted", "DATA_ENGINEER": "refused", "PUBLIC": "unknown" });
    assert_eq!(sidecar.grant("snowflake", ALICE).await["granted_roles"], some);
    let shown = bursar(&sidecar, &["grant", "show", "--service", "snowflake", "--user", ALICE], "").await;
    let line = "granted_roles   ANALYST granted, DATA_ENGINEER refused, PUBLIC unknown\n";
    assert!(text(&shown.stdout).contains(line), "{}", text(&shown.stdout));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn where_the_server_says_what_was_consented_to_every_role_is_known() {
    let world = world_with_a_role_that_nobody_has().await;
    let sidecar = world.connected().await;
    until("the server is asked", async || {
        !sidecar.grant("snowflake", ALICE).await["granted_scope"].is_null()
    })
    .await;
    let grant = sidecar.grant("snowflake", ALICE).await;
    let consented = "offline_access openid session:role:ANALYST session:role:PUBLIC";
    assert_eq!(grant["granted_scope"], consented);
    let all = json!({ "ANALYST": "granted", "DATA_ENGINEER": "refused", "PUBLIC": "granted" });
    assert_eq!(grant["granted_roles"], all);
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.grant("snowflake", ALICE).await["granted_scope"], consented);
    world.finish(sidecar).await;
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.expect(what);
}

/// Fails to note uses while it is told to.
#[derive(Default)]
struct Full(AtomicBool);

#[async_trait]
impl Hook for Full {
    async fn before(&self, operation: &'static str) -> Result<(), StoreError> {
        if operation == "note_uses" && self.0.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("full".to_owned()));
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_use_waits_to_be_saved_until_it_is_and_the_latest_of_all_tokens_counts() {
    let directory = tempfile::tempdir().unwrap();
    let sealer = Sealer::from_text(&generate_key(&SystemEntropy)).unwrap();
    let file: Arc<dyn Store> =
        Arc::new(SqliteStore::open(&directory.path().join("bursar.db"), sealer).await.unwrap());
    let full = Arc::new(Full::default());
    let (inner, hook): (_, Arc<dyn Hook>) = (Arc::clone(&file), full.clone());
    let uses = Uses::new(Arc::new(Hooked { inner, hook }));
    let key =
        GrantKey { service: ServiceName::parse("snowflake").unwrap(), user: UserName::parse(ALICE).unwrap() };
    let candidate = Candidate {
        refresh_token: Secret::new("r".to_owned()),
        registration: "c".to_owned(),
        consented: false,
    };
    let id = GrantId::candidate(key.service.clone(), candidate.refresh_token.digest());
    file.add_candidate(&id, &candidate, Timestamp::from_secs(0)).await.unwrap();
    file.promote(&id, &key.user).await.unwrap();

    let run = RunId::parse("run-1");
    let asker = |uid, run| Asker { uid, unit: None, run };
    let at = Timestamp::from_secs;
    let (one, other) = (Arc::new(Usage::new(None)), Arc::new(Usage::new(None)));
    uses.note(&key, &one, &asker(1, None), at(1));
    uses.note(&key, &one, &asker(2, run.as_ref()), at(2));
    uses.note(&key, &other, &asker(3, None), at(3));
    let last = LastUse { at: at(3), uid: 3, unit: None, run: None };
    assert_eq!(uses.last_use(&key).await, Some(last.clone()));
    full.0.store(true, Ordering::SeqCst);
    uses.save().await;
    assert_eq!(file.last_uses(std::slice::from_ref(&key)).await.unwrap(), []);
    assert_eq!(uses.last_use(&key).await, Some(last.clone()), "it is not lost");
    full.0.store(false, Ordering::SeqCst);
    uses.save().await;
    assert_eq!(file.last_uses(std::slice::from_ref(&key)).await.unwrap(), [(key.clone(), last)]);
    uses.note(&key, &one, &asker(2, run.as_ref()), at(4));
    let last = LastUse { at: at(4), uid: 2, unit: None, run: run.clone() };
    assert_eq!(uses.last_use(&key).await, Some(last.clone()), "what comes after a saving is noted again");
    uses.save().await;
    assert_eq!(file.last_uses(std::slice::from_ref(&key)).await.unwrap(), [(key.clone(), last)]);
    let client = GrantKey { user: UserName::of_the_client(), ..key };
    uses.note(&client, &one, &asker(1, None), at(9));
    assert_eq!(uses.last_use(&client).await, None, "the client's own token is nobody's grant");
}
