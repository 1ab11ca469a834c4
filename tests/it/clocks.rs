//! Clocks that are wrong and processes that are suspended: no expired token is handed out (design 1.10).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bursar::clock::{Clock, ManualClock, SystemClock, Timestamp};
use bursar::dev::authorization_server::Rotation;
use bursar::entropy::{Entropy as _, SeededEntropy, SystemEntropy};
use bursar::model::Failure;
use bursar::secret::Secret;
use bursar::store::StoreError;
use bursar::store::seal::generate_key;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::engine::{Running, token};
use crate::support::store::Hook;
use crate::support::{ALICE, World};
use crate::vending::{claims, join_all};

struct NoHook;

#[async_trait]
impl Hook for NoHook {
    async fn before(&self, _: &'static str) -> Result<(), StoreError> {
        Ok(())
    }
}

const LIFETIME: Duration = Duration::from_hours(1);

/// The server's clock is right, and ours is set: forward, back, right again. Both run on equally.
struct Machine {
    right: ManualClock,
    ours: ManualClock,
}

impl Machine {
    fn new() -> Self {
        let start = SystemClock::new(0).now().wall;
        Self { right: ManualClock::new(start), ours: ManualClock::new(start) }
    }

    fn advance(&self, by: Duration) {
        self.right.advance(by);
        self.ours.advance(by);
    }

    /// Ours is off by as much.
    fn set(&self, wrong: Wrong) {
        let right = self.right.now().wall;
        self.ours.set_wall(match wrong {
            Wrong::ADayAhead => right.plus(Duration::from_hours(24)),
            Wrong::ADayBehind => right.minus(Duration::from_hours(24)),
            Wrong::Not => right,
        });
    }

    fn is_over(&self, token: &Secret) -> bool {
        let end = claims(token.expose())["exp"].as_i64().unwrap();
        Timestamp::from_secs(end) <= self.right.now().wall
    }
}

#[derive(Clone, Copy, Debug)]
enum Wrong {
    ADayAhead,
    ADayBehind,
    Not,
}

#[tokio::test]
async fn whatever_the_wall_clock_is_set_to_no_expired_token_is_vended() {
    let entropy = SeededEntropy::new(7);
    let machine = Machine::new();
    let world = World::by(Arc::new(machine.right.clone()), Rotation::Rotating, 30, LIFETIME).await;
    let (database, key) = (world.path().join("clocks.db"), generate_key(&SystemEntropy));
    let start =
        || Running::start(&world, &database, &key, Arc::new(NoHook), Arc::new(machine.ours.clone()), None);
    let mut running = start().await;
    running.connect(&Secret::new(world.consent("snowflake", ALICE))).await;
    let (mut vended, mut refused) = (0, 0);
    // In less than a day, after which a clock that is a day behind and a reboot would look like a token's first hour.
    for round in 0..60 {
        machine.advance(Duration::from_mins(entropy.below(20)));
        let wrong = [Wrong::ADayAhead, Wrong::ADayBehind, Wrong::Not][round % 3];
        machine.set(wrong);
        if entropy.below(4) == 0 {
            running.stop().await;
            if entropy.below(2) == 0 {
                machine.ours.reboot();
            }
            running = start().await;
            running.engine.recover().await.unwrap();
        }
        for role in [None, Some("ANALYST")] {
            match running.engine.token(&token(role), None).await {
                Ok(vending) => {
                    vended += 1;
                    assert!(!machine.is_over(vending.token()), "round {round}: {wrong:?}, {role:?}");
                    assert!(!vending.issued.remaining(&machine.ours.now()).is_zero());
                }
                // By a clock that is wrong, what comes is expired already, or from the future.
                Err(Failure::TokenInvalid { .. } | Failure::ServerUnavailable { .. }) => refused += 1,
                Err(failure) => panic!("round {round}: {failure:?}"),
            }
        }
    }
    assert!(vended > 20 && refused > 10, "{vended} {refused}");
    machine.set(Wrong::Not);
    // The longest that a failure is remembered.
    machine.advance(Duration::from_mins(6));
    let vending = running.engine.token(&token(None), None).await.unwrap();
    assert!(!machine.is_over(vending.token()));
    running.stop().await;
    world.assert_nothing_was_lost().await;
}

/// The next answer on a connection that is kept: what is left of the token, and the token.
async fn answer(stream: &mut UnixStream) -> (u64, String) {
    let mut text = Vec::new();
    let body = loop {
        text.push(stream.read_u8().await.unwrap());
        if text.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8(text).unwrap().to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 200"), "{head}");
            let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            break body;
        }
    };
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    (body["expires_in"].as_u64().unwrap(), body["access_token"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_process_that_was_suspended_for_longer_than_a_tokens_life_vends_none_that_is_over() {
    let lifetime = Duration::from_secs(4);
    let world = World::with(Rotation::Rotating, 30, lifetime).await;
    let sidecar = world.connected().await;
    let request = format!("GET /v1/token?service=snowflake&user={ALICE} HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut streams = Vec::new();
    for _ in 0..8 {
        // Asked before, so that the next answer could be taken from what the connection remembers.
        let mut stream = UnixStream::connect(sidecar.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let (left, _) = answer(&mut stream).await;
        assert!(left <= lifetime.as_secs());
        streams.push(stream);
    }
    sidecar.signal(SIGSTOP);
    tokio::time::sleep(lifetime + Duration::from_secs(1)).await;
    for stream in &mut streams {
        // They wait in the socket for whoever wakes.
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    sidecar.signal(SIGCONT);
    let clock = SystemClock::new(0);
    let answers =
        join_all(streams.iter_mut().map(async |stream| (answer(stream).await, clock.now().wall))).await;
    for ((left, token), at) in answers {
        assert!(left > 0);
        let end = Timestamp::from_secs(claims(&token)["exp"].as_i64().unwrap());
        assert!(end > at, "expired at {end}, vended at {at}");
    }
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}
