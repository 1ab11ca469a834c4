//! Refresh tokens from elsewhere, by the command and by the admin socket.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::sidecar::{PROGRAM, Sidecar, request};
use crate::support::{ALICE, BOB, World};

/// Runs the program beside the sidecar, without blocking the server that lives in this process.
pub(crate) async fn bursar(sidecar: &Sidecar, arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .env("BURSAR_SOCKET", sidecar.socket())
        .env("BURSAR_ADMIN_SOCKET", sidecar.admin_socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn the_commands_do_what_they_say_with_their_exit_codes() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    let alice = ["--service", "snowflake", "--user", ALICE];
    let with = |head: &[&'static str], tail: &[&'static str]| [head, &alice, tail].concat();

    let none = bursar(&sidecar, &with(&["token"], &[]), "").await;
    assert_eq!(none.status.code(), Some(75), "{}", text(&none.stderr));
    assert!(text(&none.stderr).contains("never_connected") && none.stdout.is_empty());

    let refresh_token = world.consent("snowflake", ALICE);
    let import = with(&["grant", "import"], &["--refresh-token-file", "-"]);
    let imported = bursar(&sidecar, &import, &format!("{refresh_token}\n")).await;
    assert_eq!(imported.status.code(), Some(0), "{}", text(&imported.stderr));

    let token = bursar(&sidecar, &with(&["token"], &["--role", "ANALYST"]), "").await;
    assert_eq!((token.status.code(), text(&token.stdout).split('.').count()), (Some(0), 3));
    assert!(!text(&token.stdout).ends_with('\n'), "drivers send a newline along");
    let json = bursar(&sidecar, &with(&["token"], &["--format", "json"]), "").await;
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).unwrap()["user"], ALICE);

    let listed = bursar(&sidecar, &["grant", "list"], "").await;
    assert!(text(&listed.stdout).contains(ALICE) && text(&listed.stdout).contains("active"));
    let shown = bursar(&sidecar, &with(&["grant", "show"], &[]), "").await;
    assert!(text(&shown.stdout).contains("rotating"), "{}", text(&shown.stdout));
    let refreshed = bursar(&sidecar, &with(&["grant", "refresh"], &[]), "").await;
    assert_eq!(refreshed.status.code(), Some(0), "{}", text(&refreshed.stderr));

    let role = bursar(&sidecar, &with(&["token"], &["--role", "NOSUCH"]), "").await;
    assert_eq!(role.status.code(), Some(64));
    let usage = bursar(&sidecar, &["token", "--service", "snowflake"], "").await;
    assert_eq!(usage.status.code(), Some(64));
    let gone = bursar(&sidecar, &with(&["token"], &["--socket", "/no/such/socket"]), "").await;
    assert_eq!(gone.status.code(), Some(69));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn another_users_token_is_kept_and_the_answer_names_the_user_and_the_command() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    let file = world.path().join("token");
    std::fs::write(&file, world.consent("snowflake", BOB)).unwrap();
    let file = file.to_str().unwrap();
    let import = |user| {
        let sidecar = &sidecar;
        async move {
            let arguments =
                ["grant", "import", "--service", "snowflake", "--user", user, "--refresh-token-file", file];
            bursar(sidecar, &arguments, "").await
        }
    };
    let wrong = import(ALICE).await;
    let said = text(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(1), "{said}");
    assert!(said.contains("user_mismatch") && said.contains(&format!("--user {BOB}")), "{said}");
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.status, 409);
    assert_eq!(sidecar.token("snowflake", BOB, None).await.status, 409);
    let right = import(BOB).await;
    assert_eq!(right.status.code(), Some(0), "{}", text(&right.stderr));
    sidecar.token("snowflake", BOB, None).await.token();
    assert_eq!(world.token_requests().await, 1, "the old token was not presented again");
    world.assert_nothing_was_lost().await;
    std::fs::remove_file(file).unwrap();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_worthless_token_leaves_the_grant_as_it_was() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let before = sidecar.token("snowflake", ALICE, None).await.token();
    let reply = sidecar.import("snowflake", ALICE, "worthless").await;
    assert_eq!(reply.error(), (409, "login_required".to_owned()));
    assert_eq!(sidecar.token("snowflake", ALICE, None).await.token(), before);
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_new_import_replaces_the_grant_and_its_tokens() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let roles = [None, Some("ANALYST")];
    let mut before = Vec::new();
    for role in roles {
        before.push(sidecar.token("snowflake", ALICE, role).await.token());
    }
    world.connect(&sidecar, ALICE).await;
    for (role, before) in roles.into_iter().zip(before) {
        assert_ne!(sidecar.token("snowflake", ALICE, role).await.token(), before);
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn an_import_killed_in_the_middle_is_taken_up_by_the_same_import() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    let refresh_token = world.consent("snowflake", ALICE);
    world.fault(json!({ "do": "hang_after" })).await;
    let import = sidecar.import("snowflake", ALICE, &refresh_token);
    let _hangs = tokio::time::timeout(std::time::Duration::from_millis(500), import).await;
    sidecar.kill();
    let sidecar = world.sidecar().await;
    let again = sidecar.import("snowflake", ALICE, &refresh_token).await;
    assert_eq!(again.status, 201, "{}", again.body);
    sidecar.token("snowflake", ALICE, None).await.token();
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn malformed_admin_requests_are_told_what_is_wrong() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    let path = format!("/v1/grants/snowflake/{ALICE}");
    let admin = sidecar.admin_socket();
    let long = format!("{{\"refresh_token\":\"{}\"}}", "a".repeat(70_000));
    for (method, target, body, expected) in [
        ("PUT", path.as_str(), "", (400, "invalid_request")),
        ("PUT", &path, "{\"refresh_token\":\"\"}", (400, "invalid_request")),
        ("PUT", &path, "{\"refresh_token\":\"a b\"}", (400, "invalid_request")),
        ("PUT", &path, "{\"refresh_token\":\"sentinel-x\",\"more\":1}", (400, "invalid_request")),
        ("PUT", &path, &long, (413, "too_large")),
        ("PUT", "/v1/grants/nosuch/alice", "{\"refresh_token\":\"a\"}", (404, "unknown_service")),
        ("POST", "/v1/grants/snowflake/nobody/refresh", "", (409, "login_required")),
        ("POST", "/v1/grants/snowflake/nobody/refresh?role=NOSUCH", "", (400, "invalid_request")),
        ("GET", "/v1/grants?cursor=x", "", (400, "invalid_request")),
        ("GET", "/v1/grants?limit=0", "", (400, "invalid_request")),
        ("GET", "/v1/grants?state=bogus", "", (400, "invalid_request")),
        ("DELETE", "/v1/grants", "", (405, "invalid_request")),
        ("GET", "/", "", (404, "not_found")),
    ] {
        let reply = request(&admin, method, target, &[], body).await;
        assert_eq!(reply.error(), (expected.0, expected.1.to_owned()), "{method} {target}: {}", reply.body);
    }
    world.finish(sidecar).await;
}

#[tokio::test]
async fn grants_are_listed_page_by_page() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    world.connect(&sidecar, BOB).await;
    let mut seen = Vec::new();
    let mut target = "/v1/grants?limit=1".to_owned();
    loop {
        let page = request(&sidecar.admin_socket(), "GET", &target, &[], "").await.json();
        let grants = page["grants"].as_array().unwrap();
        assert_eq!(grants.len(), 1);
        seen.push(format!("{} {}", grants[0]["service"], grants[0]["user"]));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        target = format!("/v1/grants?limit=1&cursor={cursor}");
    }
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((seen.len(), &seen), (4, &sorted));
    let revoked = request(&sidecar.admin_socket(), "GET", "/v1/grants?state=revoked", &[], "").await.json();
    assert_eq!(revoked["grants"], json!([]));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn importing_the_same_token_again_presents_nothing_and_ends_nothing() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    let refresh_token = world.consent("snowflake", ALICE);
    let twice = [0, 1].map(|_| sidecar.import("snowflake", ALICE, &refresh_token));
    for reply in crate::vending::join_all(twice).await {
        assert_eq!(reply.status, 201, "{}", reply.body);
    }
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 200);
    assert_eq!(sidecar.import("snowflake", ALICE, &refresh_token).await.status, 201);
    assert_eq!(
        sidecar.import("snowflake", BOB, &refresh_token).await.error(),
        (409, "user_mismatch".to_owned())
    );
    assert_eq!(world.token_requests().await, 2);
    assert_eq!(world.stats().await["presented_twice"], 0);
    world.fault(json!({ "do": "revoke_user", "user": ALICE })).await;
    assert_eq!(sidecar.refresh("snowflake", ALICE, None).await.status, 409);
    let ended = sidecar.import("snowflake", ALICE, &refresh_token).await;
    assert_eq!(ended.error(), (409, "login_required".to_owned()), "used up, and its grant is over");
    assert_eq!(world.token_requests().await, 3);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn many_imports_at_once_do_not_hold_up_another_user() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let tokens: Vec<String> = (0..40).map(|_| world.consent("snowflake", BOB)).collect();
    let imports =
        crate::vending::join_all(tokens.iter().map(|token| sidecar.import("snowflake", BOB, token)));
    let started = std::time::Instant::now();
    let worker = async {
        sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
        started.elapsed()
    };
    let (imports, waited) = tokio::join!(imports, worker);
    let all = started.elapsed();
    assert!(imports.iter().all(|reply| reply.status == 201));
    assert!(waited < all, "{waited:?} of {all:?}");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_token_imported_under_a_mistaken_configuration_can_be_imported_when_it_is_put_right() {
    let world = World::start().await;
    world.configure("client_id          = \"0oadevbursar\"", "client_id          = \"0oatypo\"");
    let sidecar = world.sidecar().await;
    let refresh_token = world.consent("snowflake", ALICE);
    let reply = sidecar.import("snowflake", ALICE, &refresh_token).await;
    assert_eq!(reply.error(), (502, "authorization_server_refused".to_owned()), "{}", reply.body);
    assert_eq!(reply.json()["authorization_server_error"], "invalid_client");
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    world.configure("0oatypo", "0oadevbursar");
    let sidecar = world.sidecar().await;
    let reply = sidecar.import("snowflake", ALICE, &refresh_token).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    world.finish(sidecar).await;
}
