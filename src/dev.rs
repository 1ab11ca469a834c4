//! Everything on one machine with nothing to set up: a development authorization server, and the files that a sidecar
//! beside it needs. A default feature, left out of release images.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::entropy::Entropy;
use crate::secret::Secret;
use crate::store::seal::generate_key;

/// The measuring stick: as strict as Okta, with faults on purpose.
pub mod authorization_server;

use authorization_server::DevServer;

/// The users who are connected from the start.
pub const USERS: [&str; 2] = ["alice@example.com", "bob@example.com"];

/// One service of the development set-up.
pub struct DevService {
    /// Its name in the configuration.
    pub name: &'static str,
    /// The id of its authorization server.
    pub server: &'static str,
    /// What its users consent to.
    pub consent: &'static [&'static str],
    /// Its section's lines.
    settings: &'static str,
}

/// The services.
pub const SERVICES: [DevService; 2] = [
    DevService {
        name: "snowflake",
        server: DevServer::SNOWFLAKE,
        consent: &["openid", "offline_access", "session:role:PUBLIC", "session:role:ANALYST"],
        settings: r#"audience = "https://dev.snowflakecomputing.com"
scopes   = ["session:role:PUBLIC"]
roles    = ["PUBLIC", "ANALYST"]
kind     = "snowflake""#,
    },
    DevService {
        name: "databricks",
        server: DevServer::DATABRICKS,
        consent: &["openid", "offline_access", "all-apis"],
        settings: r#"audience = "databricks"
scopes   = ["all-apis"]
kind     = "databricks""#,
    },
];

/// A directory with all that a sidecar needs.
pub struct Place {
    directory: PathBuf,
}

impl Place {
    /// Makes the directory (0700) if it is not there, and writes the configuration, the client's secret and, once, the
    /// store's key into it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_up(directory: &Path, server: &DevServer, entropy: &dyn Entropy) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let place = Self { directory: directory.canonicalize()? };
        place.write("client-secret", server.client_secret().expose())?;
        if !place.path("store.key").exists() {
            place.write("store.key", generate_key(entropy).expose())?;
        }
        place.write("bursar.toml", &place.configuration(server))?;
        Ok(place)
    }

    /// Has the sidecar show the page where users connect, here.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open_page(&self, address: SocketAddr) -> io::Result<()> {
        let page = format!("\n[connect]\nlisten = \"{address}\"\npublic_url = \"http://{address}\"\n");
        let configuration = std::fs::read_to_string(self.path("bursar.toml"))?;
        self.write("bursar.toml", &(configuration + &page))
    }

    /// A file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Puts a user's refresh token down, for whoever imports it by hand.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_refresh_token(&self, service: &str, user: &str, token: &Secret) -> io::Result<PathBuf> {
        let name = format!("{service}-{user}.refresh-token");
        self.write(&name, token.expose())?;
        Ok(self.path(&name))
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        write_private(&self.path(name), text)
    }

    fn configuration(&self, server: &DevServer) -> String {
        let path = |name: &str| toml_text(&self.path(name).display().to_string());
        let uid = nix::unistd::geteuid();
        let mut text = format!(
            r#"# Written by `bursar dev`, for a sidecar beside its development authorization server.
[socket]
path = {socket}

[admin]
path    = {admin}
metrics = "127.0.0.1:0"

[store]
url      = {url}
key_file = {key}

[log]
format = "text"

[[callers]]
uid      = {uid}
services = ["*"]
users    = ["*"]
run_pass = "none"
"#,
            socket = path("bursar.sock"),
            admin = path("admin.sock"),
            url = toml_text(&format!("sqlite://{}", self.path("bursar.db").display())),
            key = path("store.key"),
        );
        for service in SERVICES {
            text.push_str(&format!(
                r#"
[authorization_servers.{name}]
issuer             = {issuer}
client_id          = {client_id}
client_secret_file = {secret}

[services.{name}]
authorization_server = "{name}"
{settings}
"#,
                name = service.name,
                issuer = toml_text(&server.issuer(service.server)),
                client_id = toml_text(server.client_id()),
                secret = path("client-secret"),
                settings = service.settings,
            ));
        }
        text
    }
}

/// What `--ready-file` says: enough for a script to go on. `metrics` is where the sidecar's are, if one runs; `page` is where
/// users connect.
#[must_use]
pub fn describe(server: &DevServer, place: &Place, metrics: Option<SocketAddr>, page: SocketAddr) -> Value {
    let here = |name: &str| metrics.map(|_| place.path(name).display().to_string());
    json!({
        "socket": here("bursar.sock"),
        "admin_socket": here("admin.sock"),
        "metrics": metrics.map(|address| format!("http://{address}/metrics")),
        "connect": metrics.map(|_| format!("http://{page}/")),
        "issuer": server.issuer(DevServer::SNOWFLAKE),
        "issuers": SERVICES.map(|service| server.issuer(service.server)),
        "control": server.control(),
        "services": SERVICES.map(|service| service.name),
        "users": USERS,
        "config": place.path("bursar.toml").display().to_string(),
        "client_id": server.client_id(),
        "client_secret_file": place.path("client-secret").display().to_string(),
    })
}

/// Writes a file of ours alone as a whole: whoever waits for it never finds half of it.
///
/// # Errors
/// What the file system says.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&temporary, path)
}

/// A TOML string; JSON's escapes are TOML's too.
fn toml_text(text: &str) -> String {
    Value::from(text).to_string()
}
