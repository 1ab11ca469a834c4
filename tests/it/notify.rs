//! Who is told that a grant has ended, or will: by a signed POST, an audit line and the log.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use bursar::dev::write_private;
use bursar::tasks::Tasks;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::sidecar::{Sidecar, request};
use crate::support::{ALICE, BOB, World};

const SECRET: &str = "a-secret-of-the-webhook";

/// One POST as it arrived.
#[derive(Clone, Debug)]
struct Delivery {
    target: String,
    headers: HeaderMap,
    body: String,
}

impl Delivery {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    fn assert_signed_with(&self, secret: &str) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mac = hmac::sign(&key, self.body.as_bytes());
        let mac = mac.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        assert_eq!(self.header("x-bursar-signature"), format!("sha256={mac}"));
    }
}

/// A receiver on loopback that keeps what arrives, and answers as it is told, else 204.
struct Receiver {
    tasks: Tasks,
    seen: Arc<Mutex<Vec<Delivery>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

/// A port that nobody listens at.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

impl Receiver {
    async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let receiver = Self { tasks: Tasks::new(), seen: Arc::default(), answers: Arc::default() };
        let (tasks, seen, answers) =
            (receiver.tasks.clone(), Arc::clone(&receiver.seen), Arc::clone(&receiver.answers));
        receiver.tasks.spawn_until_stop(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, answers) = (Arc::clone(&seen), Arc::clone(&answers));
                let service =
                    service_fn(move |request| take(request, Arc::clone(&seen), Arc::clone(&answers)));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tasks.spawn(connection);
            }
        });
        receiver
    }

    fn answers(&self, statuses: &[u16]) {
        self.answers.lock().unwrap().extend(statuses);
    }

    fn seen(&self) -> Vec<Delivery> {
        self.seen.lock().unwrap().clone()
    }

    /// Once this many have arrived, all of them.
    async fn after(&self, count: usize) -> Vec<Delivery> {
        until("they arrive", async || self.seen().len() >= count).await;
        self.seen()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn take(
    request: hyper::Request<Incoming>,
    seen: Arc<Mutex<Vec<Delivery>>>,
    answers: Arc<Mutex<VecDeque<u16>>>,
) -> Result<hyper::Response<Full<Bytes>>, hyper::Error> {
    assert_eq!(request.method(), "POST");
    let (head, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap();
    seen.lock().unwrap().push(Delivery { target: head.uri.to_string(), headers: head.headers, body });
    let status = answers.lock().unwrap().pop_front().unwrap_or(204);
    // Should it be followed, the redirect leads to where it would be seen.
    let response = hyper::Response::builder().status(status).header("location", "/elsewhere");
    Ok(response.body(Full::default()).unwrap())
}

impl World {
    /// With an audit log, a page where users connect, and whatever else the section is to say.
    async fn that_tells(notify: &str) -> Self {
        let world = Self::start().await;
        let audit = world.path().join("audit.jsonl");
        let connect = "[connect]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://bursar.example.com\"";
        world.configure(
            "[log]",
            &format!("[audit]\nfile = \"{}\"\n{connect}\n[notify]\n{notify}\n[log]", audit.display()),
        );
        world
    }

    /// With a webhook, too.
    async fn that_posts_to(address: SocketAddr) -> Self {
        let world = Self::that_tells("").await;
        world.add_webhook(address);
        world
    }

    fn add_webhook(&self, address: SocketAddr) {
        let key = self.path().join("notify.key");
        write_private(&key, &format!("{SECRET}\n")).unwrap();
        let webhook =
            format!("url = \"http://{address}/hooks/bursar?of=us\"\nsecret_file = \"{}\"\n", key.display());
        self.configure("[notify]\n", &format!("[notify]\n{webhook}"));
    }

    /// The server ends all of the user's grants, and a worker finds out about the one for Snowflake.
    async fn end(&self, sidecar: &Sidecar, user: &str) {
        self.fault(json!({ "do": "revoke_user", "user": user })).await;
        assert_eq!(sidecar.refresh("snowflake", user, None).await.error().0, 409);
    }

    fn recorded_as(&self, event: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path().join("audit.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == event).collect()
    }
}

async fn notifications(sidecar: &Sidecar, result: &str) -> f64 {
    sidecar.counter("bursar_notifications_total", &[&format!("result=\"{result}\"")]).await
}

/// Until it is so; what never is ends the test.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect(what);
}

async fn until_some_are(sidecar: &Sidecar, result: &str) {
    until(result, async || notifications(sidecar, result).await >= 1.0).await;
}

async fn revoke(sidecar: &Sidecar, user: &str) {
    let target = format!("/v1/grants/snowflake/{user}");
    assert_eq!(request(&sidecar.admin_socket(), "DELETE", &target, &[], "").await.status, 200);
}

async fn reload(sidecar: &Sidecar) {
    let reply = request(&sidecar.admin_socket(), "POST", "/v1/reload", &[], "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

#[tokio::test]
async fn a_grant_that_ends_is_posted_once_signed_and_recorded_once() {
    let address = free_address().await;
    let receiver = Receiver::start(address).await;
    let world = World::that_posts_to(address).await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    world.end(&sidecar, ALICE).await;
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.error().0, 409, "it stays so");
    let by_the_server = receiver.after(1).await.remove(0);
    revoke(&sidecar, BOB).await;
    // Revoked here as well: that it is over was said.
    revoke(&sidecar, ALICE).await;
    let by_us = receiver.after(2).await.remove(1);
    for delivery in [&by_the_server, &by_us] {
        delivery.assert_signed_with(SECRET);
        assert_eq!(delivery.target, "/hooks/bursar?of=us");
        assert_eq!(delivery.header("content-type"), "application/json");
        assert_eq!(delivery.header("x-bursar-event"), "grant.ended");
        assert_eq!(delivery.header("x-bursar-delivery"), delivery.json()["id"]);
        assert!(!format!("{delivery:?}").contains("sentinel"), "{delivery:?}");
        assert!(!format!("{delivery:?}").contains(SECRET), "{delivery:?}");
    }
    let told = by_the_server.json();
    let since = sidecar.grant("snowflake", ALICE).await["since"].clone();
    assert!(told["since"].is_string() && since.is_string(), "{told} {since}");
    assert_eq!(
        told,
        json!({
            "id": told["id"], "event": "grant.ended", "service": "snowflake", "user": ALICE, "reason": "revoked",
            "by": "authorization_server", "since": told["since"], "time": told["since"],
            "login_url": "https://bursar.example.com/?service=snowflake",
        })
    );
    let told = by_us.json();
    assert_eq!((&told["user"], &told["by"]), (&json!(BOB), &json!("bursar")));
    assert_ne!(told["id"], by_the_server.json()["id"]);
    sidecar.stop().await;
    assert_eq!(receiver.seen().len(), 2);
    let ends = world.recorded_as("grant_end");
    let said: Vec<_> = ends.iter().map(|line| (&line["user"], &line["result"], &line["detail"])).collect();
    let expected = [(json!(ALICE), Value::Null), (json!(BOB), json!("revoked here"))];
    let revoked = json!("revoked");
    assert_eq!(said, expected.each_ref().map(|(user, detail)| (user, &revoked, detail)));
}

#[tokio::test]
async fn a_receiver_that_was_down_is_told_when_it_is_up() {
    let address = free_address().await;
    let world = World::that_posts_to(address).await;
    let sidecar = world.connected().await;
    world.end(&sidecar, ALICE).await;
    until_some_are(&sidecar, "failed").await;
    assert!(sidecar.read_log().contains("notify.url does not answer"));
    let receiver = Receiver::start(address).await;
    receiver.answers(&[503, 302]);
    let seen = receiver.after(2).await;
    assert_eq!(seen[0].json(), seen[1].json(), "the same each time");
    until_some_are(&sidecar, "failed").await;
    // The redirect is not followed, and what a receiver will never take is not tried again soon: a reload begins anew.
    reload(&sidecar).await;
    let seen = receiver.after(3).await;
    assert_eq!(seen[0].json()["id"], seen[2].json()["id"]);
    assert!(seen.iter().all(|delivery| delivery.target == "/hooks/bursar?of=us"), "{seen:#?}");
    until_some_are(&sidecar, "delivered").await;
    world.finish(sidecar).await;
    assert_eq!(receiver.seen().len(), 3);
}

#[tokio::test]
async fn what_was_not_delivered_is_delivered_after_a_crash_and_what_was_is_not_again() {
    let address = free_address().await;
    let world = World::that_posts_to(address).await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    world.end(&sidecar, ALICE).await;
    world.end(&sidecar, BOB).await;
    sidecar.kill();
    let receiver = Receiver::start(address).await;
    let sidecar = world.sidecar().await;
    let seen = receiver.after(2).await;
    assert_eq!(
        (&seen[0].json()["user"], &seen[1].json()["user"]),
        (&json!(ALICE), &json!(BOB)),
        "oldest first"
    );
    until("both are delivered", async || notifications(&sidecar, "delivered").await >= 2.0).await;
    sidecar.kill();
    let sidecar = world.sidecar().await;
    // Were there any left, they would come before this one.
    world.connect(&sidecar, ALICE).await;
    revoke(&sidecar, ALICE).await;
    let seen = receiver.after(3).await;
    assert_eq!(seen[2].json()["by"], "bursar");
    world.finish(sidecar).await;
    assert_eq!(receiver.seen().len(), 3);
}

#[tokio::test]
async fn a_notice_that_is_refused_does_not_stand_in_the_way_of_others() {
    let address = free_address().await;
    let receiver = Receiver::start(address).await;
    receiver.answers(&[400]);
    let world = World::that_posts_to(address).await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    world.end(&sidecar, ALICE).await;
    receiver.after(1).await;
    world.end(&sidecar, BOB).await;
    let seen = receiver.after(2).await;
    assert_eq!((&seen[0].json()["user"], &seen[1].json()["user"]), (&json!(ALICE), &json!(BOB)));
    until_some_are(&sidecar, "delivered").await;
    assert!(sidecar.read_log().contains("status=400"));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn who_has_connected_again_meanwhile_is_not_asked_to() {
    let address = free_address().await;
    let world = World::that_posts_to(address).await;
    let sidecar = world.connected().await;
    world.end(&sidecar, ALICE).await;
    until_some_are(&sidecar, "failed").await;
    world.connect(&sidecar, ALICE).await;
    let receiver = Receiver::start(address).await;
    until_some_are(&sidecar, "overtaken").await;
    assert!(receiver.seen().is_empty(), "{:#?}", receiver.seen());
    world.end(&sidecar, ALICE).await;
    assert_eq!(receiver.after(1).await.len(), 1, "that is another end");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_grant_that_will_end_is_said_once_over_restarts_and_anew_when_it_is_another_one() {
    let address = free_address().await;
    let receiver = Receiver::start(address).await;
    let world = World::that_posts_to(address).await;
    world.settings(json!({ "refresh_token_lifetime": 3600 })).await;
    let sidecar = world.sidecar().await;
    let connect = async |sidecar: &Sidecar| {
        let reply = sidecar.import("snowflake", ALICE, &world.consent("snowflake", ALICE)).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
    };
    connect(&sidecar).await;
    let first = receiver.after(1).await.remove(0);
    first.assert_signed_with(SECRET);
    let told = first.json();
    assert_eq!(first.header("x-bursar-event"), "grant.ending");
    assert_eq!(told["ends_at"], sidecar.grant("snowflake", ALICE).await["expires_at"]);
    assert_eq!(
        told,
        json!({
            "id": told["id"], "event": "grant.ending", "service": "snowflake", "user": ALICE,
            "ends_at": told["ends_at"], "time": told["time"],
            "login_url": "https://bursar.example.com/?service=snowflake",
        })
    );
    until_some_are(&sidecar, "delivered").await;
    assert!(sidecar.read_log().contains("the grant ends soon by itself"));
    sidecar.kill();
    let sidecar = world.sidecar().await;
    // Asked about once more, and nothing new is learnt.
    sidecar.refresh("snowflake", ALICE, None).await;
    let introspections = async || world.stats().await["requests"]["introspect"].as_u64().unwrap_or(0);
    until("it is asked about", async || introspections().await >= 2).await;
    connect(&sidecar).await;
    let seen = receiver.after(2).await;
    assert_eq!(seen[1].json()["event"], "grant.ending", "of the new grant");
    assert_ne!(seen[1].json()["id"], told["id"]);
    sidecar.stop().await;
    let lines = world.recorded_as("grant_ending");
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_eq!((&lines[0]["service"], &lines[0]["user"]), (&json!("snowflake"), &json!(ALICE)));
    let said = format!("ends at {}", told["ends_at"].as_str().unwrap());
    assert_eq!((&lines[0]["result"], &lines[0]["detail"]), (&json!("ok"), &json!(said)));
}

#[tokio::test]
async fn without_a_webhook_it_is_recorded_and_nothing_is_kept_for_a_later_one() {
    let world = World::that_tells("").await;
    world.settings(json!({ "refresh_token_lifetime": 3600 })).await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    until("it is said", async || sidecar.read_log().contains("the grant ends soon by itself")).await;
    world.end(&sidecar, ALICE).await;
    let address = free_address().await;
    let receiver = Receiver::start(address).await;
    world.add_webhook(address);
    reload(&sidecar).await;
    revoke(&sidecar, BOB).await;
    let seen = receiver.after(1).await;
    assert_eq!((&seen[0].json()["user"], &seen[0].json()["by"]), (&json!(BOB), &json!("bursar")));
    world.finish(sidecar).await;
    assert_eq!(receiver.seen().len(), 1);
    assert_eq!(world.recorded_as("grant_end").len(), 2);
    assert!(!world.recorded_as("grant_ending").is_empty());
}

#[tokio::test]
async fn another_key_in_the_file_signs_from_then_on() {
    let address = free_address().await;
    let receiver = Receiver::start(address).await;
    let world = World::that_posts_to(address).await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    revoke(&sidecar, ALICE).await;
    receiver.after(1).await[0].assert_signed_with(SECRET);
    write_private(&world.path().join("notify.key"), "quite-another-secret").unwrap();
    revoke(&sidecar, BOB).await;
    receiver.after(2).await[1].assert_signed_with("quite-another-secret");
    std::fs::remove_file(world.path().join("notify.key")).unwrap();
    world.connect(&sidecar, BOB).await;
    revoke(&sidecar, BOB).await;
    receiver.after(3).await[2].assert_signed_with("quite-another-secret");
    let log = sidecar.read_log();
    assert!(log.contains("notify.secret_file can't be read"), "{log}");
    world.finish(sidecar).await;
}
