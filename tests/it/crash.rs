//! `kill -9` in whatever the process was doing.

use std::time::Duration;

use bursar::dev::authorization_server::Rotation;
use bursar::entropy::{Entropy as _, SystemEntropy};

use crate::support::{ALICE, World};
use crate::vending::join_all;

const ROLES: [Option<&str>; 3] = [None, Some("PUBLIC"), Some("ANALYST")];

/// Kills at random moments of three refreshes, some here and a thousand by `tests/soak`; after each restart every role's token is vended.
async fn kills(rotation: Rotation) {
    let world = World::with(rotation, 30, Duration::from_hours(1)).await;
    let sidecar = world.connected().await;
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let rounds: u32 = std::env::var("BURSAR_SOAK_KILLS").map_or(36, |text| text.parse().unwrap());
    for round in 0..rounds {
        let sidecar = world.sidecar().await;
        let tokens = join_all(ROLES.map(|role| sidecar.token("snowflake", ALICE, role))).await;
        for (reply, role) in tokens.iter().zip(ROLES) {
            assert_eq!(reply.status, 200, "round {round}, {role:?}: {}", reply.body);
        }
        let moment = Duration::from_micros(SystemEntropy.below(40_000));
        let refreshes = join_all(ROLES.map(|role| post_and_forget(sidecar.admin_socket(), role)));
        let _killed_before_they_answer = tokio::time::timeout(moment, refreshes).await;
        sidecar.kill();
    }
    let sidecar = world.sidecar().await;
    for role in ROLES {
        let reply = sidecar.refresh("snowflake", ALICE, role).await;
        assert_eq!(reply.status, 200, "{role:?}: {}", reply.body);
    }
    assert!(
        world.stats().await["refreshes"].as_u64().unwrap() > u64::from(rounds) / 2,
        "the kills hit refreshes"
    );
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

/// The daemon may die at any moment of it.
pub(crate) async fn post_and_forget(socket: std::path::PathBuf, role: Option<&str>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let role = role.map(|role| format!("?role={role}")).unwrap_or_default();
    let Ok(mut stream) = tokio::net::UnixStream::connect(socket).await else { return };
    let request = format!("POST /v1/grants/snowflake/{ALICE}/refresh{role} HTTP/1.1\r\nhost: x\r\n\r\n");
    let _sent = stream.write_all(request.as_bytes()).await;
    let _answered = stream.read_u8().await;
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn kills_lose_nothing_when_tokens_rotate() {
    kills(Rotation::Rotating).await;
}

#[tokio::test]
async fn kills_lose_nothing_when_tokens_are_persistent() {
    kills(Rotation::Persistent).await;
}

#[tokio::test]
async fn an_attempt_in_doubt_is_finished_by_the_next_process_before_anybody_asks() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(serde_json::json!({ "do": "hang_after" })).await;
    let refresh = post_and_forget(sidecar.admin_socket(), None);
    let _hangs = tokio::time::timeout(Duration::from_millis(500), refresh).await;
    sidecar.kill();
    let refreshes = world.stats().await["refreshes"].as_u64().unwrap();
    let sidecar = world.sidecar().await;
    while world.stats().await["refreshes"].as_u64().unwrap() == refreshes {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while !sidecar.grant("snowflake", ALICE).await["in_doubt_since"].is_null() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}
