//! `bursar login`: the built program, and a browser of the test's own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::import::{bursar, text};
use crate::support::sidecar::PROGRAM;

/// The command while it waits.
struct Login {
    child: Child,
    said: String,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Login {
    fn start(sidecar: &Sidecar, arguments: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["login", "--service", "snowflake"])
            .args(arguments)
            .env("BURSAR_ADMIN_SOCKET", sidecar.admin_socket())
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, said: String::new(), stdout }
    }

    /// Reads on until a line that begins so, without blocking the server that lives in this process.
    async fn line(self, beginning: &'static str) -> (Self, String) {
        tokio::task::spawn_blocking(move || {
            let mut this = self;
            loop {
                let mut line = String::new();
                assert!(this.stdout.read_line(&mut line).unwrap() > 0, "{beginning}: {}", this.said);
                this.said.push_str(&line);
                if line.trim_start().starts_with(beginning) {
                    return (this, line.trim().to_owned());
                }
            }
        })
        .await
        .unwrap()
    }

    /// Its exit code, and what it said on both.
    async fn end(self) -> (Option<i32>, String) {
        tokio::task::spawn_blocking(move || {
            let mut this = self;
            this.stdout.read_to_string(&mut this.said).unwrap();
            this.child.stderr.take().unwrap().read_to_string(&mut this.said).unwrap();
            (this.child.wait().unwrap().code(), this.said)
        })
        .await
        .unwrap()
    }
}

async fn get(url: &str) -> Answer {
    http::send(&Tasks::new(), "GET", url, &[], "").await.unwrap()
}

/// The status line of an answer to a request with these hosts.
async fn raw(url: &str, hosts: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let url = url::Url::parse(url).unwrap();
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
    let target = &url[url::Position::BeforePath..];
    stream.write_all(format!("GET {target} HTTP/1.1\r\nhost: {hosts}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap().to_owned()
}

/// Signs in at that address; where the browser is sent then.
async fn location(url: &str, form: &[(&str, &str)]) -> String {
    let answer = post_form(url, form).await;
    assert_eq!(answer.status, 302, "{}", answer.body);
    answer.header("location").to_owned()
}

const SIGN_IN: [(&str, &str); 3] = [("username", ALICE), ("password", "password"), ("action", "login")];

#[tokio::test]
async fn a_browser_that_comes_back_connects_its_user() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    let login = Login::start(&sidecar, &["--port", "0", "--role", "ANALYST"]);
    let (login, url) = login.line("http").await;
    let back = location(&url, &SIGN_IN).await;
    let base = back.split("/callback/").next().unwrap().to_owned();
    // What is not the answer is sent away, and the login goes on waiting.
    let state = parameter(back.split_once('?').unwrap().1, "state");
    for wrong in [
        format!("{base}/favicon.ico"),
        format!("{base}/"),
        format!("{base}/callback/databricks?state={state}&code=x"),
        format!("{base}/callback/snowflake?code=x"),
        format!("{base}/callback/snowflake?code=x&state=<script>alert(1)</script>"),
        format!("{base}/callback/snowflake?code=x&state={state}&state={state}"),
    ] {
        let answer = get(&wrong).await;
        assert!([400, 404].contains(&answer.status), "{wrong}: {}", answer.status);
        assert!(!answer.body.contains("script"), "{wrong}: {}", answer.body);
    }
    assert_eq!(post_form(&back, &[]).await.status, 405);
    for hosts in ["evil.example", "localhost", "evil.example\r\nhost: 127.0.0.1"] {
        let status = raw(&back, hosts).await;
        assert!(status.starts_with("HTTP/1.1 404 "), "another name for this machine: {status}");
    }

    let answer = get(&back).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.body.contains("Connected") && answer.body.contains("close this window"),
        "{}",
        answer.body
    );
    assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    let (code, said) = login.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("connected: snowflake of alice@example.com (scopes "), "{said}");
    assert!(!said.contains("sentinel"), "{said}");
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_went_wrong_stands_in_the_browser_and_the_terminal_with_its_exit_code() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    let form = |user: &'static str| [("username", user), ("password", "password"), ("action", "login")];
    type Form<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Form<'_>, Option<Value>, i32, &str); 4] = [
        (&[("action", "cancel")], None, 75, "the user declined"),
        (&form("mallory@example.com"), None, 1, "Assignments"),
        (&SIGN_IN, Some(json!({ "do": "cut_before" })), 69, "begin again later"),
        (&SIGN_IN, Some(json!({ "do": "wrong_nonce" })), 1, "do not verify"),
    ];
    for (form, fault, expected, words) in cases {
        let login = Login::start(&sidecar, &["--port", "0"]);
        let (login, url) = login.line("http").await;
        let back = location(&url, form).await;
        if let Some(fault) = fault {
            world.fault(fault).await;
        }
        let answer = get(&back).await;
        assert!(answer.body.contains("Not connected"), "{}", answer.body);
        let (code, said) = login.end().await;
        assert_eq!(code, Some(expected), "{said}");
        assert!(said.contains(words), "{words}: {said}");
    }
    let usage = bursar(&sidecar, &["login", "--service", "nosuch", "--port", "0"], "").await;
    assert_eq!(usage.status.code(), Some(64), "{}", text(&usage.stderr));
    let both = bursar(&sidecar, &["login", "--service", "snowflake", "--device", "--port", "1"], "").await;
    assert_eq!(both.status.code(), Some(64));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let busy = bursar(&sidecar, &["login", "--service", "snowflake", "--port", &port], "").await;
    assert_eq!(busy.status.code(), Some(69), "{}", text(&busy.stderr));
    assert!(text(&busy.stderr).contains("--port"));
    let nobody = ["login", "--service", "snowflake", "--device", "--admin-socket", "/no/such/socket"];
    assert_eq!(bursar(&sidecar, &nobody, "").await.status.code(), Some(69));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_code_is_shown_plainly_and_connects_who_types_it() {
    let world = World::warm().await;
    world.settings(json!({ "device_interval": 1 })).await;
    let sidecar = world.sidecar().await;
    for (action, expected, words) in [
        ("deny", 75, "the user declined"),
        ("approve", 0, "connected: snowflake of alice@example.com (scopes "),
    ] {
        let login = Login::start(&sidecar, &["--device"]);
        let (login, uri) = login.line("http").await;
        let (login, _) = login.line("in a browser").await;
        let (login, complete) = login.line("http").await;
        let code = parameter(complete.split_once('?').unwrap().1, "user_code");
        assert!(login.said.contains(&format!("\n\n        {code}\n\n")), "{}", login.said);
        let (login, _) = login.line("that you did not ask for").await;
        assert!(login.said.contains("Enter it only if you yourself"), "{}", login.said);
        device::decide(&uri, &code, ALICE, action).await;
        let (exit, said) = login.end().await;
        assert_eq!(exit, Some(expected), "{said}");
        assert!(said.contains(words) && !said.contains("waiting"), "{said}");
    }
    world.finish(sidecar).await;
}
