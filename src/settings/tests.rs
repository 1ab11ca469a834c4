use super::*;
use crate::model::{RoleName, Scope};

const WHOLE: &str = r#"
[store]
url = "sqlite:///var/lib/bursar/bursar.db"
key_file = "KEY_FILE"

[authorization_servers.production]
okta_domain = "company.okta.com"
authorization_server_id = "aus1"
client_id = "0oa1"
client_secret_env = "PATH"

[services.snowflake]
authorization_server = "production"
audience = "https://abc.snowflakecomputing.com"
scopes = ["session:role:PUBLIC"]
roles = ["PUBLIC", "ANALYST"]
kind = "snowflake"

[[callers]]
user = "root"
services = ["snowflake:ANALYST"]
users = ["*@example.com"]
run_pass = "none"
"#;

/// With a key that is there.
fn parse(text: &str) -> Result<Settings, Vec<Problem>> {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, crate::store::seal::generate_key(&crate::entropy::SystemEntropy).expose()).unwrap();
    Settings::parse(&text.replace("KEY_FILE", key.to_str().unwrap()))
}

fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// The one problem that changing the whole file brings.
fn problem(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from), "{from}");
    let found = problems(&WHOLE.replace(from, to));
    assert_eq!(found.len(), 1, "{from} -> {to}: {found:#?}");
    found[0].clone()
}

#[test]
fn four_values_are_all_that_okta_needs() {
    let settings = parse(WHOLE).unwrap();
    let server = &settings.servers["production"];
    assert_eq!(server.issuer, "https://company.okta.com/oauth2/aus1");
    assert_eq!((server.leeway, server.request_timeout), (Duration::from_secs(30), Duration::from_secs(5)));
    let service = &settings.services[0];
    let analyst = RoleName::parse("ANALYST").unwrap();
    assert_eq!(service.scope(Some(&analyst)), Some(Scope::from_wire("session:role:ANALYST offline_access")));
    assert_eq!(settings.callers[0].uid, Some(0));
    assert_eq!((settings.fixed.socket.mode, settings.fixed.admin.mode), (0o660, 0o600));
}

#[test]
fn every_problem_is_found_at_once_with_its_line() {
    let text = "[socket]\nmode = 660\nmod = \"x\"\n[refresh]\nahead = \"200%\"\n[[callers]]\nservices = [\"nosuch\"]\n";
    let found = problems(text);
    for expected in [
        "line 2: socket.mode: must be a text",
        "line 3: socket.mod: unknown key",
        "line 5: refresh.ahead: must be a share",
        "line 7: callers[1].services: there is no [services.nosuch]",
        "callers[1].user: is missing",
        "callers[1].users: is missing",
        "callers[1].run_pass: is missing",
        "authorization_servers: at least one",
        "services: at least one",
    ] {
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:#?}");
    }
}

#[test]
fn each_mistake_gets_a_sentence_of_its_own() {
    for (from, to, expected) in [
        (
            "client_secret_env = \"PATH\"",
            "client_secret = \"hush\"\nclient_secret_env = \"PATH\"",
            "by reference",
        ),
        ("client_secret_env = \"PATH\"", "", "is missing"),
        (
            "client_secret_env = \"PATH\"",
            "client_secret_env = \"NO_SUCH_VARIABLE\"",
            "the environment has no",
        ),
        ("client_secret_env = \"PATH\"", "client_secret_file = \"/no/such/file\"", "/no/such/file"),
        ("company.okta.com", "https://company.okta.com", "bare domain"),
        ("company.okta.com", "company-admin.okta.com", "without `-admin`"),
        ("aus1\"", "https://x/oauth2/aus1\"", "after /oauth2/"),
        (
            "okta_domain = \"company.okta.com\"\nauthorization_server_id = \"aus1\"",
            "issuer = \"http://id.example.com\"",
            "must be https",
        ),
        ("okta_domain = \"company.okta.com\"", "issuer = \"https://a.example\"", "not both"),
        (
            "client_id = \"0oa1\"",
            "client_id = \"0oa1\"\nrefresh_token_leeway = \"15s\"",
            "less than refresh_token_leeway",
        ),
        ("client_id = \"0oa1\"", "client_id = \"0oa1\"\nrequest_timeout = \"0s\"", "longer than nothing"),
        (
            "authorization_server = \"production\"",
            "authorization_server = \"prod\"",
            "there is no [authorization_servers.prod]",
        ),
        ("KEY_FILE", "/no/such/key", "bursar key generate"),
        ("[store]", "[refresh]\nlease = \"5s\"\n[store]", "by a fifth"),
        ("[store]", "[admin]\npath = \"/run/bursar/bursar.sock\"\n[store]", "vending socket's"),
        (
            "client_id = \"0oa1\"",
            "client_id = \"0oa1\"\nrequest_timeout = \"400000000000y\"",
            "at most a year",
        ),
        ("kind = \"snowflake\"", "kind = \"snow\"", "one of"),
        ("kind = \"snowflake\"", "role_scope = \"session:role:X\"", "{role}"),
        ("\"PUBLIC\", \"ANALYST\"", "\"PUBLIC\", \"ANALYST\", \"a b\"", "one word"),
        ("snowflake:ANALYST", "snowflake:ADMIN", "has no \"ADMIN\""),
        ("user = \"root\"", "user = \"no-such-user\"", "there is no user"),
        ("user = \"root\"", "user = \"root\"\nuid = 0", "not both"),
        ("user = \"root\"", "uid = 65534", "nobody can be told by it"),
        ("run_pass = \"none\"", "", "is missing"),
        ("sqlite:///var/lib/bursar/bursar.db", "mysql://x", "sqlite://"),
        (
            "[store]",
            "[socket]\npath = \"/run/bursar/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.sock\"\n[store]",
            "107 bytes",
        ),
    ] {
        let found = problem(from, to);
        assert!(found.contains(expected), "{found}");
        assert!(!found.contains("hush"), "a secret given as a value must not be repeated");
    }
}

#[test]
fn what_is_not_toml_is_said_with_its_line() {
    assert!(problems("[socket]\nmode = \n")[0].starts_with("line 2: not TOML"));
}

#[test]
fn a_name_that_can_not_be_looked_up_leaves_no_rule_for_everybody() {
    let text = WHOLE.replace("user = \"root\"", "user = \"no-such-user\"");
    assert!(parse(&text).is_err());
}
