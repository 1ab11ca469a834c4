//! The real program as a process, and a client that distrusts each of its answers.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_bursar");

pub(crate) struct Sidecar {
    child: Child,
    directory: PathBuf,
    log: PathBuf,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Status and stable code of an error.
    pub(crate) fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn token(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()["access_token"].as_str().unwrap().to_owned()
    }
}

impl Sidecar {
    /// Starts `serve` and waits until its socket answers.
    pub(crate) async fn start(directory: &Path) -> Self {
        Self::spawn(directory).ready().await
    }

    /// Waits until its socket answers.
    pub(crate) async fn ready(mut self) -> Self {
        let sidecar = &mut self;
        for _ in 0..2000 {
            if sidecar.read_log().contains(" ready ") {
                return self;
            }
            if let Some(status) = sidecar.child.try_wait().unwrap() {
                panic!("{status}: {}", sidecar.read_log());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not ready: {}", sidecar.read_log());
    }

    pub(crate) fn spawn(directory: &Path) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]).arg(directory.join("bursar.toml")).stdin(Stdio::null());
        Self::spawn_as(&mut command, directory)
    }

    /// One that kills itself when it gets to a step (`src/fail_point.rs`).
    pub(crate) fn spawn_to_die_at(directory: &Path, fail_point: &str) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]).arg(directory.join("bursar.toml")).stdin(Stdio::null());
        Self::spawn_as(command.env("BURSAR_FAIL_POINT", fail_point), directory)
    }

    /// By a command of the test's own.
    pub(crate) fn spawn_as(command: &mut Command, directory: &Path) -> Self {
        let log = tempfile::Builder::new().prefix("log-").tempfile_in(directory).unwrap();
        let (file, log) = log.keep().unwrap();
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Self { child, directory: directory.to_owned(), log }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("bursar.sock")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    pub(crate) fn read_log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        request(&self.socket(), "GET", target, &[], "").await
    }

    pub(crate) async fn token(&self, service: &str, user: &str, role: Option<&str>) -> Reply {
        let role = role.map(|role| format!("&role={role}")).unwrap_or_default();
        self.get(&format!("/v1/token?service={service}&user={user}{role}")).await
    }

    pub(crate) async fn import(&self, service: &str, user: &str, refresh_token: &str) -> Reply {
        let body = json!({ "refresh_token": refresh_token }).to_string();
        request(&self.admin_socket(), "PUT", &format!("/v1/grants/{service}/{user}"), &[], &body).await
    }

    pub(crate) async fn refresh(&self, service: &str, user: &str, role: Option<&str>) -> Reply {
        let role = role.map(|role| format!("?role={role}")).unwrap_or_default();
        let target = format!("/v1/grants/{service}/{user}/refresh{role}");
        request(&self.admin_socket(), "POST", &target, &[], "").await
    }

    /// The grant as `GET /v1/grants` shows it.
    pub(crate) async fn grant(&self, service: &str, user: &str) -> Value {
        let target = format!("/v1/grants?service={service}&user={user}");
        request(&self.admin_socket(), "GET", &target, &[], "").await.json()["grants"][0].clone()
    }

    pub(crate) async fn observe(&self, path: &str) -> (u16, String) {
        let log = self.read_log();
        let address =
            log.split("metrics=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("in the log");
        let url = format!("http://{address}{path}");
        let answer = super::http::send(&bursar::tasks::Tasks::new(), "GET", &url, &[], "").await.unwrap();
        (answer.status, answer.body)
    }

    pub(crate) async fn metrics(&self) -> String {
        let (status, body) = self.observe("/metrics").await;
        assert_eq!(status, 200);
        body
    }

    /// The sum of a counter's samples whose labels contain all of `labels`.
    pub(crate) async fn counter(&self, name: &str, labels: &[&str]) -> f64 {
        let metrics = self.metrics().await;
        let samples = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let wanted = samples.filter(|line| labels.iter().all(|label| line.contains(label)));
        wanted.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// SIGKILL, in whatever it was doing.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A file of `/proc/PID`, as bytes; empty where we may not read it.
    pub(crate) fn proc(&self, name: &str) -> Vec<u8> {
        std::fs::read(format!("/proc/{}/{name}", self.pid())).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// SIGTERM; how it ended, and its log.
    pub(crate) async fn stop(self) -> (ExitStatus, String) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.ended().await
    }

    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        for _ in 0..6000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.read_log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.child.kill().unwrap();
        panic!("does not end: {}", self.read_log());
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the sidecar's log:\n{}", self.read_log());
        }
    }
}

/// Whether a process was ended by this signal.
pub(crate) fn ended_by(status: ExitStatus, signal: nix::sys::signal::Signal) -> bool {
    status.signal() == Some(signal as i32)
}

/// One request over a connection of its own; what holds for all answers is checked here.
pub(crate) async fn request(
    socket: &Path,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = hyper::Request::builder().method(method).uri(target).header("host", "bursar");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    drop(sender);
    let _closed = connection.await;
    let reply = Reply { status: head.status.as_u16(), headers: head.headers, body };
    distrust(&reply, target);
    reply
}

fn distrust(reply: &Reply, target: &str) {
    const ALLOWED: [&str; 10] = [
        "content-type",
        "content-length",
        "cache-control",
        "x-request-id",
        "date",
        "vary",
        "retry-after",
        "allow",
        "connection",
        "www-authenticate",
    ];
    for name in reply.headers.keys() {
        assert!(ALLOWED.contains(&name.as_str()), "{target}: header {name}");
    }
    assert_eq!(reply.headers["cache-control"], "no-store", "{target}");
    let id = reply.headers["x-request-id"].to_str().unwrap();
    if reply.status >= 400 {
        assert_eq!(reply.headers["content-type"], "application/problem+json", "{target}");
        let problem = reply.json();
        assert_eq!(problem["status"], reply.status, "{target}");
        assert_eq!(problem["request_id"], id, "{target}");
        assert!(problem["error"].is_string() && problem["title"].is_string(), "{target}: {problem}");
        for secret in ["sentinel", "eyJ"] {
            assert!(!reply.body.contains(secret), "{target}: {secret} in {}", reply.body);
        }
    }
}
