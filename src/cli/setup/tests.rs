use super::*;

/// `setup databricks`.
mod databricks_page;
/// `setup okta`.
mod okta_page;
/// `setup snowflake`.
mod snowflake_page;

const BASE: &str = r#"
[connect]
public_url = "https://bursar.example.com"

[authorization_servers.production]
okta_domain = "company.okta.com"
authorization_server_id = "aus1"
client_id = "0oa1"
client_secret_file = "/nosuch/secret"

[services.snowflake]
authorization_server = "production"
audience = "https://abc.snowflakecomputing.com"
scopes = ["session:role:PUBLIC"]
roles = ["PUBLIC", "ANALYST"]
kind = "snowflake"

[[callers]]
user = "nosuchuser"
services = ["*"]
users = ["*"]
run_pass = "none"
"#;

fn load(text: &str) -> Result<(Settings, Vec<Problem>), Vec<Problem>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bursar.toml");
    crate::dev::write_private(&path, text).unwrap();
    Settings::load_anywhere(&path)
}

fn settings(text: &str) -> Settings {
    load(text).unwrap().0
}

/// The base, changed in one place.
fn with(from: &str, to: &str) -> String {
    assert!(BASE.contains(from), "{from}");
    BASE.replacen(from, to, 1)
}

/// The base and what else it says of services.
fn and(more: &str) -> String {
    with("[[callers]]", &format!("{more}\n[[callers]]"))
}

/// Each of these stands there, in this order, however the lines are broken.
fn assert_says(page: &str, expected: &[&str]) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let whole = words(page);
    let mut rest = whole.as_str();
    for part in expected {
        let Some(at) = rest.find(&words(part)) else {
            panic!("{part:?} is not there, or too early:\n{page}")
        };
        rest = &rest[at..];
    }
    let long = page.lines().find(|line| line.chars().count() > 100 && line.trim_start().contains(' '));
    assert_eq!(long, None);
}

fn assert_silent(page: &str, unexpected: &[&str]) {
    for part in unexpected {
        assert!(!page.contains(part), "{part:?} is there:\n{page}");
    }
}

#[test]
fn what_this_machine_lacks_is_told_and_what_the_text_gets_wrong_is_refused() {
    let (_, lacking) = load(BASE).unwrap();
    let said: Vec<&str> = lacking.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        said,
        ["store.key_file", "authorization_servers.production.client_secret_file", "callers[1].user"]
    );
    let refused = load(&with("kind = ", "knd = ")).unwrap_err();
    assert!(refused.iter().any(|problem| problem.key == "services.snowflake.knd"), "{refused:?}");
    assert!(refused.len() > 3, "all of them are told: {refused:?}");
}

#[test]
fn a_service_of_another_kind_is_refused_and_those_that_would_do_are_named() {
    let settings = settings(BASE);
    let of = |name, kind| Trust::of(&settings, name, kind).err().unwrap();
    assert_eq!(
        of("snowflake", Kind::Databricks),
        "services.snowflake.kind is \"snowflake\", not \"databricks\"; services of that kind: none"
    );
    assert_eq!(of("nosuch", Kind::Snowflake), "there is no [services.nosuch]; there is snowflake");
}

#[test]
fn times_are_written_as_in_the_configuration() {
    let written =
        [0, 30, 60, 90, 300, 5_400, 43_200, 259_200].map(|seconds| time(Duration::from_secs(seconds)));
    assert_eq!(written, ["0s", "30s", "60s", "90s", "5m", "90m", "12h", "3d"]);
}
