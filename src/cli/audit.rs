//! `bursar audit …`

use std::fs::File;
use std::io::{BufReader, stdin};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::audit::chain::{Head, Key};
use crate::audit::verify::{Finding, Summary, Verifier, usable};
use crate::audit::{self, HEAD, OWN_KEY};
use crate::cli::arguments::VerifyArgs;
use crate::cli::{Exit, config, terminal};
use crate::settings::Settings;

/// Findings that `--json` names; the others are counted.
const MOST_NAMED: usize = 10_000;

/// What is to be read, and with what.
struct Task {
    files: Vec<PathBuf>,
    keys: Vec<Key>,
    head: Option<PathBuf>,
}

pub(super) fn verify(args: &VerifyArgs) -> Exit {
    let task = match prepare(args) {
        Ok(task) => task,
        Err(exit) => return exit,
    };
    let mut findings = Vec::new();
    let tell = |finding: Finding| {
        if !args.json {
            let place = match finding.line {
                0 => finding.file.clone(),
                line => format!("{}:{line}", finding.file),
            };
            let mark = if finding.is_problem { "" } else { "note: " };
            terminal::out(&format!("{place}: {mark}{}\n", finding.what));
        } else if findings.len() < MOST_NAMED {
            findings.push(json!({
                "file": finding.file,
                "line": (finding.line > 0).then_some(finding.line),
                "what": finding.what,
                "problem": finding.is_problem,
            }));
        }
    };
    let summary = match read(&task, args.from_start, tell) {
        Ok(summary) => summary,
        Err(error) => {
            terminal::err(&format!("bursar: {error}"));
            return Exit::Failed;
        }
    };
    let whole = summary.problems == 0;
    if args.json {
        terminal::out(&format!("{}\n", described(&summary, &findings, task.head.is_some())));
    } else {
        terminal::out(&told(&summary, task.head.is_some()));
    }
    if whole { Exit::Done } else { Exit::Failed }
}

/// Keys and head as the command line has them, else the configuration.
fn prepare(args: &VerifyArgs) -> Result<Task, Exit> {
    let usage = |error: &str| {
        terminal::err(&format!("bursar: {error}"));
        Exit::Usage
    };
    if !args.key_file.is_empty() {
        let keys: Result<Vec<Key>, String> = args.key_file.iter().map(|path| Key::from_file(path)).collect();
        let keys = keys.map_err(|error| usage(&error))?;
        if args.files.is_empty() {
            return Err(usage("name the files, the oldest first"));
        }
        return Ok(Task { files: args.files.clone(), keys, head: args.head.clone() });
    }
    let path = &args.config.config;
    let settings = Settings::load(path).map_err(|problems| {
        config::report(path, &problems);
        usage("--key-file names the key where the configuration can't be read")
    })?;
    let Some(configured) = &settings.fixed.audit else {
        let why =
            format!("{}: there is no audit.file; --key-file names the key of another log", path.display());
        return Err(usage(&why));
    };
    let database = &settings.fixed.database;
    let key_file = configured.key_file.clone().unwrap_or_else(|| audit::beside(database, OWN_KEY));
    let key = Key::from_file(&key_file).map_err(|error| usage(&error))?;
    let files = if args.files.is_empty() { vec![configured.file.clone()] } else { args.files.clone() };
    // How the configured log ends says nothing of a copy, or of a file that was rotated away.
    let is_current = files.last().is_some_and(|last| is_same(last, &configured.file));
    let own = is_current.then(|| audit::beside(database, HEAD));
    Ok(Task { files, keys: vec![key], head: args.head.clone().or(own) })
}

fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

fn read(task: &Task, from_start: bool, tell: impl FnMut(Finding)) -> Result<Summary, String> {
    let mut verifier = Verifier::new(&task.keys, from_start, tell);
    // Before the files: one that is being written has this line at least.
    if let (Some(path), Some(first)) = (&task.head, task.keys.first()) {
        let head = usable(&Head::read(path, first), &task.keys, |key| Head::read(path, key));
        verifier.expect(head.map_err(|why| format!("{}: {why}", path.display()))?);
    }
    for path in &task.files {
        let name = path.display().to_string();
        if path.extension().is_some_and(|extension| extension == "gz") {
            return Err(format!("{name}: is compressed: `zcat {name} | bursar audit verify - …`"));
        }
        let done = if name == "-" {
            verifier.read("stdin", stdin().lock())
        } else {
            File::open(path).and_then(|file| verifier.read(&name, BufReader::new(file)))
        };
        done.map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(verifier.finish())
}

fn told(summary: &Summary, end_is_checked: bool) -> String {
    let outcome = match summary.problems {
        0 => "complete".to_owned(),
        1 => "1 problem".to_owned(),
        problems => format!("{problems} problems"),
    };
    let end =
        if end_is_checked { "" } else { " (whether the end was cut off is not known: there is no --head)" };
    match (&summary.first, &summary.last) {
        (Some((first, from)), Some((last, to))) => {
            format!("{} lines, {first} to {last}, from {from} to {to}: {outcome}{end}\n", summary.lines)
        }
        _ => format!("no lines: {outcome}{end}\n"),
    }
}

fn described(summary: &Summary, findings: &[Value], end_is_checked: bool) -> Value {
    let number = |named: &Option<(u64, String)>| named.as_ref().map(|(number, _)| *number);
    let time = |named: &Option<(u64, String)>| named.as_ref().map(|(_, time)| time.clone());
    json!({
        "complete": summary.problems == 0,
        "lines": summary.lines,
        "first": number(&summary.first),
        "last": number(&summary.last),
        "from": time(&summary.first),
        "to": time(&summary.last),
        "end_checked": end_is_checked,
        "problems": summary.problems,
        "findings": findings,
    })
}
