//! Starting, stopping, and two processes that want the same things.

use std::time::Duration;

use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
use serde_json::json;

use crate::support::sidecar::{Sidecar, ended_by};
use crate::support::{ALICE, World};

#[tokio::test]
async fn a_stop_finishes_what_is_running_and_leaves_no_socket() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let (socket, admin) = (sidecar.socket(), sidecar.admin_socket());
    world.fault(json!({ "do": "delay", "seconds": 0.5 })).await;
    let request = sidecar.token("snowflake", ALICE, Some("ANALYST"));
    let stop = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        sidecar.signal(SIGTERM);
    };
    let (reply, ()) = tokio::join!(request, stop);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let (status, log) = sidecar.ended().await;
    assert!(status.success(), "{log}");
    assert!(!socket.exists() && !admin.exists());
    world.assert_nothing_was_lost().await;
}

#[tokio::test]
async fn a_second_signal_forces_and_the_next_start_finds_out_what_was_under_way() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "hang_after" })).await;
    let admin = sidecar.admin_socket();
    let target = format!("/v1/grants/snowflake/{ALICE}/refresh");
    let refresh = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = tokio::net::UnixStream::connect(admin).await.unwrap();
        stream.write_all(format!("POST {target} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        std::future::pending::<()>().await;
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    sidecar.signal(SIGTERM);
    tokio::time::sleep(Duration::from_millis(200)).await;
    sidecar.signal(SIGTERM);
    let (status, log) = sidecar.ended().await;
    assert_eq!(status.code(), Some(1), "{log}");
    refresh.abort();
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_second_process_waits_for_the_first_and_says_for_whom() {
    let world = World::start().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.configure("metrics = \"127.0.0.1:0\"", &format!("metrics = \"127.0.0.1:{port}\""));
    let first = world.connected().await;
    let second = Sidecar::spawn(world.path());
    while !second.read_log().contains("in use by process") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.token("snowflake", ALICE, None).await.token();
    let (status, _) = first.stop().await;
    assert!(status.success());
    while !second.read_log().contains("ready") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    second.token("snowflake", ALICE, None).await.token();
    world.finish(second).await;
}

#[tokio::test]
async fn a_killed_process_leaves_nothing_in_the_way_of_the_next() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    sidecar.signal(SIGKILL);
    let (status, _) = sidecar.ended().await;
    assert!(ended_by(status, SIGKILL));
    let sidecar = world.sidecar().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn health_is_told_on_its_own_address() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    assert_eq!(sidecar.observe("/live").await, (200, "live\n".to_owned()));
    assert_eq!(sidecar.observe("/ready").await, (200, "ready\n".to_owned()));
    assert_eq!(sidecar.observe("/").await.0, 404);
    assert_eq!(sidecar.observe("/v1/token?service=snowflake&user=alice@example.com").await.0, 404);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_wrong_key_or_configuration_stops_the_start_with_a_sentence() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let key = world.path().join("store.key");
    let right = std::fs::read_to_string(&key).unwrap();
    let other = bursar::store::seal::generate_key(&bursar::entropy::SystemEntropy);
    std::fs::write(&key, other.expose()).unwrap();
    let (status, log) = Sidecar::spawn(world.path()).ended().await;
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("put the key that made this store into store.key_file"), "{log}");
    std::fs::remove_file(&key).unwrap();
    let (status, log) = Sidecar::spawn(world.path()).ended().await;
    assert_eq!(status.code(), Some(64));
    assert!(log.contains("bursar key generate"), "{log}");
    bursar::dev::write_private(&key, &right).unwrap();
    let sidecar = world.sidecar().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    world.configure("[log]", "[logs]");
    let (status, log) = Sidecar::spawn(world.path()).ended().await;
    assert_eq!(status.code(), Some(64));
    assert!(log.contains("logs: unknown key"), "{log}");
}

#[tokio::test]
async fn a_client_that_does_not_read_can_not_hold_up_the_end() {
    use tokio::io::AsyncWriteExt as _;
    let world = World::start().await;
    world.configure("[admin]", "request_timeout = \"1s\"\n[admin]");
    let sidecar = world.connected().await;
    let mut deaf = tokio::net::UnixStream::connect(sidecar.socket()).await.unwrap();
    let request =
        format!("GET /v1/token?service=snowflake&user={ALICE} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(50);
    // Asks again and again until no more answers fit into the kernel's buffers.
    while tokio::time::timeout(Duration::from_millis(300), deaf.write_all(request.as_bytes())).await.is_ok() {
    }
    let mut slow = tokio::net::UnixStream::connect(sidecar.admin_socket()).await.unwrap();
    let head =
        format!("PUT /v1/grants/snowflake/{ALICE} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{");
    slow.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (status, log) = tokio::time::timeout(Duration::from_secs(10), sidecar.stop()).await.expect("in time");
    assert!(status.success(), "{log}");
    drop((deaf, slow));
}
