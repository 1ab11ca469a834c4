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
    std::fs::write(&secret, "secret").unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, bursar::store::seal::generate_key(&bursar::entropy::SystemEntropy).expose())
        .unwrap();
    // Only what this machine can't have: the secrets' files, the workers' user.
    let example = example
        .replace("\"okta-client-secret\"", &format!("{secret:?}"))
        .replace("\"store.key\"", &format!("{key:?}"))
        .replace("\"airflow\"", "\"root\"");
    let settings = Settings::parse(&example).unwrap();
    assert_eq!(settings.servers["production"].issuer, "https://company.okta.com/oauth2/aus8x7abc123def");
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
