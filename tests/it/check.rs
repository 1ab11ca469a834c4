//! `bursar check` finds each mistake in a set-up, and its line says what to do and where. Each wrong set-up is a small change
//! to a good one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bursar::check::{self, Ports, Step, Verdict, Wanted};
use bursar::clock::{Clock, SystemClock};
use bursar::entropy::SystemEntropy;
use bursar::model::{ServiceName, UserName};
use bursar::settings::Settings;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::support::sidecar::{PROGRAM, request};
use crate::support::{ALICE, World};

mod generic;
mod machine;
mod server;
mod token;

/// As `bursar check` asks the sidecar.
struct BySocket;

#[async_trait]
impl check::Sidecar for BySocket {
    async fn ask(&self, socket: &Path, method: Method, target: &str) -> Result<(StatusCode, Value), String> {
        UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let reply = request(socket, method.as_str(), target, &[], "").await;
        Ok((StatusCode::from_u16(reply.status).unwrap(), reply.json()))
    }
}

/// A set-up in which nothing has to be mended, without a sidecar.
async fn good() -> World {
    let world = World::start().await;
    world.configure(
        "[log]",
        "[connect]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://bursar.example.com\"\n\n[log]",
    );
    let callbacks =
        ["snowflake", "databricks"].map(|name| format!("https://bursar.example.com/callback/{name}"));
    world.settings(json!({ "redirect_uris": callbacks })).await;
    world
}

async fn steps_by(world: &World, clock: Arc<dyn Clock>, user: Option<&str>) -> Vec<Step> {
    let path = world.path().join("bursar.toml");
    let (settings, lacking) = match Settings::load_anywhere(&path) {
        Ok(loaded) => loaded,
        Err(problems) => return check::unread(&path, &problems),
    };
    let ports =
        Ports { clock, entropy: Arc::new(SystemEntropy), sidecar: Arc::new(BySocket), pace: Duration::ZERO };
    let wanted = Wanted { user: user.and_then(UserName::parse), service: ServiceName::parse("snowflake") };
    check::run(settings, &lacking, &wanted, &ports).await
}

async fn steps(world: &World, user: Option<&str>) -> Vec<Step> {
    steps_by(world, Arc::new(SystemClock::new(0)), user).await
}

/// What a wrong set-up is, and what must be found.
struct Wrong {
    name: &'static str,
    edits: Vec<(&'static str, &'static str)>,
    faults: Vec<Value>,
    settings: Option<Value>,
    step: &'static str,
    verdict: Verdict,
    words: &'static [&'static str],
    also: &'static [&'static str],
}

/// `step` must be wrong, with all of `words` in its line, and nothing else may be.
fn wrong(name: &'static str, step: &'static str, words: &'static [&'static str]) -> Wrong {
    let (edits, faults, settings, verdict) = (Vec::new(), Vec::new(), None, Verdict::Bad);
    Wrong { name, edits, faults, settings, step, verdict, words, also: &[] }
}

impl Wrong {
    fn edit(mut self, from: &'static str, to: &'static str) -> Self {
        self.edits.push((from, to));
        self
    }

    /// For as long as the check asks.
    fn fault(mut self, mut fault: Value) -> Self {
        fault["next"] = json!(1000);
        self.faults.push(fault);
        self
    }

    fn settings(self, settings: Value) -> Self {
        Self { settings: Some(settings), ..self }
    }

    fn only(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    async fn set_up(&self, world: &World) {
        for (from, to) in &self.edits {
            world.configure(from, to);
        }
        for fault in &self.faults {
            world.fault(fault.clone()).await;
        }
        if let Some(settings) = &self.settings {
            world.settings(settings.clone()).await;
        }
    }

    fn assert_found(&self, steps: &[Step]) {
        let name = self.name;
        let found = steps.iter().find(|step| {
            let line =
                format!("{} {} {}", step.subject, step.message, step.remedy.as_deref().unwrap_or_default());
            step.step == self.step
                && step.verdict == self.verdict
                && self.words.iter().all(|word| line.contains(word))
        });
        assert!(found.is_some(), "{name}: {} with {:?} in {steps:#?}", self.step, self.words);
        for step in steps {
            if step.verdict == Verdict::Bad {
                assert!(step.remedy.is_some(), "{name}: {step:?}");
                assert!(step.step == self.step || self.also.contains(&step.step), "{name}: also {step:?}");
            }
            let said = format!("{step:?}");
            assert!(!said.contains("sentinel") && !said.contains("eyJ"), "{name}: a secret in {said}");
        }
    }
}

/// Each in a world of its own, without a sidecar.
async fn assert_each_is_found(wrong: Vec<Wrong>) {
    for wrong in wrong {
        let world = good().await;
        wrong.set_up(&world).await;
        wrong.assert_found(&steps(&world, None).await);
    }
}

/// The program itself: its exit code and what it says.
async fn run(world: &World, arguments: &'static [&'static str]) -> (Option<i32>, String) {
    let path = world.path().join("bursar.toml");
    let run = move || {
        let mut command = std::process::Command::new(PROGRAM);
        let output = command.args(["check", "--config"]).arg(path).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn a_good_set_up_has_nothing_to_mend() {
    let world = good().await;
    let sidecar = world.connected().await;
    for user in [None, Some(ALICE)] {
        let steps = steps(&world, user).await;
        let doubtful = |step: &&Step| matches!(step.verdict, Verdict::Bad | Verdict::Doubtful);
        let found: Vec<_> = steps.iter().filter(doubtful).collect();
        assert!(found.is_empty(), "{found:#?}");
        let is_good =
            |name: &str| steps.iter().any(|step| step.step == name && step.verdict == Verdict::Good);
        // Where requests leave from is for a person to compare.
        for name in check::STEPS.iter().filter(|name| !["address", "refresh", "token"].contains(name)) {
            assert!(is_good(name), "{name}");
        }
        assert!(steps.iter().all(|step| check::STEPS.contains(&step.step)), "{steps:#?}");
        assert_eq!((is_good("refresh"), is_good("token")), (user.is_some(), user.is_some()));
    }
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[test]
fn the_document_has_a_row_for_each_step() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/check.md")).unwrap();
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), check::STEPS);
}

#[tokio::test]
async fn the_check_presents_no_refresh_token_and_asks_each_server_a_handful_of_times() {
    let world = good().await;
    let sidecar = world.connected().await;
    steps(&world, None).await;
    let stats = world.stats().await;
    let presented = stats["refresh_tokens"].as_object().unwrap();
    assert_eq!(presented.len(), 1, "only what was never issued: {stats:#}");
    for (endpoint, most) in [("discovery", 2), ("keys", 1), ("token", 3), ("authorize", 2)] {
        let asked = stats["requests"][endpoint].as_u64().unwrap_or(0);
        assert!((1..=most).contains(&asked), "{endpoint}: {stats:#}");
    }
    assert_eq!(sidecar.grant("snowflake", ALICE).await["state"], "active");
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_wrong_secret_is_presented_once() {
    let world = good().await;
    world.spoil_secret();
    steps(&world, None).await;
    assert_eq!(world.token_requests().await, 1);
}

#[tokio::test]
async fn a_sidecar_that_works_with_another_configuration_is_told() {
    let world = good().await;
    let sidecar = world.connected().await;
    world.configure("0oadevbursar", "0oanew");
    let found = steps(&world, None).await;
    wrong("not reloaded", "configuration", &["the running sidecar", "systemctl reload bursar"])
        .only(Verdict::Doubtful)
        .also(&["client", "redirect_uri"])
        .assert_found(&found);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn the_command_says_it_in_lines_and_for_machines() {
    let world = good().await;
    let (code, said) = run(&world, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("✓ client        authorization_servers.snowflake: "), "{said}");
    assert!(said.ends_with("\nnothing to mend\n") && !said.contains('\x1b'), "{said}");

    world.spoil_secret();
    let (code, said) = run(&world, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("✗ client        authorization_servers.snowflake: refused: invalid_client: "),
        "{said}"
    );
    assert!(said.contains("\n    → put the client secret that is active in Okta, Applications > "), "{said}");
    assert!(said.contains("\n2 to mend (✗)"), "both servers: {said}");

    let (code, said) = run(&world, &["--json", "--service", "databricks"]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["ok"]), (Some(1), &json!(false)));
    let steps = said["steps"].as_array().unwrap();
    let client = steps.iter().find(|step| step["step"] == "client").unwrap();
    assert_eq!(client["subject"], "authorization_servers.databricks");
    assert_eq!(client["ok"], false);
    assert!(client["message"].is_string() && client["remedy"].is_string(), "{client}");
    assert!(steps.iter().any(|step| step["ok"].is_null() && step["step"] == "grant_type"), "{said:#}");
    assert!(
        !said.to_string().contains("authorization_servers.snowflake"),
        "only what was asked for: {said:#}"
    );

    world.configure("[log]", "[lug]");
    world.configure("kind     = \"snowflake\"", "kind     = \"snow\"");
    let (code, said) = run(&world, &["--json"]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["ok"]), (Some(64), &json!(false)));
    let problems = said["steps"].as_array().unwrap();
    assert!(problems.len() >= 2, "every problem: {said:#}");
    for problem in problems {
        assert_eq!((&problem["step"], &problem["ok"]), (&json!("configuration"), &json!(false)));
        assert!(problem["remedy"].as_str().unwrap().contains("bursar.toml, line "), "{problem}");
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_a_mistake_on_the_command_line() {
    let world = good().await;
    assert_eq!(run(&world, &["--service", "nosuch"]).await.0, Some(64));
}
