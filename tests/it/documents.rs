//! What the documents say is what the program does.

use std::collections::BTreeMap;

use bursar::settings::Settings;

use crate::support::World;

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

#[test]
fn the_readmes_configuration_is_one() {
    let readme = readme();
    let example = readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    bursar::dev::write_private(&secret, "secret").unwrap();
    let key = directory.path().join("key");
    bursar::dev::write_private(
        &key,
        bursar::store::seal::generate_key(&bursar::entropy::SystemEntropy).expose(),
    )
    .unwrap();
    // Only what this machine can't have: the secrets' files, the workers' user.
    let example = example
        .replace("\"okta-client-secret\"", &format!("{secret:?}"))
        .replace("\"store.key\"", &format!("{key:?}"))
        .replace("\"airflow\"", "\"root\"");
    let settings = Settings::parse(&example).unwrap();
    assert_eq!(settings.servers["production"].issuer, "https://company.okta.com/oauth2/aus8x7abc123def");
}

/// The tests that docs/jwt.md names, as modules and functions.
fn tests_against_attacks() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/jwt.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    let last = rows.map(|row| row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default());
    last.flat_map(|tests| tests.split(", ").filter(|test| test.contains("::")))
        .map(|test| test.trim_matches('`').to_owned())
        .collect()
}

/// A test is where its path says.
fn assert_is_there(test: &str) {
    let (module, name) = test.rsplit_once("::").unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let path = match module.strip_prefix("it::") {
        Some(module) => format!("{root}/tests/it/{}.rs", module.replace("::", "/")),
        None => format!("{root}/src/{}.rs", module.replace("::", "/")),
    };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(text.contains(&format!("fn {name}()")), "{path} has no test {name}");
}

#[test]
fn every_attack_has_the_test_that_its_row_names_and_every_such_test_a_row() {
    let named = tests_against_attacks();
    assert!(named.len() > 30, "{}", named.len());
    for test in &named {
        assert_is_there(test);
    }
    for module in ["jwt::attacks", "jwt::attacks::contents", "jwt::vectors"] {
        let path = format!("{}/src/{}.rs", env!("CARGO_MANIFEST_DIR"), module.replace("::", "/"));
        let text = std::fs::read_to_string(path).unwrap();
        for test in text.split("#[test]\nfn ").skip(1) {
            let test = format!("{module}::{}", test.split('(').next().unwrap());
            assert!(named.contains(&test), "docs/jwt.md has no row with {test}");
        }
    }
}

#[test]
fn the_threat_model_names_tests_that_there_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/threat-model.md");
    let text = std::fs::read_to_string(path).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter(|quoted| quoted.contains("::") && !quoted.contains(' ')).collect();
    let tests: Vec<&&str> =
        named.iter().filter(|test| !test.starts_with("refresh::") && !test.ends_with("::")).collect();
    assert!(tests.len() > 25, "{}", tests.len());
    for test in tests {
        assert_is_there(&format!("it::{test}"));
    }
}

/// Name and labels of each metric, as a table in the README has them.
fn documented() -> BTreeMap<String, Vec<String>> {
    let readme = readme();
    let rows = readme.lines().filter(|line| line.starts_with("| `bursar_"));
    rows.map(|row| {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = columns[2].split(", ").filter(|label| !label.is_empty());
        (
            columns[1].trim_matches('`').to_owned(),
            labels.map(|label| label.trim_matches('`').to_owned()).collect(),
        )
    })
    .collect()
}

#[test]
fn the_readmes_metrics_are_those_of_the_list() {
    let listed: BTreeMap<String, Vec<String>> = bursar::metrics::LIST
        .iter()
        .map(|metric| (metric.name.to_owned(), metric.labels.iter().map(ToString::to_string).collect()))
        .collect();
    assert_eq!(documented(), listed);
}

#[tokio::test]
async fn what_is_scraped_is_what_the_list_says_and_no_label_comes_from_a_request() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    sidecar.token("snowflake", crate::support::ALICE, None).await.token();
    let _refused = sidecar.get("/v1/token?service=nosuchservice&user=nosuchuser").await;
    while sidecar.counter("bursar_grants", &["active"]).await < 2.0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let scraped = sidecar.metrics().await;
    for line in scraped.lines().filter_map(|line| line.strip_prefix("# TYPE bursar_")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let listed = bursar::metrics::LIST.iter().find(|metric| metric.name == format!("bursar_{name}"));
        assert_eq!(listed.unwrap_or_else(|| panic!("{name} is not in the list")).kind, kind, "{name}");
    }
    for strange in ["nosuch", "alice", "example.com"] {
        assert!(!scraped.contains(strange), "{strange} is in a label");
    }
    world.finish(sidecar).await;
}
