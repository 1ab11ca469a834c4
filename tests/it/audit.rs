//! The audit log of the real program: what is a line in it, and that nobody changes one unseen.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bursar::secret::Secret;
use nix::sys::signal::Signal::SIGHUP;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::sidecar::{PROGRAM, Reply, Sidecar, request};
use crate::support::{ALICE, World};

impl World {
    /// With an audit log, and what else is to stand in its section.
    async fn audited(section: &str) -> Self {
        let world = Self::start().await;
        let file = world.log_file("audit.jsonl").display().to_string();
        // Some of these tests ask as fast as they can.
        let limits = "[limits]\nrequests_per_second = 1_000_000";
        world.configure("[log]", &format!("[audit]\nfile = \"{file}\"\n{section}\n{limits}\n[log]"));
        world
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn audit_lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log_file(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// `bursar audit verify`, by the configuration: its exit code and what it says.
    fn verify(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(PROGRAM);
        command.args(["audit", "verify"]).args(arguments).arg("--config");
        let output = command.arg(self.path().join("bursar.toml")).current_dir(self.path()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    }
}

/// The lines of an event.
fn of<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let payload = token.split('.').nth(1).unwrap();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    serde_json::from_slice(&engine.decode(payload).unwrap()).unwrap()
}

async fn admin(sidecar: &Sidecar, method: &str, target: &str) -> Reply {
    request(&sidecar.admin_socket(), method, target, &[("x-request-id", "by-an-admin")], "").await
}

/// The same question this often on one connection.
async fn ask_again_and_again(sidecar: &Sidecar, times: usize) {
    let mut socket = UnixStream::connect(sidecar.socket()).await.unwrap();
    let question = format!("GET /v1/token?service=snowflake&user={ALICE} HTTP/1.1\r\nhost: x\r\n");
    for _ in 1..times {
        socket.write_all(format!("{question}\r\n").as_bytes()).await.unwrap();
    }
    socket.write_all(format!("{question}connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answers = String::new();
    socket.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), times, "{answers}");
}

#[tokio::test]
async fn what_is_done_is_a_line_with_who_and_what() {
    let world = World::audited("").await;
    world.configure("users    = [\"*\"]", "users    = [\"*@example.com\"]");
    let sidecar = world.connected().await;
    let target = format!("/v1/token?service=snowflake&user={ALICE}&role=ANALYST");
    let token = request(&sidecar.socket(), "GET", &target, &[("x-request-id", "mine-1")], "").await.token();
    assert_eq!(sidecar.token("snowflake", "mallory@evil.example", None).await.status, 403);
    assert_eq!(sidecar.token("snowflake", "carol@example.com", None).await.status, 409);
    assert_eq!(sidecar.get("/v1/token?service=snowflake&usr=x").await.status, 400);
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    assert_eq!(admin(&sidecar, "POST", "/v1/reload").await.status, 200);
    sidecar.signal(SIGHUP);
    while sidecar.counter("bursar_reloads_total", &["ok"]).await < 2.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let revoked = admin(&sidecar, "DELETE", &format!("/v1/grants/snowflake/{ALICE}")).await;
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    assert_eq!(admin(&sidecar, "DELETE", &format!("/v1/users/{ALICE}")).await.status, 200);
    assert_eq!(admin(&sidecar, "DELETE", "/v1/grants/snowflake/nobody").await.status, 404);
    assert_eq!(admin(&sidecar, "POST", "/v1/misplaced/sentinel").await.status, 404);
    world.finish(sidecar).await;

    let lines = world.audit_lines("audit.jsonl");
    let seqs: Vec<u64> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=lines.len() as u64).collect::<Vec<_>>());
    let vend = of(&lines, "vend")[0];
    assert_eq!((&vend["result"], &vend["request_id"]), (&json!("ok"), &json!("mine-1")));
    assert_eq!(
        (&vend["service"], &vend["user"], &vend["role"]),
        (&json!("snowflake"), &json!(ALICE), &json!("ANALYST"))
    );
    assert_eq!(vend["jti"], claims(&token)["jti"]);
    assert_eq!(vend["token_sha256"], Secret::new(token).digest().to_string()[..16]);
    let caller = json!({
        "uid": nix::unistd::geteuid().as_raw(), "gid": nix::unistd::getegid().as_raw(), "pid": std::process::id(),
    });
    assert_eq!(vend["caller"], caller);
    assert_eq!(of(&lines, "vend").len(), 1, "nothing else was handed out");
    let refusals = of(&lines, "refusal");
    let refused: Vec<_> = refusals.iter().map(|line| (&line["result"], &line["user"])).collect();
    let expected = [("access_denied", "mallory@evil.example"), ("login_required", "carol@example.com")];
    assert_eq!(
        refused,
        expected
            .map(|(result, user)| (json!(result), json!(user)))
            .iter()
            .map(|(a, b)| (a, b))
            .collect::<Vec<_>>()
    );
    assert_eq!(refusals[1]["detail"], "never_connected");
    let connect = of(&lines, "connect");
    assert_eq!((connect.len(), &connect[0]["result"], &connect[0]["caller"]), (2, &json!("ok"), &caller));
    let refreshes = of(&lines, "refresh");
    assert!(refreshes.iter().all(|line| line["result"] == "ok" && line["authorization_server"].is_string()));
    assert!(refreshes.iter().any(|line| line["role"] == "ANALYST" && line["jti"] == vend["jti"]));
    let reloads = of(&lines, "reload");
    assert_eq!((&reloads[0]["request_id"], &reloads[1]["detail"]), (&json!("by-an-admin"), &json!("SIGHUP")));
    assert!(reloads[1].get("caller").is_none());
    let revokes = of(&lines, "revoke");
    assert!(
        revokes.iter().any(|line| line["detail"] == "at the authorization server" && line["result"] == "ok")
    );
    assert!(revokes.iter().any(|line| line["caller"] == caller && line["result"] == "ok"));
    assert!(revokes.iter().any(|line| line["user"] == "nobody" && line["result"] == "not_found"));
    assert_eq!(of(&lines, "grant_end").len(), 2, "and the other service's, when the user was erased");
    let admin: Vec<_> = of(&lines, "admin").iter().map(|line| line["detail"].clone()).collect();
    assert_eq!(admin, ["refresh", "erase", "POST /v1/misplaced"]);
    assert_eq!((&lines[0]["event"], &lines.last().unwrap()["event"]), (&json!("start"), &json!("stop")));
    assert_eq!(world.verify(&["--from-start"]).0, Some(0));
}

#[tokio::test]
async fn a_grant_that_its_server_ends_is_told_with_the_servers_own_reference() {
    let world = World::audited("").await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "revoke_user", "user": ALICE })).await;
    let reply = sidecar.refresh("snowflake", ALICE, None).await;
    assert_eq!(reply.error(), (409, "login_required".to_owned()));
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.status, 409);
    world.finish(sidecar).await;
    let lines = world.audit_lines("audit.jsonl");
    let refreshes = of(&lines, "refresh");
    let refused = refreshes.iter().find(|line| line["result"] == "invalid_grant").unwrap();
    assert_eq!(
        (&refused["user"], refused["okta_request_id"].is_string()),
        (&json!(ALICE), true),
        "{refused}"
    );
    assert_eq!(of(&lines, "grant_end")[0]["result"], "revoked");
    assert_eq!(of(&lines, "refusal")[0]["detail"], "revoked");
}

#[tokio::test]
async fn the_same_question_on_one_connection_is_a_line_each_time_or_once() {
    for (section, expected) in [("vends = \"all\"", 5), ("vends = \"first\"", 1)] {
        let world = World::audited(section).await;
        let sidecar = world.connected().await;
        ask_again_and_again(&sidecar, 5).await;
        world.finish(sidecar).await;
        let lines = world.audit_lines("audit.jsonl");
        let vends = of(&lines, "vend");
        let ids: std::collections::BTreeSet<_> =
            vends.iter().map(|line| line["request_id"].as_str()).collect();
        assert_eq!((vends.len(), ids.len()), (expected, expected), "{section}");
    }
}

#[tokio::test]
async fn each_token_that_a_stream_sends_is_a_line() {
    let world = World::audited("").await;
    let sidecar = world.connected().await;
    let mut stream = UnixStream::connect(sidecar.socket()).await.unwrap();
    let head = format!("GET /v1/token/events?service=snowflake&user={ALICE} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut heard = String::new();
    for events in 1..=2 {
        while heard.matches("event: token").count() < events {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "{heard}");
            heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    }
    drop(stream);
    world.finish(sidecar).await;
    let lines = world.audit_lines("audit.jsonl");
    let vends = of(&lines, "vend");
    assert!(vends.len() >= 2 && vends[0]["jti"] != vends[1]["jti"], "{vends:?}");
}

#[tokio::test]
async fn a_flood_of_refusals_is_a_few_lines_and_a_number() {
    let world = World::audited("").await;
    world.configure("users    = [\"*\"]", "users    = [\"*@example.com\"]");
    let sidecar = world.connected().await;
    for _ in 0..30 {
        assert_eq!(sidecar.token("snowflake", "mallory", None).await.status, 403);
    }
    world.finish(sidecar).await;
    let lines = world.audit_lines("audit.jsonl");
    let refusals = of(&lines, "refusal");
    assert_eq!((refusals.len(), &refusals[10]["count"]), (11, &json!(20)));
}

#[tokio::test]
async fn logrotate_moves_the_file_and_the_chain_goes_on() {
    let world = World::audited("").await;
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    std::fs::rename(world.log_file("audit.jsonl"), world.log_file("audit.jsonl.1")).unwrap();
    // Whether the configuration is one, says nothing of the log.
    world.configure("[log]", "[logs]");
    sidecar.signal(SIGHUP);
    while sidecar.counter("bursar_reloads_total", &["refused"]).await < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.configure("[logs]", "[log]");
    sidecar.token("snowflake", ALICE, None).await.token();
    let status = admin(&sidecar, "GET", "/v1/status").await.json()["audit"].clone();
    assert_eq!(status["failing"], false, "{status}");
    let (code, said) = world.verify(&["audit.jsonl.1", "audit.jsonl", "--from-start"]);
    assert!(code == Some(0) && said.contains(": complete\n"), "while it is written: {said}");
    world.finish(sidecar).await;
    let new = world.audit_lines("audit.jsonl");
    assert_eq!((&new[0]["event"], &new[0]["result"]), (&json!("reload"), &json!("refused")));
    assert_eq!(of(&new, "vend").len(), 1);
    let (code, said) = world.verify(&["audit.jsonl.1", "audit.jsonl", "--from-start", "--json"]);
    let verified: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &verified["complete"], &verified["first"]),
        (Some(0), &json!(true), &json!(1)),
        "{said}"
    );
    let (code, said) = world.verify(&["audit.jsonl"]);
    assert!(code == Some(0) && said.contains("note: begins at line"), "{said}");
    assert_eq!(world.verify(&["audit.jsonl", "audit.jsonl.1"]).0, Some(1), "the wrong order");
}

#[tokio::test]
async fn tampering_is_found_with_its_place() {
    let world = World::audited("").await;
    let sidecar = world.connected().await;
    for role in [None, Some("PUBLIC"), Some("ANALYST")] {
        sidecar.token("snowflake", ALICE, role).await.token();
    }
    world.finish(sidecar).await;
    let path = world.log_file("audit.jsonl");
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let last = lines.len() - 1;
    for (expected, text) in [
        ("audit.jsonl:3: was changed", whole.replacen(ALICE, "eve@example.com", 1)),
        ("line 3 is missing", [&lines[..2], &lines[3..]].concat().concat()),
        ("missing at the end", lines[..last].concat()),
        ("is not the first line of a file", lines[1..].concat()),
        ("out of order", [&lines[..], &lines[last..]].concat().concat()),
        ("is not a line of this log", whole.clone() + "{}\n"),
        ("missing at the end", String::new()),
    ] {
        std::fs::write(&path, text).unwrap();
        let (code, said) = world.verify(&["audit.jsonl"]);
        assert!(code == Some(1) && said.contains(expected), "{expected}: {said}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(world.verify(&[]).0, Some(0), "the configured file is meant where none is named");
}

#[tokio::test]
async fn kills_in_a_flood_leave_a_chain_without_a_gap() {
    let world = World::audited("").await;
    drop(world.connected().await.stop().await);
    for round in 0..8 {
        let sidecar = world.sidecar().await;
        let flood = async {
            loop {
                ask_again_and_again(&sidecar, 100).await;
            }
        };
        let _killed = tokio::time::timeout(Duration::from_millis(30 + round * 13), flood).await;
        sidecar.kill();
    }
    let sidecar = world.sidecar().await;
    world.finish(sidecar).await;
    let (code, said) = world.verify(&["audit.jsonl", "--from-start"]);
    assert!(code == Some(0) && said.contains(": complete\n"), "{said}");
    // Not line by line: a kill may have torn one.
    let text = std::fs::read_to_string(world.log_file("audit.jsonl")).unwrap();
    assert!(text.matches("\"event\":\"vend\"").count() > 100, "the kills hit vends");
}

#[tokio::test]
async fn on_a_full_disk_tokens_are_handed_out_and_what_was_lost_is_counted() {
    let world = World::audited("").await;
    std::os::unix::fs::symlink("/dev/full", world.log_file("audit.jsonl")).unwrap();
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, None).await.token();
    while sidecar.counter("bursar_audit_events_total", &["lost"]).await < 4.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sidecar.observe("/ready").await.0, 200);
    assert!(sidecar.read_log().contains("the audit log can't be written"));
    std::fs::remove_file(world.log_file("audit.jsonl")).unwrap();
    sidecar.signal(SIGHUP);
    while !world.log_file("audit.jsonl").exists() || world.audit_lines("audit.jsonl").is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.finish(sidecar).await;
    let lines = world.audit_lines("audit.jsonl");
    assert!(lines[0]["event"] == "lost" && lines[0]["count"].as_u64() >= Some(4), "{}", lines[0]);
    let (code, said) = world.verify(&["audit.jsonl", "--from-start"]);
    assert!(code == Some(0) && said.contains("could not be written"), "{said}");
}

#[tokio::test]
async fn on_a_full_disk_no_token_leaves_where_that_is_wanted_and_grants_can_still_be_ended() {
    let world = World::audited("on_failure = \"refuse\"").await;
    std::os::unix::fs::symlink("/dev/full", world.log_file("audit.jsonl")).unwrap();
    let sidecar = world.connected().await;
    let refused = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(refused.error(), (503, "store_unavailable".to_owned()));
    assert!(refused.json()["detail"].as_str().unwrap().contains("audit log"), "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(sidecar.observe("/ready").await, (503, "waiting for: audit\n".to_owned()));
    assert!(sidecar.metrics().await.contains("bursar_audit_events_total{result=\"refused\"} 1\n"));
    assert_eq!(admin(&sidecar, "DELETE", &format!("/v1/grants/databricks/{ALICE}")).await.status, 200);
    std::fs::remove_file(world.log_file("audit.jsonl")).unwrap();
    sidecar.signal(SIGHUP);
    while sidecar.observe("/ready").await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sidecar.token("snowflake", ALICE, None).await.token();
    ask_again_and_again(&sidecar, 3).await;
    world.finish(sidecar).await;
    let lines = world.audit_lines("audit.jsonl");
    assert_eq!((&lines[0]["event"], &lines[0]["refused"]), (&json!("lost"), &json!(1)), "{}", lines[0]);
    assert_eq!(of(&lines, "vend").len(), 4);
}

#[tokio::test]
async fn policies_change_with_a_reload_and_the_file_takes_a_restart() {
    let world = World::audited("vends = \"all\"").await;
    let sidecar = world.connected().await;
    world.configure("vends = \"all\"", "vends = \"first\"");
    assert_eq!(admin(&sidecar, "POST", "/v1/reload").await.status, 200);
    for _ in 0..3 {
        sidecar.token("snowflake", ALICE, None).await.token();
    }
    world.configure("audit.jsonl", "audit.other");
    let reply = admin(&sidecar, "POST", "/v1/reload").await;
    assert!(reply.json()["problems"][0].as_str().unwrap().contains("[audit] has changed"), "{}", reply.body);
    world.configure("audit.other", "audit.jsonl");
    world.finish(sidecar).await;
    assert_eq!(of(&world.audit_lines("audit.jsonl"), "vend").len(), 1);
}

/// A disk that is full in the middle of a line, by the limit on a file's size.
#[tokio::test]
async fn what_did_not_fit_whole_is_taken_back() {
    let world = World::audited("").await;
    drop(world.connected().await.stop().await);
    let mut command = Command::new("bash");
    command.args(["-c", r#"trap "" XFSZ; ulimit -f 1024; exec "$0" serve --config "$1""#, PROGRAM]);
    let sidecar = Sidecar::spawn_as(command.arg(world.path().join("bursar.toml")), world.path());
    while !sidecar.read_log().contains(" ready ") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while sidecar.counter("bursar_audit_events_total", &["lost"]).await < 1.0 {
        ask_again_and_again(&sidecar, 100).await;
    }
    let full = std::fs::read(world.log_file("audit.jsonl")).unwrap();
    assert!(full.len() > 1_000_000 && full.ends_with(b"\n"), "{}", full.len());
    std::fs::rename(world.log_file("audit.jsonl"), world.log_file("audit.jsonl.1")).unwrap();
    sidecar.signal(SIGHUP);
    while sidecar.counter("bursar_reloads_total", &["ok"]).await < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sidecar.token("snowflake", ALICE, None).await.token();
    world.finish(sidecar).await;
    let (code, said) = world.verify(&["audit.jsonl.1", "audit.jsonl", "--from-start"]);
    assert!(
        code == Some(0) && said.contains("could not be written") && said.contains(": complete"),
        "{said}"
    );
}

#[tokio::test]
async fn the_same_question_on_one_connection_is_refused_too_when_the_disk_is_full() {
    let world = World::audited("on_failure = \"refuse\"").await;
    let sidecar = world.connected().await;
    let mut socket = UnixStream::connect(sidecar.socket()).await.unwrap();
    let question = format!("GET /v1/token?service=snowflake&user={ALICE} HTTP/1.1\r\nhost: x\r\n\r\n");
    world.configure("[log]", "[logs]");
    for expected in ["HTTP/1.1 200", "HTTP/1.1 503"] {
        socket.write_all(question.as_bytes()).await.unwrap();
        let mut answer = [0; 8192];
        let count = socket.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        assert!(answer.starts_with(expected), "{answer}");
        std::fs::rename(world.log_file("audit.jsonl"), world.log_file("audit.jsonl.1")).unwrap();
        std::os::unix::fs::symlink("/dev/full", world.log_file("audit.jsonl")).unwrap();
        // A configuration that is refused leaves all else as it was.
        assert_eq!(admin(&sidecar, "POST", "/v1/reload").await.status, 400);
    }
    std::fs::remove_file(world.log_file("audit.jsonl")).unwrap();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn another_machine_verifies_with_copies_of_key_and_head() {
    use std::io::Write as _;
    let world = World::audited("").await;
    let other_key = bursar::store::seal::generate_key(&bursar::entropy::SystemEntropy);
    bursar::dev::write_private(&world.log_file("audit.key"), other_key.expose()).unwrap();
    drop(world.connected().await.stop().await);
    // From here on with a key that is configured.
    let key = world.log_file("audit.key").display().to_string();
    world.configure("[audit]\n", &format!("[audit]\nkey_file = \"{key}\"\n"));
    world.finish(world.sidecar().await).await;
    let bursar = |arguments: &[&str], stdin: &[u8]| {
        let mut command = Command::new(PROGRAM);
        command.args(["audit", "verify"]).args(arguments).current_dir(world.path());
        let piped = std::process::Stdio::piped;
        let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let keys = ["--key-file", "bursar.db.audit-key", "--key-file", "audit.key"];
    let head = ["--head", "bursar.db.audit-head"];
    let text = std::fs::read(world.log_file("audit.jsonl")).unwrap();
    let (code, said) = bursar(&[&keys[..], &head[..], &["-"]].concat(), &text);
    assert!(code == Some(0) && said.contains("from here on written with key"), "{said}");
    let half = text.split_inclusive(|byte| *byte == b'\n').take(2).flatten().copied().collect::<Vec<u8>>();
    assert_eq!(bursar(&[&keys[..], &head[..], &["-"]].concat(), &half).0, Some(1), "the end is missing");
    let (code, said) = bursar(&[&keys[..], &["-"]].concat(), &half);
    assert!(code == Some(0) && said.contains("is not known"), "{said}");
    let (code, said) = bursar(&[&keys[2..], &["-"]].concat(), &text);
    assert!(code == Some(1) && said.contains("give it with --key-file"), "{said}");
    let (code, said) = bursar(&[&keys[..], &["audit.jsonl.1.gz"]].concat(), b"");
    assert!(code == Some(1) && said.contains("zcat"), "{said}");
    assert_eq!(bursar(&["--config", "/no/such/file", "-"], b"").0, Some(64));
}

#[tokio::test]
async fn what_an_administrator_asked_for_is_recorded_although_they_did_not_wait() {
    let world = World::audited("").await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "hang", "next": 1000, "endpoint": "revoke" })).await;
    let mut hasty = UnixStream::connect(sidecar.admin_socket()).await.unwrap();
    let asked = format!("DELETE /v1/grants/snowflake/{ALICE} HTTP/1.1\r\nhost: x\r\n\r\n");
    hasty.write_all(asked.as_bytes()).await.unwrap();
    while world.stats().await["requests"]["revoke"].as_u64().unwrap_or(0) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(hasty);
    let by_somebody = |line: &&Value| line["caller"]["pid"].is_i64();
    while of(&world.audit_lines("audit.jsonl"), "revoke").iter().copied().find(by_somebody).is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.finish(sidecar).await;
}
