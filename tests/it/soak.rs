//! `bursar dev` as a newcomer starts it, and a client that asks every second. A minute here, longer by `tests/soak`
//! (`BURSAR_SOAK_SECONDS`).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bursar::tasks::Tasks;
use serde_json::Value;

use crate::support::ALICE;
use crate::support::http::send;
use crate::support::sidecar::{PROGRAM, request};

/// The first is the default scopes.
const ROLES: [Option<&str>; 3] = [None, Some("PUBLIC"), Some("ANALYST")];
const LIFETIME: u64 = 20;

struct Dev {
    child: Child,
    ready: Value,
}

impl Dev {
    async fn start(directory: &Path, arguments: &[&str]) -> Self {
        let ready_file = directory.join("ready.json");
        let child = Command::new(PROGRAM)
            .arg("dev")
            .args(arguments)
            .arg("--dir")
            .arg(directory.join("dev"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut dev = Self { child, ready: Value::Null };
        while !ready_file.exists() {
            assert!(dev.child.try_wait().unwrap().is_none(), "ended before it was ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        dev.ready = serde_json::from_slice(&std::fs::read(ready_file).unwrap()).unwrap();
        dev
    }

    async fn stats(&self) -> Value {
        let url = format!("{}/stats", self.ready["control"].as_str().unwrap());
        send(&Tasks::new(), "GET", &url, &[], "").await.unwrap().json()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test]
async fn who_asks_every_second_gets_a_token_with_the_promised_life_and_the_server_sees_one_refresh_per_lifetime()
 {
    let seconds: u64 = std::env::var("BURSAR_SOAK_SECONDS").map_or(60, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), &["--token-lifetime", "20s"]).await;
    let socket = Path::new(dev.ready["socket"].as_str().unwrap());
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut least = u64::MAX;
    for second in 0..seconds {
        ticks.tick().await;
        for role in ROLES {
            let role = role.map(|role| format!("&role={role}")).unwrap_or_default();
            let target = format!("/v1/token?service=snowflake&user={ALICE}{role}");
            let reply = request(socket, "GET", &target, &[], "").await;
            assert_eq!(reply.status, 200, "second {second}: {}", reply.body);
            let left = reply.json()["expires_in"].as_u64().unwrap();
            assert!(left >= LIFETIME / 4, "second {second}{role}: {left} s left");
            least = least.min(left);
        }
    }
    let stats = dev.stats().await;
    let by_scope = stats["refreshes_by_scope"].as_object().unwrap();
    let refreshes = |word: &str| -> u64 {
        let of_role = by_scope.iter().filter(|(scope, _)| scope.contains(word));
        of_role.map(|(_, count)| count.as_u64().unwrap()).sum()
    };
    // A token of 20 s is refreshed when three quarters of it are over; the default scopes are those of role PUBLIC, and four users'
    // imports come on top.
    let per_role = (seconds * 10).div_ceil(148) + 1;
    assert!(refreshes("ANALYST") <= per_role && refreshes("ANALYST") >= seconds / LIFETIME, "{stats:#}");
    assert!(refreshes("PUBLIC") <= 2 * per_role + 2, "{stats:#}");
    assert_eq!(stats["presented_twice"], 0, "{stats:#}");
    assert_eq!(stats["families_revoked"], serde_json::json!([]));
    eprintln!("{seconds} s, {} requests, least life {least} s, refreshes {by_scope:?}", seconds * 3);
}

#[tokio::test]
async fn once_prints_the_claims_of_a_token_that_went_over_the_socket() {
    let output =
        tokio::task::spawn_blocking(|| Command::new(PROGRAM).args(["dev", "--once"]).output().unwrap());
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let claims: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(claims["sub"], ALICE);
    assert_eq!(claims["aud"], "https://dev.snowflakecomputing.com");
}

#[tokio::test]
async fn beside_the_server_alone_a_sidecar_is_started_by_hand_as_printed() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), &["--server-only"]).await;
    assert!(dev.ready["socket"].is_null());
    let place = directory.path().join("dev");
    assert_eq!(
        dev.ready["config"].as_str().unwrap(),
        place.canonicalize().unwrap().join("bursar.toml").to_str().unwrap()
    );
    let sidecar = crate::support::sidecar::Sidecar::start(&place).await;
    let token = std::fs::read_to_string(place.join(format!("snowflake-{ALICE}.refresh-token"))).unwrap();
    let reply = sidecar.import("snowflake", ALICE, &token).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    let (status, _) = sidecar.stop().await;
    assert!(status.success());
}
