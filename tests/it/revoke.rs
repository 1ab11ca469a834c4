//! A grant is revoked: here at once, at its authorization server as soon as that answers, and never brought back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::import::{bursar, text};
use crate::support::sidecar::{Reply, Sidecar, request};
use crate::support::{ALICE, BOB, World};

async fn delete(sidecar: &Sidecar, target: &str) -> Reply {
    request(&sidecar.admin_socket(), "DELETE", target, &[], "").await
}

async fn revoke(sidecar: &Sidecar, user: &str) -> Reply {
    delete(sidecar, &format!("/v1/grants/snowflake/{user}")).await
}

async fn revocations_seen(world: &World) -> u64 {
    world.stats().await["requests"]["revoke"].as_u64().unwrap_or(0)
}

/// How many logins of the user the server has ended because it was told to.
async fn ended_at_the_server(world: &World, user: &str) -> usize {
    let stats = world.stats().await;
    let families = stats["families_revoked"].as_array().unwrap();
    families.iter().filter(|family| family["user"] == user && family["reason"] == "revoked").count()
}

fn assert_revoked(reply: &Reply) {
    assert_eq!(reply.error(), (409, "login_required".to_owned()), "{}", reply.body);
    assert_eq!(reply.json()["reason"], "revoked");
    assert!(reply.json()["since"].is_string());
}

#[tokio::test]
async fn a_revoked_grant_is_over_here_and_at_its_server() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for role in [None, Some("ANALYST")] {
        sidecar.token("snowflake", ALICE, role).await.token();
    }
    let reply = revoke(&sidecar, ALICE).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(
        reply.json(),
        json!({ "service": "snowflake", "user": ALICE, "state": "revoked", "left": [] })
    );
    for role in [None, Some("ANALYST")] {
        assert_revoked(&sidecar.token("snowflake", ALICE, role).await);
    }
    assert_eq!(ended_at_the_server(&world, ALICE).await, 1);
    assert_eq!(sidecar.grant("snowflake", ALICE).await["state"], "revoked");
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 409);
    sidecar.token("databricks", ALICE, None).await.token();
    assert_eq!(
        sidecar.counter("bursar_revocations_total", &["result=\"ok\""]).await.to_bits(),
        1.0_f64.to_bits()
    );
    assert_eq!(revoke(&sidecar, ALICE).await.status, 200, "again changes nothing");
    assert_eq!(revocations_seen(&world).await, 1);
    assert_eq!(revoke(&sidecar, BOB).await.error(), (404, "not_found".to_owned()));
    let unknown = delete(&sidecar, &format!("/v1/grants/nosuch/{ALICE}")).await;
    assert_eq!(unknown.error(), (404, "unknown_service".to_owned()));
    // The next consent is another grant.
    world.connect(&sidecar, ALICE).await;
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn with_the_server_down_it_is_over_here_at_once_and_there_after_a_restart() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    let refreshes = world.stats().await["refreshes"].clone();
    world.fault(json!({ "do": "status", "status": 503, "next": 1000, "endpoint": "revoke" })).await;
    let reply = revoke(&sidecar, ALICE).await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    assert!(reply.json()["left"][0].as_str().unwrap().contains("tried until done"), "{}", reply.body);
    assert_revoked(&sidecar.token("snowflake", ALICE, None).await);
    assert_revoked(&sidecar.token("snowflake", ALICE, Some("ANALYST")).await);
    let told = revocations_seen(&world).await;
    while revocations_seen(&world).await == told {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ended_at_the_server(&world, ALICE).await, 0);
    sidecar.kill();
    let sidecar = world.sidecar().await;
    assert_revoked(&sidecar.token("snowflake", ALICE, None).await);
    let waiting = request(&sidecar.admin_socket(), "GET", "/v1/status", &[], "").await.json();
    assert_eq!(waiting["waiting_to_be_revoked"], 1);
    world.fault(json!({ "do": "clear" })).await;
    while ended_at_the_server(&world, ALICE).await == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let done = async {
        loop {
            let status = request(&sidecar.admin_socket(), "GET", "/v1/status", &[], "").await.json();
            if status["waiting_to_be_revoked"] == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), done).await.expect("nothing is left");
    assert_eq!(ended_at_the_server(&world, ALICE).await, 1);
    assert_revoked(&sidecar.token("snowflake", ALICE, None).await);
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 409);
    assert_eq!(world.stats().await["refreshes"], refreshes, "no refresh brought it back");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn an_exchange_under_way_neither_brings_a_grant_back_nor_leaves_its_new_token_alive() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    world.fault(json!({ "do": "delay", "seconds": 1.0 })).await;
    let late = sidecar.token("snowflake", ALICE, Some("ANALYST"));
    let revoking = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (revoked, asked) = tokio::join!(revoke(&sidecar, ALICE), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let asked = sidecar.token("snowflake", ALICE, None).await;
            assert_eq!(
                world.stats().await["refreshes"],
                0,
                "told at once, with the exchange still under way"
            );
            asked
        });
        assert_revoked(&asked);
        revoked
    };
    let (late, revoked) = tokio::join!(late, revoking);
    assert_revoked(&late);
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    assert_eq!(world.stats().await["refreshes"], 1, "the exchange took place");
    assert_revoked(&sidecar.token("snowflake", ALICE, Some("ANALYST")).await);
    assert_eq!(ended_at_the_server(&world, ALICE).await, 1);
    assert_eq!(revocations_seen(&world).await, 2, "the token that was known, and the one that came late");
    assert_eq!(sidecar.grant("snowflake", ALICE).await["state"], "revoked");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_waits_to_be_revoked_harms_no_later_grant() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "cut_before", "next": 1000, "endpoint": "revoke" })).await;
    assert_eq!(revoke(&sidecar, ALICE).await.status, 202);
    world.connect(&sidecar, ALICE).await;
    world.fault(json!({ "do": "clear" })).await;
    while ended_at_the_server(&world, ALICE).await == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    assert_eq!(sidecar.grant("snowflake", ALICE).await["state"], "active");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_user_who_is_erased_leaves_nothing_in_the_store() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    // Handed in for somebody else: proven to be alice's, and kept until somebody takes it up.
    let mistaken = sidecar.import("snowflake", BOB, &world.consent("snowflake", ALICE)).await;
    assert_eq!(mistaken.error(), (409, "user_mismatch".to_owned()));
    let erased = bursar(&sidecar, &["grant", "erase", "--user", ALICE], "").await;
    assert_eq!(erased.status.code(), Some(0), "{}", text(&erased.stderr));
    let said = text(&erased.stdout);
    assert!(said.contains("3 grants forgotten") && said.contains("backups"), "{said}");
    let gone = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(gone.json()["reason"], "never_connected", "{}", gone.body);
    sidecar.token("snowflake", BOB, None).await.token();
    let all_told = async {
        while ended_at_the_server(&world, ALICE).await < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_told)
        .await
        .expect("every login of hers is ended at the server");
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    for entry in std::fs::read_dir(world.path()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("bursar.db") && entry.path().is_file() {
            let content = std::fs::read(entry.path()).unwrap();
            let found = content.windows(ALICE.len()).any(|window| window == ALICE.as_bytes());
            assert!(!found, "her name is in {name}");
        }
    }
}

#[tokio::test]
async fn the_command_says_what_is_left_to_do() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "status", "status": 500, "next": 1, "endpoint": "revoke" })).await;
    let revoke = ["grant", "revoke", "--service", "snowflake", "--user", ALICE];
    let revoked = bursar(&sidecar, &revoke, "").await;
    assert_eq!(revoked.status.code(), Some(0), "{}", text(&revoked.stderr));
    let said = text(&revoked.stdout);
    assert!(
        said.contains("revoked") && said.contains("left to do") && said.contains("tried until done"),
        "{said}"
    );
    let missing = bursar(&sidecar, &["grant", "revoke", "--service", "snowflake", "--user", BOB], "").await;
    assert_eq!(missing.status.code(), Some(64));
    let listed = bursar(&sidecar, &["grant", "list", "--state", "revoked", "--json"], "").await;
    let grant: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&grant["user"], &grant["state"]), (&json!(ALICE), &json!("revoked")));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn grants_of_a_service_that_is_gone_are_revoked_at_their_server_too() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let section = "[services.databricks]\nauthorization_server = \"databricks\"\naudience = \"databricks\"";
    world.configure(
        section,
        "[services.another]\nauthorization_server = \"databricks\"\naudience = \"databricks\"",
    );
    assert_eq!(request(&sidecar.admin_socket(), "POST", "/v1/reload", &[], "").await.status, 200);
    let erased = delete(&sidecar, &format!("/v1/users/{ALICE}")).await;
    assert_eq!((erased.status, &erased.json()["grants"]), (200, &json!(2)), "{}", erased.body);
    assert_eq!(ended_at_the_server(&world, ALICE).await, 2);
    assert_eq!(
        delete(&sidecar, &format!("/v1/grants/databricks/{ALICE}")).await.error(),
        (404, "unknown_service".to_owned())
    );
    world.finish(sidecar).await;
}

#[tokio::test]
async fn erasing_in_the_middle_of_an_exchange_leaves_no_token_alive() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "delay", "seconds": 1.0 })).await;
    let late = sidecar.token("snowflake", ALICE, Some("ANALYST"));
    let erasing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        delete(&sidecar, &format!("/v1/users/{ALICE}")).await
    };
    let (late, erased) = tokio::join!(late, erasing);
    assert_revoked(&late);
    assert_eq!((erased.status, &erased.json()["left"]), (200, &json!([])), "{}", erased.body);
    assert_eq!(ended_at_the_server(&world, ALICE).await, 2, "both logins, whatever came late");
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.json()["reason"], "never_connected");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_token_that_waits_to_be_revoked_can_not_be_imported() {
    let world =
        World::with(bursar::dev::authorization_server::Rotation::Persistent, 30, Duration::from_hours(1))
            .await;
    let sidecar = world.sidecar().await;
    let token = world.consent("snowflake", ALICE);
    assert_eq!(sidecar.import("snowflake", ALICE, &token).await.status, 201);
    world.fault(json!({ "do": "status", "status": 503, "next": 1000, "endpoint": "revoke" })).await;
    assert_eq!(revoke(&sidecar, ALICE).await.status, 202);
    assert_revoked(&sidecar.import("snowflake", ALICE, &token).await);
    assert_eq!(
        sidecar.import("snowflake", ALICE, &world.consent("snowflake", ALICE)).await.status,
        201,
        "another one can"
    );
    sidecar.token("snowflake", ALICE, None).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_revocation_that_is_refused_reads_the_clients_secret_again() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let right = world.spoil_secret();
    let sidecar = world.sidecar().await;
    std::fs::write(world.path().join("client-secret"), right).unwrap();
    let reply = revoke(&sidecar, ALICE).await;
    assert_eq!((reply.status, &reply.json()["left"]), (200, &json!([])), "{}", reply.body);
    assert_eq!(ended_at_the_server(&world, ALICE).await, 1);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn erasing_again_says_what_is_still_left() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "status", "status": 503, "next": 1000, "endpoint": "revoke" })).await;
    for grants in [2, 0] {
        let erased = delete(&sidecar, &format!("/v1/users/{ALICE}")).await;
        assert_eq!((erased.status, &erased.json()["grants"]), (202, &json!(grants)), "{}", erased.body);
        assert_eq!(erased.json()["left"].as_array().unwrap().len(), 2, "{}", erased.body);
    }
    world.fault(json!({ "do": "clear" })).await;
    let erased = delete(&sidecar, &format!("/v1/users/{ALICE}")).await;
    assert_eq!((erased.status, &erased.json()["left"]), (200, &json!([])), "{}", erased.body);
    assert_eq!(ended_at_the_server(&world, ALICE).await, 2);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_server_that_hangs() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "hang", "next": 1000, "endpoint": "revoke" })).await;
    let revoking = revoke(&sidecar, ALICE);
    let stopping = async {
        while revocations_seen(&world).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sidecar.signal(nix::sys::signal::Signal::SIGTERM);
    };
    let (revoked, ()) = tokio::join!(revoking, stopping);
    assert_eq!(revoked.status, 202, "{}", revoked.body);
    let (status, log) = sidecar.ended().await;
    assert!(status.success(), "{log}");
    world.fault(json!({ "do": "clear" })).await;
    let sidecar = world.sidecar().await;
    while ended_at_the_server(&world, ALICE).await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_revoked(&sidecar.token("snowflake", ALICE, None).await);
    world.finish(sidecar).await;
}
