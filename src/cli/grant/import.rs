//! `bursar grant import`: one refresh token, or many.

use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::cli::arguments::ImportArgs;
use crate::cli::client::{self, Refused};
use crate::cli::grant::{path, print};
use crate::cli::{Exit, terminal};

/// No refresh token is longer, nor a line with one.
const LONGEST: u64 = 64 * 1024;
/// Imports under way at once; the sidecar keeps to the authorization server's limits by itself.
const AT_ONCE: usize = 8;
/// How often one is tried again that failed for now.
const TRIES: u32 = 5;

pub(super) async fn import(arguments: ImportArgs) -> Result<(), Refused> {
    let socket = &arguments.socket.admin_socket;
    match (arguments.service, arguments.user, arguments.refresh_token_file, arguments.json_lines) {
        (Some(service), Some(user), Some(file), _) => one(socket, &service, &user, &file).await,
        (_, _, _, Some(file)) => many(socket, &file).await,
        // The command line sees to it that one of the two is there.
        _ => Err(usage("what to import is missing")),
    }
}

async fn one(socket: &Path, service: &str, user: &str, file: &Path) -> Result<(), Refused> {
    let mut token = Zeroizing::new(String::new());
    let read = open(file).and_then(|reader| reader.take(LONGEST).read_to_string(&mut token));
    read.map_err(|error| usage(&format!("{}: {error}", file.display())))?;
    let imported = client::ask(socket, Method::PUT, &path(service, user), Some(body(&token))).await;
    if let Err(refused) = &imported
        && let Some(user) = refused.problem.get("user").and_then(Value::as_str)
    {
        terminal::err(&format!(
            "  To accept it for its true user:\n    bursar grant import --service {service} --user {user} --refresh-token-file {}",
            file.display()
        ));
    }
    print(&imported?);
    Ok(())
}

/// A line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    service: String,
    user: String,
    refresh_token: String,
}

/// What became of a line; `why` is `None` if it was imported.
struct Outcome {
    line: usize,
    service: String,
    user: String,
    why: Option<Value>,
    /// Whether a later try may do better.
    for_now: bool,
}

async fn many(socket: &Path, file: &Path) -> Result<(), Refused> {
    let failed = |error: std::io::Error| usage(&format!("{}: {error}", file.display()));
    let lines: Vec<Zeroizing<String>> = read_lines(file).map_err(failed)?;
    let bar = progress(lines.len());
    let (mut running, mut imported) = (JoinSet::new(), 0_usize);
    let (mut refused, mut for_now) = (0_usize, 0_usize);
    let mut lines = (1..).zip(lines).filter(|(_, text)| !text.trim().is_empty());
    loop {
        while running.len() < AT_ONCE
            && let Some((line, text)) = lines.next()
        {
            running.spawn(import_line(socket.to_owned(), line, text));
        }
        let Some(outcome) = running.join_next().await else { break };
        let Ok(outcome) = outcome else {
            // A panic, which has said itself why.
            refused += 1;
            continue;
        };
        match outcome.why {
            None => imported += 1,
            Some(why) => {
                refused += 1;
                for_now += usize::from(outcome.for_now);
                let failure = json!({
                    "line": outcome.line, "service": outcome.service, "user": outcome.user,
                    "error": why.get("error"), "detail": why.get("detail"), "true_user": why.get("user"),
                });
                bar.suspend(|| terminal::out(&format!("{failure}\n")));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    terminal::err(&format!("{imported} imported, {refused} refused"));
    match refused {
        0 => Ok(()),
        _ if refused == for_now => Err(Refused { exit: Exit::Unavailable, problem: Value::Null }),
        _ => Err(Refused { exit: Exit::Failed, problem: Value::Null }),
    }
}

async fn import_line(socket: PathBuf, line: usize, text: Zeroizing<String>) -> Outcome {
    let parsed: Result<Line, _> = serde_json::from_str(&text);
    let Ok(Line { service, user, refresh_token }) = parsed else {
        // The library's message would quote the line, and a secret with it.
        let detail = "not {\"service\", \"user\", \"refresh_token\"} as a JSON object of texts";
        let why = Some(json!({ "error": "invalid_line", "detail": detail }));
        return Outcome { line, service: String::new(), user: String::new(), why, for_now: false };
    };
    let refresh_token = Zeroizing::new(refresh_token);
    let target = path(&service, &user);
    let mut why = None;
    for tries in 1..=TRIES {
        let body = body(&refresh_token);
        match client::send(&socket, Method::PUT, &target, Some(body)).await {
            Ok((status, _)) if status.is_success() => {
                return Outcome { line, service, user, why: None, for_now: false };
            }
            Ok((status, problem)) => {
                why = Some(problem);
                if !matches!(status.as_u16(), 429 | 503 | 504) {
                    return Outcome { line, service, user, why, for_now: false };
                }
            }
            Err(error) => why = Some(json!({ "error": "unavailable", "detail": error })),
        }
        tokio::time::sleep(Duration::from_secs(1) * tries).await;
    }
    Outcome { line, service, user, why, for_now: true }
}

fn body(refresh_token: &str) -> Value {
    json!({ "refresh_token": refresh_token.trim() })
}

fn read_lines(file: &Path) -> std::io::Result<Vec<Zeroizing<String>>> {
    let mut reader = open(file)?;
    let mut lines = Vec::new();
    loop {
        let mut line = Zeroizing::new(String::new());
        if reader.by_ref().take(LONGEST).read_line(&mut line)? == 0 {
            return Ok(lines);
        }
        lines.push(line);
    }
}

fn open(file: &Path) -> std::io::Result<Box<dyn BufRead>> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    Ok(Box::new(BufReader::new(std::fs::File::open(file)?)))
}

/// On stderr, and only where a person looks at it.
fn progress(lines: usize) -> ProgressBar {
    let bar = ProgressBar::new(lines as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {eta} left");
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

fn usage(why: &str) -> Refused {
    terminal::err(&format!("bursar: {why}"));
    Refused { exit: Exit::Usage, problem: Value::Null }
}
