//! `GET /v1/token/events`: what workers hear without asking, and the bounds of it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::support::sidecar::{Sidecar, request};
use crate::support::{ALICE, BOB, World};

/// An open stream, or the answer in place of one.
pub(crate) struct Stream {
    lines: BufReader<UnixStream>,
    pub(crate) head: String,
}

impl Stream {
    pub(crate) async fn open(sidecar: &Sidecar, query: &str) -> Self {
        let mut socket = UnixStream::connect(sidecar.socket()).await.unwrap();
        let request = format!("GET /v1/token/events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).await.unwrap() > 0, "{head}");
        }
        Self { lines, head }
    }

    /// The next event's name and data.
    pub(crate) async fn next(&mut self) -> (String, Value) {
        let mut name = String::new();
        loop {
            let line = self.line().await.expect("the stream goes on");
            if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (name, serde_json::from_str(data).unwrap());
            }
        }
    }

    /// The next line, `None` at the end: an empty chunk, or the connection's.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let reading = self.lines.read_line(&mut line);
        let read = tokio::time::timeout(Duration::from_secs(30), reading).await.expect("something in time");
        (read.unwrap() > 0 && line != "0\r\n").then(|| line.trim_end().to_owned())
    }
}

async fn admin(sidecar: &Sidecar, method: &str, target: &str) {
    let reply = request(&sidecar.admin_socket(), method, target, &[], "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

fn of(user: &str) -> String {
    format!("service=snowflake&user={user}")
}

#[tokio::test]
async fn a_listener_gets_the_token_now_after_each_refresh_and_hears_of_the_end_and_the_new_beginning() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let mut stream = Stream::open(&sidecar, &of(ALICE)).await;
    assert!(stream.head.starts_with("HTTP/1.1 200"), "{}", stream.head);
    assert!(stream.head.contains("content-type: text/event-stream") && stream.head.contains("no-store"));
    let (name, first) = stream.next().await;
    let asked = sidecar.token("snowflake", ALICE, None).await.json();
    assert_eq!((name.as_str(), &first["access_token"]), ("token", &asked["access_token"]));
    assert_eq!((&first["service"], &first["user"]), (&json!("snowflake"), &json!(ALICE)));
    sidecar.refresh("snowflake", ALICE, None).await;
    let (name, second) = stream.next().await;
    assert_eq!(name, "token");
    assert_ne!(first["access_token"], second["access_token"]);
    admin(&sidecar, "DELETE", &format!("/v1/grants/snowflake/{ALICE}")).await;
    let (name, end) = stream.next().await;
    assert_eq!((name.as_str(), &end["error"]), ("login_required", &json!("login_required")));
    assert_eq!(end["reason"], "revoked");
    world.connect(&sidecar, ALICE).await;
    let (name, third) = stream.next().await;
    assert_eq!((name.as_str(), &third["user"]), ("token", &json!(ALICE)));
    drop(stream);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_a_caller_may_not_have_it_may_not_listen_for() {
    let world = World::start().await;
    world.configure("users    = [\"*\"]", "users = [\"*@example.com\"]");
    let sidecar = world.connected().await;
    for (query, status) in [
        ("service=snowflake&user=alice%40elsewhere.example".to_owned(), "403"),
        ("service=nowhere&user=a".to_owned(), "40"),
        (format!("{}&min_ttl=5", of(ALICE)), "400"),
        ("user=a".to_owned(), "400"),
    ] {
        let stream = Stream::open(&sidecar, &query).await;
        assert!(stream.head.starts_with(&format!("HTTP/1.1 {status}")), "{query}: {}", stream.head);
    }
    let mut stream = Stream::open(&sidecar, &of("nobody@example.com")).await;
    let (name, data) = stream.next().await;
    assert_eq!((name.as_str(), &data["reason"]), ("login_required", &json!("never_connected")));
    drop(stream);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn streams_are_counted_by_uid_and_end_with_the_process_or_the_rule() {
    let world = World::start().await;
    world.configure("[log]", "[limits]\nevent_streams = 2\n[log]");
    let sidecar = world.connected().await;
    let mut first = Stream::open(&sidecar, &of(ALICE)).await;
    first.next().await;
    let second = Stream::open(&sidecar, &of(ALICE)).await;
    let third = Stream::open(&sidecar, &of(ALICE)).await;
    assert!(third.head.starts_with("HTTP/1.1 429") && third.head.contains("retry-after"), "{}", third.head);
    assert!(sidecar.metrics().await.contains("bursar_requests_refused_total{reason=\"event_streams\"} 1"));
    drop(second);
    let mut again = loop {
        let stream = Stream::open(&sidecar, &of(ALICE)).await;
        if stream.head.starts_with("HTTP/1.1 200") {
            break stream;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    again.next().await;
    world.configure("users    = [\"*\"]", "users = [\"b*\"]");
    admin(&sidecar, "POST", "/v1/reload").await;
    // Found out with the next change or beat.
    sidecar.refresh("snowflake", ALICE, None).await;
    while again.line().await.is_some() {}
    let mut of_bob = Stream::open(&sidecar, &of(BOB)).await;
    of_bob.next().await;
    world.finish(sidecar).await;
    while of_bob.line().await.is_some() {}
}
