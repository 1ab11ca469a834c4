//! The vending socket besides tokens: what it tells of services, grants and tokens that are shown to it, and how it takes
//! requests that make no sense.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::sidecar::{Reply, Sidecar, request};
use crate::support::{ALICE, BOB, World};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

async fn introspect(sidecar: &Sidecar, form: &str) -> Reply {
    request(&sidecar.socket(), "POST", "/v1/introspect", &[FORM], form).await
}

/// A world whose one rule is this.
async fn world_with_rule(rule: &str) -> World {
    let world = World::start().await;
    world.configure("services = [\"*\"]\nusers    = [\"*\"]", rule);
    world
}

#[tokio::test]
async fn a_caller_is_told_what_it_may_ask_for() {
    let world =
        world_with_rule(&format!("services = [\"snowflake:ANALYST\", \"databricks\"]\nusers = [\"{BOB}\"]"))
            .await;
    let sidecar = world.sidecar().await;
    let services = sidecar.get("/v1/services").await.json();
    assert_eq!(
        services,
        json!({ "services": [
            { "service": "databricks", "kind": "databricks", "audience": "databricks", "default_scope": "all-apis",
              "roles": [], "users": [BOB], "run_pass": "none" },
            { "service": "snowflake", "kind": "snowflake", "audience": "https://dev.snowflakecomputing.com",
              "default_scope": null, "roles": ["ANALYST"], "users": [BOB], "run_pass": "none" },
        ]})
    );
    assert_eq!(sidecar.get("/v1/services?x=1").await.error(), (400, "invalid_request".to_owned()));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_caller_sees_the_grants_that_it_may_use_and_no_others() {
    let world = world_with_rule("services = [\"snowflake:ANALYST\"]\nusers = [\"b*@example.com\"]").await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    let grants = sidecar.get("/v1/grants").await.json();
    let listed = grants["grants"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{grants}");
    let members: Vec<&String> = listed[0].as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "created_at",
            "expires_at",
            "in_doubt_since",
            "refresh_tokens",
            "refreshed_at",
            "roles",
            "scope",
            "service",
            "since",
            "state",
            "user"
        ]
    );
    assert_eq!((&listed[0]["user"], &listed[0]["state"]), (&json!(BOB), &json!("active")));
    assert_eq!((&listed[0]["roles"], &listed[0]["scope"]), (&json!(["ANALYST"]), &Value::Null));
    assert_eq!((&grants["next_cursor"], &grants["complete"]), (&Value::Null, &json!(true)));

    let operations = sidecar.counter("bursar_store_operations_total", &[]).await;
    for target in [
        format!("/v1/grants?user={ALICE}"),
        "/v1/grants?service=databricks".into(),
        "/v1/grants?service=nosuch".into(),
    ] {
        assert_eq!(sidecar.get(&target).await.error(), (403, "access_denied".to_owned()), "{target}");
    }
    let after = sidecar.counter("bursar_store_operations_total", &[]).await;
    assert_eq!(after.to_bits(), operations.to_bits(), "the store was not asked");
    let nobody = sidecar.get("/v1/grants?user=bob2@example.com").await.json();
    assert_eq!(nobody["grants"], json!([]), "may be asked about, and is not connected");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn grants_come_page_by_page_and_no_cursor_names_somebody_elses() {
    let world = world_with_rule("services = [\"*\"]\nusers = [\"a*\", \"c*\"]").await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    world.connect(&sidecar, "carol@example.com").await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = sidecar.get(&format!("/v1/grants?limit=1{cursor}")).await.json();
        for grant in page["grants"].as_array().unwrap() {
            seen.push(format!("{} {}", grant["service"].as_str().unwrap(), grant["user"].as_str().unwrap()));
        }
        let Some(next) = page["next_cursor"].as_str() else { break };
        let named = String::from_utf8(URL_SAFE_NO_PAD.decode(next).unwrap()).unwrap();
        assert!(!named.contains("bob"), "{named}");
        cursor = format!("&cursor={next}");
    }
    let carol = "carol@example.com";
    let expected = [("databricks", ALICE), ("databricks", carol), ("snowflake", ALICE), ("snowflake", carol)];
    assert_eq!(seen, expected.map(|(service, user)| format!("{service} {user}")));
    for bad in ["cursor=x", "limit=0", "limit=1001", "state=active"] {
        assert_eq!(sidecar.get(&format!("/v1/grants?{bad}")).await.status, 400, "{bad}");
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_token_that_is_shown_is_told_from_a_forged_one() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let token = sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    let active = introspect(&sidecar, &format!("token={token}")).await.json();
    assert_eq!(active["active"], true, "{active}");
    assert_eq!((&active["sub"], &active["client_id"]), (&json!(ALICE), &active["cid"]));
    assert!(active["scope"].as_str().unwrap().contains("session:role:ANALYST") && active["exp"].is_i64());
    let inactive = json!({ "active": false });
    let by_service = |service: &str| format!("token={token}&token_type_hint=access_token&service={service}");
    assert_eq!(introspect(&sidecar, &by_service("snowflake")).await.json()["active"], true);
    assert_eq!(introspect(&sidecar, &by_service("databricks")).await.json(), inactive, "another audience");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let (header, payload) = signed.split_once('.').unwrap();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    claims["sub"] = json!(BOB);
    let changed = URL_SAFE_NO_PAD.encode(claims.to_string());
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"x"}"#);
    for forged in [
        format!("{signed}.{flipped}{}", &signature[1..]),
        format!("{header}.{changed}.{signature}"),
        format!("{none}.{payload}."),
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        "a.b.c.d.e".to_owned(),
    ] {
        assert_eq!(introspect(&sidecar, &format!("token={forged}")).await.json(), inactive, "{forged}");
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_token_is_active_until_its_last_second_and_not_longer() {
    let world =
        World::with(bursar::dev::authorization_server::Rotation::Rotating, 30, Duration::from_secs(4)).await;
    let sidecar = world.connected().await;
    let token = sidecar.token("snowflake", ALICE, None).await.token();
    assert_eq!(introspect(&sidecar, &format!("token={token}")).await.json()["active"], true);
    tokio::time::sleep(Duration::from_millis(4100)).await;
    assert_eq!(introspect(&sidecar, &format!("token={token}")).await.json(), json!({ "active": false }));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn introspection_tells_nothing_of_users_whose_tokens_a_caller_may_not_have() {
    let world = world_with_rule(&format!("services = [\"snowflake\"]\nusers = [\"{ALICE}\"]")).await;
    let sidecar = world.connected().await;
    let mine = sidecar.token("snowflake", ALICE, None).await.token();
    assert_eq!(introspect(&sidecar, &format!("token={mine}")).await.json()["active"], true);
    // As another worker of this machine has it.
    world.connect(&sidecar, BOB).await;
    let issued = world.issued().await;
    let of_bob =
        issued["access_tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).find(
            |token| {
                let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
                let claims: Value = serde_json::from_slice(&payload).unwrap();
                claims["sub"] == BOB && claims["aud"] != "databricks"
            },
        );
    let told = introspect(&sidecar, &format!("token={}", of_bob.unwrap())).await.json();
    assert_eq!(told, json!({ "active": false }));
    let denied = introspect(&sidecar, &format!("token={mine}&service=databricks")).await;
    assert_eq!(denied.error(), (403, "access_denied".to_owned()));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_malformed_introspection_is_told_what_is_wrong() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for (form, parameter) in [
        ("", "token"),
        ("token=", "token"),
        ("token=a&token=b", "token"),
        ("token=a&x=1", "x"),
        ("token=%FF", "token"),
        ("token=a&service=", "service"),
    ] {
        let reply = introspect(&sidecar, form).await;
        assert_eq!((reply.status, reply.json()["parameter"].as_str().unwrap()), (400, parameter), "{form}");
    }
    let json = [("content-type", "application/json")];
    let json = request(&sidecar.socket(), "POST", "/v1/introspect", &json, "{}").await;
    assert_eq!(json.error(), (400, "invalid_request".to_owned()));
    let large = introspect(&sidecar, &format!("token={}", "a".repeat(70_000))).await;
    assert_eq!(large.error(), (413, "too_large".to_owned()));
    let get = sidecar.get("/v1/introspect").await;
    assert_eq!((get.status, get.headers["allow"].to_str().unwrap()), (405, "POST"));
    let unknown = introspect(&sidecar, "token=a&service=nosuch").await;
    assert_eq!(unknown.error(), (404, "unknown_service".to_owned()));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn while_keys_can_not_be_had_no_token_is_called_forged() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let token = sidecar.token("snowflake", ALICE, None).await.token();
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    world.fault(json!({ "do": "status", "status": 503, "next": 1000, "endpoint": "keys" })).await;
    let sidecar = world.sidecar().await;
    let reply = introspect(&sidecar, &format!("token={token}")).await;
    assert_eq!(reply.error(), (503, "authorization_server_unavailable".to_owned()));
    assert!(reply.headers.contains_key("retry-after"));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn the_interface_describes_itself() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let described = sidecar.get("/v1/openapi.json").await.json();
    assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
    for (path, operations) in described["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let reply = request(&sidecar.socket(), &method.to_uppercase(), path, &[], "").await;
            assert!(![404, 405].contains(&reply.status), "{method} {path}: {}", reply.body);
        }
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn head_is_get_without_a_body_and_other_methods_are_told_which_there_are() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for target in [
        format!("/v1/token?service=snowflake&user={ALICE}"),
        "/v1/services".into(),
        "/v1/grants".into(),
        "/v1/openapi.json".into(),
    ] {
        let get = sidecar.get(&target).await;
        let head = request(&sidecar.socket(), "HEAD", &target, &[], "").await;
        assert_eq!((get.status, head.status, head.body.as_str()), (200, 200, ""), "{target}");
        assert_eq!(head.headers["content-length"], get.body.len().to_string().as_str(), "{target}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"] {
            let reply = request(&sidecar.socket(), method, &target, &[], "").await;
            assert_eq!(reply.error(), (405, "invalid_request".to_owned()), "{method} {target}");
            assert_eq!(reply.headers["allow"], "GET, HEAD", "{method} {target}");
        }
    }
    let admin = request(&sidecar.admin_socket(), "PATCH", "/v1/status", &[], "").await;
    assert_eq!((admin.status, admin.headers["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_not_taken_for_the_next_request() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let stream = tokio::net::UnixStream::connect(sidecar.socket()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for body in ["", "GET /v1/nosuch HTTP/1.1\r\nhost: x\r\n\r\n", "x"] {
        let request = hyper::Request::get(format!("/v1/token?service=snowflake&user={ALICE}"))
            .header("host", "x")
            .body(Full::new(bytes::Bytes::from(body)))
            .unwrap();
        let reply = sender.send_request(request).await.unwrap();
        assert_eq!(reply.status(), 200);
        assert!(!reply.headers().contains_key("connection"), "and the connection is kept");
        reply.into_body().collect().await.unwrap();
    }
    // More than is read: the answer comes, and then the end.
    let mut stream = tokio::net::UnixStream::connect(sidecar.socket()).await.unwrap();
    let head = format!(
        "GET /v1/token?service=snowflake&user={ALICE} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 100_000]).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection ends");
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{}", answer.len());
    assert_eq!(answer.matches("http/1.1").count(), 1);
    world.finish(sidecar).await;
}
