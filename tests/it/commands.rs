//! Commands that need no test of their own subject elsewhere: what a person reads.

use std::process::Command;

use serde_json::{Value, json};

use crate::import::{bursar, text};
use crate::support::sidecar::PROGRAM;
use crate::support::{ALICE, BOB, World};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn status_is_a_glance_and_json_for_machines() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    sidecar.token("snowflake", ALICE, Some("ANALYST")).await.token();
    let glance = bursar(&sidecar, &["status"], "").await;
    let said = text(&glance.stdout);
    for expected in [
        "bursar 0.",
        ", ready\n",
        "\nsnowflake             open   [#         ] ",
        "\nGRANTS OF   ACTIVE\ndatabricks       1\n",
        "\naccess tokens: 3 cached, 3 in use\n",
        "  snowflake   alice@example.com  ANALYST\n",
    ] {
        assert!(said.contains(expected), "{expected:?} in {said}");
    }
    let machine = bursar(&sidecar, &["status", "--json"], "").await;
    let status: Value = serde_json::from_slice(&machine.stdout).unwrap();
    assert_eq!(status["access_tokens_cached"], 3, "{status:#}");
    assert_eq!(status["next_refreshes"].as_array().unwrap().len(), 3);
    world.finish(sidecar).await;
}

#[tokio::test]
async fn many_grants_are_imported_from_lines_and_those_that_fail_are_named() {
    let world = World::start().await;
    let sidecar = world.sidecar().await;
    let line = |service: &str, user: &str, token: &str| {
        json!({ "service": service, "user": user, "refresh_token": token }).to_string()
    };
    let (alice, bob, carol) = (
        world.consent("snowflake", ALICE),
        world.consent("databricks", BOB),
        world.consent("snowflake", "carol@example.com"),
    );
    let lines = [
        line("snowflake", ALICE, &alice),
        String::new(),
        line("databricks", BOB, &bob),
        "{\"service\":\"snowflake\",\"user\":\"x\",\"refresh_token\":\"sentinel".to_owned(),
        line("snowflake", BOB, &carol),
        line("nosuch", BOB, "sentinel-x"),
        line("snowflake", BOB, "sentinel-of-nobody"),
    ]
    .join("\n");
    let many = bursar(&sidecar, &["grant", "import", "--json-lines", "-"], &lines).await;
    assert_eq!(many.status.code(), Some(1));
    let (out, err) = (text(&many.stdout), text(&many.stderr));
    assert!(err.contains("2 imported, 4 refused"), "{err}");
    assert!(!out.contains("sentinel") && !err.contains("sentinel"), "{out} {err}");
    let mut failures: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    failures.sort_by_key(|failure| failure["line"].as_u64());
    let told: Vec<_> =
        failures.iter().map(|failure| (&failure["line"], failure["error"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            (&json!(4), "invalid_line"),
            (&json!(5), "user_mismatch"),
            (&json!(6), "unknown_service"),
            (&json!(7), "login_required")
        ]
    );
    assert_eq!(failures[1]["true_user"], "carol@example.com");
    let requests = world.token_requests().await;
    let good = [line("snowflake", ALICE, &alice), line("databricks", BOB, &bob)].join("\n");
    let again = bursar(&sidecar, &["grant", "import", "--json-lines", "-"], &good).await;
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert_eq!(world.token_requests().await, requests, "importing twice changes nothing");
    for (service, user) in [("snowflake", ALICE), ("databricks", BOB)] {
        sidecar.token(service, user, None).await.token();
    }
    world.finish(sidecar).await;
}

#[test]
fn what_can_be_printed_is_printed() {
    let (code, example, _) = run(&["config", "example"]);
    assert_eq!(code, Some(0));
    assert_eq!(example, include_str!("../../deploy/bursar.example.toml"));
    let (_, schema, _) = run(&["config", "schema"]);
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["properties"]["store"]["type"], "object");
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(&["completions", shell]);
        assert_eq!(code, Some(0));
        assert!(script.contains("json-lines"), "{shell}");
    }
    let (_, page, _) = run(&["man"]);
    assert!(page.contains(".TH bursar 1") && page.contains("completions"), "{page}");
    let (_, page, _) = run(&["man", "grant", "erase"]);
    assert!(
        page.contains(".TH bursar\\-grant\\-erase 1") || page.contains(".TH bursar-grant-erase 1"),
        "{page}"
    );
    assert_eq!(run(&["man", "nosuch"]).0, Some(64));
    let (code, _, said) = run(&["grant", "import", "--service", "snowflake"]);
    assert_eq!(code, Some(64));
    assert!(said.contains("--user") && said.contains("--refresh-token-file"), "{said}");
}

/// An administrator's own machine has the file, and nothing that it names.
#[test]
fn what_to_enter_elsewhere_is_printed_on_any_machine_and_never_with_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let secret = "sentinel-of-the-client-secret";
    bursar::dev::write_private(path("secret").as_ref(), secret).unwrap();
    let example = include_str!("../../deploy/bursar.example.toml")
        .replace("/etc/bursar/okta-client-secret", &path("secret"))
        .replace("# public_url", "[connect]\npublic_url");
    bursar::dev::write_private(path("bursar.toml").as_ref(), &example).unwrap();
    let setup = |arguments: &[&str]| {
        let config = path("bursar.toml");
        run(&[&["setup"], arguments, &["--config", &config]].concat())
    };
    let (code, okta, warnings) = setup(&["okta"]);
    assert_eq!(code, Some(0), "{warnings}");
    for expected in [
        "1. The app integration with client id 0oa1abcd, at company.okta.com\n",
        " https://bursar.example.com/callback/production\n",
        "\n    session:role:ANALYST\n    session:role:PUBLIC\n",
        "Add Rule, for the client itself:\n",
    ] {
        assert!(okta.contains(expected), "{expected:?} in {okta}");
    }
    for lacking in
        ["store.key_file: ", "callers[1].user: there is no user \"airflow\"", "warning: what is printed"]
    {
        assert!(warnings.contains(lacking), "{lacking:?} in {warnings}");
    }
    assert!(!okta.contains(secret) && !warnings.contains(secret), "{okta} {warnings}");
    let (code, statement, _) = setup(&["snowflake", "--service", "snowflake"]);
    assert_eq!(code, Some(0));
    assert!(statement.contains("\n    create security integration bursar_production\n"), "{statement}");
    let (code, of_a_service, _) = setup(&["okta", "--service", "snowflake"]);
    assert_eq!((code, of_a_service), (Some(0), setup(&["okta", "--server", "production"]).1));
    assert_eq!(setup(&["okta", "--service", "snowflake", "--server", "production"]).0, Some(64));
    for (arguments, expected) in [
        (["okta", "--service", "nosuch"], "there is no [services.nosuch]; there is reporting, snowflake"),
        (
            ["databricks", "--service", "snowflake"],
            "services.snowflake.kind is \"snowflake\", not \"databricks\"",
        ),
        (
            ["snowflake", "--service", "nosuch"],
            "there is no [services.nosuch]; there is reporting, snowflake",
        ),
        (["okta", "--server", "nosuch"], "there is no [authorization_servers.nosuch]; there is production"),
    ] {
        let (code, printed, said) = setup(&arguments);
        assert_eq!((code, printed.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(said.contains(expected), "{expected:?} in {said}");
    }
    bursar::dev::write_private(path("bursar.toml").as_ref(), &example.replace("audience =", "audiense ="))
        .unwrap();
    let (code, printed, said) = setup(&["okta"]);
    assert_eq!((code, printed.as_str()), (Some(64), ""));
    assert!(said.contains("audiense: unknown key"), "{said}");
}

#[tokio::test]
async fn checking_a_configuration_says_what_each_rule_allows() {
    let world = World::start().await;
    let config = world.path().join("bursar.toml");
    world.configure(
        "run_pass = \"none\"",
        "run_pass = \"none\"\n[[callers]]\ngid = 0\nsystemd_unit = \"airflow.service\"\n\
         services = [\"snowflake:ANALYST\"]\nusers = [\"*@example.com\", \"bob\"]\nrun_pass = \"none\"",
    );
    let (code, said, problems) = run(&["config", "check", "--config", config.to_str().unwrap()]);
    assert_eq!((code, problems.as_str()), (Some(0), ""));
    for expected in [
        ": ok\ncallers[1] user ",
        "  snowflake (default scopes, role ANALYST, role PUBLIC) for *\n  without a run pass\n",
        "callers[2] in group root (0), in airflow.service:\n  snowflake (role ANALYST) for *@example.com, bob\n",
    ] {
        assert!(said.contains(expected), "{expected:?} in {said}");
    }
    world.configure(
        "[admin]",
        "[connect]\nlisten = \"0.0.0.0:8085\"\npublic_url = \"https://bursar.example.com\"\n[admin]",
    );
    let (code, _, problems) = run(&["config", "check", "--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0));
    assert!(problems.starts_with("warning: connect.listen is 0.0.0.0:8085"), "{problems}");
}
