//! What the documents say is what the program does.

use std::collections::BTreeSet;

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
    // Only what this machine can't have: the secret's file, the workers' user and group.
    let example = example
        .replace("/etc/bursar/okta-client-secret", secret.to_str().unwrap())
        .replace("/etc/bursar/store.key", key.to_str().unwrap())
        .replace("\"airflow\"", "\"root\"")
        .replace("\"workers\"", "\"root\"");
    let settings = Settings::parse(&example).unwrap();
    assert_eq!(settings.servers["production"].issuer, "https://company.okta.com/oauth2/aus8x7abc123def");
}

#[tokio::test]
async fn the_readmes_metrics_are_those_that_are_scraped() {
    let world = World::start().await;
    let sidecar = world.connected().await;
    sidecar.token("snowflake", crate::support::ALICE, None).await.token();
    let _refused = sidecar.get("/nothing").await;
    while sidecar.counter("bursar_grants", &["active"]).await < 2.0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let scraped = sidecar.metrics().await;
    let types = scraped.lines().filter_map(|line| line.strip_prefix("# TYPE bursar_"));
    let scraped: BTreeSet<String> = types.map(|rest| rest.split(' ').next().unwrap().to_owned()).collect();
    let readme = readme();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `bursar_"));
    let documented: BTreeSet<String> = rows.map(|rest| rest.split('`').next().unwrap().to_owned()).collect();
    let unknown: Vec<_> = scraped.difference(&documented).collect();
    assert!(unknown.is_empty(), "scraped and not documented: {unknown:?}");
    // A counter with labels shows only once it has counted; these have had no reason to.
    let silent: BTreeSet<String> = documented.difference(&scraped).cloned().collect();
    let without_reason = ["requests_refused_total"].map(str::to_owned).into();
    assert_eq!(silent, without_reason, "documented and not scraped");
    world.finish(sidecar).await;
}
