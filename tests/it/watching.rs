//! `bursar status --watch`, as somebody sees it who does not look by a terminal.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::support::World;
use crate::support::sidecar::{PROGRAM, Sidecar};

struct Watch {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Watch {
    fn start(sidecar: &Sidecar, further: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["status", "--watch", "--interval", "500ms", "--admin-socket"])
            .arg(sidecar.admin_socket())
            .args(further)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel(1);
        // Reads no further once nobody wants to hear, and closes its end then.
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).all(|line| tell.blocking_send(line).is_ok())
        });
        Self { stdin: child.stdin.take().unwrap(), child, lines }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(Duration::from_secs(30), self.lines.recv()).await;
        line.expect("it goes on").expect("it goes on")
    }

    async fn until(&mut self, what: &str) -> String {
        loop {
            let line = self.line().await;
            if line.starts_with(what) {
                return line;
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// How it ends by itself.
    async fn code(mut self) -> Option<i32> {
        let reading = async { while self.lines.recv().await.is_some() {} };
        let ended = tokio::time::timeout(Duration::from_secs(30), reading).await;
        if ended.is_err() {
            self.child.kill().unwrap();
            panic!("it does not end");
        }
        self.child.wait().unwrap().code()
    }

    /// How it ends when nobody reads any more.
    async fn code_unread(mut self) -> Option<i32> {
        drop(self.lines);
        for _ in 0..3000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.child.kill().unwrap();
        panic!("it does not end");
    }
}

#[tokio::test]
async fn snapshots_come_without_any_control_character_and_what_a_pipe_says_is_not_for_us() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let mut watch = Watch::start(&sidecar, &[]);
    let mut said = vec![watch.until("bursar 0.").await];
    loop {
        let line = watch.line().await;
        if line.starts_with("bursar 0.") {
            break;
        }
        said.push(line);
    }
    assert_eq!(said.pop().as_deref(), Some(""), "between two of them");
    assert!(said.contains(&"databricks       1".to_owned()), "{said:?}");
    assert!(said.iter().all(|line| !line.contains(char::is_control)), "{said:?}");
    watch.stdin.write_all(b"what\nq\n").unwrap();
    for _ in 0..3 {
        watch.until("bursar 0.").await;
    }
    kill(watch.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(watch.code().await, Some(0));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_sidecar_that_is_not_there_meanwhile_is_said_and_watched_again() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    let mut text = Watch::start(&sidecar, &[]);
    let mut json = Watch::start(&sidecar, &["--json"]);
    text.until("bursar 0.").await;
    let first: Value = serde_json::from_str(&json.line().await).unwrap();
    assert_eq!(first["grants"]["snowflake"]["active"], 1, "{first}");
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
    let gone = text.until("NOT REACHABLE").await;
    assert!(gone.starts_with("NOT REACHABLE since 20"), "{gone}");
    text.until("bursar 0.").await;
    let since = loop {
        let line: Value = serde_json::from_str(&json.line().await).unwrap();
        if line["reachable"] == false {
            break line["since"].clone();
        }
    };
    let again: Value = serde_json::from_str(&json.line().await).unwrap();
    assert_eq!(again["since"], since, "since when, not how long");
    let sidecar = world.sidecar().await;
    loop {
        let line: Value = serde_json::from_str(&json.line().await).unwrap();
        if line["ready"] == true {
            break;
        }
    }
    kill(text.pid(), Signal::SIGINT).unwrap();
    assert_eq!(text.code().await, Some(0), "Ctrl-C");
    assert_eq!(json.code_unread().await, Some(0), "nobody reads it");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_never_answered_is_no_sidecar_to_wait_for() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    let path = world.path().join("nosuch.sock");
    let output = Command::new(PROGRAM)
        .args(["status", "--watch", "--admin-socket"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("nosuch.sock: ") && said.contains("is the sidecar running?"), "{said}");
    world.finish(sidecar).await;
}
