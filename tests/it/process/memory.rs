//! The memory of a running process, read as root: no refresh token is in it outside an exchange. Access tokens, the
//! client's secret and the store's key are, for it works with them.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::is_root;
use crate::support::sidecar::{Sidecar, request};
use crate::support::{ALICE, BOB, World};
use crate::vending::join_all;

/// As much of a token as no chance repeats; looked for at two places of it, so that half of one is found too.
const PIECE: usize = 12;

type Pieces = BTreeSet<[u8; PIECE]>;

/// The end of each token, where it is random, in clear (and form-encoded, which is the same for letters and digits) and
/// in base64 at each of the three alignments.
fn pieces<'a>(tokens: impl Iterator<Item = &'a str>) -> Pieces {
    let mut pieces = Pieces::new();
    for token in tokens {
        let random = &token.as_bytes()[token.len() - 2 * PIECE..];
        let mut forms = vec![random.to_vec()];
        for shift in 0..3 {
            let shifted = [&b"xyz"[..shift], random].concat();
            // Without what the bytes before and after have a part in.
            let encoded = STANDARD.encode(shifted);
            forms.push(encoded.as_bytes()[4..encoded.len() - 4].to_vec());
        }
        for form in forms {
            for at in [0, form.len() - PIECE] {
                pieces.insert(form[at..at + PIECE].try_into().unwrap());
            }
        }
    }
    pieces
}

/// The regions of memory that the process can write to, each with its name.
fn regions(sidecar: &Sidecar) -> Vec<(String, Vec<u8>)> {
    let memory = std::fs::File::open(format!("/proc/{}/mem", sidecar.pid())).unwrap();
    let maps = String::from_utf8(sidecar.proc("maps")).unwrap();
    let mut regions = Vec::new();
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if !fields[1].starts_with("rw") {
            continue;
        }
        let (from, to) = fields[0].split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut content = vec![0; usize::try_from(to - from).unwrap()];
        // A region that went meanwhile has nothing in it.
        if memory.read_exact_at(&mut content, from).is_ok() {
            regions.push((line.to_owned(), content));
        }
    }
    assert!(regions.iter().any(|(name, _)| name.contains("[heap]")), "{maps}");
    assert!(regions.iter().any(|(name, _)| name.contains("[stack]")), "{maps}");
    regions
}

/// Where in memory any of the pieces is, with what is around it.
fn found(sidecar: &Sidecar, pieces: &Pieces) -> Vec<String> {
    let mut found = Vec::new();
    for (name, content) in regions(sidecar) {
        for (at, window) in content.windows(PIECE).enumerate() {
            let plausible = window[0].is_ascii_graphic() && window[PIECE - 1].is_ascii_graphic();
            if plausible && pieces.contains(window) {
                let around = &content[at.saturating_sub(120)..(at + 60).min(content.len())];
                found.push(format!("{name} +{at:#x}: {}", String::from_utf8_lossy(around).escape_debug()));
            }
        }
    }
    found
}

fn tokens(issued: &Value, kind: &str) -> Vec<String> {
    let tokens = issued[kind].as_array().unwrap().iter();
    tokens.map(|token| token.as_str().unwrap().to_owned()).collect()
}

/// A request over a connection that stays open, as an administrator's or a worker's client would have it.
async fn over_a_connection_that_stays(
    socket: std::path::PathBuf,
    head: String,
    body: String,
) -> tokio::net::UnixStream {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let request = format!("{head} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // In pieces, for what comes later may be kept elsewhere.
    for piece in request.as_bytes().chunks(request.len() - body.len() / 2) {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    stream
}

#[tokio::test]
async fn no_refresh_token_is_in_memory_once_all_exchanges_are_over() {
    if !is_root() {
        return;
    }
    let world = World::start().await;
    world.configure("[log]", "[log]\nlevel = \"trace\"");
    let sidecar = world.connected().await;
    // Imports and requests over connections that are never closed.
    let mut open = Vec::new();
    for service in ["snowflake", "databricks"] {
        let head = format!("PUT /v1/grants/{service}/{BOB}");
        let body = json!({ "refresh_token": world.consent(service, BOB) }).to_string();
        open.push(over_a_connection_that_stays(sidecar.admin_socket(), head, body).await);
        let head = format!("GET /v1/token?service={service}&user={BOB}");
        open.push(over_a_connection_that_stays(sidecar.socket(), head, String::new()).await);
    }
    // A refresh token of somebody else's, which is kept sealed; one that the server refuses; and one that is nonsense.
    let theirs = world.consent("snowflake", ALICE);
    assert_eq!(sidecar.import("snowflake", BOB, &theirs).await.error().0, 409);
    // Many at once, so that their buffers are not each other's.
    let unknown: Vec<String> =
        (0..16).map(|n| format!("rt-sentinel-{n:02}{}", "Xq7ZkWv3Jt9LbNcRfDhG5s2Y")).collect();
    let imports = unknown.iter().map(|token| {
        let padding = " ".repeat(usize::from(token.as_bytes()[13] - b'0') * 3000);
        let body = format!("{padding}{}{padding}", json!({ "refresh_token": token }));
        over_a_connection_that_stays(
            sidecar.admin_socket(),
            format!("PUT /v1/grants/snowflake/{ALICE}"),
            body,
        )
    });
    open.extend(join_all(imports).await);
    let spoilt = json!({ "refresh_token": theirs, "more": 1 }).to_string();
    let target = format!("/v1/grants/snowflake/{ALICE}");
    assert_eq!(request(&sidecar.admin_socket(), "PUT", &target, &[], &spoilt).await.status, 400);
    for _ in 0..3 {
        sidecar.refresh("snowflake", ALICE, None).await;
        sidecar.token("snowflake", ALICE, Some("ANALYST")).await;
        assert_eq!(sidecar.refresh("databricks", ALICE, None).await.status, 200);
        assert_eq!(sidecar.refresh("snowflake", BOB, Some("ANALYST")).await.status, 200);
    }
    // In doubt, and asked about; refused; revoked.
    world.fault(json!({ "do": "cut_after", "next": 1 })).await;
    sidecar.refresh("databricks", ALICE, None).await;
    world.fault(json!({ "do": "rate_limit", "seconds": 1, "next": 1 })).await;
    sidecar.refresh("databricks", BOB, None).await;
    let revoked =
        request(&sidecar.admin_socket(), "DELETE", &format!("/v1/grants/databricks/{BOB}"), &[], "").await;
    assert!([200, 202].contains(&revoked.status), "{}", revoked.body);
    for target in ["/v1/grants", "/v1/status"] {
        assert_eq!(request(&sidecar.admin_socket(), "GET", target, &[], "").await.status, 200);
    }

    let issued = world.issued().await;
    let (refresh_tokens, access_tokens) =
        (tokens(&issued, "refresh_tokens"), tokens(&issued, "access_tokens"));
    assert!(refresh_tokens.len() > 10, "{}", refresh_tokens.len());
    let access_tokens = pieces(access_tokens.iter().map(String::as_str));
    assert!(
        !found(&sidecar, &access_tokens).is_empty(),
        "they are vended from memory; else nothing would be found at all"
    );
    let refresh_tokens = pieces(refresh_tokens.iter().chain(&unknown).map(String::as_str));
    let mut left = found(&sidecar, &refresh_tokens);
    // Another second for whatever still had to be answered when the requests were.
    for _ in 0..20 {
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        left = found(&sidecar, &refresh_tokens);
    }
    assert!(left.is_empty(), "{} places:\n{}", left.len(), left.join("\n"));
    drop(open);
    world.finish(sidecar).await;
}
