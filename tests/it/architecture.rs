//! Who may import whom. A module names modules of lower levels only, and its own children; a new module fails until it has a
//! row here.

use std::collections::BTreeMap;
use std::path::Path;

/// Each module, and the modules that it may name.
const MAY_NAME: &[(&str, &[&str])] = &[
    // The ground: nouns, facts and handles that know nothing above them.
    ("clock", &[]),
    ("entropy", &[]),
    ("secret", &[]),
    ("tasks", &[]),
    ("ready", &[]),
    ("metrics", &[]),
    ("caller", &[]),
    ("fail_point", &[]),
    ("guarded", &["caller", "secret"]),
    ("hardening", &[]),
    ("model", &["clock", "entropy", "secret"]),
    ("audit", &["caller", "clock", "entropy", "guarded", "metrics", "model", "ready", "secret"]),
    // Decisions: pure.
    ("jwt", &["clock", "model", "secret"]),
    ("run_pass", &["clock", "jwt", "model", "secret"]),
    ("policy", &["caller", "model", "run_pass"]),
    // Ports and adapters: none names another port.
    ("cache", &["clock", "jwt", "model", "secret"]),
    ("flight", &["tasks"]),
    ("store", &["clock", "entropy", "guarded", "metrics", "model", "ready", "secret"]),
    ("authorization_server", &["clock", "entropy", "guarded", "jwt", "metrics", "model", "secret"]),
    // Who is told.
    ("notify", &["audit", "authorization_server", "clock", "entropy", "metrics", "model", "secret", "store"]),
    ("uses", &["cache", "clock", "model", "store", "tasks"]),
    // The engine.
    (
        "refresh",
        &[
            "audit",
            "authorization_server",
            "cache",
            "clock",
            "entropy",
            "fail_point",
            "flight",
            "jwt",
            "metrics",
            "model",
            "ready",
            "secret",
            "store",
            "tasks",
        ],
    ),
    (
        "broker",
        &[
            "authorization_server",
            "cache",
            "caller",
            "clock",
            "jwt",
            "metrics",
            "model",
            "policy",
            "refresh",
            "secret",
            "uses",
        ],
    ),
    (
        "runs",
        &[
            "authorization_server",
            "clock",
            "guarded",
            "jwt",
            "model",
            "policy",
            "run_pass",
            "secret",
            "store",
            "tasks",
        ],
    ),
    // The edge.
    ("server", &["caller", "metrics", "tasks"]),
    ("socket", &["caller", "server"]),
    (
        "api",
        &[
            "audit", "broker", "caller", "clock", "consent", "entropy", "jwt", "metrics", "model", "policy",
            "runs", "secret", "server", "store", "tasks",
        ],
    ),
    (
        "consent",
        &[
            "authorization_server",
            "clock",
            "entropy",
            "jwt",
            "metrics",
            "model",
            "refresh",
            "secret",
            "tasks",
        ],
    ),
    (
        "admin",
        &[
            "api",
            "audit",
            "cache",
            "caller",
            "clock",
            "consent",
            "entropy",
            "fail_point",
            "jwt",
            "metrics",
            "model",
            "policy",
            "ready",
            "refresh",
            "secret",
            "server",
            "store",
            "tasks",
            "uses",
        ],
    ),
    (
        "connect",
        &[
            "api", "audit", "clock", "consent", "entropy", "guarded", "metrics", "model", "refresh",
            "secret", "server", "store", "tasks", "uses",
        ],
    ),
    // The process.
    (
        "settings",
        &[
            "audit",
            "authorization_server",
            "caller",
            "guarded",
            "jwt",
            "model",
            "policy",
            "run_pass",
            "runs",
            "secret",
            "socket",
            "store",
        ],
    ),
    (
        "check",
        &[
            "authorization_server",
            "clock",
            "entropy",
            "guarded",
            "jwt",
            "model",
            "policy",
            "secret",
            "settings",
            "socket",
            "store",
        ],
    ),
    ("logging", &["settings"]),
    ("lifecycle", &["app"]),
    (
        "app",
        &[
            "admin",
            "api",
            "audit",
            "authorization_server",
            "broker",
            "cache",
            "caller",
            "clock",
            "connect",
            "consent",
            "entropy",
            "hardening",
            "metrics",
            "model",
            "notify",
            "policy",
            "ready",
            "refresh",
            "runs",
            "server",
            "settings",
            "socket",
            "store",
            "tasks",
            "uses",
        ],
    ),
    ("dev", &["clock", "entropy", "secret", "store", "tasks"]),
    // Not in any program that is shipped.
    (
        "fuzz",
        &[
            "api",
            "authorization_server",
            "clock",
            "entropy",
            "jwt",
            "model",
            "run_pass",
            "secret",
            "settings",
            "store",
        ],
    ),
];

/// What only some modules may name, of the libraries below.
const CONFINED: &[(&str, &[&str])] = &[
    ("sqlx::", &["store"]),
    ("moka::", &["audit", "broker", "cache", "refresh", "runs"]),
    (
        "hyper::",
        &[
            "admin",
            "api",
            "authorization_server",
            "check",
            "cli",
            "connect",
            "dev",
            "fuzz",
            "notify",
            "runs",
            "server",
        ],
    ),
    ("clap::", &["cli"]),
    ("jsonwebtoken::", &["jwt", "dev"]),
    ("toml::", &["settings"]),
    ("listenfd::", &["socket"]),
    ("sd_notify::", &["lifecycle"]),
    ("landlock::", &["hardening"]),
    ("askama::", &["connect"]),
    ("arc_swap::", &["api", "app", "connect", "refresh", "store"]),
];

/// Every source file: its path from the root, and its text without comments and tests.
pub(crate) fn sources(root: &Path) -> Vec<(String, String)> {
    fn walk(directory: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code: Vec<&str> =
                    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push((name, code.join("\n")));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root.join("src"), root, &mut found);
    assert!(found.len() > 30, "the sources were not found");
    found
}

fn module(path: &str) -> &str {
    path.strip_prefix("src/").unwrap().split(['/', '.']).next().unwrap()
}

/// The crate's modules that a text names.
fn named(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        names.push(name);
    }
    names
}

#[test]
fn modules_name_only_what_stands_below_them() {
    let table: BTreeMap<&str, &[&str]> = MAY_NAME.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, text) in sources(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        let this = module(&path);
        if ["main", "lib", "cli"].contains(&this) {
            continue;
        }
        let Some(allowed) = table.get(this) else { panic!("{path}: give {this} a row in the table") };
        let production = text.split("#[cfg(test)]").next().unwrap();
        for name in named(production) {
            if name != this && !allowed.contains(&name.as_str()) && !path.ends_with("/tests.rs") {
                wrong.push(format!("{path} names {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn libraries_stay_where_they_belong() {
    let mut wrong = Vec::new();
    for (path, text) in sources(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        for (library, allowed) in CONFINED {
            if text.contains(&format!(" {library}")) && !allowed.contains(&module(&path)) {
                wrong.push(format!("{path} names {library}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short_enough_to_read_and_names_mean_something() {
    for (path, text) in sources(Path::new(env!("CARGO_MANIFEST_DIR"))) {
        let production = text.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(production <= 400, "{path} has {production} lines: is it one idea?");
        for vague in ["util", "common", "helper", "misc", "manager"] {
            assert!(!path.contains(vague), "{path}: what is it about?");
        }
        assert!(!path.ends_with("mod.rs"), "{path}: use a file named like the module");
    }
}
