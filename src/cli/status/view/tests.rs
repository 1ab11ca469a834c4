use serde_json::{Value, json};

use super::*;

fn status() -> Value {
    json!({
        "version": "0.1.0",
        "uptime_seconds": 11_530,
        "ready": true,
        "waiting_for": [],
        "authorization_servers": [
            { "name": "production", "state": "open", "waiting_seconds": null, "why": null,
              "requests_per_minute": 600, "budget_used": 0.205 },
            { "name": "production_databricks", "state": "waiting", "waiting_seconds": 12,
              "why": "unavailable for now", "requests_per_minute": 60, "budget_used": 0.0167 },
        ],
        "grants": {
            "databricks": { "active": 12 },
            "snowflake": { "active": 1044, "expired": 2, "revoked": 1 },
        },
        "rows_sealed_with_old_keys": 0,
        "waiting_to_be_revoked": 0,
        "access_tokens_cached": 57,
        "tokens_in_use": 40,
        "next_refreshes": [
            { "service": "snowflake", "user": "alice@example.com", "role": "ANALYST", "due_in_seconds": 0 },
            { "service": "databricks", "user": "bob@example.com", "role": null, "due_in_seconds": 95 },
        ],
        "audit": { "file": "/var/log/bursar/audit.jsonl", "seq": 4711, "failing": false },
    })
}

#[test]
fn a_glance_fits_80_columns_and_24_rows() {
    let expected = "\
bursar 0.1.0, up 3h 12m, ready

AUTHORIZATION SERVER   STATE                   BUDGET
production             open                    [##        ] 123/600 a minute 20%
production_databricks  waiting 12s: unavaila…  [#         ] 1/60 a minute 1%

GRANTS OF   ACTIVE  EXPIRED  REVOKED
databricks      12        -        -
snowflake     1044        2        1

needs you: 2 grants expired: bursar grant list --state expired
needs you: 1 grant revoked: bursar grant list --state revoked

access tokens: 57 cached, 40 in use
audit log /var/log/bursar/audit.jsonl: line 4711

NEXT REFRESH  SERVICE     USER               ROLE
now           snowflake   alice@example.com  ANALYST
in 1m 35s     databricks  bob@example.com    -
";
    assert_eq!(glance(&status(), 80), expected);
}

#[test]
fn what_is_wrong_is_said_above_what_is_usual() {
    let mut status = status();
    status["waiting_for"] = json!(["store", "keys of production"]);
    status["audit"]["failing"] = json!(true);
    status["rows_sealed_with_old_keys"] = json!(8);
    status["waiting_to_be_revoked"] = json!(2);
    let said = glance(&status, 80);
    let expected = "\
needs you: 2 grants expired: bursar grant list --state expired
needs you: 1 grant revoked: bursar grant list --state revoked
needs you: the audit log can't be written
sealed with an older key, to be sealed anew by `bursar key rotate`: 8
waiting to be revoked at their authorization server: 2

access tokens: 57 cached, 40 in use
audit log /var/log/bursar/audit.jsonl: CAN'T BE WRITTEN
";
    assert!(said.contains(expected), "{said}");
    assert!(said.starts_with("bursar 0.1.0, up 3h 12m, waiting for store, keys of production\n"), "{said}");
}

#[test]
fn no_line_is_wider_than_the_terminal_and_names_give_way_first() {
    let mut status = status();
    status["next_refreshes"][0]["user"] = json!("ä".repeat(200));
    for width in [40, 60, 80] {
        let said = glance(&status, width);
        let widest = said.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(width), "{width}: {said}");
    }
    let user = format!("now           snowflake   {}…  ANALYST\n", "ä".repeat(44));
    assert!(glance(&status, 80).contains(&user), "{}", glance(&status, 80));
}

#[test]
fn a_sidecar_that_does_nothing_yet_has_no_empty_tables() {
    assert_eq!(
        glance(&json!({ "version": "0.1.0", "uptime_seconds": 0 }), 80),
        "bursar 0.1.0, up 0s, ready\n\naccess tokens: 0 cached, 0 in use\n"
    );
}

#[test]
fn a_bar_shows_the_least_use_and_no_more_than_all() {
    assert_eq!(budget(0.0, 600), "[          ] 0/600 a minute 0%");
    assert_eq!(budget(0.002, 600), "[#         ] 1/600 a minute 0%");
    assert_eq!(budget(1.0, 600), "[##########] 600/600 a minute 100%");
    assert_eq!(budget(1.2, 600), "[##########] 720/600 a minute 120%");
}

#[test]
fn times_have_two_units_at_most() {
    let texts = [0, 59, 60, 3599, 90_061, 86_405].map(time);
    assert_eq!(texts, ["0s", "59s", "1m", "59m 59s", "1d 1h", "1d 5s"]);
}

#[test]
fn what_others_have_named_is_shown_as_it_is_written_and_not_as_a_terminal_takes_it() {
    let mut status = status();
    status["next_refreshes"][0]["user"] = json!("a\u{202e}b\n\u{1b}[2J");
    status["authorization_servers"][1]["why"] = json!("no\u{2028}");
    let shown = glance(&status, 200);
    assert!(shown.contains("a\\u{202e}b\\u{a}\\u{1b}[2J") && shown.contains("no\\u{2028}"), "{shown}");
}
