//! Is everything set up? Looks at each step of the set-up, and says what to do, and where, about each that is not right.
//!
//! ```text
//! files, socket, store, callers        what is on this machine
//! discovery → keys, clock              what the authorization server shows to everybody
//!   client → grant_type                what its token endpoint says to requests that can't succeed
//!   redirect_uri → scopes              what its authorization endpoint says to a request that needs nobody
//! service                              what the service would not take, by the configuration alone
//! refresh → token                      one real refresh, by the running sidecar: nobody else presents a refresh token
//! budget, address
//! ```
//!
//! Nothing here changes a grant, and each server gets a handful of requests, each once: the judgements are pure functions
//! of what was found, and what asks is as thin as it can be.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::model::{Service, ServiceName, UserName};
use crate::settings::{Problem, Settings};

/// The address that a server sees us from.
mod address;
/// Asks one authorization server.
mod asking;
/// What an authorization request that needs nobody tells.
mod authorization;
/// Is `requests_per_minute` enough?
mod budget;
/// Can somebody be whom a rule is for?
mod callers;
/// What the token endpoint tells of the client and its grant types.
mod client;
/// The metadata document, the keys, and the clock.
mod documents;
/// The files with secrets.
mod files;
/// The server's word for what is wrong, and where that is mended.
mod refusal;
/// One authorization server, step by step.
mod server;
/// What a service wants of its tokens.
mod service;
/// The sockets.
mod sockets;
mod step;
/// The store, or the sidecar that has it.
mod store;
/// One real refresh, by the running sidecar.
mod token;
/// Tokens that nobody here verifies.
mod unverified;

pub use step::{Step, Verdict};

/// Of whom a real refresh is made, and what is looked at.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The user whose tokens are refreshed, if anybody's.
    pub user: Option<UserName>,
    /// The one service that is looked at, if not all.
    pub service: Option<ServiceName>,
}

/// The running sidecar, by its admin socket.
#[async_trait]
pub trait Sidecar: Send + Sync {
    /// Its answer, whatever it is.
    ///
    /// # Errors
    /// If there is none, and why.
    async fn ask(&self, socket: &Path, method: Method, target: &str) -> Result<(StatusCode, Value), String>;
}

/// What is needed of the world.
#[derive(Clone)]
pub struct Ports {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For assertions and states.
    pub entropy: Arc<dyn Entropy>,
    /// Who has the store while it runs.
    pub sidecar: Arc<dyn Sidecar>,
    /// What is left between two refreshes of one user, so that no server has to refuse one.
    pub pace: Duration,
}

/// Every step, by its word in lines and for machines, as in docs/check.md.
pub const STEPS: [&str; 18] = [
    "configuration",
    "files",
    "socket",
    "store",
    "callers",
    "discovery",
    "clock",
    "keys",
    "client",
    "grant_type",
    "redirect_uri",
    "scopes",
    "leeway",
    "address",
    "service",
    "refresh",
    "token",
    "budget",
];

/// Whether nothing has to be mended.
#[must_use]
pub fn is_fine(steps: &[Step]) -> bool {
    steps.iter().all(|step| step.verdict != Verdict::Bad)
}

/// What is said where the configuration does not read: each problem is a step that is not right.
#[must_use]
pub fn unread(path: &Path, problems: &[Problem]) -> Vec<Step> {
    let step = |problem: &Problem| {
        let place = if problem.line > 0 { format!(", line {}", problem.line) } else { String::new() };
        let remedy = format!("in {}{place}; `bursar config example` shows every key", path.display());
        let subject = if problem.key.is_empty() { "configuration" } else { problem.key.as_str() };
        Step::bad("configuration", subject, problem.message.clone(), remedy)
    };
    problems.iter().map(step).collect()
}

/// What this machine lacks of what the configuration names is to be mended, and the rest is looked at all the same.
fn lacking(path: &Path, problems: &[Problem]) -> Vec<Step> {
    let advice = "if only the unit may read it (LoadCredential=), run the check as root, in the directory with these files, or \
                  where bursar runs";
    let with_advice = |step: Step| {
        let remedy = step.remedy.clone().unwrap_or_default();
        step.and_do(format!("{remedy}; {advice}"))
    };
    unread(path, problems).into_iter().map(with_advice).collect()
}

/// Every step, in the order of what stands on what; `problems` is what this machine lacks (`Settings::load_anywhere`).
pub async fn run(mut settings: Settings, problems: &[Problem], wanted: &Wanted, ports: &Ports) -> Vec<Step> {
    let services: Vec<Service> =
        settings.services.iter().filter(|service| is_wanted(service, wanted)).cloned().collect();
    let needed = |name: &str| services.iter().any(|service| service.authorization_server == name);

    let path = settings.path.clone().unwrap_or_default();
    let mut steps = lacking(&path, problems);
    if problems.is_empty() {
        steps.push(configuration(&settings));
        steps.extend(files::look(&settings.files));
    } else {
        steps.push(Step::untold("files", "secrets", "not all of them can be read here"));
    }
    let (found, store) = store::look(&settings, problems, ports).await;
    steps.extend(sockets::look(&settings.fixed, found.running));
    steps.extend(store);
    steps.extend(callers::look(&settings.callers, &found.users));

    let tokens = token::look(&settings, &services, wanted, &found, ports).await;
    let mut limits = BTreeMap::new();
    for (name, server) in std::mem::take(&mut settings.servers) {
        if wanted.service.is_none() || needed(&name) {
            limits.insert(name.clone(), (server.requests_per_minute, server.liveness));
            let of_this: Vec<&Service> =
                services.iter().filter(|service| service.authorization_server == name).collect();
            let has_proof = !lacks_proof(&name, problems);
            steps.extend(server::look(&name, server, &of_this, has_proof, &settings, ports).await);
        }
    }
    for service in &services {
        steps.extend(service::look(service));
    }
    let lives = tokens.lives;
    steps.extend(tokens.steps);
    steps.extend(budget::look(&limits, &settings, &found, &lives));
    steps
}

/// Whether there is nothing here that the client could prove itself with.
fn lacks_proof(server: &str, problems: &[Problem]) -> bool {
    let keys = ["client_secret_file", "client_secret_env", "private_key_file"];
    let keys = keys.map(|key| format!("authorization_servers.{server}.{key}"));
    problems.iter().any(|problem| keys.contains(&problem.key))
}

fn is_wanted(service: &Service, wanted: &Wanted) -> bool {
    wanted.service.as_ref().is_none_or(|name| *name == service.name)
}

fn configuration(settings: &Settings) -> Step {
    let subject = settings.path.as_deref().map_or_else(String::new, |path| path.display().to_string());
    let (services, rules) = (settings.services.len(), settings.callers.len());
    Step::good("configuration", subject, format!("reads: services: {services}, rules for callers: {rules}"))
}
