//! The connect page over real connections: what a user does, and what somebody else tries in their name.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::browser::{Browser, Page};
use crate::support::sidecar::{Sidecar, request};
use crate::support::{ALICE, BOB, World};

mod hardened;

const WORKFLOWS: &str = "https://workflows.example.com";

struct Site {
    // Before the world, in which its log is.
    sidecar: Sidecar,
    world: World,
    origin: String,
}

impl Site {
    async fn start() -> Self {
        Self::with("").await
    }

    /// With more lines in `[connect]`.
    async fn with(lines: &str) -> Self {
        let world = World::start().await;
        let lines = lines.replace("AUDIT", world.path().join("audit.jsonl").to_str().unwrap());
        let origin = world.open_page(&lines);
        let sidecar = world.sidecar().await;
        Self { sidecar, world, origin }
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.origin)
    }

    async fn finish(self) {
        self.world.finish(self.sidecar).await;
    }
}

/// What a user does at the development server's login form; where that sends the browser.
async fn log_in(browser: &mut Browser, at: &str, user: &str) -> String {
    let page = browser.get(at).await;
    assert_eq!(page.status, 200, "{}", page.body);
    let form = [("username", user), ("password", "password"), ("action", "login")];
    let sent = browser.post(at, &form).await;
    assert_eq!(sent.status, 302, "{}", sent.body);
    sent.location()
}

/// From the button to the answer of the callback.
async fn connect(browser: &mut Browser, service: &str, user: &str, roles: &[&str]) -> Page {
    let away = press(browser, service, roles).await;
    let back = log_in(browser, &away, user).await;
    browser.get(&back).await
}

/// Presses a service's button; where that sends the browser.
async fn press(browser: &mut Browser, service: &str, roles: &[&str]) -> String {
    let token = browser.get("/").await.form_token();
    let mut form = vec![("csrf", token.as_str())];
    form.extend(roles.iter().map(|role| ("role", *role)));
    let sent = browser.post(&format!("/connect/{service}"), &form).await;
    assert_eq!(sent.status, 303, "{}", sent.body);
    sent.location()
}

async fn sign_in(browser: &mut Browser, user: &str) -> Page {
    let token = browser.get("/").await.form_token();
    let sent = browser.post("/sign-in/snowflake", &[("csrf", &token)]).await;
    let back = log_in(browser, &sent.location(), user).await;
    browser.get(&back).await
}

async fn reload(sidecar: &Sidecar) {
    let reply = request(&sidecar.admin_socket(), "POST", "/v1/reload", &[], "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
}

fn parameter(url: &str, name: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    let found = url.query_pairs().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no {name} in {url}")).1.into_owned()
}

fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let mut changed = url::Url::parse(url).unwrap();
    let kept: Vec<(String, String)> =
        changed.query_pairs().filter(|(known, _)| known != name).map(|(n, v)| (n.into(), v.into())).collect();
    changed.query_pairs_mut().clear().extend_pairs(kept).append_pair(name, value);
    changed.into()
}

#[tokio::test]
async fn a_user_connects_once_and_workers_have_tokens_until_the_user_disconnects() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let callback = connect(&mut browser, "snowflake", ALICE, &["ANALYST"]).await;
    assert_eq!((callback.status, callback.location().as_str()), (303, "/connected/snowflake"));
    let page = browser.get("/connected/snowflake").await;
    assert!(page.body.contains("<h1>Connected</h1>") && page.body.contains(ALICE), "{}", page.body);
    site.sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();

    let page = browser.get("/disconnect/snowflake").await;
    assert!(page.body.contains("Sessions that are open in Snowflake stay open"), "{}", page.body);
    let page = browser.post("/disconnect/snowflake", &[("csrf", &page.form_token())]).await;
    assert!(page.status == 200 && page.body.contains("<h1>Disconnected</h1>"), "{}", page.body);
    let refused = site.sidecar.token("snowflake", ALICE, None).await;
    assert_eq!(refused.error(), (409, "login_required".to_owned()));
    assert!(browser.get("/").await.body.contains("Needs you"));
    site.finish().await;
}

#[tokio::test]
async fn one_sign_in_shows_what_is_ones_own_and_nothing_of_anybody_else() {
    let site = Site::start().await;
    site.world.connect(&site.sidecar, ALICE).await;
    let mut bob = site.browser();
    let nobody = bob.get("/").await;
    assert!(!nobody.body.contains("Connected since") && !nobody.body.contains("Signed in as"));
    assert_eq!(sign_in(&mut bob, BOB).await.location(), "/");
    let page = bob.get("/").await;
    assert!(page.body.contains(BOB) && !page.body.contains(ALICE), "{}", page.body);
    assert_eq!(page.body.matches("Not connected").count(), 2, "{}", page.body);
    assert_eq!(bob.get("/disconnect/snowflake").await.status, 404);
    let mut alice = site.browser();
    sign_in(&mut alice, ALICE).await;
    let page = alice.get("/").await;
    assert_eq!(page.body.matches("Connected since").count(), 2, "of both servers of one org: {}", page.body);
    site.finish().await;
}

#[tokio::test]
async fn forms_of_other_sites_and_other_sessions_do_nothing() {
    let site = Site::start().await;
    let (mut victim, mut other) = (site.browser(), site.browser());
    let (token, foreign) = (victim.get("/").await.form_token(), other.get("/").await.form_token());
    for form in [vec![], vec![("csrf", "")], vec![("csrf", foreign.as_str())]] {
        assert_eq!(victim.post("/connect/snowflake", &form).await.status, 403, "{form:?}");
    }
    let own = [("csrf", token.as_str())];
    for headers in [
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("sec-fetch-site", "cross-site")],
        vec![],
    ] {
        let sent = victim.post_with("/connect/snowflake", &own, &headers).await;
        assert_eq!(sent.status, 403, "{headers:?}");
    }
    let twice = [("csrf", token.as_str()), ("csrf", token.as_str())];
    assert_eq!(victim.post("/connect/snowflake", &twice).await.status, 403);
    assert_eq!(site.browser().post("/sign-out", &own).await.status, 403, "without the session");
    assert_eq!(victim.get("/connect/snowflake").await.status, 405, "no link does it");
    assert_eq!(victim.post("/connect/snowflake", &own).await.status, 303);
    site.finish().await;
}

#[tokio::test]
async fn an_answer_counts_once_and_only_in_the_browser_that_was_sent_away() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let away = press(&mut browser, "snowflake", &[]).await;
    let back = log_in(&mut browser, &away, ALICE).await;
    let mut thief = site.browser();
    thief.get("/").await;
    assert_eq!(thief.get(&back).await.status, 400, "a stolen code, without what its verifier is sealed in");
    let kept = browser.cookies();
    assert_eq!(browser.get(&back).await.status, 303);
    assert_eq!(browser.get(&back).await.status, 400, "its cookie is gone");
    browser.restore(kept);
    assert_eq!(browser.get(&back).await.status, 400, "and would not help");
    site.finish().await;
}

#[tokio::test]
async fn a_swapped_or_foreign_answer_is_none() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let first = press(&mut browser, "snowflake", &[]).await;
    let second = press(&mut browser, "snowflake", &[]).await;
    let back = log_in(&mut browser, &first, ALICE).await;
    // The first one's code with the second one's state: the code was not had with that verifier.
    let swapped = with_parameter(&back, "state", &parameter(&second, "state"));
    let page = browser.get(&swapped).await;
    assert_eq!(page.status, 502, "{}", page.body);
    let third = press(&mut browser, "snowflake", &[]).await;
    let back = log_in(&mut browser, &third, ALICE).await;
    let wrong_issuer = with_parameter(&back, "iss", &site.world.server.issuer("ausdevdatabricks"));
    assert_eq!(browser.get(&wrong_issuer).await.status, 400);
    let fourth = press(&mut browser, "snowflake", &[]).await;
    let back = log_in(&mut browser, &fourth, ALICE).await;
    let elsewhere = back.replace("/callback/snowflake", "/callback/databricks");
    assert_eq!(browser.get(&elsewhere).await.status, 400, "one server's answer at another's address");
    for made_up in
        ["/callback/snowflake", "/callback/snowflake?code=a&state=b", "/callback/nobody?code=a&state=b"]
    {
        assert_eq!(browser.get(made_up).await.status, 400, "{made_up}");
    }
    let twice = format!("{back}&state={}", parameter(&back, "state"));
    assert_eq!(browser.get(&twice).await.status, 400);
    assert_eq!(site.sidecar.token("snowflake", ALICE, None).await.status, 409, "nothing came of any of it");
    site.finish().await;
}

#[tokio::test]
async fn who_knew_a_session_before_the_sign_in_knows_nothing() {
    let site = Site::start().await;
    let mut attacker = site.browser();
    let token = attacker.get("/").await.form_token();
    let mut victim = site.browser();
    victim.restore(attacker.cookies());
    sign_in(&mut victim, ALICE).await;
    assert!(victim.get("/").await.body.contains(ALICE));
    assert!(!attacker.get("/").await.body.contains(ALICE), "fixation");
    assert_eq!(victim.post("/sign-out", &[("csrf", &token)]).await.status, 403, "nor is its form token good");
    site.finish().await;
}

#[tokio::test]
async fn who_signs_out_is_signed_out_wherever_a_copy_of_the_cookie_lies() {
    let site = Site::start().await;
    let mut browser = site.browser();
    sign_in(&mut browser, ALICE).await;
    let (copy, token) = (browser.cookies(), browser.get("/").await.form_token());
    assert_eq!(browser.post("/sign-out", &[("csrf", &token)]).await.location(), "/");
    assert!(!browser.get("/").await.body.contains(ALICE));
    let mut thief = site.browser();
    thief.restore(copy);
    assert!(!thief.get("/").await.body.contains(ALICE));
    site.finish().await;
}

#[tokio::test]
async fn somebody_else_at_the_server_takes_nobodys_place() {
    let site = Site::start().await;
    let mut browser = site.browser();
    sign_in(&mut browser, ALICE).await;
    let page = connect(&mut browser, "snowflake", BOB, &[]).await;
    assert_eq!(page.status, 409, "{}", page.body);
    assert!(page.body.contains("You are two people") && page.body.contains(BOB), "{}", page.body);
    assert!(browser.get("/").await.body.contains(ALICE));
    for user in [ALICE, BOB] {
        assert_eq!(site.sidecar.token("snowflake", user, None).await.status, 409);
    }
    site.finish().await;
}

#[tokio::test]
async fn the_way_back_leads_to_a_configured_origin_or_nowhere() {
    let site = Site::with(&format!("return_to = [\"{WORKFLOWS}\"]")).await;
    let mut browser = site.browser();
    for bad in [
        "https://evil.example/",
        "//evil.example",
        "https://workflows.example.com.evil.example",
        "javascript:alert(1)",
    ] {
        let page = browser.get(&format!("/?return_to={}", encode(bad))).await;
        assert!(
            page.status == 200 && !page.body.contains("evil.example") && !page.body.contains("javascript")
        );
    }
    let run = format!("{WORKFLOWS}/runs/7?x=1");
    let page = browser.get(&format!("/?service=snowflake&role=ANALYST&return_to={}", encode(&run))).await;
    assert!(page.body.contains(&format!("href=\"{run}\"")), "{}", page.body);
    assert!(page.body.contains("value=\"ANALYST\" checked"), "{}", page.body);
    assert!(
        page.body.find("service-snowflake") < page.body.find("service-databricks"),
        "first what is asked for"
    );
    let (token, evil) = (page.form_token(), "https://evil.example/");
    for (link, expected) in [
        (evil, "/connected/snowflake".to_owned()),
        (run.as_str(), format!("/connected/snowflake?return_to={}", form_encode(&run))),
    ] {
        let token = if link == evil { token.clone() } else { browser.get("/").await.form_token() };
        let form = [("csrf", token.as_str()), ("return_to", link)];
        let sent = browser.post("/connect/snowflake", &form).await;
        let back = log_in(&mut browser, &sent.location(), ALICE).await;
        assert_eq!(browser.get(&back).await.location(), expected);
    }
    let page = browser.get(&format!("/connected/snowflake?return_to={}", encode(&run))).await;
    assert!(
        page.body.contains("https://workflows.example.com/runs/7?x=1&#38;connected=snowflake"),
        "{}",
        page.body
    );
    let page = browser.get(&format!("/connected/snowflake?return_to={}", encode(evil))).await;
    assert!(page.status == 200 && !page.body.contains("evil"), "{}", page.body);
    site.finish().await;
}

#[tokio::test]
async fn nothing_from_outside_becomes_markup_or_a_header() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let script = encode("\"><script>alert(1)</script>");
    let split = "%0d%0aset-cookie:%20evil=1";
    for path in [
        format!("/{script}"),
        format!("/?service={script}&role={script}&return_to={script}"),
        format!("/callback/snowflake?error={script}&error_description={script}&state={script}"),
        format!("/callback/{script}?code=1&state=2"),
        format!("/{split}"),
        format!("/connected/{split}?return_to={split}"),
        format!("/?return_to={split}"),
    ] {
        let page = browser.get(&path).await;
        assert!(!page.body.contains("<script"), "{path}: {}", page.body);
        assert!(
            page.headers
                .get_all("set-cookie")
                .iter()
                .all(|cookie| !cookie.to_str().unwrap().contains("evil"))
        );
    }
    // Declined, and the server says why in words of its own: none of them is repeated.
    let away = press(&mut browser, "snowflake", &[]).await;
    let state = parameter(&away, "state");
    let issuer = encode(&site.world.server.issuer("ausdevsnowflake"));
    let declined = format!(
        "/callback/snowflake?state={state}&iss={issuer}&error=access_denied&error_description={script}"
    );
    let page = browser.get(&declined).await;
    assert!(page.status == 403 && page.body.contains("You did not connect"), "{}", page.body);
    assert!(!page.body.contains("alert(1)"), "{}", page.body);
    site.finish().await;
}

#[tokio::test]
async fn every_answer_is_hardened_and_meant_for_this_host_alone() {
    let site = Site::start().await;
    let mut browser = site.browser();
    for (method, path, status) in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/nothing", 404),
        ("GET", "/disconnect/snowflake", 403),
        ("DELETE", "/", 405),
        ("POST", "/", 405),
        ("HEAD", "/callback/snowflake?code=1&state=2", 405),
        ("GET", "/metrics", 404),
        ("GET", "/v1/token?service=snowflake", 404),
    ] {
        let page = browser.send(method, path, &[], "").await;
        assert_eq!(page.status, status, "{method} {path}");
        let header = |name: &str| page.headers[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        let issuer = url::Url::parse(&site.world.server.issuer("ausdevsnowflake")).unwrap();
        for part in [
            "default-src 'none'".to_owned(),
            "frame-ancestors 'none'".to_owned(),
            "base-uri 'none'".to_owned(),
            // Wherever the company's identity provider may be.
            format!("form-action 'self' {} https:;", issuer.origin().ascii_serialization()),
        ] {
            assert!(policy.contains(&part), "{part} in {policy}");
        }
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "same-origin");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin");
        assert!(header("content-type").starts_with("text/html"));
        let cookies = page.headers.get_all("set-cookie");
        for cookie in cookies.iter().map(|cookie| cookie.to_str().unwrap()) {
            assert!(cookie.contains("; HttpOnly; SameSite=Lax"), "{cookie}");
        }
    }
    for host in ["evil.example", "localhost", "127.0.0.1"] {
        let page = browser.send("GET", "/", &[("host", host)], "").await;
        assert_eq!(page.status, 421, "{host}");
        assert!(page.headers.get("set-cookie").is_none());
    }
    let style = browser.get("/").await.body;
    let style = style.split("stylesheet\" href=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let page = browser.get(&style).await;
    assert_eq!(page.header("cache-control"), "public, max-age=31536000, immutable");
    let page = browser.send("GET", &style, &[("host", "evil.example")], "").await;
    assert_eq!(page.status, 200, "or the page that says so has no style");
    assert_eq!(browser.get(&style.replace("page-", "page-0")).await.status, 404);
    let large = "x".repeat(100_000);
    assert_eq!(browser.post("/sign-out", &[("csrf", &large)]).await.status, 413);
    site.finish().await;
}

#[tokio::test]
async fn who_asks_too_often_is_told_so_and_what_it_costs_the_server_is_bounded() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let token = browser.get("/").await.form_token();
    let mut begun = 0;
    // How many depends on how fast they come.
    while browser.post("/connect/snowflake", &[("csrf", &token)]).await.status == 303 {
        begun += 1;
        assert!(begun < 1000, "no limit");
    }
    assert!(begun >= 40, "{begun} consents were begun");
    assert!(browser.cookies().len() <= 6, "cookies do not pile up: {}", browser.cookies().len());
    let mut refused = None;
    for _ in 0..2000 {
        let page = browser.get("/nothing").await;
        if page.status == 429 {
            refused = Some(page);
            break;
        }
    }
    let refused = refused.expect("a limit");
    assert!(
        refused.number("retry-after") > 0 && refused.body.contains("A little slower"),
        "{}",
        refused.body
    );
    site.finish().await;
}

#[tokio::test]
async fn each_failure_has_a_page_of_its_own_and_leaves_what_was_there() {
    let site = Site::start().await;
    site.world.connect(&site.sidecar, ALICE).await;
    let mut browser = site.browser();
    let token = site.sidecar.token("snowflake", ALICE, None).await.token();
    let page = connect(&mut browser, "snowflake", "mallory@example.com", &[]).await;
    assert!(page.status == 403 && page.body.contains("Your company does not allow this"), "{}", page.body);
    let away = press(&mut browser, "snowflake", &[]).await;
    let back = log_in(&mut browser, &away, ALICE).await;
    site.world.fault(json!({ "do": "no_refresh_token", "grant_type": "authorization_code" })).await;
    let page = browser.get(&back).await;
    assert!(page.status == 502 && page.body.contains("The connection would not last"), "{}", page.body);
    assert!(page.body.contains("offline_access"), "{}", page.body);
    let away = press(&mut browser, "snowflake", &[]).await;
    let back = log_in(&mut browser, &away, ALICE).await;
    site.world.fault(json!({ "do": "wrong_audience", "grant_type": "authorization_code" })).await;
    let page = browser.get(&back).await;
    assert!(page.status == 502 && page.body.contains("could not be verified"), "{}", page.body);
    assert_eq!(site.sidecar.token("snowflake", ALICE, None).await.token(), token, "the grant is as it was");
    let away = press(&mut browser, "snowflake", &[]).await;
    let back = log_in(&mut browser, &away, ALICE).await;
    site.world.fault(json!({ "do": "status", "status": 503, "grant_type": "authorization_code" })).await;
    let page = browser.get(&back).await;
    assert!(page.status == 503 && page.body.contains("does not answer"), "{}", page.body);
    site.finish().await;
}

#[tokio::test]
async fn what_users_do_is_counted_recorded_and_logged_without_a_code() {
    let site = Site::with("[audit]\nfile = \"AUDIT\"").await;
    let mut browser = site.browser();
    let away = press(&mut browser, "snowflake", &[]).await;
    let back = log_in(&mut browser, &away, ALICE).await;
    let connected = browser.get(&back).await;
    let page = browser.get("/disconnect/snowflake").await;
    let disconnected = browser.post("/disconnect/snowflake", &[("csrf", &page.form_token())]).await;
    let count = site.sidecar.counter("bursar_connects_total", &["snowflake", "\"ok\""]).await;
    assert!((count - 1.0).abs() < f64::EPSILON, "{count}");
    let log = site.sidecar.read_log();
    assert!(log.contains("path=\"/callback/snowflake\""), "{log}");
    assert!(!log.contains(&parameter(&back, "code")) && !log.contains(&parameter(&back, "state")), "{log}");
    let file = site.world.path().join("audit.jsonl");
    let mut recorded = std::fs::read_to_string(&file).unwrap();
    // Lines are written behind the answers' backs.
    while !recorded.contains(disconnected.header("x-request-id")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        recorded = std::fs::read_to_string(&file).unwrap();
    }
    let recorded: Vec<Value> = recorded.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (kind, page) in [("connect", connected), ("revoke", disconnected)] {
        let line = recorded.iter().find(|line| line["request_id"] == page.header("x-request-id"));
        let line = line.unwrap_or_else(|| panic!("no {kind} in {recorded:#?}"));
        assert_eq!((&line["event"], &line["result"]), (&json!(kind), &json!("ok")));
        assert_eq!((&line["user"], &line["service"]), (&json!(ALICE), &json!("snowflake")));
        assert!(line.get("caller").is_none(), "{line}");
    }
    site.finish().await;
}

/// A second server, of another realm, that says whatever it likes.
#[tokio::test]
async fn another_servers_word_counts_for_nothing_at_this_one() {
    let (world, other) = (World::start().await, World::start().await);
    let secret = world.path().join("other-secret");
    bursar::dev::write_private(&secret, other.server.client_secret().expose()).unwrap();
    let origin = world.open_page(&format!(
        "\n[authorization_servers.other]\nissuer = \"{}\"\nclient_id = \"{}\"\nclient_secret_file = \"{}\"\n\
         [services.other]\nauthorization_server = \"other\"\naudience = \"databricks\"\nscopes = [\"all-apis\"]\n",
        other.server.issuer("ausdevdatabricks"),
        other.server.client_id(),
        secret.display(),
    ));
    let site = Site { sidecar: world.sidecar().await, world, origin };
    site.world.connect(&site.sidecar, ALICE).await;
    let mut browser = site.browser();
    // Somebody is alice, says the other server.
    let page = connect(&mut browser, "other", ALICE, &[]).await;
    assert_eq!(page.location(), "/connected/other", "{}", page.body);
    let page = browser.get("/").await;
    assert_eq!(page.body.matches("Connected since").count(), 1, "{}", page.body);
    assert_eq!(browser.get("/disconnect/snowflake").await.status, 403, "nobody is known there");
    // Mix-up (RFC 9700 4.4): begun at the other server, which sends the browser on to the honest one.
    let away = press(&mut browser, "other", &[]).await;
    let honest = press(&mut browser, "snowflake", &[]).await;
    let mixed = with_parameter(&honest, "state", &parameter(&away, "state"));
    let back = log_in(&mut browser, &mixed, ALICE).await;
    assert!(back.contains("/callback/snowflake?"), "{back}");
    assert_eq!(browser.get(&back).await.status, 400, "the answer of one comes to the other's address");
    let away = press(&mut browser, "other", &[]).await;
    let mixed = with_parameter(&honest, "state", &parameter(&away, "state"));
    let back = log_in(&mut browser, &mixed, ALICE).await.replace("/callback/snowflake", "/callback/other");
    assert_eq!(browser.get(&back).await.status, 400, "or it names itself");
    let presented = &other.stats().await["token_requests_by_grant_type"]["authorization_code"];
    assert_eq!(presented, 1, "no code of the honest server has come to the other one");
    site.finish().await;
}

#[tokio::test]
async fn a_reload_changes_where_users_may_be_sent_back_to() {
    let site = Site::start().await;
    let mut browser = site.browser();
    let target = format!("/?return_to={}", encode(WORKFLOWS));
    sign_in(&mut browser, ALICE).await;
    assert!(!browser.get(&target).await.body.contains("Back to"));
    site.world.configure("[connect]", &format!("[connect]\nreturn_to = [\"{WORKFLOWS}\"]"));
    reload(&site.sidecar).await;
    let page = browser.get(&target).await;
    assert!(
        page.body.contains("Back to workflows.example.com") && page.body.contains(ALICE),
        "{}",
        page.body
    );
    site.finish().await;
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn form_encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
