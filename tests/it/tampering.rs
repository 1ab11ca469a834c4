//! Somebody who can write the database's file can't move, alter or plant a token: what does not open for its own row is
//! refused, and nobody else is troubled.

use std::time::Duration;

use bursar::clock::Timestamp;
use bursar::entropy::SystemEntropy;
use bursar::model::{GrantId, GrantKey, ServiceName, UserName};
use bursar::secret::Secret;
use bursar::store::seal::{Sealer, generate_key};
use bursar::store::sqlite::SqliteStore;
use bursar::store::{Candidate, Store as _};
use serde_json::json;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row as _};

use crate::support::sidecar::{Reply, Sidecar, request};
use crate::support::{ALICE, BOB, World};
use crate::vending::join_all;

const CAROL: &str = "carol@example.com";

async fn connection(path: &std::path::Path) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    sqlx::ConnectOptions::connect(&options).await.unwrap()
}

/// Changes the database of a sidecar that does not run; how many rows were changed.
async fn tamper(world: &World, sql: &str) -> u64 {
    let mut connection = connection(&world.path().join("bursar.db")).await;
    let sql = AssertSqlSafe(sql.to_owned());
    let changed = sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected();
    sqlx::Connection::close(connection).await.unwrap();
    changed
}

/// A sealed value of the grants' table of some database.
async fn sealed_refresh_token(path: &std::path::Path, service: &str, user: &str) -> Vec<u8> {
    let mut connection = connection(path).await;
    let query = sqlx::query("SELECT refresh_token FROM grants WHERE service = ? AND user = ?");
    let row = query.bind(service).bind(user).fetch_one(&mut connection).await.unwrap();
    row.get("refresh_token")
}

async fn stopped(sidecar: Sidecar) {
    let (status, log) = sidecar.stop().await;
    assert!(status.success(), "{log}");
}

/// Whose a token is by its own word.
fn speaks_for(token: &str) -> String {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice::<serde_json::Value>(&claims).unwrap()["sub"].as_str().unwrap().to_owned()
}

fn assert_refused(reply: &Reply) {
    assert_eq!(reply.error(), (500, "internal".to_owned()), "{}", reply.body);
    assert!(reply.json()["detail"].as_str().unwrap().contains("the log has the details"), "{}", reply.body);
}

#[tokio::test]
async fn values_that_change_places_open_for_neither_user() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for user in [BOB, CAROL] {
        world.connect(&sidecar, user).await;
    }
    stopped(sidecar).await;
    for (table, column, service) in
        [("grants", "refresh_token", "snowflake"), ("access_tokens", "access_token", "databricks")]
    {
        let swap = format!(
            "UPDATE {table} SET {column} = (SELECT {column} FROM {table} other
                WHERE other.service = '{service}' AND other.user <> {table}.user AND other.user <> '{CAROL}')
             WHERE service = '{service}' AND user <> '{CAROL}'"
        );
        // SQLite reads while it writes: through a copy.
        let copy = format!("CREATE TABLE copy AS SELECT service, user, {column} FROM {table}");
        tamper(&world, &copy).await;
        let swap = swap.replace(&format!("FROM {table} other"), "FROM copy other");
        assert_eq!(tamper(&world, &swap).await, 2);
        tamper(&world, "DROP TABLE copy").await;
    }
    let sidecar = world.sidecar().await;
    for user in [ALICE, BOB] {
        assert_refused(&sidecar.refresh("snowflake", user, None).await);
        // A kept access token only saves an exchange: another one is fetched, and it is the user's own.
        let fetched = sidecar.token("databricks", user, None).await;
        assert_eq!(speaks_for(&fetched.token()), *user);
        sidecar.token("snowflake", user, None).await.token();
    }
    assert_eq!(sidecar.refresh("snowflake", CAROL, None).await.status, 200);
    sidecar.token("databricks", CAROL, None).await.token();
    let log = sidecar.read_log();
    assert!(log.contains("the refresh token of snowflake of alice@example.com can't be opened"), "{log}");
    assert!(log.contains("the access token of databricks of bob@example.com can't be opened"), "{log}");
    assert_eq!(sidecar.observe("/ready").await.0, 200);
    // Whose it is connects again.
    world.connect(&sidecar, ALICE).await;
    sidecar.token("databricks", ALICE, None).await.token();
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn one_bit_anywhere_in_a_sealed_value_is_noticed_and_the_start_is_not_held_up() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    // In the format, the key's id, the nonce, the token and the seal.
    let places = [1, 5, 12, 30, -1];
    let users: Vec<String> = (0..places.len()).map(|number| format!("user{number}@example.com")).collect();
    world.settings(json!({ "users": users })).await;
    for user in &users {
        world.connect(&sidecar, user).await;
    }
    stopped(sidecar).await;
    let path = world.path().join("bursar.db");
    for (table, column, service) in
        [("grants", "refresh_token", "snowflake"), ("access_tokens", "access_token", "databricks")]
    {
        for (user, place) in users.iter().zip(places) {
            let mut connection = connection(&path).await;
            let read =
                format!("SELECT {column} FROM {table} WHERE service = '{service}' AND user = '{user}'");
            let row = sqlx::query(AssertSqlSafe(read)).fetch_one(&mut connection).await.unwrap();
            let mut sealed: Vec<u8> = row.get(0);
            let at = usize::try_from(place).map_or(sealed.len() - 1, |place| place - 1);
            sealed[at] ^= 1;
            let write =
                format!("UPDATE {table} SET {column} = ? WHERE service = '{service}' AND user = '{user}'");
            sqlx::query(AssertSqlSafe(write)).bind(sealed).execute(&mut connection).await.unwrap();
            sqlx::Connection::close(connection).await.unwrap();
        }
    }
    let sidecar = world.sidecar().await;
    for user in &users {
        assert_refused(&sidecar.refresh("snowflake", user, None).await);
        let fetched = sidecar.token("databricks", user, None).await;
        assert_eq!(speaks_for(&fetched.token()), *user, "another one, for what was kept is no use");
    }
    for service in ["snowflake", "databricks"] {
        sidecar.token(service, ALICE, None).await.token();
        assert_eq!(sidecar.refresh(service, ALICE, None).await.status, 200);
    }
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_row_from_another_database_opens_for_nobody() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for user in [BOB, CAROL] {
        world.connect(&sidecar, user).await;
    }
    stopped(sidecar).await;
    let ours = Secret::new(std::fs::read_to_string(world.path().join("store.key")).unwrap());
    // A token of mallory's for bob's row: with another key as bob's own, with our key as mallory's.
    for (key, whose, row) in [(generate_key(&SystemEntropy), BOB, BOB), (ours, "mallory@example.com", CAROL)]
    {
        let elsewhere = tempfile::tempdir().unwrap();
        let path = elsewhere.path().join("other.db");
        let store = SqliteStore::open(&path, Sealer::from_text(&key).unwrap()).await.unwrap();
        let service = ServiceName::parse("snowflake").unwrap();
        let token = Secret::new("sentinel-refresh-token".to_owned());
        let candidate = GrantId::candidate(service.clone(), token.digest());
        let handed_in = Candidate { refresh_token: token, registration: "any".to_owned(), consented: false };
        assert!(store.add_candidate(&candidate, &handed_in, Timestamp::from_secs(1)).await.unwrap());
        let whose = GrantKey { service, user: UserName::parse(whose).unwrap() };
        assert!(store.promote(&candidate, &whose.user).await.unwrap());
        store.close().await;
        let sealed = sealed_refresh_token(&path, "snowflake", whose.user.as_str()).await;
        let mut ours = connection(&world.path().join("bursar.db")).await;
        let plant = "UPDATE grants SET refresh_token = ? WHERE service = 'snowflake' AND user = ?";
        let planted = sqlx::query(plant).bind(sealed).bind(row).execute(&mut ours).await.unwrap();
        assert_eq!(planted.rows_affected(), 1);
        sqlx::Connection::close(ours).await.unwrap();
    }
    let sidecar = world.sidecar().await;
    for user in [BOB, CAROL] {
        assert_refused(&sidecar.refresh("snowflake", user, None).await);
        sidecar.token("databricks", user, None).await.token();
    }
    let log = sidecar.read_log();
    assert!(log.contains("which is none of this store's: damaged, or from another store"), "{log}");
    assert!(
        log.contains("of snowflake of carol@example.com can't be opened: a sealed value is damaged"),
        "{log}"
    );
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_waits_to_be_revoked_is_never_sent_in_anothers_place() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for user in [BOB, CAROL] {
        world.connect(&sidecar, user).await;
    }
    world.fault(json!({ "do": "status", "status": 503, "next": 100_000, "endpoint": "revoke" })).await;
    let revoke = async |sidecar: &Sidecar, user: &str| {
        let target = format!("/v1/grants/snowflake/{user}");
        request(&sidecar.admin_socket(), "DELETE", &target, &[], "").await
    };
    for user in [ALICE, BOB, CAROL] {
        assert_eq!(revoke(&sidecar, user).await.status, 202);
    }
    stopped(sidecar).await;
    tamper(&world, "CREATE TABLE copy AS SELECT user, refresh_token FROM revocations").await;
    let swap = format!(
        "UPDATE revocations SET refresh_token =
            (SELECT refresh_token FROM copy WHERE copy.user <> revocations.user AND copy.user <> '{CAROL}')
         WHERE user <> '{CAROL}'"
    );
    assert_eq!(tamper(&world, &swap).await, 2);
    tamper(&world, "DROP TABLE copy").await;
    world.fault(json!({ "do": "clear" })).await;
    let sidecar = world.sidecar().await;
    let told = async {
        while world.stats().await["families_revoked"].as_array().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("carol's server hears of it");
    join_all([ALICE, BOB].map(async |user| assert_refused(&revoke(&sidecar, user).await))).await;
    let families = world.stats().await["families_revoked"].clone();
    let users: Vec<&str> =
        families.as_array().unwrap().iter().filter_map(|one| one["user"].as_str()).collect();
    assert_eq!(users, [CAROL], "nothing else was sent");
    sidecar.token("databricks", ALICE, None).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_grant_that_can_not_be_opened_can_be_revoked_and_its_user_erased() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    // Carol's, handed in for bob: it waits to be accepted for her.
    let carols = sidecar.import("snowflake", BOB, &world.consent("snowflake", CAROL)).await;
    assert_eq!(carols.error(), (409, "user_mismatch".to_owned()));
    stopped(sidecar).await;
    for (table, column) in [("grants", "refresh_token"), ("access_tokens", "access_token")] {
        let damage = format!("UPDATE {table} SET {column} = zeroblob(80) WHERE service = 'snowflake'");
        assert_eq!(tamper(&world, &damage).await, 3);
    }
    let sidecar = world.sidecar().await;
    let reply =
        request(&sidecar.admin_socket(), "DELETE", &format!("/v1/grants/snowflake/{ALICE}"), &[], "").await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    assert!(reply.json()["left"][0].as_str().unwrap().contains("by hand"), "{}", reply.body);
    let after = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(after.json()["reason"], "revoked", "{}", after.body);
    let reply = request(&sidecar.admin_socket(), "DELETE", &format!("/v1/users/{BOB}"), &[], "").await;
    assert_eq!((reply.status, &reply.json()["grants"]), (202, &json!(2)), "{}", reply.body);
    assert!(sidecar.grant("snowflake", BOB).await.is_null());
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_row_that_can_not_be_read_stands_in_nobody_elses_way() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for user in [BOB, CAROL] {
        world.connect(&sidecar, user).await;
    }
    stopped(sidecar).await;
    for damage in [
        // Not UTF-8; in doubt without a number; a service that is none.
        format!(
            "UPDATE grants SET service = CAST(x'ff' AS TEXT) WHERE service = 'snowflake' AND user = '{BOB}'"
        ),
        format!("UPDATE access_tokens SET boot_id = 'x' WHERE user = '{BOB}'"),
        "INSERT INTO ended_runs VALUES (CAST(x'ff' AS TEXT), 9223372036854775807)".to_owned(),
    ] {
        assert!(tamper(&world, &damage).await > 0, "{damage}");
    }
    let sidecar = world.sidecar().await;
    for user in [ALICE, CAROL] {
        sidecar.token("snowflake", user, None).await.token();
        assert_eq!(sidecar.refresh("databricks", user, None).await.status, 200);
    }
    assert!(sidecar.read_log().contains("a row that can't be read is passed over"));
    let status = request(&sidecar.admin_socket(), "GET", "/v1/status", &[], "").await;
    assert_eq!(status.status, 200, "{}", status.body);
    world.finish(sidecar).await;
}
