//! A world for each test: a development authorization server, a directory, and the real program beside it.

pub(crate) mod browser;
pub(crate) mod engine;
pub(crate) mod http;
pub(crate) mod platform;
pub(crate) mod sidecar;
pub(crate) mod store;

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bursar::clock::{Clock, SystemClock};
use bursar::dev::authorization_server::{DevServer, KeyStock, Options, Rotation};
use bursar::dev::{Place, SERVICES};
use bursar::entropy::SystemEntropy;
use bursar::tasks::Tasks;
use serde_json::{Value, json};

use sidecar::Sidecar;

pub(crate) const ALICE: &str = "alice@example.com";
pub(crate) const BOB: &str = "bob@example.com";

/// One stock of keys for all servers of these tests.
pub(crate) fn keys() -> KeyStock {
    static KEYS: LazyLock<KeyStock> = LazyLock::new(KeyStock::default);
    KEYS.clone()
}

pub(crate) struct World {
    pub(crate) server: DevServer,
    pub(crate) directory: tempfile::TempDir,
    tasks: Tasks,
}

impl World {
    /// Rotating refresh tokens with a leeway of 30 s, access tokens for an hour.
    pub(crate) async fn start() -> Self {
        Self::with(Rotation::Rotating, 30, Duration::from_hours(1)).await
    }

    pub(crate) async fn with(rotation: Rotation, leeway: u64, token_lifetime: Duration) -> Self {
        Self::by(Arc::new(SystemClock::new(0)), rotation, leeway, token_lifetime).await
    }

    /// With a clock of the server's own.
    pub(crate) async fn by(
        clock: Arc<dyn Clock>,
        rotation: Rotation,
        leeway: u64,
        token_lifetime: Duration,
    ) -> Self {
        let tasks = Tasks::new();
        let options = Options {
            listen: ([127, 0, 0, 1], 0).into(),
            token_lifetime,
            rotation,
            leeway: Duration::from_secs(leeway),
            keys: keys(),
        };
        let server = DevServer::start(options, clock, Arc::new(SystemEntropy), &tasks).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        Place::set_up(directory.path(), &server, &SystemEntropy).unwrap();
        let world = Self { server, directory, tasks };
        world.configure(
            "client_secret_file",
            &format!("refresh_token_leeway = \"{leeway}s\"\nclient_secret_file"),
        );
        world
            .settings(json!({ "requests_per_second_per_user": 1000, "requests_per_minute": 1_000_000 }))
            .await;
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Changes the configuration that the next sidecar starts with.
    pub(crate) fn configure(&self, from: &str, to: &str) {
        let path = self.path().join("bursar.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// Has the next sidecar show the connect page, with these lines in its section; where it will be.
    pub(crate) fn open_page(&self, lines: &str) -> String {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let origin = format!("http://{address}");
        let path = self.path().join("bursar.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let page = format!("\n[connect]\nlisten = \"{address}\"\npublic_url = \"{origin}\"\n{lines}\n");
        std::fs::write(&path, text + &page).unwrap();
        origin
    }

    pub(crate) async fn sidecar(&self) -> Sidecar {
        Sidecar::start(self.path()).await
    }

    /// A sidecar with alice connected to both services, and the statistics at zero.
    pub(crate) async fn connected(&self) -> Sidecar {
        let sidecar = self.sidecar().await;
        self.connect(&sidecar, ALICE).await;
        self.control("reset-stats", json!({})).await;
        sidecar
    }

    pub(crate) async fn connect(&self, sidecar: &Sidecar, user: &str) {
        for service in SERVICES {
            let reply = sidecar.import(service.name, user, &self.consent(service.name, user)).await;
            assert_eq!(reply.status, 201, "{}", reply.body);
        }
    }

    /// Puts a wrong secret in place of the client's, which is returned.
    pub(crate) fn spoil_secret(&self) -> String {
        let path = self.path().join("client-secret");
        let right = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, "wrong").unwrap();
        right
    }

    /// The refresh token that the user's consent would give.
    pub(crate) fn consent(&self, service: &str, user: &str) -> String {
        let service = SERVICES.into_iter().find(|known| known.name == service).unwrap();
        self.server.consent(service.server, user, service.consent).unwrap().expose().to_owned()
    }

    pub(crate) async fn fault(&self, fault: Value) {
        self.control("faults", fault).await;
    }

    pub(crate) async fn settings(&self, settings: Value) {
        self.control("settings", settings).await;
    }

    /// Counts from here.
    pub(crate) async fn control_stats_reset(&self) {
        self.control("reset-stats", json!({})).await;
    }

    pub(crate) async fn stats(&self) -> Value {
        let url = format!("{}/stats", self.server.control());
        http::send(&self.tasks, "GET", &url, &[], "").await.unwrap().json()
    }

    /// Every token that the authorization server has handed out, by kind.
    pub(crate) async fn issued(&self) -> Value {
        let url = format!("{}/issued", self.server.control());
        http::send(&self.tasks, "GET", &url, &[], "").await.unwrap().json()
    }

    async fn control(&self, call: &str, body: Value) {
        let url = format!("{}/{call}", self.server.control());
        let answer = http::send(&self.tasks, "POST", &url, &[], &body.to_string()).await.unwrap();
        assert!(answer.status < 300, "{call} {body}: {}", answer.body);
    }

    /// From now on connections to the authorization server are refused.
    pub(crate) async fn stop_server(&self) {
        self.tasks.stop();
        let address = self.server.address();
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Requests to the token endpoint since the statistics were reset.
    pub(crate) async fn token_requests(&self) -> u64 {
        self.stats().await["requests"]["token"].as_u64().unwrap_or(0)
    }

    /// No family was revoked by presenting a token too late, and none was presented outside its leeway.
    pub(crate) async fn assert_nothing_was_lost(&self) {
        let stats = self.stats().await;
        assert_eq!(stats["reuse_detected"], 0, "{stats:#}");
        assert_eq!(stats["families_revoked"], json!([]), "{stats:#}");
        for (token, seen) in stats["refresh_tokens"].as_object().unwrap() {
            assert_eq!(seen["presented_outside_leeway"], 0, "{token}: {seen}");
        }
    }

    /// Ends the sidecar and looks for every token and secret in whatever it left behind.
    pub(crate) async fn finish(&self, sidecar: Sidecar) {
        let metrics = sidecar.metrics().await;
        let (arguments, environment) = (sidecar.proc("cmdline"), sidecar.proc("environ"));
        let (status, log) = sidecar.stop().await;
        assert!(status.success(), "{status}: {log}");
        assert!(!log.contains("panicked"), "{log}");
        let issued = self.issued().await;
        let mut secrets = vec!["sentinel".to_owned()];
        let keys = std::fs::read_dir(self.path()).unwrap().flatten().map(|entry| entry.path());
        for key in keys.filter(|path| path.extension().is_some_and(|extension| extension == "key")) {
            secrets.push(std::fs::read_to_string(key).unwrap().trim().to_owned());
        }
        for kind in ["access_tokens", "refresh_tokens", "id_tokens"] {
            secrets.extend(
                issued[kind].as_array().unwrap().iter().map(|token| token.as_str().unwrap().to_owned()),
            );
        }
        let mut places = vec![
            ("log".to_owned(), log.into_bytes()),
            ("metrics".to_owned(), metrics.into_bytes()),
            ("arguments".to_owned(), arguments),
            ("environment".to_owned(), environment),
        ];
        let unsaved = std::fs::read_dir(self.path().join("bursar.db.unsaved")).into_iter().flatten();
        for entry in std::fs::read_dir(self.path()).unwrap().chain(unsaved).flatten() {
            let path = entry.path();
            let text = path.to_str().unwrap();
            if ["bursar.db", "audit.jsonl"].iter().any(|of| text.contains(of)) && path.is_file() {
                places.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
        for (place, content) in places {
            for secret in &secrets {
                let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "a secret in the {place}");
            }
        }
    }
}
