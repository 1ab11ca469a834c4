//! The configuration, parsed into what the rest is made of, or every problem with it at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::audit;
use crate::authorization_server::Endpoints;
use crate::authorization_server::client_authentication::Method;
use crate::authorization_server::http::Proxies;
use crate::guarded::{self, Holds};
use crate::jwt::SigningAlgorithm;
use crate::model::{Life, Service};
use crate::policy::Rule;
use crate::socket;
use crate::store::keyring::{KeyFiles, Keyring};

mod callers;
/// `[connect]`.
pub mod connect;
/// Every key.
pub mod keys;
/// `[notify]`.
pub mod notify;
mod reader;
/// `[run_passes]`.
pub mod run_passes;
mod servers;
mod services;

use connect::Connect;
use notify::Notify;
use reader::{Problems, Section};
use run_passes::RunPasses;

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/bursar/bursar.toml";

/// Okta ends no grant sooner that is not used.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_mins(10);

/// A configuration that can be worked with.
#[derive(Debug)]
pub struct Settings {
    /// The file that it came from.
    pub path: Option<PathBuf>,
    /// The files that it names and that are read, at a start and later.
    pub files: BTreeMap<PathBuf, Holds>,
    /// What can't change while a process runs.
    pub fixed: Fixed,
    /// The files with the keys that seal the store.
    pub keys: KeyFiles,
    /// How long a caller waits at most.
    pub request_timeout: Duration,
    /// The authorization servers by name.
    pub servers: BTreeMap<String, Server>,
    /// How they are reached.
    pub proxies: Proxies,
    /// The services.
    pub services: Vec<Service>,
    /// The rules.
    pub callers: Vec<Rule>,
    /// Which run passes are believed, if any.
    pub run_passes: Option<RunPasses>,
    /// When tokens are refreshed.
    pub life: Life,
    /// How long one process may hold a grant's refresh.
    pub lease: Duration,
    /// What one uid may ask.
    pub per_uid: PerUid,
    /// Who is told when a grant ends.
    pub notify: Notify,
    /// The page where users connect, if there is one.
    pub connect: Option<Connect>,
    /// What is recorded, and what if it can't be.
    pub audit: audit::Terms,
}

/// What one uid may ask of the vending socket.
#[derive(Clone, Copy, Debug)]
pub struct PerUid {
    /// Requests in a second.
    pub requests_per_second: u32,
    /// Event streams at the same time.
    pub event_streams: usize,
    /// Requests that wait, for a refresh or for the store, at the same time.
    pub waiting_requests: usize,
}

/// What can't change while a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The vending socket.
    pub socket: socket::Config,
    /// Connections to it, in all.
    pub max_connections: usize,
    /// Connections to it, by one uid.
    pub max_connections_per_uid: usize,
    /// The admin socket.
    pub admin: socket::Config,
    /// Where `/metrics`, `/live` and `/ready` are.
    pub metrics: SocketAddr,
    /// The database file.
    pub database: PathBuf,
    /// Where the page listens where users connect, if there is one.
    pub connect: Option<SocketAddr>,
    /// How to log.
    pub log: Log,
    /// Where what was done is recorded, if it is.
    pub audit: Option<audit::Config>,
}

impl Fixed {
    /// The sections in which `other` differs.
    #[must_use]
    pub fn changed(&self, other: &Self) -> Vec<&'static str> {
        let connections = |fixed: &Self| (fixed.max_connections, fixed.max_connections_per_uid);
        let sections = [
            ("socket", self.socket != other.socket || connections(self) != connections(other)),
            ("admin", self.admin != other.admin || self.metrics != other.metrics),
            ("store", self.database != other.database),
            ("connect", self.connect != other.connect),
            ("log", self.log != other.log),
            ("audit", self.audit != other.audit),
        ];
        sections.into_iter().filter(|(_, changed)| *changed).map(|(section, _)| section).collect()
    }
}

/// One authorization server.
#[derive(Debug)]
pub struct Server {
    /// The Okta org that it is one of, if it is.
    pub okta_domain: Option<String>,
    /// Byte for byte as it names itself.
    pub issuer: String,
    /// Our id there.
    pub client_id: String,
    /// How we prove who we are there.
    pub authentication: Method,
    /// The file that the secret or key came from, if it can be read again.
    pub authentication_file: Option<PathBuf>,
    /// Where it is asked, if not where its metadata document says.
    pub endpoints: Option<Endpoints>,
    /// What its tokens may be signed with.
    pub algorithms: Vec<SigningAlgorithm>,
    /// An extra root certificate.
    pub ca_file: Option<PathBuf>,
    /// How long a rotated-away refresh token still works there.
    pub leeway: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// Our share of its rate limit.
    pub requests_per_minute: u32,
    /// How often it is asked whether grants in use still live, if it is.
    pub liveness: Option<Duration>,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// JSON lines, or text for people.
    pub json: bool,
    /// The least that is said.
    pub level: tracing::Level,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1; 0 where something is missing from the file altogether.
    pub line: usize,
    /// The key, with its sections.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub message: String,
    /// Whether the text is fine and this machine lacks what it names: a file that can be read, a user, a variable.
    pub of_this_machine: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// Every problem with it.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        match guarded::read(path, Holds::Decisions) {
            Ok(text) => Self::parse(&text).map(|settings| Self { path: Some(path.to_owned()), ..settings }),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// Reads a file on a machine that need not be the one it is written for, to look at it and never to serve by it: what
    /// this machine lacks is told beside the settings, which have nothing in its place.
    ///
    /// # Errors
    /// Every problem with it, if one is the text's own.
    pub fn load_anywhere(path: &Path) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let text = guarded::read(path, Holds::Decisions).map_err(|error| unreadable(&error))?;
        let problems = Problems::new(&text);
        let settings = Self::read(&problems);
        let found = problems.found();
        match settings {
            Some(settings) if found.iter().all(|problem| problem.of_this_machine) => {
                Ok((Self { path: Some(path.to_owned()), files: problems.files(), ..settings }, found))
            }
            _ => Err(found),
        }
    }

    /// The files that the configuration in a file names, however much is wrong with it otherwise.
    #[must_use]
    pub fn files_named_by(path: &Path) -> BTreeMap<PathBuf, Holds> {
        let text = guarded::read(path, Holds::Decisions).unwrap_or_default();
        let problems = Problems::new(&text);
        let _whatever_it_says = Self::read(&problems);
        problems.files()
    }

    /// Reads a text. Files that it names are read as well, for a secret that can't be read is a problem too.
    ///
    /// # Errors
    /// Every problem with it.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let problems = Problems::new(text);
        let settings = Self::read(&problems);
        let found = problems.found();
        let settings = settings.filter(|_| found.is_empty()).ok_or(found)?;
        Ok(Self { files: problems.files(), ..settings })
    }

    fn read(problems: &Problems<'_>) -> Option<Self> {
        let document = problems.document()?;
        let root = Section::root(&document, problems);
        let socket = root.section("socket");
        let admin = root.section("admin");
        let store = root.section("store");
        let refresh = root.section("refresh");
        let log = root.section("log");
        let audit = root.section("audit");
        let limits = root.section("limits");
        let lease = refresh.duration("lease", Duration::from_secs(10));
        let servers = servers::read(&root, lease);
        let proxies = servers::proxies(&root);
        let services = services::read(&root, &servers);
        let run_passes = run_passes::read(&root);
        let connect = connect::read(&root);
        let callers = callers::read(&root, &services, root.has("run_passes"));
        let fixed = Fixed {
            max_connections: socket.number("max_connections", 1024, 1..=100_000),
            max_connections_per_uid: socket.number("max_connections_per_uid", 256, 1..=100_000),
            socket: read_socket(&socket, "/run/bursar/bursar.sock", 0o660),
            admin: read_socket(&admin, "/run/bursar/admin.sock", socket::ADMIN_MODE),
            metrics: admin.address("metrics", SocketAddr::from(([127, 0, 0, 1], 9464))),
            database: read_database(&store),
            connect: connect.as_ref().map(|connect| connect.listen),
            log: read_log(&log),
            audit: read_audit(&audit),
        };
        let settings = Self {
            path: None,
            keys: read_keys(&store),
            files: BTreeMap::new(),
            request_timeout: socket.positive_duration("request_timeout", Duration::from_secs(15)),
            fixed,
            servers,
            proxies,
            services,
            callers,
            run_passes,
            life: read_life(&refresh),
            lease,
            per_uid: PerUid {
                requests_per_second: limits.number("requests_per_second", 1000, 1..=1_000_000),
                event_streams: limits.number("event_streams", 64, 0..=100_000),
                waiting_requests: limits.number("waiting_requests", 256, 1..=100_000),
            },
            notify: notify::read(&root),
            connect,
            audit: read_audit_terms(&audit),
        };
        if settings.fixed.socket.path == settings.fixed.admin.path {
            admin.problem("path", "must not be the vending socket's");
        }
        if let Some(log) = &settings.fixed.audit {
            if log.file == settings.fixed.database {
                audit.problem("file", "must not be the database");
            }
            let seals = |file: &PathBuf| *file == settings.keys.newest || settings.keys.old.contains(file);
            if log.key_file.as_ref().is_some_and(seals) {
                audit.problem(
                    "key_file",
                    "must not be the store's key: who may verify the log need not open the store",
                );
            }
        }
        for section in [socket, admin, store, refresh, log, audit, limits, root] {
            section.finish();
        }
        Some(settings)
    }
}

fn unreadable(error: &std::io::Error) -> Vec<Problem> {
    let message = format!("{error}; another file is named by --config or BURSAR_CONFIG");
    vec![Problem { line: 0, key: String::new(), message, of_this_machine: false }]
}

fn read_socket(section: &Section<'_>, path: &str, mode: u32) -> socket::Config {
    let path = section.path("path", Some(path));
    if path.as_os_str().len() > socket::LONGEST_PATH {
        let longest = socket::LONGEST_PATH;
        section.problem("path", format!("the kernel takes at most {longest} bytes for a socket's path"));
    }
    // Whoever opens the admin socket may do everything: its mode and group are not for configuring.
    if mode == socket::ADMIN_MODE {
        return socket::Config { path, mode, gid: None };
    }
    let mode = section.text("mode").map_or(mode, |text| {
        u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777).unwrap_or_else(|| {
            section.problem("mode", "must be an octal mode in quotes, such as \"0660\"");
            mode
        })
    });
    let gid = section.text("group").and_then(|group| callers::group(section, "group", &group));
    socket::Config { path, mode, gid }
}

fn read_database(section: &Section<'_>) -> PathBuf {
    let url = section.text("url").unwrap_or_else(|| "sqlite:///var/lib/bursar/bursar.db".to_owned());
    match url.strip_prefix("sqlite://") {
        Some(path) if !path.is_empty() && !path.contains('?') => PathBuf::from(path),
        _ => {
            section.problem(
                "url",
                "must be sqlite:// and the path of a file, such as sqlite:///var/lib/bursar/bursar.db",
            );
            PathBuf::new()
        }
    }
}

fn read_keys(section: &Section<'_>) -> KeyFiles {
    let newest = section.file("key_file", Some("/etc/bursar/store.key"));
    let files = KeyFiles { newest, old: section.files("old_key_files") };
    for bad in Keyring::from_files(&files).err().into_iter().flatten() {
        section.lacking(if bad.old { "old_key_files" } else { "key_file" }, bad.why);
    }
    files
}

fn read_life(section: &Section<'_>) -> Life {
    let percent = |text: &str| {
        text.strip_suffix('%')?.trim().parse().ok().filter(|percent| (10..=95).contains(percent))
    };
    let ahead_percent = section.text("ahead").map_or(75, |text| {
        percent(&text).unwrap_or_else(|| {
            section.problem("ahead", "must be a share of a token's life between \"10%\" and \"95%\"");
            75
        })
    });
    let life = Life {
        ahead_percent,
        floor: section.duration("floor", Duration::from_secs(30)),
        ceiling: section.duration("ceiling", Duration::from_mins(20)),
        min_ttl: section.duration("min_ttl", Duration::from_mins(1)),
        idle_after: section.positive_duration("idle_after", Duration::from_hours(2)),
        keep_alive: section.duration_or_never("keep_alive", Some(Duration::from_hours(3 * 24))),
    };
    if life.keep_alive.is_some_and(|keep_alive| keep_alive < SHORTEST_KEEP_ALIVE) {
        section.problem("keep_alive", "must be at least 10m, or \"never\"");
    }
    if life.floor > life.ceiling {
        section.problem("floor", "must not be longer than refresh.ceiling");
    }
    life
}

fn read_log(section: &Section<'_>) -> Log {
    let format = section.choice("format", &["json", "text"]).unwrap_or("json");
    let level = section.choice("level", &["error", "warn", "info", "debug", "trace"]).unwrap_or("info");
    Log { json: format == "json", level: level.parse().unwrap_or(tracing::Level::INFO) }
}

/// None where no file is named.
fn read_audit(section: &Section<'_>) -> Option<audit::Config> {
    let key_file = section.has("key_file").then(|| section.file("key_file", None));
    if let Some(Err(error)) = key_file.as_deref().map(audit::chain::Key::from_file) {
        section.lacking("key_file", error);
    }
    if !section.has("file") && ["key_file", "vends", "on_failure"].iter().any(|key| section.has(key)) {
        section.missing(
            "file",
            "is missing: where the audit log is written, such as \"/var/log/bursar/audit.jsonl\"",
        );
    }
    let file = section.has("file").then(|| section.path("file", None))?;
    if !file.is_absolute() {
        section.problem("file", "must be an absolute path, so that it is the same file after each start");
    }
    Some(audit::Config { file, key_file })
}

fn read_audit_terms(section: &Section<'_>) -> audit::Terms {
    audit::Terms {
        first_only: section.choice("vends", &["all", "first"]) == Some("first"),
        refuse: section.choice("on_failure", &["continue", "refuse"]) == Some("refuse"),
    }
}

#[cfg(test)]
mod tests;
