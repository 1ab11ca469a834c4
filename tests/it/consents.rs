//! Users connect through the admin socket: the real program, the strict development server, and browsers of the tests' own.

mod abandoned;
mod device;
mod password;
mod terminal;

use std::time::Duration;

use bursar::dev::authorization_server::DevServer;
use bursar::tasks::Tasks;
use serde_json::{Value, json};

use crate::support::http::{self, Answer};
use crate::support::sidecar::{Reply, Sidecar, request};
use crate::support::{ALICE, BOB, World};

const HERE: &str = "http://127.0.0.1:8976";

impl World {
    /// Its keys are made before anybody waits for them: that takes a while on a busy machine.
    async fn warm() -> Self {
        let world = Self::start().await;
        for server in [DevServer::SNOWFLAKE, DevServer::DATABRICKS] {
            let url = format!("{}/v1/keys", world.server.issuer(server));
            assert_eq!(http::send(&Tasks::new(), "GET", &url, &[], "").await.unwrap().status, 200);
        }
        world
    }

    /// With an audit log.
    async fn recorded() -> Self {
        let world = Self::warm().await;
        let file = world.path().join("audit.jsonl").display().to_string();
        world.configure("[log]", &format!("[audit]\nfile = \"{file}\"\n[log]"));
        world
    }

    /// Once the sidecar has ended, the lines of its events of users' consents: how each ended, for whom and how the user was asked.
    fn recorded_consents(&self) -> Vec<(String, String, String)> {
        let log = std::fs::read_to_string(self.path().join("audit.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |line: &Value, member: &str| line[member].as_str().unwrap_or("-").to_owned();
        lines
            .filter(|line| line["event"] == "connect")
            .map(|line| (text(&line, "result"), text(&line, "user"), text(&line, "detail")))
            .collect()
    }

    /// How many logins were given back, once nothing waits to be.
    async fn given_back(&self, sidecar: &Sidecar) -> usize {
        for _ in 0..2000 {
            let status = request(&sidecar.admin_socket(), "GET", "/v1/status", &[], "").await.json();
            if status["waiting_to_be_revoked"] == 0 {
                let revoked = self.stats().await["families_revoked"].clone();
                return revoked.as_array().unwrap().iter().filter(|one| one["reason"] == "revoked").count();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("still waiting to be revoked: {}", sidecar.read_log());
    }
}

impl Sidecar {
    pub(crate) async fn post(&self, target: &str, body: &Value) -> Reply {
        request(&self.admin_socket(), "POST", target, &[], &body.to_string()).await
    }

    /// How many consents ended so.
    async fn connects(&self, labels: &[&str]) -> String {
        self.counter("bursar_connects_total", labels).await.to_string()
    }

    async fn begin(&self, service: &str, roles: &[&str]) -> Value {
        let body = json!({ "service": service, "roles": roles, "redirect_uri": HERE });
        let reply = self.post("/v1/authorizations", &body).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        reply.json()
    }

    async fn finish(&self, begun: &Value, query: &str) -> Reply {
        let target = format!("/v1/authorizations/{}", begun["id"].as_str().unwrap());
        self.post(&target, &json!({ "query": query })).await
    }

    /// The whole of it.
    async fn log_in(&self, service: &str, roles: &[&str], user: &str) -> Reply {
        let begun = self.begin(service, roles).await;
        let query = sign_in(&begun, user).await;
        self.finish(&begun, &query).await
    }
}

async fn post_form(url: &str, form: &[(&str, &str)]) -> Answer {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    http::send(&Tasks::new(), "POST", url, &headers, &body).await.unwrap()
}

/// What a browser comes back with, once the user has filled the form in.
async fn come_back(authorization_url: &str, form: &[(&str, &str)]) -> String {
    let answer = post_form(authorization_url, form).await;
    assert_eq!(answer.status, 302, "{}", answer.body);
    let location = url::Url::parse(answer.header("location")).unwrap();
    assert_eq!(location.host_str(), Some("127.0.0.1"));
    location.query().unwrap().to_owned()
}

async fn sign_in(begun: &Value, user: &str) -> String {
    let url = begun["authorization_url"].as_str().unwrap();
    come_back(url, &[("username", user), ("password", "password"), ("action", "login")]).await
}

/// A query with one parameter changed, or left out if `value` is empty.
fn with(query: &str, name: &str, value: &str) -> String {
    let mut pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .filter(|(known, _)| known != name)
        .collect();
    if !value.is_empty() {
        pairs.push((name.to_owned(), value.to_owned()));
    }
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn parameter(query: &str, name: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(known, _)| known == name).unwrap().1.into_owned()
}

/// Status, error and what it is called more finely.
fn refused(reply: &Reply) -> (u16, String, String) {
    let (status, error) = reply.error();
    (status, error, reply.json()["result"].as_str().unwrap_or("-").to_owned())
}

fn is(status: u16, error: &str, result: &str) -> (u16, String, String) {
    (status, error.to_owned(), result.to_owned())
}

#[tokio::test]
async fn a_user_who_signs_in_is_connected_and_their_token_is_vended() {
    let world = World::recorded().await;
    let sidecar = world.sidecar().await;
    let begun = sidecar.begin("snowflake", &["ANALYST"]).await;
    assert_eq!(begun["redirect_uri"], format!("{HERE}/callback/snowflake"));
    assert_eq!(begun["expires_in"], 600);
    let query = sign_in(&begun, ALICE).await;
    let reply = sidecar.finish(&begun, &query).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let grant = reply.json();
    assert_eq!((&grant["user"], &grant["state"]), (&json!(ALICE), &json!("active")));
    assert!(grant["scope"].as_str().unwrap().contains("session:role:ANALYST"), "{grant}");
    for role in [None, Some("PUBLIC"), Some("ANALYST")] {
        sidecar.token("snowflake", ALICE, role).await.token();
    }
    assert_eq!(sidecar.connects(&["\"snowflake\"", "\"ok\""]).await, "1");
    let again = sidecar.finish(&begun, &query).await;
    assert_eq!(again.error(), (404, "not_found".to_owned()), "each once");
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
    assert_eq!(
        world.recorded_consents(),
        [
            ("ok".to_owned(), ALICE.to_owned(), "code".to_owned()),
            ("not_found".to_owned(), "-".to_owned(), "code".to_owned()),
        ]
    );
}

#[tokio::test]
async fn only_the_roles_that_were_asked_for_are_granted_and_connecting_again_grants_others() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    assert_eq!(sidecar.log_in("snowflake", &[], ALICE).await.status, 201);
    sidecar.token("snowflake", ALICE, None).await.token();
    assert_eq!(sidecar.token("snowflake", ALICE, Some("ANALYST")).await.error().0, 409);
    let before = sidecar.grant("snowflake", ALICE).await;

    assert_eq!(sidecar.log_in("snowflake", &["ANALYST"], ALICE).await.status, 201);
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    let after = sidecar.grant("snowflake", ALICE).await;
    assert_eq!((&before["state"], &after["state"]), (&json!("active"), &json!("active")));
    assert_eq!(sidecar.log_in("snowflake", &[], BOB).await.status, 201);
    assert_eq!(sidecar.grant("snowflake", ALICE).await["user"], ALICE, "whoever else connects");
    // The login before is neither presented again nor harmed.
    world.assert_nothing_was_lost().await;
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_said_before_anybody_signs_in() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    let begin = |body: Value| {
        let sidecar = &sidecar;
        async move { sidecar.post("/v1/authorizations", &body).await.error() }
    };
    let invalid = (400, "invalid_request".to_owned());
    for body in [
        json!({}),
        json!({ "service": "snowflake" }),
        json!({ "service": "snowflake", "redirect_uri": HERE, "scope": "all" }),
        json!({ "service": "snowflake", "redirect_uri": HERE, "roles": ["NOSUCH"] }),
        json!({ "service": "snowflake", "redirect_uri": "http://evil.example:80/callback/snowflake" }),
        json!({ "service": "snowflake", "redirect_uri": "http://127.0.0.1:1/callback/databricks" }),
    ] {
        assert_eq!(begin(body.clone()).await, invalid, "{body}");
    }
    let unknown = json!({ "service": "nosuch", "redirect_uri": HERE });
    assert_eq!(begin(unknown).await, (404, "unknown_service".to_owned()));
    for _ in 0..64 {
        sidecar.begin("snowflake", &[]).await;
    }
    let one_more = begin(json!({ "service": "snowflake", "redirect_uri": HERE })).await;
    assert_eq!(one_more, (429, "too_many_requests".to_owned()));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn an_answer_that_is_not_the_one_that_was_asked_for_is_not_redeemed() {
    let world = World::recorded().await;
    let sidecar = world.sidecar().await;
    world.control_stats_reset().await;
    let issuer = world.server.issuer(DevServer::DATABRICKS);
    let other = sidecar.begin("databricks", &[]).await;
    let others_answer = sign_in(&other, BOB).await;
    type Change<'a> = &'a dyn Fn(&str) -> String;
    let cases: [(&str, Change<'_>); 8] = [
        ("no state", &|mine| with(mine, "state", "")),
        ("a state of nobody's", &|mine| with(mine, "state", "x")),
        ("a swapped state", &|mine| with(mine, "state", &parameter(&others_answer, "state"))),
        ("another server's answer", &|_| others_answer.clone()),
        // RFC 9700 4.4: the honest server's user, at the other one's mercy.
        ("a mix-up", &|mine| with(&others_answer, "state", &parameter(mine, "state"))),
        ("another issuer", &|mine| with(mine, "iss", &issuer)),
        ("no issuer, though it is announced", &|mine| with(mine, "iss", "")),
        ("a parameter twice", &|mine| format!("{mine}&code=x")),
    ];
    for (what, change) in &cases {
        let begun = sidecar.begin("snowflake", &[]).await;
        let mine = sign_in(&begun, ALICE).await;
        let reply = sidecar.finish(&begun, &change(&mine)).await;
        assert_eq!(refused(&reply), is(400, "invalid_request", "unsolicited"), "{what}");
        assert_eq!(sidecar.finish(&begun, &mine).await.status, 404, "{what}: a second try");
    }
    assert_eq!(world.token_requests().await, 0, "no code was sent anywhere");
    assert!(sidecar.grant("snowflake", ALICE).await.is_null());
    // What can't be read as an answer at all is not counted as one.
    assert_eq!(sidecar.connects(&["\"unsolicited\""]).await, (cases.len() - 1).to_string());
    world.finish(sidecar).await;
    assert!(world.recorded_consents().iter().step_by(2).all(|(result, ..)| result == "unsolicited"));
}

#[tokio::test]
async fn a_stolen_code_is_worth_nothing_with_another_verifier() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    let (victim, thief) = (sidecar.begin("snowflake", &[]).await, sidecar.begin("snowflake", &[]).await);
    let stolen = sign_in(&victim, ALICE).await;
    let own = sign_in(&thief, BOB).await;
    let injected = with(&own, "code", &parameter(&stolen, "code"));
    let reply = sidecar.finish(&thief, &injected).await;
    assert_eq!(refused(&reply), is(409, "login_required", "not_taken"));
    assert!(
        sidecar.grant("snowflake", ALICE).await.is_null() && sidecar.grant("snowflake", BOB).await.is_null()
    );
    world.finish(sidecar).await;
}

#[tokio::test]
async fn what_the_user_and_the_policies_say_is_told_apart() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    let begun = sidecar.begin("snowflake", &[]).await;
    let url = begun["authorization_url"].as_str().unwrap();
    let cancelled = come_back(url, &[("action", "cancel")]).await;
    let reply = sidecar.finish(&begun, &cancelled).await;
    assert_eq!(refused(&reply), is(409, "login_required", "cancelled"));
    let begun = sidecar.begin("snowflake", &[]).await;
    let unassigned = sign_in(&begun, "mallory@example.com").await;
    let reply = sidecar.finish(&begun, &unassigned).await;
    assert_eq!(refused(&reply), is(502, "authorization_server_refused", "not_allowed"));
    assert!(reply.json()["hint"].as_str().unwrap().contains("Assignments"), "{}", reply.body);
    world.finish(sidecar).await;
}

/// A consent whose tokens are wrong in one way comes to nothing, leaves the grant that was there alone, and is given back.
#[tokio::test]
async fn tokens_that_are_not_what_was_asked_for_make_no_grant_and_are_given_back() {
    let world = World::warm().await;
    let sidecar = world.connected().await;
    let before = sidecar.grant("snowflake", ALICE).await;
    let invalid = |result: &str| is(502, "token_invalid", result);
    let unverified = invalid("token_invalid");
    let cases = [
        ("other_id_token", unverified.clone()),
        ("wrong_nonce", unverified.clone()),
        ("no_id_token", unverified.clone()),
        ("wrong_audience", unverified.clone()),
        ("wrong_issuer", unverified.clone()),
        ("wrong_client", unverified.clone()),
        ("expired", unverified.clone()),
        ("alg_none", unverified.clone()),
        ("hs256_public_key", unverified.clone()),
        ("wrong_key", unverified.clone()),
        ("id_token", unverified.clone()),
        ("jwe", unverified.clone()),
        ("opaque", unverified.clone()),
        ("dpop", unverified),
        ("less_scope", is(409, "login_required", "less_granted")),
    ];
    for (given_back, (fault, expected)) in (1..).zip(cases) {
        world.fault(json!({ "do": fault, "grant_type": "authorization_code" })).await;
        let reply = sidecar.log_in("snowflake", &["ANALYST"], ALICE).await;
        assert_eq!(refused(&reply), expected, "{fault}: {}", reply.body);
        assert_eq!(world.given_back(&sidecar).await, given_back, "{fault}");
    }
    let after = sidecar.grant("snowflake", ALICE).await;
    assert_eq!((&before["created_at"], &before["state"]), (&after["created_at"], &after["state"]));
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    world.finish(sidecar).await;
}

#[tokio::test]
async fn without_a_refresh_token_there_is_nothing_to_keep_and_the_hint_says_where_to_look() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    world.fault(json!({ "do": "no_refresh_token", "grant_type": "authorization_code" })).await;
    let reply = sidecar.log_in("snowflake", &[], ALICE).await;
    assert_eq!(refused(&reply), is(502, "authorization_server_refused", "no_refresh_token"));
    assert!(reply.json()["hint"].as_str().unwrap().contains("offline_access"));
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_sign_in_must_be_as_strong_and_as_recent_as_the_service_wants() {
    let world = World::warm().await;
    let strong = "urn:okta:loa:1fa:pwd";
    world.configure(
        "[services.snowflake]\n",
        &format!("[services.snowflake]\nacr_values = \"{strong}\"\nmax_age = \"1h\"\n"),
    );
    let sidecar = world.sidecar().await;
    let begun = sidecar.begin("snowflake", &[]).await;
    let asked = begun["authorization_url"].as_str().unwrap().split_once('?').unwrap().1.to_owned();
    assert_eq!(
        (parameter(&asked, "acr_values").as_str(), parameter(&asked, "max_age").as_str()),
        (strong, "3600")
    );
    for fault in ["weak_sign_in", "old_sign_in"] {
        world.fault(json!({ "do": fault })).await;
        let reply = sidecar.log_in("snowflake", &[], ALICE).await;
        assert_eq!(refused(&reply), is(409, "login_required", "signed_in_too_weakly"), "{fault}");
    }
    assert_eq!(sidecar.log_in("snowflake", &[], ALICE).await.status, 201);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again_only_where_the_code_was_certainly_not_taken_up() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    let fault = |fault: Value| {
        let world = &world;
        let sidecar = &sidecar;
        async move {
            world.fault(json!({ "do": "clear" })).await;
            world.fault(fault).await;
            let before = world.token_requests().await;
            let reply = sidecar.log_in("snowflake", &[], ALICE).await;
            (reply, world.token_requests().await - before)
        }
    };
    let unavailable = is(503, "authorization_server_unavailable", "authorization_server_unavailable");
    for kind in ["cut_before", "cut_after", "garbage", "proxy_page"] {
        let (reply, requests) = fault(json!({ "do": kind, "grant_type": "authorization_code" })).await;
        assert_eq!((refused(&reply), requests), (unavailable.clone(), 1), "{kind}");
        assert!(reply.headers.contains_key("retry-after"), "{kind}");
    }
    let (reply, requests) = fault(json!({ "do": "rate_limit", "seconds": 60, "endpoint": "token" })).await;
    assert_eq!((refused(&reply), requests), (unavailable, 1), "nobody waits for a minute");
    let (reply, _) =
        fault(json!({ "do": "rate_limit", "seconds": 1, "grant_type": "authorization_code" })).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn tokens_whose_keys_can_not_be_had_are_given_back() {
    let world = World::warm().await;
    let sidecar = world.sidecar().await;
    let begun = sidecar.begin("snowflake", &[]).await;
    let query = sign_in(&begun, ALICE).await;
    // The key that was published ahead takes over, and so does one that nobody has seen.
    for _ in 0..2 {
        world.fault(json!({ "do": "rotate_keys", "server": DevServer::SNOWFLAKE })).await;
    }
    world.fault(json!({ "do": "status", "status": 503, "endpoint": "keys", "next": 100 })).await;
    let reply = sidecar.finish(&begun, &query).await;
    let unavailable = is(503, "authorization_server_unavailable", "authorization_server_unavailable");
    assert_eq!(refused(&reply), unavailable);
    assert_eq!(world.given_back(&sidecar).await, 1);
    assert!(sidecar.grant("snowflake", ALICE).await.is_null());
    world.finish(sidecar).await;
}
