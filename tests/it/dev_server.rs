//! Holds the development authorization server to what is known of Okta.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy takes what tests call for production code"
)]

mod code_flow;
mod device_flow;
mod errors;
mod faults;
mod forgeries;
mod keys_and_metadata;
mod limits;
mod refresh;
mod revocation;
mod settings;
mod stats;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bursar::clock::{ManualClock, Timestamp};
use bursar::dev::authorization_server::{DevServer, Options, Rotation};
use bursar::entropy::SystemEntropy;
use bursar::tasks::Tasks;
use serde_json::{Value, json};

use crate::support::http::{Answer, send};

const START: i64 = 1_800_000_000;
const LEEWAY: Duration = Duration::from_secs(30);
const LIFETIME: Duration = Duration::from_hours(1);
const ALICE: &str = "alice@example.com";
const SCOPES: [&str; 4] = ["openid", "offline_access", "session:role:PUBLIC", "session:role:ANALYST"];

/// A server of its own for each test, on a clock that stands still until the test moves it.
struct Scene {
    server: DevServer,
    clock: ManualClock,
    tasks: Tasks,
}

impl Scene {
    /// Rotating, leeway 30 s, and no limit for each user.
    async fn start() -> Self {
        let scene = Self::start_as_okta(Rotation::Rotating, LEEWAY).await;
        scene.set(json!({ "requests_per_second_per_user": 1000 })).await;
        scene
    }

    async fn start_as_okta(rotation: Rotation, leeway: Duration) -> Self {
        let (clock, tasks) = (ManualClock::new(Timestamp::from_secs(START)), Tasks::new());
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options =
            Options { listen, token_lifetime: LIFETIME, rotation, leeway, keys: crate::support::keys() };
        let server = DevServer::start(options, Arc::new(clock.clone()), Arc::new(SystemEntropy), &tasks)
            .await
            .unwrap();
        Self { server, clock, tasks }
    }

    fn endpoint(&self, path: &str) -> String {
        format!("{}/{path}", self.server.issuer(DevServer::SNOWFLAKE))
    }

    fn basic(&self) -> String {
        let pair = format!("{}:{}", self.server.client_id(), self.server.client_secret().expose());
        format!("Basic {}", STANDARD.encode(pair))
    }

    async fn get(&self, url: &str) -> Answer {
        send(&self.tasks, "GET", url, &[], "").await.unwrap()
    }

    /// As the client, by `client_secret_basic`.
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.try_post(path, form).await.unwrap()
    }

    async fn try_post(&self, path: &str, form: &[(&str, &str)]) -> Result<Answer, String> {
        let authorization = self.basic();
        let headers = [("authorization", authorization.as_str()), ("content-type", FORM)];
        send(&self.tasks, "POST", &self.endpoint(path), &headers, &encoded(form)).await
    }

    /// As nobody.
    async fn post_bare(&self, url: &str, form: &[(&str, &str)]) -> Answer {
        send(&self.tasks, "POST", url, &[("content-type", FORM)], &encoded(form)).await.unwrap()
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.post("v1/token", &refresh_form(token)).await
    }

    /// A refresh that is answered as it should be; gives the whole body.
    async fn refreshed(&self, token: &str) -> Value {
        let answer = self.refresh(token).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    async fn introspect(&self, token: &str) -> Value {
        let answer = self.post("v1/introspect", &[("token", token)]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    async fn is_active(&self, token: &str) -> bool {
        self.introspect(token).await["active"].as_bool().unwrap()
    }

    async fn control(&self, path: &str, body: &Value) -> Answer {
        let url = format!("{}/{path}", self.server.control());
        send(&self.tasks, "POST", &url, &[], &body.to_string()).await.unwrap()
    }

    async fn set(&self, settings: Value) {
        let answer = self.control("settings", &settings).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    async fn order(&self, fault: Value) {
        let answer = self.control("faults", &fault).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    async fn stats(&self) -> Value {
        self.get(&format!("{}/stats", self.server.control())).await.json()
    }

    /// Alice's refresh token.
    fn consent(&self) -> String {
        self.server.consent(DevServer::SNOWFLAKE, ALICE, &SCOPES).unwrap().expose().to_owned()
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

const FORM: &str = "application/x-www-form-urlencoded";
const REFRESH_TOKEN_INVALID: &str = "The refresh token is invalid or expired.";

fn encoded(form: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

fn refresh_form(token: &str) -> [(&str, &str); 2] {
    [("grant_type", "refresh_token"), ("refresh_token", token)]
}

fn text<'a>(body: &'a Value, name: &str) -> &'a str {
    body[name].as_str().unwrap_or_else(|| panic!("{name} in {body}"))
}

/// One part of a compact token, unverified.
fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn header(token: &str) -> Value {
    part(token, 0)
}

fn claims(token: &str) -> Value {
    part(token, 1)
}

fn assert_invalid_grant(answer: &Answer) {
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json(),
        json!({ "error": "invalid_grant", "error_description": REFRESH_TOKEN_INVALID })
    );
}
