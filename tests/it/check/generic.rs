//! Authorization servers that are not Okta's, and answer otherwise.

use bursar::check::{Step, Verdict};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{good, steps};
use crate::support::World;

/// What it answers, by the whole request and its own address: status and body.
type Answers = fn(&str, &str) -> (u16, Value);

/// A good set-up but for Snowflake's authorization server, which gives these answers; its address.
async fn world_with(answers: Answers) -> (World, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let us = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let issuer = us.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, us.clone(), answers));
        }
    });
    let world = good().await;
    world.configure(&world.server.issuer("ausdevsnowflake"), &issuer);
    (world, issuer)
}

/// One request, with its body as far as its length says.
async fn serve(mut stream: TcpStream, us: String, answers: Answers) {
    let mut seen = Vec::new();
    let request = loop {
        if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break text;
        }
    };
    let (status, body) = answers(&request, &us);
    let (date, body) = ("Thu, 01 Jan 1970 00:00:00 GMT", body.to_string());
    let head = format!(
        "HTTP/1.1 {status} x\r\ndate: {date}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _gone = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

fn document(issuer: &str, us: &str) -> Value {
    json!({ "issuer": issuer, "token_endpoint": format!("{us}/token"), "jwks_uri": format!("{us}/keys"),
        "authorization_endpoint": format!("{us}/authorize") })
}

fn verdict(steps: &[Step], step: &str) -> Verdict {
    steps.iter().find(|found| found.step == step).unwrap_or_else(|| panic!("{step} in {steps:#?}")).verdict
}

#[tokio::test]
async fn a_wrong_document_in_the_second_place_is_no_obstacle_since_nobody_asks_there() {
    let answers: Answers = |request, us| {
        if request.contains("openid-configuration") {
            (200, document(us, us))
        } else if request.contains("oauth-authorization-server") {
            (200, document("https://other.example", us))
        } else if request.starts_with("post ") {
            (400, json!({ "error": "invalid_grant" }))
        } else {
            (200, json!({}))
        }
    };
    let (world, _) = world_with(answers).await;
    let steps = steps(&world, None).await;
    assert_eq!(verdict(&steps, "discovery"), Verdict::Doubtful, "{steps:#?}");
    assert_eq!(verdict(&steps, "client"), Verdict::Good, "the rest is looked at: {steps:#?}");
    assert_eq!(verdict(&steps, "redirect_uri"), Verdict::Untold, "a page proves nothing: {steps:#?}");
}

#[tokio::test]
async fn a_request_that_is_not_taken_is_followed_by_the_next() {
    let answers: Answers = |request, us| {
        if !request.starts_with("post ") {
            (200, document(us, us))
        } else if request.contains("grant_type=refresh_token") {
            (400, json!({ "error": "invalid_request" }))
        } else {
            (400, json!({ "error": "invalid_grant" }))
        }
    };
    let (world, _) = world_with(answers).await;
    let steps = steps(&world, None).await;
    assert_eq!(verdict(&steps, "client"), Verdict::Good, "{steps:#?}");
    let clients = steps.iter().filter(|step| step.step == "client").count();
    assert_eq!(clients, 1, "{steps:#?}");
}

#[tokio::test]
async fn the_clock_is_looked_at_where_endpoints_are_configured() {
    let (world, issuer) = world_with(|_, _| (404, json!({}))).await;
    let endpoints = |more: &str| format!("token_endpoint = \"{issuer}/token\"\n{more}refresh_token_leeway");
    let with_keys = endpoints(&format!("jwks_uri = \"{issuer}/keys\"\n"));
    world.configure("refresh_token_leeway", &with_keys);
    let found = steps(&world, None).await;
    assert_eq!(verdict(&found, "clock"), Verdict::Bad, "by the keys' answer, which is of 1970: {found:#?}");

    world.configure(&with_keys, &endpoints(""));
    world.configure("kind     = \"snowflake\"", "kind     = \"snowflake\"\naccess_token = \"opaque\"");
    world.configure("kind     = \"databricks\"", "kind     = \"databricks\"\naccess_token = \"opaque\"");
    let found = steps(&world, None).await;
    assert_eq!(verdict(&found, "clock"), Verdict::Untold, "{found:#?}");
    let keys = found.iter().find(|step| step.step == "keys").unwrap();
    assert!(keys.message.contains("ID token"), "users connect, which takes keys: {keys:?}");
}

#[tokio::test]
async fn what_this_machine_lacks_is_told_and_the_rest_looked_at_without_it() {
    let world = good().await;
    for file in ["client-secret", "store.key"] {
        std::fs::rename(world.path().join(file), world.path().join("elsewhere")).unwrap();
    }
    let steps = steps(&world, None).await;
    for key in ["authorization_servers.snowflake.client_secret_file", "store.key_file"] {
        let found =
            steps.iter().find(|step| step.subject == key).unwrap_or_else(|| panic!("{key}: {steps:#?}"));
        assert_eq!(found.verdict, Verdict::Bad);
        assert!(found.remedy.as_deref().unwrap().contains("as root"), "{found:?}");
    }
    assert_eq!(verdict(&steps, "discovery"), Verdict::Good, "{steps:#?}");
    assert_eq!(verdict(&steps, "redirect_uri"), Verdict::Good, "{steps:#?}");
    assert_eq!(verdict(&steps, "client"), Verdict::Untold, "{steps:#?}");
    assert_eq!(verdict(&steps, "store"), Verdict::Untold, "{steps:#?}");
    assert_eq!(world.token_requests().await, 0, "nothing is presented without the secret");
}
