//! `bursar check`

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::check::{self, Ports, Sidecar, Step, Verdict, Wanted};
use crate::cli::arguments::CheckArgs;
use crate::cli::{Exit, client, terminal};
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::model::{ServiceName, UserName};
use crate::settings::Settings;

/// Okta lets a user have four tokens in a second, whatever they are for, and workers want some too.
const PACE: Duration = Duration::from_millis(500);

/// The one that listens on the configured admin socket.
struct Running;

#[async_trait]
impl Sidecar for Running {
    async fn ask(&self, socket: &Path, method: Method, target: &str) -> Result<(StatusCode, Value), String> {
        client::send(socket, method, target, None).await
    }
}

pub(super) async fn check(args: CheckArgs) -> Exit {
    let path = &args.file.config;
    let (settings, lacking) = match Settings::load_anywhere(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            tell(&check::unread(path, &problems), args.json);
            return Exit::Usage;
        }
    };
    let service = args.service.as_deref().map(ServiceName::parse);
    let known = service
        .as_ref()
        .is_none_or(|service| settings.services.iter().any(|known| Some(&known.name) == service.as_ref()));
    let user = args.user.as_deref().map(UserName::parse);
    if !known || user == Some(None) {
        let names: Vec<&str> = settings.services.iter().map(|service| service.name.as_str()).collect();
        let wrong = if known {
            "--user is no user's name".to_owned()
        } else {
            format!("--service: one of {}", names.join(", "))
        };
        terminal::err(&format!("bursar: {wrong}"));
        return Exit::Usage;
    }
    let ports = Ports {
        clock: Arc::new(SystemClock::new(0)),
        entropy: Arc::new(SystemEntropy),
        sidecar: Arc::new(Running),
        pace: PACE,
    };
    let wanted = Wanted { user: user.flatten(), service: service.flatten() };
    let steps = check::run(settings, &lacking, &wanted, &ports).await;
    tell(&steps, args.json);
    if check::is_fine(&steps) { Exit::Done } else { Exit::Failed }
}

fn tell(steps: &[Step], as_json: bool) {
    if as_json {
        terminal::out(&format!("{}\n", json!({ "ok": check::is_fine(steps), "steps": steps })));
        return;
    }
    for step in steps {
        terminal::out(&line(step));
    }
    let count = |verdict| steps.iter().filter(|step| step.verdict == verdict).count();
    let (bad, doubtful) = (count(Verdict::Bad), count(Verdict::Doubtful));
    let doubts = if doubtful > 0 { format!(", {doubtful} to think about (!)") } else { String::new() };
    terminal::out(&if bad > 0 {
        format!("\n{bad} to mend (✗){doubts}\n")
    } else {
        format!("\nnothing to mend{doubts}\n")
    });
}

fn line(step: &Step) -> String {
    let subject = if step.subject.is_empty() { String::new() } else { format!("{}: ", step.subject) };
    let remedy = step.remedy.as_ref().map(|remedy| format!("    → {remedy}\n")).unwrap_or_default();
    format!("{} {:13} {subject}{}\n{remedy}", step.verdict.mark(), step.step, step.message)
}
