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
    crate::dev::write_private(
        &key,
        crate::store::seal::generate_key(&crate::entropy::SystemEntropy).expose(),
    )
    .unwrap();
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
        ("[authorization_servers", "old_key_files = \"KEY_FILE\"\n[authorization_servers", "a list of texts"),
        (
            "[authorization_servers",
            "old_key_files = [\"/no/such/key\"]\n[authorization_servers",
            "/no/such/key",
        ),
        (
            "[authorization_servers",
            "old_key_files = [\"/etc/hostname\"]\n[authorization_servers",
            "/etc/hostname: ",
        ),
        (
            "[authorization_servers",
            "old_key_files = [\"KEY_FILE\"]\n[authorization_servers",
            "holds the same key as",
        ),
        ("[store]", "[refresh]\nlease = \"5s\"\n[store]", "by a fifth"),
        ("[store]", "[admin]\npath = \"/run/bursar/bursar.sock\"\n[store]", "vending socket's"),
        (
            "client_id = \"0oa1\"",
            "client_id = \"0oa1\"\nrequest_timeout = \"400000000000y\"",
            "at most a year",
        ),
        ("kind = \"snowflake\"", "kind = \"snow\"", "one of"),
        ("[store]", "[audit]\nvends = \"first\"\n[store]", "audit.file: is missing"),
        ("[store]", "[audit]\nfile = \"audit.jsonl\"\n[store]", "absolute path"),
        ("[store]", "[audit]\nfile = \"/var/lib/bursar/bursar.db\"\n[store]", "must not be the database"),
        ("[store]", "[audit]\nfile = \"/a\"\nkey_file = \"/no/such/key\"\n[store]", "bursar key generate"),
        (
            "[store]",
            "[audit]\nfile = \"/a\"\nkey_file = \"KEY_FILE\"\n[store]",
            "must not be the store's key",
        ),
        ("[store]", "[audit]\nfile = \"/a\"\non_failure = \"stop\"\n[store]", "\"continue\", \"refuse\""),
        ("kind = \"snowflake\"", "role_scope = \"session:role:X\"", "{role}"),
        ("\"PUBLIC\", \"ANALYST\"", "\"PUBLIC\", \"ANALYST\", \"a b\"", "one word"),
        ("snowflake:ANALYST", "snowflake:ADMIN", "has no \"ADMIN\""),
        ("user = \"root\"", "user = \"no-such-user\"", "there is no user"),
        ("user = \"root\"", "user = \"root\"\nuid = 0", "not both"),
        ("user = \"root\"", "uid = 65534", "nobody can be told by it"),
        ("run_pass = \"none\"", "", "is missing"),
        ("run_pass = \"none\"", "run_pass = \"required\"", "needs a section [run_passes]"),
        ("user = \"root\"", "gid = 65534", "nobody can be told by it"),
        ("user = \"root\"", "systemd_unit = \"airflow\"", "by its whole name"),
        ("user = \"root\"", "systemd_unit = \"a/airflow.service\"", "by its whole name"),
        ("user = \"root\"", "systemd_unit = \"airflow.slice\"", "by its whole name"),
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
fn run_passes_need_an_issuer_an_audience_and_keys_that_can_be_read() {
    let with = |keys: &str| {
        let section =
            format!("[run_passes]\nissuer = \"https://w.example\"\naudience = \"bursar\"\n{keys}\n[store]");
        problems(
            &WHOLE.replace("[store]", &section).replace("run_pass = \"none\"", "run_pass = \"required\""),
        )
    };
    assert_eq!(with("jwks_url = \"https://w.example/jwks\""), Vec::<String>::new());
    assert_eq!(with("jwks_url = \"http://127.0.0.1:9/jwks\"\nmax_lifetime = \"1h\""), Vec::<String>::new());
    for (keys, expected) in [
        ("", "where the workflow platform's public keys are"),
        ("jwks_url = \"https://w.example/jwks\"\njwks_file = \"/no/such/file\"", "not both"),
        ("jwks_file = \"/no/such/file\"", "/no/such/file: No such file"),
        ("jwks_file = \"KEY_FILE\"", "not a key set"),
        ("jwks_url = \"http://w.example/jwks\"", "must be https"),
        ("jwks_url = \"w.example\"", "is not a URL"),
        ("jwks_url = \"https://w.example/jwks\"\nmax_lifetime = \"0s\"", "longer than nothing"),
    ] {
        let found = with(keys);
        assert!(found.len() == 1 && found[0].contains(expected), "{keys}: {found:#?}");
    }
    let bare = problems(&WHOLE.replace("[store]", "[run_passes]\n[store]"));
    assert_eq!(bare.len(), 3, "{bare:#?}");
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

const EXAMPLE: &str = include_str!("../../deploy/bursar.example.toml");

/// Every line of the example that is commented out and assigns something, live.
fn uncommented() -> String {
    let live = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(is_key)) => {
            rest.to_owned()
        }
        Some(rest) if rest.starts_with('[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(|line| live(line) + "\n").collect()
}

fn is_key(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte == b'_'
}

/// The path of each key that stands in a text, as `keys` writes them.
fn paths(text: &str) -> std::collections::BTreeSet<String> {
    let mut section = String::new();
    let mut found = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("[[") {
            section = format!("{}[]", name.split(']').next().unwrap());
        } else if let Some(name) = line.strip_prefix('[') {
            let name = name.split(']').next().unwrap();
            section = name.split_once('.').map_or(name.to_owned(), |(of, _)| format!("{of}.*"));
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(is_key)
        {
            found.insert(format!("{section}.{key}"));
        }
    }
    found
}

#[test]
fn the_example_has_every_key_and_nothing_else() {
    let listed: std::collections::BTreeSet<String> =
        keys::KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(paths(&uncommented()), listed);
}

#[test]
fn the_example_is_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        crate::dev::write_private(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key = crate::store::seal::generate_key(&crate::entropy::SystemEntropy);
    let mut example = EXAMPLE.to_owned();
    // Only what this machine can't have.
    for (from, to) in [
        ("/etc/bursar/store.key", write("key", key.expose())),
        ("/etc/bursar/okta-client-secret", write("secret", "secret")),
        ("\"airflow\"", "\"root\"".to_owned()),
        ("user = \"reports\"", "user = \"root\"".to_owned()),
        ("\"bursar-workers\"", "\"root\"".to_owned()),
    ] {
        assert!(example.contains(from), "{from}");
        example = example.replace(from, &to);
    }
    let settings = Settings::parse(&example).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(settings.services.iter().filter(|service| service.has_users()).count(), 1);
}

/// Asks the reader itself what it knows, by a key that it does not know in each section.
#[test]
fn the_reader_knows_the_keys_that_are_listed() {
    let text = "[socket]\nzz = 1\n[admin]\nzz = 1\n[store]\nzz = 1\n[authorization_servers.x]\nzz = 1\n[services.x]\nzz = 1\n\
                [[callers]]\nzz = 1\n[refresh]\nzz = 1\n[log]\nzz = 1\n[audit]\nzz = 1\n[limits]\nzz = 1\n[notify]\nzz = 1\n[run_passes]\nzz = 1\n[connect]\nzz = 1\n";
    let mut known = std::collections::BTreeSet::new();
    for problem in problems(text) {
        if let Some((at, keys)) = problem.split_once(": unknown key; known here: ") {
            let section = at.rsplit(": ").next().unwrap().strip_suffix(".zz").unwrap();
            let section = section.replace("[1]", "[]").replace(".x", ".*");
            known.extend(keys.split(", ").filter(|key| *key != "zz").map(|key| format!("{section}.{key}")));
        }
    }
    let listed: std::collections::BTreeSet<String> =
        keys::KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(known, listed);
}

#[test]
fn the_schema_describes_what_the_example_has() {
    let schema = keys::schema();
    let at = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {schema:#}"));
    assert_eq!(at("/properties/socket/properties/max_connections/type"), "integer");
    assert_eq!(
        at("/properties/services/additionalProperties/properties/kind/enum/0"),
        "snowflake",
        "each of the operator's names"
    );
    assert_eq!(at("/properties/callers/items/properties/uid/minimum"), 0);
    assert_eq!(at("/properties/callers/items/additionalProperties"), false);
    assert_eq!(at("/additionalProperties"), false);
}

fn with(section: &str) -> Vec<String> {
    problems(&format!("{WHOLE}\n{section}"))
}

#[test]
fn the_page_is_seen_at_an_origin_that_is_confidential() {
    let connect = |lines: &str| with(&format!("[connect]\n{lines}\n"));
    assert!(connect("public_url = \"https://bursar.example.com\"").is_empty());
    assert!(connect("public_url = \"http://127.0.0.1:8085\"").is_empty());
    for (lines, expected) in [
        ("listen = \"127.0.0.1:1\"", "public_url: is missing"),
        ("public_url = \"http://bursar.example.com\"", "must be https"),
        ("public_url = \"https://bursar.example.com/sub\"", "an origin alone"),
        ("public_url = \"https://u:p@bursar.example.com\"", "an origin alone"),
        ("public_url = \"bursar\"", "is not a URL"),
        (
            "public_url = \"https://b.example\"\nreturn_to = [\"https://w.example/?x=1\"]",
            "return_to: \"https://w.example/?x=1\"",
        ),
        (
            "public_url = \"https://b.example\"\ncertificate_file = \"/etc/hostname\"",
            "private_key_file: is missing",
        ),
    ] {
        let found = connect(lines);
        assert!(found.len() == 1 && found[0].contains(expected), "{lines}: {found:#?}");
    }
}

#[test]
fn sessions_in_clear_on_the_network_are_a_doubt() {
    let doubt = |listen: &str, url: &str| {
        let text = format!("{WHOLE}\n[connect]\nlisten = \"{listen}\"\npublic_url = \"{url}\"\n");
        parse(&text).unwrap().connect.unwrap().doubt()
    };
    let open = doubt("0.0.0.0:8085", "https://b.example").unwrap();
    assert!(open.contains("0.0.0.0:8085") && open.contains("certificate_file"), "{open}");
    assert_eq!(doubt("127.0.0.1:8085", "https://b.example"), None);
    assert_eq!(doubt("[::1]:8085", "https://b.example"), None);
}

#[test]
fn what_is_posted_is_signed() {
    let found = with("[notify]\nurl = \"https://w.example/hook\"\n");
    assert!(found.len() == 1 && found[0].contains("secret_file: is missing"), "{found:#?}");
    let found = with("[notify]\nurl = \"https://me:word@w.example/hook\"\nsecret_file = \"/nowhere\"\n");
    let refused = found.iter().find(|problem| problem.contains("name or password"));
    assert!(refused.is_some_and(|problem| !problem.contains("word@")), "{found:#?}");
    let found = with("[notify]\nurl = \"http://w.example/hook\"\nsecret_file = \"/nowhere\"\n");
    assert!(found.iter().any(|problem| problem.contains("must be https")), "{found:#?}");
    assert!(found.iter().any(|problem| problem.contains("notify.secret_file")), "{found:#?}");
}

#[test]
fn how_users_sign_in_is_no_matter_of_a_service_without_users() {
    let found = problems(&WHOLE.replace(
        "kind = \"snowflake\"",
        "kind = \"snowflake\"\ngrant = \"client_credentials\"\nmax_age = \"12h\"",
    ));
    assert!(found.iter().any(|problem| problem.contains("max_age: is about users")), "{found:#?}");
}
