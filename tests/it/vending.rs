//! A worker asks the socket and gets a token: the main job.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::sidecar::{Sidecar, request};
use crate::support::{ALICE, BOB, World};

pub(crate) fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_worker_gets_a_token_with_all_that_belongs_to_it() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let reply = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(reply.headers["content-type"], "application/json");
    let body = reply.json();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        ["access_token", "expires_at", "expires_in", "scope", "service", "token_type", "user"],
        "exactly what the contract names"
    );
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["scope"], "session:role:PUBLIC");
    assert_eq!((&body["service"], &body["user"]), (&json!("snowflake"), &json!(ALICE)));
    let expires_in = body["expires_in"].as_i64().unwrap();
    assert!((3590..=3600).contains(&expires_in), "{expires_in}");
    let claims = claims(body["access_token"].as_str().unwrap());
    assert_eq!(
        (&claims["sub"], &claims["aud"]),
        (&json!(ALICE), &json!("https://dev.snowflakecomputing.com"))
    );
    world.finish(sidecar).await;
}

#[tokio::test]
async fn as_plain_text_the_token_comes_alone() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let target = format!("/v1/token?service=snowflake&user={ALICE}");
    let token = sidecar.get(&target).await.token();
    let text = request(&sidecar.socket(), "GET", &target, &[("accept", "text/plain")], "").await;
    assert_eq!(text.body, token, "no newline, nothing else");
    assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
    let both =
        request(&sidecar.socket(), "GET", &target, &[("accept", "application/json, text/plain")], "").await;
    assert_eq!(both.token(), token);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_role_is_a_token_of_its_own_with_that_scope_alone() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    for role in ["ANALYST", "PUBLIC"] {
        let token = sidecar.token("snowflake", ALICE, Some(role)).await.token();
        let mut scopes: Vec<String> = serde_json::from_value(claims(&token)["scp"].clone()).unwrap();
        scopes.retain(|scope| scope != "offline_access");
        assert_eq!(scopes, [format!("session:role:{role}")]);
    }
    assert_eq!(world.token_requests().await, 2);
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn two_hundred_first_requests_make_one_token_request() {
    let world = World::start().await;
    world.configure("[admin]", "max_connections_per_uid = 1000\n[admin]");
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "delay", "seconds": 0.3 })).await;
    let requests = (0..200).map(|_| sidecar.token("snowflake", ALICE, Some("ANALYST")));
    let tokens = join_all(requests).await;
    let first = tokens[0].token();
    assert!(tokens.iter().all(|reply| reply.token() == first));
    assert_eq!(world.token_requests().await, 1);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_cancel_the_refresh() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.fault(json!({ "do": "delay", "seconds": 0.5 })).await;
    let impatient =
        tokio::time::timeout(Duration::from_millis(150), sidecar.token("snowflake", ALICE, Some("ANALYST")));
    assert!(impatient.await.is_err(), "gone before the answer");
    while world.stats().await["refreshes"] != 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    assert_eq!(world.token_requests().await, 1, "the first request's refresh served the second one");
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_restart_vends_without_asking_the_authorization_server() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let before = sidecar.token("snowflake", ALICE, None).await.token();
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    for endpoint in ["token", "keys", "discovery", "introspect"] {
        world.fault(json!({ "do": "status", "status": 503, "next": 1000, "endpoint": endpoint })).await;
    }
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.token(), before);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_due_token_is_refreshed_before_anybody_asks_and_callers_get_the_old_one_meanwhile() {
    let world =
        World::with(bursar::dev::authorization_server::Rotation::Rotating, 30, Duration::from_secs(8)).await;
    world.configure("[log]", "[refresh]\nahead = \"40%\"\n[log]");
    let sidecar = world.connected().await;
    let first = sidecar.token("snowflake", ALICE, None).await.token();
    world.fault(json!({ "do": "delay", "seconds": 0.5 })).await;
    // Due when 40 to 52 % of its 8 s are over; callers would have to wait from 75 % on.
    while world.token_requests().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let due = sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(due.token(), first, "the old one, while the new one is fetched");
    assert!(due.json()["expires_in"].as_u64().unwrap() >= 1);
    let published = async {
        while sidecar.token("snowflake", ALICE, None).await.token() == first {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), published).await.expect("long before its life is over");
    assert_eq!(world.token_requests().await, 1);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn more_life_than_a_token_has_left_is_got_by_a_refresh_but_not_at_every_request() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let ask = |min_ttl: u32| {
        sidecar.get_owned(format!("/v1/token?service=snowflake&user={ALICE}&min_ttl={min_ttl}"))
    };
    let first = ask(0).await.token();
    assert_eq!(ask(2000).await.token(), first);
    for _ in 0..5 {
        assert_eq!(ask(999_999_999).await.token(), first, "a new token could not keep that either");
    }
    assert_eq!(world.token_requests().await, 0);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn users_and_services_are_kept_apart() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    let mut seen = Vec::new();
    for (service, user) in
        [("snowflake", ALICE), ("snowflake", BOB), ("databricks", ALICE), ("databricks", BOB)]
    {
        let token = sidecar.token(service, user, None).await.token();
        assert_eq!(claims(&token)["sub"], user);
        assert_eq!(claims(&token)["aud"] == "databricks", service == "databricks");
        assert!(!seen.contains(&token));
        seen.push(token);
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_kept_connection_serves_many_requests() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let stream = tokio::net::UnixStream::connect(sidecar.socket()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..50 {
        let request = hyper::Request::get(format!("/v1/token?service=snowflake&user={ALICE}"))
            .header("host", "anything at all")
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let reply = sender.send_request(request).await.unwrap();
        assert_eq!(reply.status(), 200);
        let _body = http_body_util::BodyExt::collect(reply.into_body()).await.unwrap();
    }
    drop(sender);
    world.finish(sidecar).await;
}

impl Sidecar {
    async fn get_owned(&self, target: String) -> crate::support::sidecar::Reply {
        self.get(&target).await
    }
}

pub(crate) async fn join_all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    results.into_iter().map(Option::unwrap).collect()
}
