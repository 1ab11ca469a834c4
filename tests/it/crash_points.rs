//! `kill -9` at every step from due to vended: the real program, which ends itself there (`src/fail_point.rs`).

use std::time::Duration;

use bursar::dev::authorization_server::Rotation;
use nix::sys::signal::Signal::SIGKILL;

use crate::crash::post_and_forget;
use crate::support::sidecar::{Sidecar, ended_by};
use crate::support::{ALICE, World};
use crate::vending::join_all;

const ROLES: [Option<&str>; 3] = [None, Some("PUBLIC"), Some("ANALYST")];
/// The steps of design 2.
const STEPS: [&str; 6] = ["leased", "before_exchange", "answered", "committed", "verified", "published"];
/// Each step of each role's exchange, twice; more by `tests/soak`.
const ROUNDS: usize = 2 * STEPS.len() * ROLES.len();

/// Kills at each step in turn, of the first, second or third exchange; after each every role's token is vended.
async fn kills(rotation: Rotation) {
    let world = World::with(rotation, 30, Duration::from_hours(1)).await;
    let sidecar = world.connected().await;
    for role in ROLES {
        sidecar.token("snowflake", ALICE, role).await.token();
    }
    sidecar.kill();
    let rounds = std::env::var("BURSAR_SOAK_KILLS").map_or(ROUNDS, |text| text.parse().unwrap());
    for round in 0..rounds {
        let (step, nth) = (STEPS[round % STEPS.len()], 1 + round / STEPS.len() % ROLES.len());
        kill_at(&world, &format!("{step}:{nth}")).await;
        let sidecar = world.sidecar().await;
        let tokens = join_all(ROLES.map(|role| sidecar.token("snowflake", ALICE, role))).await;
        for (reply, role) in tokens.iter().zip(ROLES) {
            assert_eq!(reply.status, 200, "after {step}:{nth}, {role:?}: {}", reply.body);
        }
        let reply = sidecar.refresh("snowflake", ALICE, ROLES[round % ROLES.len()]).await;
        assert_eq!(reply.status, 200, "after {step}:{nth}: {}", reply.body);
        world.assert_nothing_was_lost().await;
        sidecar.kill();
    }
    let sidecar = world.sidecar().await;
    world.finish(sidecar).await;
}

/// It may get there before it is ready: what the last one left in doubt is seen to first.
async fn kill_at(world: &World, fail_point: &str) {
    let sidecar = Sidecar::spawn_to_die_at(world.path(), fail_point);
    let admin = sidecar.admin_socket();
    let refreshes = async {
        loop {
            join_all(ROLES.map(|role| {
                let answer = post_and_forget(admin.clone(), role);
                tokio::time::timeout(Duration::from_millis(20), answer)
            }))
            .await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        (status, log) = sidecar.ended() => assert!(ended_by(status, SIGKILL), "{fail_point}: {status}: {log}"),
        () = refreshes => {}
    }
}

#[tokio::test]
async fn kills_at_every_step_lose_nothing_when_tokens_rotate() {
    kills(Rotation::Rotating).await;
}

#[tokio::test]
async fn kills_at_every_step_lose_nothing_when_tokens_are_persistent() {
    kills(Rotation::Persistent).await;
}
