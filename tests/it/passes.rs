//! Run passes: what a run may have of what its caller may have, and that it ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::events::Stream;
use crate::import::{bursar, text};
use crate::support::platform::{ISSUER, Key, claims, key_set, publish};
use crate::support::sidecar::{Reply, Sidecar, request};
use crate::support::{ALICE, BOB, World};

/// A world in which callers need a pass, signed with this key.
async fn world(key: &Key) -> World {
    let world = World::start().await;
    publish(&world.path().join("platform.json"), &[key]);
    let file = world.path().join("platform.json");
    take_passes(&world, &format!("jwks_file = \"{}\"", file.display()));
    world
}

fn take_passes(world: &World, keys: &str) {
    let section = format!("[run_passes]\nissuer = \"{ISSUER}\"\naudience = \"bursar\"\n{keys}\n\n[log]");
    world.configure("[log]", &section);
    world.configure(
        "services = [\"*\"]\nusers    = [\"*\"]\nrun_pass = \"none\"",
        "services = [\"snowflake\", \"databricks\"]\nusers = [\"*@example.com\"]\nrun_pass = \"required\"",
    );
}

async fn get(sidecar: &Sidecar, target: &str, pass: &str) -> Reply {
    let authorization = format!("Bearer {pass}");
    let headers: &[(&str, &str)] = if pass.is_empty() { &[] } else { &[("authorization", &authorization)] };
    request(&sidecar.socket(), "GET", target, headers, "").await
}

/// Whether a stream ends, and not with its next beat only.
async fn ends(stream: &mut Stream) -> bool {
    for _ in 0..4 {
        if stream.line().await.is_none() {
            return true;
        }
    }
    false
}

fn invalid() -> (u16, String) {
    (401, "run_pass_invalid".to_owned())
}

#[tokio::test]
async fn a_pass_narrows_what_the_rule_allows_and_never_widens_it() {
    let key = Key::new("RS256", "k1");
    let world = world(&key).await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    let pass = key.sign(&claims("run-1", ALICE, &["snowflake:ANALYST", "databricks", "reports"]));
    let elsewhere = key.sign(&claims("run-2", "alice@elsewhere.example", &["*"]));
    let everything = key.sign(&claims("run-3", ALICE, &["*"]));
    let counted = async || {
        let asked = async |operation: &str| {
            let label = format!("operation=\"{operation}\"");
            sidecar.counter("bursar_store_operations_total", &[&label]).await
        };
        let store = asked("grant").await + asked("access_token").await + asked("begin").await;
        let cache = sidecar.counter("bursar_token_request_duration_seconds_count", &[]).await;
        (store.to_bits(), cache.to_bits())
    };
    let before = counted().await;
    for (target, pass, status, error) in [
        ("service=snowflake&user=alice@example.com", "", 401, "run_pass_required"),
        ("service=snowflake", "", 401, "run_pass_required"),
        ("service=snowflake&user=alice@example.com", "nonsense", 401, "run_pass_invalid"),
        ("service=snowflake&user=alice@example.com", &*pass, 401, "run_pass_invalid"),
        ("service=snowflake&user=alice@example.com&role=PUBLIC", &pass, 401, "run_pass_invalid"),
        ("service=snowflake&user=bob@example.com&role=ANALYST", &pass, 401, "run_pass_invalid"),
        ("service=reports", &everything, 403, "access_denied"),
        ("service=nosuch", &everything, 403, "access_denied"),
        ("service=snowflake&user=carol@elsewhere.example", &everything, 403, "access_denied"),
        ("service=snowflake", &elsewhere, 403, "access_denied"),
        ("service=snowflake&user=carol@elsewhere.example", "", 403, "access_denied"),
        ("service=snowflake&role=NOSUCH", &everything, 400, "invalid_request"),
        ("service=snowflake&role=NOSUCH&colour=red", "", 400, "invalid_request"),
    ] {
        let reply = get(&sidecar, &format!("/v1/token?{target}"), pass).await;
        assert_eq!(reply.error(), (status, error.to_owned()), "{target}: {}", reply.body);
        let challenge = reply.headers.get("www-authenticate").map(|value| value.to_str().unwrap());
        assert_eq!(challenge, (status == 401).then_some("Bearer"), "{target}");
    }
    assert_eq!(counted().await, before, "neither store nor cache was asked");
    let by_pass = get(&sidecar, "/v1/token?service=snowflake&role=ANALYST", &pass).await;
    assert_eq!(by_pass.json()["user"], ALICE, "whose it is, the pass says");
    get(&sidecar, &format!("/v1/token?service=snowflake&role=ANALYST&user={ALICE}"), &pass).await.token();
    get(&sidecar, "/v1/token?service=databricks", &pass).await.token();
    get(&sidecar, "/v1/token?service=snowflake&role=PUBLIC", &everything).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_a_run_is_told_is_what_it_may_have() {
    let key = Key::new("EdDSA", "k1");
    let world = world(&key).await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    let pass = key.sign(&claims("run-1", ALICE, &["snowflake:ANALYST"]));
    let services = get(&sidecar, "/v1/services", "").await.json();
    assert_eq!(services["services"].as_array().unwrap().len(), 2, "{services}");
    assert_eq!(services["services"][1]["run_pass"], "required");
    let services = get(&sidecar, "/v1/services", &pass).await.json();
    assert_eq!(
        services["services"],
        json!([{ "service": "snowflake", "kind": "snowflake", "audience": "https://dev.snowflakecomputing.com",
            "default_scope": null, "roles": ["ANALYST"], "users": [ALICE], "run_pass": "required" }])
    );
    assert_eq!(get(&sidecar, "/v1/services", "nonsense").await.error(), invalid());
    let grants = get(&sidecar, "/v1/grants", &pass).await.json();
    assert_eq!(grants["grants"].as_array().unwrap().len(), 1, "{grants}");
    assert_eq!(
        (&grants["grants"][0]["user"], &grants["grants"][0]["roles"]),
        (&json!(ALICE), &json!(["ANALYST"]))
    );
    assert_eq!(get(&sidecar, "/v1/grants", "").await.error(), (401, "run_pass_required".to_owned()));
    assert_eq!(get(&sidecar, "/v1/grants?service=databricks", &pass).await.error(), invalid());
    assert_eq!(get(&sidecar, "/v1/grants?service=nosuch", &pass).await.error().0, 403);
    let bobs = key.sign(&claims("run-2", BOB, &["*"]));
    let token = get(&sidecar, "/v1/token?service=snowflake&role=ANALYST", &pass).await.token();
    let introspect = async |pass: &str| {
        let authorization = format!("Bearer {pass}");
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        if !pass.is_empty() {
            headers.push(("authorization", &authorization));
        }
        request(&sidecar.socket(), "POST", "/v1/introspect", &headers, &format!("token={token}")).await
    };
    assert_eq!(introspect(&pass).await.json()["active"], true);
    assert_eq!(introspect(&bobs).await.json(), json!({ "active": false }), "another user's");
    assert_eq!(introspect("").await.error(), (401, "run_pass_required".to_owned()));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_run_that_has_ended_gets_nothing_more_not_even_after_a_restart() {
    let key = Key::new("ES256", "k1");
    let world = world(&key).await;
    let sidecar = world.connected().await;
    let pass = key.sign(&claims("run/1 ä", ALICE, &["snowflake"]));
    let other = key.sign(&claims("run-2", ALICE, &["snowflake"]));
    let authorization = format!("service=snowflake HTTP/1.1\r\nAuthorization: Bearer {pass}\r\nX-Rest:");
    let mut stream = Stream::open(&sidecar, &authorization).await;
    assert_eq!(stream.next().await.0, "token");
    get(&sidecar, "/v1/token?service=snowflake", &pass).await.token();
    let ended = bursar(&sidecar, &["run", "end", "run/1 ä"], "").await;
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert!(
        text(&ended.stdout).starts_with("run/1 ä: ended; remembered until 20"),
        "{}",
        text(&ended.stdout)
    );
    let again = bursar(&sidecar, &["run", "end", "run/1 ä"], "").await;
    assert_eq!(again.status.code(), Some(0), "ending twice is ending");
    assert!(ends(&mut stream).await, "the stream goes on");
    let refused = get(&sidecar, "/v1/token?service=snowflake", &pass).await;
    assert_eq!(refused.error(), invalid());
    assert!(refused.body.contains("has ended"), "{}", refused.body);
    get(&sidecar, "/v1/token?service=snowflake", &other).await.token();
    sidecar.kill();
    let sidecar = world.sidecar().await;
    assert_eq!(get(&sidecar, "/v1/token?service=snowflake", &pass).await.error(), invalid());
    get(&sidecar, "/v1/token?service=snowflake", &other).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn the_audit_log_says_for_which_run_a_token_was_and_when_that_ended() {
    let key = Key::new("EdDSA", "k1");
    let world = world(&key).await;
    let file = world.path().join("audit.jsonl");
    world.configure("[log]", &format!("[audit]\nfile = \"{}\"\n[log]", file.display()));
    let sidecar = world.connected().await;
    let pass = key.sign(&claims("run-7", ALICE, &["snowflake"]));
    get(&sidecar, "/v1/token?service=snowflake", &pass).await.token();
    request(&sidecar.admin_socket(), "DELETE", "/v1/runs/run-7", &[], "").await;
    assert_eq!(get(&sidecar, "/v1/token?service=snowflake", &pass).await.error(), invalid());
    world.finish(sidecar).await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(&pass), "no pass is written down");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| lines.iter().find(|line| line["event"] == event).unwrap();
    assert_eq!((&of("vend")["run"], &of("vend")["user"]), (&json!("run-7"), &json!(ALICE)));
    assert_eq!((&of("run_end")["run"], &of("run_end")["result"]), (&json!("run-7"), &json!("ok")));
    assert_eq!(
        (&of("refusal")["result"], &of("refusal")["run"]),
        (&json!("run_pass_invalid"), &json!("run-7"))
    );
    assert!(of("refusal")["detail"].as_str().unwrap().contains("has ended"), "{}", of("refusal"));
}

#[tokio::test]
async fn a_pass_that_says_too_little_too_much_or_comes_from_elsewhere_is_refused() {
    let (key, stranger) = (Key::new("RS256", "k1"), Key::new("RS256", "k1"));
    let world = world(&key).await;
    let sidecar = world.connected().await;
    let good = claims("run-1", ALICE, &["snowflake"]);
    let now = good["iat"].as_u64().unwrap();
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        key.sign(&claims)
    };
    for (pass, why) in [
        (stranger.sign(&good), "signature"),
        (with("iss", json!("https://okta.example")), "`iss`"),
        (with("aud", json!("snowflake")), "`aud`"),
        (with("exp", json!(now - 1)), "expired"),
        (with("exp", json!(now + 86_401)), "longer than run_passes.max_lifetime"),
        (with("exp", Value::Null), "`exp`"),
        (with("jti", Value::Null), "`jti`"),
        (with("sub", Value::Null), "`sub`"),
        (with("services", Value::Null), "`services`"),
        (with("nbf", json!(now + 600)), "not valid yet"),
    ] {
        let reply = get(&sidecar, "/v1/token?service=snowflake", &pass).await;
        assert_eq!(reply.error(), invalid(), "{why}");
        assert!(reply.body.contains(why), "{why}: {}", reply.body);
    }
    let good = key.sign(&good);
    for headers in [
        vec![("authorization", "Basic YTpi".to_owned())],
        vec![("authorization", "Bearer".to_owned())],
        vec![("authorization", format!("Bearer {good}")), ("authorization", format!("Bearer {good}"))],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = request(&sidecar.socket(), "GET", "/v1/token?service=snowflake", &headers, "").await;
        assert_eq!(reply.error(), invalid(), "{headers:?}");
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_key_that_is_replaced_in_the_file_takes_over_and_a_broken_file_changes_nothing() {
    let (old, new) = (Key::new("EdDSA", "old"), Key::new("EdDSA", "new"));
    let world = world(&old).await;
    let sidecar = world.connected().await;
    let file = world.path().join("platform.json");
    let (by_old, by_new) = (
        old.sign(&claims("run-1", ALICE, &["snowflake"])),
        new.sign(&claims("run-1", ALICE, &["snowflake"])),
    );
    get(&sidecar, "/v1/token?service=snowflake", &by_old).await.token();
    assert_eq!(get(&sidecar, "/v1/token?service=snowflake", &by_new).await.error(), invalid());
    std::fs::write(&file, "half a fi").unwrap();
    while !sidecar.read_log().contains("the keys of run passes in use stay") {
        get(&sidecar, "/v1/token?service=snowflake", &by_old).await.token();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    publish(&file, &[&new]);
    while get(&sidecar, "/v1/token?service=snowflake", &by_new).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = get(&sidecar, "/v1/token?service=snowflake", &by_old).await;
    assert_eq!(refused.error(), invalid(), "what the old key proved holds no longer");
    world.finish(sidecar).await;
}

/// Answers every request with what is in `document`; nothing at all while that is empty.
async fn serve(document: Arc<Mutex<String>>, requests: Arc<AtomicUsize>) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            requests.fetch_add(1, Ordering::Relaxed);
            let mut head = [0; 4096];
            let _asked = stream.read(&mut head).await;
            let body = document.lock().unwrap().clone();
            if !body.is_empty() {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _sent = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn keys_at_an_address_are_fetched_when_needed_and_once_for_a_key_that_is_new() {
    let (old, new) = (Key::new("ES256", "old"), Key::new("ES256", "new"));
    let (document, requests) = (Arc::new(Mutex::default()), Arc::new(AtomicUsize::new(0)));
    let address = serve(Arc::clone(&document), Arc::clone(&requests)).await;
    let world = World::start().await;
    take_passes(&world, &format!("jwks_url = \"http://{address}/jwks\""));
    let sidecar = world.connected().await;
    assert_eq!(requests.load(Ordering::Relaxed), 0, "nobody has shown a pass");
    let pass = |key: &Key| key.sign(&claims("run-1", ALICE, &["snowflake"]));
    let ask = async |key: &Key| get(&sidecar, "/v1/token?service=snowflake", &pass(key)).await;
    let unavailable = ask(&old).await;
    assert_eq!(unavailable.error(), (503, "authorization_server_unavailable".to_owned()));
    assert!(unavailable.headers.contains_key("retry-after"));
    *document.lock().unwrap() = key_set(&[&old]);
    while ask(&old).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    *document.lock().unwrap() = key_set(&[&new]);
    let before = requests.load(Ordering::Relaxed);
    ask(&new).await.token();
    assert_eq!(requests.load(Ordering::Relaxed), before + 1);
    let invented = Key::new("ES256", "invented");
    for _ in 0..5 {
        assert_eq!(ask(&invented).await.error(), invalid());
    }
    assert_eq!(requests.load(Ordering::Relaxed), before + 1, "an invented key drives no traffic");
    assert_eq!(ask(&old).await.error(), invalid());
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_reload_keeps_the_keys_that_were_fetched_although_their_address_is_silent() {
    let key = Key::new("ES256", "k1");
    let (document, requests) = (Arc::new(Mutex::new(key_set(&[&key]))), Arc::new(AtomicUsize::new(0)));
    let address = serve(Arc::clone(&document), requests).await;
    let world = World::start().await;
    take_passes(&world, &format!("jwks_url = \"http://{address}/jwks\""));
    let sidecar = world.connected().await;
    let pass = key.sign(&claims("run-1", ALICE, &["snowflake"]));
    get(&sidecar, "/v1/token?service=snowflake", &pass).await.token();
    document.lock().unwrap().clear();
    let reloaded = request(&sidecar.admin_socket(), "POST", "/v1/reload", &[], "").await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    get(&sidecar, "/v1/token?service=snowflake", &pass).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_listener_whose_pass_was_signed_by_a_key_that_is_taken_out_is_let_go_of() {
    let (key, other) = (Key::new("EdDSA", "k1"), Key::new("EdDSA", "k2"));
    let world = world(&key).await;
    let sidecar = world.connected().await;
    let pass = key.sign(&claims("run-1", ALICE, &["snowflake"]));
    let query = format!("service=snowflake HTTP/1.1\r\nAuthorization: Bearer {pass}\r\nX-Rest:");
    let mut stream = Stream::open(&sidecar, &query).await;
    assert_eq!(stream.next().await.0, "token");
    publish(&world.path().join("platform.json"), &[&other]);
    while get(&sidecar, "/v1/token?service=snowflake", &pass).await.status == 200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sidecar.refresh("snowflake", ALICE, None).await;
    assert!(ends(&mut stream).await, "the stream goes on");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn the_command_shows_the_pass_that_it_finds_and_says_when_it_is_denied() {
    let key = Key::new("EdDSA", "k1");
    let world = world(&key).await;
    let sidecar = world.connected().await;
    let file = world.path().join("pass");
    let token = async |arguments: &[&str]| {
        let all = [&["token", "--service", "snowflake"], arguments].concat();
        bursar(&sidecar, &all, "").await
    };
    let without = token(&["--user", ALICE]).await;
    assert_eq!(without.status.code(), Some(77), "{}", text(&without.stderr));
    assert!(text(&without.stderr).contains("run_pass_required"));
    std::fs::write(&file, key.sign(&claims("run-1", ALICE, &["snowflake"])) + "\n").unwrap();
    let path = file.to_str().unwrap();
    let with = token(&["--run-pass-file", path]).await;
    assert_eq!(with.status.code(), Some(0), "{}", text(&with.stderr));
    assert_eq!(text(&with.stdout).split('.').count(), 3);
    let for_bob = token(&["--run-pass-file", path, "--user", BOB]).await;
    assert_eq!(for_bob.status.code(), Some(77));
    let missing = token(&["--run-pass-file", "/nowhere/pass"]).await;
    assert_eq!(missing.status.code(), Some(64), "{}", text(&missing.stderr));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn where_no_passes_are_taken_none_is_and_no_run_ends() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let reply = get(&sidecar, &format!("/v1/token?service=snowflake&user={ALICE}"), "x.y.z").await;
    assert_eq!(reply.error(), invalid(), "a pass that can't be judged is not one that is ignored");
    let ended = request(&sidecar.admin_socket(), "DELETE", "/v1/runs/run-1", &[], "").await;
    assert_eq!(ended.error(), (404, "not_found".to_owned()));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn listeners_are_let_go_of_when_a_reload_takes_their_pass_no_longer() {
    let (key, other) = (Key::new("EdDSA", "k1"), Key::new("EdDSA", "k2"));
    let world = world(&key).await;
    let sidecar = world.connected().await;
    let pass = key.sign(&claims("run-1", ALICE, &["snowflake"]));
    let query = format!("service=snowflake HTTP/1.1\r\nAuthorization: Bearer {pass}\r\nX-Rest:");
    let mut stream = Stream::open(&sidecar, &query).await;
    assert_eq!(stream.next().await.0, "token");
    publish(&world.path().join("platform.json"), &[&other]);
    let reloaded = request(&sidecar.admin_socket(), "POST", "/v1/reload", &[], "").await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    assert!(ends(&mut stream).await, "the stream goes on");
    world.finish(sidecar).await;
}
