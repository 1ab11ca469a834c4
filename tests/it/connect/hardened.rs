//! What the page withstands, and what it leaves of an attack.

use super::*;

#[tokio::test]
async fn services_that_know_their_users_by_different_claims_are_signed_in_to_one_by_one() {
    let site = Site::with(
        "[services.other]\nauthorization_server = \"databricks\"\naudience = \"databricks\"\n\
         scopes = [\"all-apis\"]\nuser_claim = \"uid\"\n",
    )
    .await;
    let mut browser = site.browser();
    sign_in(&mut browser, ALICE).await;
    let page = browser.get("/").await;
    assert_eq!(page.body.matches("Sign in to see<").count(), 1, "{}", page.body);
    assert!(page.body.contains("action=\"/sign-in/other\""), "{}", page.body);
    let sent = browser.post("/sign-in/other", &[("csrf", &page.form_token())]).await;
    let back = log_in(&mut browser, &sent.location(), ALICE).await;
    assert_eq!(browser.get(&back).await.location(), "/");
    let page = browser.get("/").await;
    assert!(!page.body.contains("Sign in to see<") && !page.body.contains("/sign-in/"), "{}", page.body);
    assert_eq!(page.body.matches("Not connected").count(), 3, "{}", page.body);
    site.finish().await;
}

#[tokio::test]
async fn a_sign_out_ends_what_the_session_was_before_its_last_sign_in_too() {
    let site = Site::start().await;
    let mut browser = site.browser();
    sign_in(&mut browser, ALICE).await;
    let earlier = browser.cookies();
    let page = connect(&mut browser, "snowflake", ALICE, &[]).await;
    assert_eq!(page.status, 303, "{}", page.body);
    assert_ne!(browser.cookies(), earlier, "another id");
    let token = browser.get("/").await.form_token();
    assert_eq!(browser.post("/sign-out", &[("csrf", &token)]).await.location(), "/");
    let mut thief = site.browser();
    thief.restore(earlier);
    assert!(!thief.get("/").await.body.contains(ALICE));
    site.finish().await;
}

#[tokio::test]
async fn an_answer_to_what_another_process_began_is_not_redeemed() {
    let mut site = Site::start().await;
    let mut browser = site.browser();
    let away = press(&mut browser, "snowflake", &["ANALYST"]).await;
    let back = log_in(&mut browser, &away, ALICE).await;
    let kept = browser.cookies();
    assert_eq!(browser.get(&back).await.status, 303);
    site.sidecar.kill();
    site.sidecar = site.world.sidecar().await;
    // The browser comes again with what it had, as if the answer had never arrived.
    browser.restore(kept);
    let page = browser.get(&back).await;
    assert!(page.status == 400 && page.body.contains("That took too long"), "{}", page.body);
    assert!(page.body.contains("name=\"role\" value=\"ANALYST\""), "what was asked for: {}", page.body);
    let codes = &site.world.stats().await["token_requests_by_grant_type"]["authorization_code"];
    assert_eq!(codes, 1, "a code that comes twice ends at some servers what it gave");
    site.sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    let late = site.sidecar.counter("bursar_connects_total", &["snowflake", "\"too_late\""]).await;
    assert!((late - 1.0).abs() < f64::EPSILON, "{late}");
    site.finish().await;
}

#[tokio::test]
async fn an_attack_on_the_callback_leaves_traces_and_does_not_fill_the_disk() {
    let site = Site::with("[audit]\nfile = \"AUDIT\"").await;
    let mut browser = site.browser();
    for _ in 0..50 {
        assert_eq!(browser.get("/callback/snowflake?code=a&state=b").await.status, 400);
    }
    let unknown = site.sidecar.counter("bursar_connects_total", &["unknown", "\"unsolicited\""]).await;
    assert!((unknown - 50.0).abs() < f64::EPSILON, "{unknown}");
    let away = press(&mut browser, "snowflake", &[]).await;
    let back = log_in(&mut browser, &away, ALICE).await;
    let elsewhere = back.replace("/callback/snowflake", "/callback/databricks");
    assert_eq!(browser.get(&elsewhere).await.status, 400);
    let known = site.sidecar.counter("bursar_connects_total", &["snowflake", "\"unsolicited\""]).await;
    assert!((known - 1.0).abs() < f64::EPSILON, "{known}");
    // Written behind the answers' backs, and in order.
    assert_eq!(browser.get(&back).await.status, 303);
    let file = site.world.path().join("audit.jsonl");
    let recorded = loop {
        let recorded = std::fs::read_to_string(&file).unwrap();
        if recorded.contains("\"event\":\"connect\",\"result\":\"ok\"") {
            break recorded;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let lines = recorded.matches("\"unsolicited\"").count();
    assert!((10..50).contains(&lines), "{lines} lines: {recorded}");
    let said = site.sidecar.read_log().matches("an answer came back that is not redeemed").count();
    assert!((10..50).contains(&said), "{said}");
    site.finish().await;
}

#[tokio::test]
async fn a_browser_with_many_cookies_is_served_and_one_with_too_many_gets_rid_of_ours() {
    let site = Site::start().await;
    let mut browser = site.browser();
    sign_in(&mut browser, ALICE).await;
    let with = |browser: &Browser, more: &[(&str, usize)]| {
        let mut cookies = browser.cookies();
        // Before ours.
        cookies.extend((0..100).map(|number| (format!("a{number:03}"), "x".to_owned())));
        cookies.extend(more.iter().map(|(name, size)| ((*name).to_owned(), "x".repeat(*size))));
        cookies
    };
    let four = ["bursar-consent-a", "bursar-consent-b", "bursar-consent-c", "bursar-consent-d"];
    browser.restore(with(&browser, &four.map(|name| (name, 3800))));
    let page = browser.get("/").await;
    assert!(page.status == 200 && page.body.contains(ALICE), "{}", page.body);
    browser.restore(with(&browser, &[("elsewhere", 20_000)]));
    assert_eq!(browser.get("/").await.status, 413);
    assert!(!browser.cookies().keys().any(|name| name.starts_with("bursar-consent-")));
    let page = browser.get("/").await;
    assert!(page.status == 200 && page.body.contains(ALICE), "nothing else is lost: {}", page.body);
    site.finish().await;
}

#[tokio::test]
async fn a_consent_that_can_not_be_begun_is_recorded_too() {
    let world = World::start().await;
    let secret = world.path().join("other-secret");
    bursar::dev::write_private(&secret, "hush").unwrap();
    let audit = world.path().join("audit.jsonl");
    let origin = world.open_page(&format!(
        "[audit]\nfile = \"{}\"\n[authorization_servers.gone]\nissuer = \"http://127.0.0.1:1/gone\"\nclient_id = \"c\"\n\
         client_secret_file = \"{}\"\n[services.gone]\nauthorization_server = \"gone\"\naudience = \"a\"\nscopes = [\"s\"]\n",
        audit.display(),
        secret.display(),
    ));
    let site = Site { sidecar: world.sidecar().await, world, origin };
    let mut browser = site.browser();
    let token = browser.get("/").await.form_token();
    let page = browser.post("/connect/gone", &[("csrf", &token)]).await;
    assert_eq!(page.status, 503, "{}", page.body);
    let line = loop {
        let recorded = std::fs::read_to_string(&audit).unwrap();
        if let Some(line) = recorded.lines().find(|line| line.contains(page.header("x-request-id"))) {
            break line.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["event"], &line["service"]), (&json!("connect"), &json!("gone")));
    assert_eq!(line["result"], "authorization_server_unavailable");
    site.finish().await;
}
