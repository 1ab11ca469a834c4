//! The key that seals the store is replaced, while it serves and over a crash; and a key that is missing damages nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bursar::dev::write_private;
use bursar::entropy::SystemEntropy;
use bursar::store::seal::{KeyId, Sealer, generate_key};
use nix::sys::signal::Signal::SIGKILL;
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::import::{bursar, text};
use crate::support::sidecar::{Reply, Sidecar, ended_by, request};
use crate::support::{ALICE, BOB, World};
use crate::vending::join_all;

const TARGET: &str = "/v1/keys/rotate";

/// A new key in a file of this name; its id.
fn new_key(world: &World, name: &str) -> KeyId {
    let key = generate_key(&SystemEntropy);
    write_private(&world.path().join(name), key.expose()).unwrap();
    Sealer::from_text(&key).unwrap().id()
}

fn id_of(world: &World, name: &str) -> KeyId {
    Sealer::from_file(&world.path().join(name)).unwrap().id()
}

/// From now on the configuration names these.
fn configure_keys(world: &World, newest: &str, old: &[&str]) {
    let path = world.path().join("bursar.toml");
    let full = |name: &str| json!(world.path().canonicalize().unwrap().join(name)).to_string();
    let old: Vec<String> = old.iter().map(|name| full(name)).collect();
    let lines = [format!("key_file = {}", full(newest)), format!("old_key_files = [{}]", old.join(", "))];
    let before = std::fs::read_to_string(&path).unwrap();
    let is_key = |line: &&str| line.starts_with("key_file") || line.starts_with("old_key_files");
    let rest: Vec<&str> = before.lines().filter(|line| !is_key(line)).collect();
    let after = rest.join("\n").replace("[store]", &format!("[store]\n{}", lines.join("\n")));
    std::fs::write(path, after).unwrap();
}

async fn reload(sidecar: &Sidecar) -> Reply {
    request(&sidecar.admin_socket(), "POST", "/v1/reload", &[], "").await
}

/// Until it has ended.
async fn rotate(sidecar: &Sidecar) -> Value {
    let mut reply = request(&sidecar.admin_socket(), "POST", TARGET, &[], "").await;
    while reply.status == 202 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        reply = request(&sidecar.admin_socket(), "GET", TARGET, &[], "").await;
    }
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

async fn read(database: &Path, sql: &str) -> Vec<sqlx::sqlite::SqliteRow> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    rows
}

/// How many values are sealed with each key.
async fn sealed_by(world: &World) -> BTreeMap<String, i64> {
    let sql = "SELECT lower(hex(key)) AS key, count(*) AS rows FROM (
            SELECT substr(refresh_token, 2, 8) AS key FROM grants WHERE refresh_token <> x''
            UNION ALL SELECT substr(access_token, 2, 8) FROM access_tokens
            UNION ALL SELECT substr(refresh_token, 2, 8) FROM revocations
        ) GROUP BY 1";
    let rows = read(&world.path().join("bursar.db"), sql).await;
    rows.iter().map(|row| (row.get("key"), row.get("rows"))).collect()
}

/// Every row of every table, as text.
async fn content(world: &World) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (table, columns) in [
        (
            "grants",
            "service, user, candidate, version, ended_at, attempt_wall, lease_until, hex(refresh_token)",
        ),
        ("access_tokens", "service, user, candidate, role, version, verified, asked_at, hex(access_token)"),
        ("revocations", "service, user, token, revoked_at, hex(refresh_token)"),
        ("seal_keys", "hex(id)"),
    ] {
        let sql = format!("SELECT '{table}' || json_array({columns}) AS line FROM {table}");
        found.extend(read(&world.path().join("bursar.db"), &sql).await.iter().map(|row| row.get("line")));
    }
    found
}

/// A grant that is over here, and whose server does not take that in.
async fn revoke_in_vain(world: &World, sidecar: &Sidecar, user: &str) {
    world.fault(json!({ "do": "status", "status": 503, "next": 100_000, "endpoint": "revoke" })).await;
    let target = format!("/v1/grants/snowflake/{user}");
    assert_eq!(request(&sidecar.admin_socket(), "DELETE", &target, &[], "").await.status, 202);
}

#[tokio::test]
async fn keys_are_replaced_while_grants_are_refreshed_and_the_newest_alone_is_enough_afterwards() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let users: Vec<String> = (0..6).map(|number| format!("user{number}@example.com")).collect();
    world.settings(json!({ "users": users })).await;
    for user in &users {
        let token = world.consent("snowflake", user);
        assert_eq!(sidecar.import("snowflake", user, &token).await.status, 201);
    }
    let busy = async {
        loop {
            for role in [None, Some("ANALYST")] {
                for reply in join_all(users.iter().map(|user| sidecar.refresh("snowflake", user, role))).await
                {
                    assert_eq!(reply.status, 200, "{}", reply.body);
                }
            }
        }
    };
    let rotations = async {
        let mut last = "store.key".to_owned();
        for round in 0..8 {
            let name = format!("key-{round}");
            let (old, new) = (id_of(&world, &last), new_key(&world, &name));
            configure_keys(&world, &name, &[&last]);
            assert_eq!(reload(&sidecar).await.status, 200);
            let before = world.token_requests().await;
            while world.token_requests().await < before + 6 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let end = rotate(&sidecar).await;
            assert_eq!(end["state"], "ended");
            assert_eq!((&end["left"], &end["damaged"]), (&json!(0), &json!(0)), "{end:#}");
            assert_eq!(end["key"], new.to_string());
            assert_eq!(end["no_longer_needed"][0]["key"], old.to_string(), "{end:#}");
            assert!(end["no_longer_needed"][0]["file"].as_str().unwrap().ends_with(&last), "{end:#}");
            configure_keys(&world, &name, &[]);
            let reply = reload(&sidecar).await;
            assert_eq!(reply.status, 200, "the old one can be taken out: {}", reply.body);
            std::fs::remove_file(world.path().join(&last)).unwrap();
            last = name;
        }
        last
    };
    let last = tokio::select! { last = rotations => last, () = busy => unreachable!() };
    assert!(world.token_requests().await > 6 + 8 * 6, "it was busy");
    let (status, log) = sidecar.stop().await;
    assert!(status.success() && log.contains("a key rotation ended"), "{log}");
    let sealed = sealed_by(&world).await;
    assert_eq!(sealed.keys().collect::<Vec<_>>(), [&id_of(&world, &last).to_string()]);
    let sidecar = world.sidecar().await;
    for user in users.iter().map(String::as_str).chain([ALICE]) {
        sidecar.token("snowflake", user, None).await.token();
        assert_eq!(sidecar.refresh("snowflake", user, Some("ANALYST")).await.status, 200, "{user}");
    }
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_rotation_that_is_killed_goes_on_where_it_was() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    revoke_in_vain(&world, &sidecar, BOB).await;
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let mut last = "store.key".to_owned();
    // Grants, access tokens, revocations.
    for batch in 1..=3 {
        let name = format!("key-{batch}");
        let new = new_key(&world, &name);
        configure_keys(&world, &name, &[&last]);
        let sidecar = Sidecar::spawn_to_die_at(world.path(), &format!("resealed:{batch}"));
        let socket = sidecar.admin_socket();
        let asking = async {
            loop {
                if let Ok(mut stream) = tokio::net::UnixStream::connect(&socket).await {
                    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                    let request = format!("POST {TARGET} HTTP/1.1\r\nhost: x\r\n\r\n");
                    let _sent = stream.write_all(request.as_bytes()).await;
                    let _dies = stream.read_u8().await;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let (status, log) = tokio::select! { end = sidecar.ended() => end, () = asking => unreachable!() };
        assert!(ended_by(status, SIGKILL), "{status}: {log}");
        let sealed = sealed_by(&world).await;
        assert_eq!(sealed.len(), if batch == 3 { 1 } else { 2 }, "in the middle: {sealed:?}");
        // Without the old key it is of no use yet, even if all rows could do without.
        let sidecar = world.sidecar().await;
        for service in ["snowflake", "databricks"] {
            sidecar.token(service, ALICE, None).await.token();
        }
        let end = rotate(&sidecar).await;
        assert_eq!((&end["left"], &end["damaged"]), (&json!(0), &json!(0)), "{end:#}");
        assert_eq!(end["no_longer_needed"].as_array().unwrap().len(), 1, "{end:#}");
        let (status, _) = sidecar.stop().await;
        assert!(status.success());
        let sealed = sealed_by(&world).await;
        assert_eq!(sealed.keys().collect::<Vec<_>>(), [&new.to_string()]);
        last = name;
    }
    configure_keys(&world, &last, &[]);
    world.fault(json!({ "do": "clear" })).await;
    let sidecar = world.sidecar().await;
    let told = async {
        while world.stats().await["families_revoked"].as_array().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("what waited to be revoked is");
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_key_that_rows_need_is_missed_at_the_start_and_at_a_reload_and_nothing_changes() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let (old, new) = (id_of(&world, "store.key"), new_key(&world, "new.key"));
    // Two grants, and their access tokens.
    let missed = format!("4 with key {old}");
    configure_keys(&world, "new.key", &[]);
    let reply = reload(&sidecar).await;
    assert_eq!(reply.error(), (400, "invalid_request".to_owned()));
    let problem = reply.json()["problems"][0].as_str().unwrap().to_owned();
    assert!(problem.contains(&missed) && problem.contains("old_key_files"), "{problem}");
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200, "the keys in use stay");
    assert_eq!(sealed_by(&world).await.keys().collect::<Vec<_>>(), [&old.to_string()]);
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let before = content(&world).await;
    let (status, log) = Sidecar::spawn(world.path()).ended().await;
    assert_eq!(status.code(), Some(1));
    assert!(log.contains(&missed) && log.contains("old_key_files"), "{log}");
    assert_eq!(content(&world).await, before);
    // With both, then back to the old one alone: now it is the new one that is missed.
    configure_keys(&world, "new.key", &["store.key"]);
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    assert_eq!(sealed_by(&world).await[&new.to_string()], 2, "what is written is sealed with the new key");
    let status = request(&sidecar.admin_socket(), "GET", "/v1/status", &[], "").await.json();
    assert_eq!(status["rows_sealed_with_old_keys"], 2);
    configure_keys(&world, "store.key", &[]);
    let reply = reload(&sidecar).await;
    assert!(reply.body.contains(&format!("2 with key {new}")), "{}", reply.body);
    sidecar.token("databricks", ALICE, None).await.token();
    configure_keys(&world, "store.key", &["new.key"]);
    assert_eq!(reload(&sidecar).await.status, 200, "a rotation can be taken back");
    assert_eq!(rotate(&sidecar).await["resealed"], 2);
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_key_that_sealed_nothing_is_not_missed() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    new_key(&world, "new.key");
    configure_keys(&world, "new.key", &[]);
    assert_eq!(reload(&sidecar).await.status, 200, "the store is empty");
    world.connect(&sidecar, ALICE).await;
    configure_keys(&world, "new.key", &["store.key"]);
    assert_eq!(reload(&sidecar).await.status, 200);
    let end = rotate(&sidecar).await;
    assert_eq!(
        (&end["resealed"], &end["no_longer_needed"][0]["key"]),
        (&json!(0), &json!(id_of(&world, "store.key").to_string()))
    );
    world.finish(sidecar).await;
}

#[tokio::test]
async fn the_url_of_the_store_still_takes_a_restart() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.configure("/bursar.db\"", "/other.db\"");
    let reply = reload(&sidecar).await;
    assert!(reply.body.contains("[store] has changed, which takes a restart"), "{}", reply.body);
    world.configure("/other.db\"", "/bursar.db\"");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn the_command_says_what_was_done_which_key_can_go_and_what_can_not_be_opened() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let broken = "UPDATE grants SET refresh_token = substr(refresh_token, 1, length(refresh_token) - 1)
        WHERE service = 'snowflake' AND user = 'bob@example.com'";
    read(&world.path().join("bursar.db"), broken).await;
    let old = id_of(&world, "store.key");
    new_key(&world, "new.key");
    configure_keys(&world, "new.key", &["store.key"]);
    let sidecar = world.sidecar().await;
    let said = bursar(&sidecar, &["status"], "").await;
    assert!(text(&said.stdout).contains("sealed anew by `bursar key rotate`: 8\n"), "{}", text(&said.stdout));
    let first = bursar(&sidecar, &["key", "rotate"], "").await;
    let (out, err) = (text(&first.stdout), text(&first.stderr));
    assert_eq!(first.status.code(), Some(1), "{out} {err}");
    assert!(out.contains("7 rows sealed anew with key "), "{out}");
    let file = world.path().canonicalize().unwrap().join("store.key");
    assert!(out.contains(&format!("no longer needed: key {old}; take {} out", file.display())), "{out}");
    assert!(err.contains("1 rows can't be opened"), "{err}");
    assert!(err.contains("snowflake of bob@example.com: the refresh token of snowflake of bob"), "{err}");
    configure_keys(&world, "new.key", &[]);
    let reply = reload(&sidecar).await;
    assert_eq!(reply.status, 200, "what no key opens is no reason to keep one: {}", reply.body);
    let bobs = |reply: Reply| reply.error();
    assert_eq!(bobs(sidecar.refresh("snowflake", BOB, None).await), (500, "internal".to_owned()));
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    // Whose it is connects again, and all is well.
    assert_eq!(sidecar.import("snowflake", BOB, &world.consent("snowflake", BOB)).await.status, 201);
    let again = bursar(&sidecar, &["key", "rotate", "--json"], "").await;
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    let end: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(
        (&end["resealed"], &end["damaged"], &end["left"]),
        (&json!(0), &json!(0), &json!(0)),
        "{end:#}"
    );
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.refresh("snowflake", BOB, None).await.status, 200);
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn keys_are_an_administrators_business() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    let reply = request(&sidecar.socket(), "POST", TARGET, &[], "").await;
    assert_eq!(reply.error(), (404, "not_found".to_owned()), "not at the vending socket");
    let reply = request(&sidecar.admin_socket(), "DELETE", TARGET, &[], "").await;
    assert_eq!((reply.status, reply.headers["allow"].to_str().unwrap()), (405, "GET, HEAD, POST"));
    assert_eq!(request(&sidecar.admin_socket(), "GET", TARGET, &[], "").await.json()["state"], "none");
    world.finish(sidecar).await;
}
