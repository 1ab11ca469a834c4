//! What one uid may ask, hold and wait for; what is beyond is refused, counted and over as soon as its cause is, and nobody
//! else notices.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::sidecar::{Reply, Sidecar, request};
use crate::support::{ALICE, World};

/// Somebody else than whoever runs the tests.
const OTHER_UID: u32 = 54_321;

async fn world(limits: &str) -> World {
    let world = World::start().await;
    world.configure("[log]", &format!("[limits]\n{limits}\n[log]"));
    world
}

async fn reload(sidecar: &Sidecar) {
    let reply = request(&sidecar.admin_socket(), "POST", "/v1/reload", &[], "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

async fn refused(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.counter("bursar_requests_refused_total", &[&format!("reason=\"{reason}\"")]).await
}

fn assert_too_many(reply: &Reply) {
    assert_eq!(reply.error(), (429, "too_many_requests".to_owned()));
    assert_eq!(reply.headers["retry-after"], "1");
}

/// Until a counter or gauge is what it should be.
async fn until(mut look: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking).await.expect("it happens");
}

async fn connections(sidecar: &Sidecar) -> f64 {
    sidecar.counter("bursar_connections", &["vending"]).await
}

/// Sends all of `text` at once over one connection, and reads until so many answers have come or the connection ends.
async fn exchange(sidecar: &Sidecar, text: &str, answers: usize) -> String {
    let mut stream = UnixStream::connect(sidecar.socket()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let (mut all, mut buffer) = (String::new(), [0; 4096]);
    while all.matches("HTTP/1.1 ").count() < answers || !all.ends_with('}') {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => all.push_str(std::str::from_utf8(&buffer[..read]).unwrap()),
        }
    }
    all
}

fn vend() -> String {
    format!("GET /v1/token?service=snowflake&user={ALICE} HTTP/1.1\r\nhost: x\r\n\r\n")
}

#[tokio::test]
async fn requests_beyond_the_rate_are_refused_before_they_are_looked_at_on_new_connections_and_on_old_ones() {
    let world = world("requests_per_second = 1").await;
    let sidecar = world.connected().await;
    // On one connection, the same question again among them, which is answered by a shortcut.
    let all = exchange(&sidecar, &vend().repeat(8), 8).await;
    assert_eq!(all.matches("HTTP/1.1 ").count(), 8, "{all}");
    let (good, bad) = (all.matches("HTTP/1.1 200").count(), all.matches("HTTP/1.1 429").count());
    // However slow this machine is: a second gives one more, and no more.
    assert!(good >= 1 && bad >= 1, "{all}");
    assert!(all.starts_with("HTTP/1.1 200"), "who has been quiet is heard: {all}");
    let told = all.to_lowercase();
    assert_eq!(told.matches("retry-after: 1").count(), bad);
    assert_eq!(told.matches("cache-control: no-store").count(), 8);
    // On a connection each: a connection counts as its first request, so that coming anew gains nothing.
    let mut late = 0;
    for _ in 0..20 {
        let reply = sidecar.token("snowflake", ALICE, None).await;
        if reply.status == 429 {
            assert_too_many(&reply);
            late += 1;
        }
    }
    assert!(late > 0);
    let counted = refused(&sidecar, "requests_per_second").await;
    // Small and whole.
    #[expect(clippy::cast_precision_loss, reason = "a count of a few")]
    let refusals = (bad + late) as f64;
    assert!(counted >= refusals, "{counted} {refusals}");
    // A bad request counts like a good one, and it is the rate that it hears of.
    until(async || sidecar.get("/v1/token?x=1").await.status == 429).await;
    // What is refused costs nobody a line.
    assert!(!sidecar.read_log().contains("too_many_requests"));
    world.configure("requests_per_second = 1", "requests_per_second = 100000");
    reload(&sidecar).await;
    let all = exchange(&sidecar, &vend().repeat(50), 50).await;
    assert_eq!(all.matches("HTTP/1.1 200").count(), 50, "from the reload on");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_refused_request_with_a_body_ends_its_connection_unread() {
    let world = world("requests_per_second = 1").await;
    let sidecar = world.connected().await;
    let introspect = "POST /v1/introspect HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                      content-length: 100000\r\n\r\n";
    until(async || {
        let all = exchange(&sidecar, &format!("{}{introspect}", vend()), 2).await.to_lowercase();
        // The first one is heard as soon as a second has passed.
        let (first, second) = all.split_once("http/1.1 429").unwrap_or_default();
        first.starts_with("http/1.1 200") && second.contains("connection: close")
    })
    .await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn so_many_requests_of_a_uid_wait_and_what_is_at_hand_is_handed_out_all_the_same() {
    let world = world("waiting_requests = 2").await;
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    world.fault(json!({ "do": "hang", "next": 1000, "endpoint": "token" })).await;
    let analyst =
        format!("GET /v1/token?service=snowflake&user={ALICE}&role=ANALYST HTTP/1.1\r\nhost: x\r\n\r\n");
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut stream = UnixStream::connect(sidecar.socket()).await.unwrap();
        stream.write_all(analyst.as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    let third = async || sidecar.token("snowflake", ALICE, Some("PUBLIC")).await;
    let mut reply = None;
    until(async || {
        // The two may not have been read yet; nobody waits for this one then.
        let asked = tokio::time::timeout(Duration::from_millis(300), third()).await;
        reply = asked.ok();
        reply.is_some()
    })
    .await;
    assert_too_many(&reply.unwrap());
    assert!(refused(&sidecar, "waiting_requests").await > 0.0);
    let counted = sidecar.counter("bursar_token_requests_total", &["too_many_requests"]).await;
    assert!(counted > 0.0);
    sidecar.token("snowflake", ALICE, None).await.token();
    // A list takes a place, too.
    assert_too_many(&sidecar.get("/v1/grants").await);
    // Who leaves, leaves its place.
    drop(waiting);
    until(async || sidecar.get("/v1/grants").await.status == 200).await;
    world.configure("waiting_requests = 2", "waiting_requests = 1");
    reload(&sidecar).await;
    let mut stream = UnixStream::connect(sidecar.socket()).await.unwrap();
    stream.write_all(analyst.as_bytes()).await.unwrap();
    until(async || sidecar.get("/v1/grants").await.status == 429).await;
    drop(stream);
    // A stop would wait for what hangs.
    sidecar.kill();
}

#[tokio::test]
async fn streams_that_end_leave_their_places_and_a_reload_gives_more() {
    let world = world("event_streams = 1").await;
    let sidecar = world.connected().await;
    let target = format!("/v1/token/events?service=snowflake&user={ALICE}");
    let open = async || {
        let mut stream = UnixStream::connect(sidecar.socket()).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        (stream, String::from_utf8(head.to_vec()).unwrap())
    };
    let (first, head) = open().await;
    assert_eq!(head, "HTTP/1.1 200");
    assert_too_many(&sidecar.get(&target).await);
    assert!(refused(&sidecar, "event_streams").await > 0.0);
    world.configure("event_streams = 1", "event_streams = 2");
    reload(&sidecar).await;
    let (second, head) = open().await;
    assert_eq!(head, "HTTP/1.1 200");
    assert_too_many(&sidecar.get(&target).await);
    drop((first, second));
    until(async || connections(&sidecar).await < 1.0).await;
    until(async || open().await.1 == "HTTP/1.1 200").await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_slow_head_and_an_unread_answer_end_their_connections_and_are_counted_and_idle_ones_just_end() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let mut slow = UnixStream::connect(sidecar.socket()).await.unwrap();
    slow.write_all(b"GET /v1/tok").await.unwrap();
    let mut idle = UnixStream::connect(sidecar.socket()).await.unwrap();
    let mut used = UnixStream::connect(sidecar.socket()).await.unwrap();
    used.write_all(vend().as_bytes()).await.unwrap();
    // Asks and asks and reads nothing, until the kernel has no more room either way.
    let unread = UnixStream::connect(sidecar.socket()).await.unwrap();
    let asking = async {
        let (_never_read, mut writing) = unread.into_split();
        while writing.write_all(vend().as_bytes()).await.is_ok() {}
    };
    let mut rest = Vec::new();
    let ended = async {
        // The answers to what was asked come first.
        for stream in [&mut slow, &mut idle, &mut used] {
            stream.read_to_end(&mut rest).await.unwrap();
        }
    };
    let all = tokio::time::timeout(Duration::from_mins(1), async { tokio::join!(asking, ended) });
    all.await.expect("all of them end");
    until(async || connections(&sidecar).await < 1.0).await;
    assert_eq!(refused(&sidecar, "slow_head").await.to_bits(), 1.0_f64.to_bits());
    assert_eq!(refused(&sidecar, "slow_reader").await.to_bits(), 1.0_f64.to_bits());
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_flood_of_refusals_does_not_become_a_flood_of_lines() {
    let world = world("requests_per_second = 100000").await;
    let sidecar = world.connected().await;
    let denied = "GET /v1/token?service=snowflake&user= HTTP/1.1\r\nhost: x\r\n\r\n";
    let started = tokio::time::Instant::now();
    let all = exchange(&sidecar, &denied.repeat(500), 500).await;
    assert_eq!(all.matches("HTTP/1.1 400").count(), 500);
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 1;
    let lines = sidecar.read_log().matches("invalid_request").count();
    assert!((1..=20 + 20 * seconds).contains(&lines), "{lines} lines in {seconds} s");
    assert!(lines < 500);
    // The next one that gets a line tells of the others.
    until(async || {
        sidecar.get("/v1/token?user=").await;
        sidecar.read_log().contains("unsaid=")
    })
    .await;
    world.finish(sidecar).await;
}

/// curl as another uid: what it prints.
async fn as_other(sidecar: &Sidecar, arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "20", "--unix-socket"]).arg(sidecar.socket()).args(arguments);
    command.uid(OTHER_UID).gid(OTHER_UID).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn one_uid_at_its_limits_leaves_another_served() {
    if !nix::unistd::geteuid().is_root() || Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: two uids take root, and curl");
        return;
    }
    let world = World::start().await;
    world.configure(
        "[log]",
        "[limits]\nrequests_per_second = 2\nwaiting_requests = 1\nevent_streams = 1\n[log]",
    );
    world.configure("[admin]", "max_connections_per_uid = 4\nmode = \"0666\"\n[admin]");
    world.configure(
        "[[callers]]",
        &format!("[[callers]]\nuid = {OTHER_UID}\nservices = [\"*\"]\nusers = [\"*\"]\nrun_pass = \"none\"\n[[callers]]"),
    );
    // Others must reach the socket.
    std::fs::set_permissions(world.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let sidecar = world.connected().await;
    // Every connection that this uid may have, and more.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(UnixStream::connect(sidecar.socket()).await.unwrap());
        // One a second and a half is within its rate.
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    until(async || connections(&sidecar).await > 3.0).await;
    assert_too_many(&sidecar.token("snowflake", ALICE, None).await);
    let url = format!("http://bursar/v1/token?service=snowflake&user={ALICE}");
    let code = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let asking = async || as_other(&sidecar, &[&code[..], &[&url]].concat()).await;
    assert_eq!(asking().await, "200");
    assert!(refused(&sidecar, "connections_per_uid").await > 0.0);
    drop(held);
    until(async || connections(&sidecar).await < 1.0).await;
    // Its whole rate, on one connection and on many.
    exchange(&sidecar, &vend().repeat(10), 10).await;
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.status, 429);
    assert_eq!(asking().await, "200");
    world.finish(sidecar).await;
}
