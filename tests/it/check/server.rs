//! What an authorization server is asked.

use std::sync::Arc;
use std::time::Duration;

use bursar::check::Verdict;
use bursar::clock::{Clock as _, ManualClock, SystemClock};
use serde_json::json;

use super::{assert_each_is_found, good, steps, steps_by, wrong};
use crate::http_client::TlsServer;

const CLIENT_CREDENTIALS: &str = "kind     = \"snowflake\"\ngrant = \"client_credentials\"\n";

/// Snowflake's service, as one without users.
fn without_users() -> (&'static str, &'static str) {
    (
        "scopes   = [\"session:role:PUBLIC\"]\nroles    = [\"PUBLIC\", \"ANALYST\"]\nkind     = \"snowflake\"",
        CLIENT_CREDENTIALS,
    )
}

#[tokio::test]
async fn mistakes_in_naming_the_server_are_found() {
    assert_each_is_found(vec![
        wrong(
            "a wrong server id",
            "discovery",
            &["does not exist (404)", "authorization_server_id", "after /oauth2/"],
        )
        .edit("oauth2/ausdevsnowflake", "oauth2/aus0wrong"),
        wrong("a slash at the end", "discovery", &["only the slash at the end differs", "issuer = \"http"])
            .edit("oauth2/ausdevsnowflake\"", "oauth2/ausdevsnowflake/\""),
        wrong(
            "a custom domain",
            "discovery",
            &["names itself \"https://other.example.com", "> Settings > Issuer"],
        )
        .fault(json!({ "do": "wrong_issuer", "endpoint": "discovery" })),
        wrong("a server in trouble", "discovery", &["503", "https://status.okta.com"])
            .fault(json!({ "do": "status", "status": 503, "endpoint": "discovery" })),
        wrong("a page of somebody else's", "discovery", &["no JSON document"])
            .fault(json!({ "do": "proxy_page", "endpoint": "discovery" })),
        wrong("a name that nobody has", "discovery", &["https://okta.invalid", "not known to DNS"])
            .edit("\"http://127.0.0.1", "\"https://okta.invalid/\"#"),
        wrong("a ca_file that is none", "discovery", &["ca_file must be a PEM file"])
            .edit("refresh_token_leeway", "ca_file = \"/etc/passwd\"\nrefresh_token_leeway"),
    ])
    .await;
}

#[tokio::test]
async fn a_server_that_is_down_is_found() {
    let world = good().await;
    world.stop_server().await;
    wrong("down", "discovery", &["Connection refused", "firewall"]).assert_found(&steps(&world, None).await);
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_found() {
    let (world, server) = (good().await, TlsServer::start().await);
    let issuer = world.server.issuer("ausdevsnowflake");
    world.configure(&issuer, &format!("https://localhost:{}", server.port));
    wrong("tls", "discovery", &["certificate is not trusted", "authorization_servers.snowflake.ca_file"])
        .assert_found(&steps(&world, None).await);
}

#[tokio::test]
async fn a_clock_that_is_off_is_found_whichever_way() {
    let world = good().await;
    let now = SystemClock::new(0).now().wall;
    let off = Duration::from_mins(5);
    for (clock, words) in
        [(now.plus(off), &["timedatectl", "s ahead of"]), (now.minus(off), &["timedatectl", "s behind"])]
    {
        let steps = steps_by(&world, Arc::new(ManualClock::new(clock)), None).await;
        wrong("the clock", "clock", words).assert_found(&steps);
    }
    let near = ManualClock::new(now.plus(Duration::from_secs(50)));
    let steps = steps_by(&world, Arc::new(near), None).await;
    assert!(steps.iter().any(|step| step.step == "clock" && step.verdict == Verdict::Good), "{steps:#?}");
}

#[tokio::test]
async fn keys_that_verify_nothing_are_found() {
    let empty = json!({ "do": "status", "status": 200, "endpoint": "keys", "body": "{\"keys\":[]}" });
    assert_each_is_found(vec![
        wrong("keys that can't be had", "keys", &["503", "jwks_uri must answer 200"])
            .fault(json!({ "do": "status", "status": 503, "endpoint": "keys" })),
        wrong("no key", "keys", &["no usable key", "Signing Key Rotation"]).fault(empty),
        wrong("another algorithm", "keys", &["no usable key", "signing_algorithms is [\"ES256\"]"])
            .edit("refresh_token_leeway", "signing_algorithms = [\"ES256\"]\nrefresh_token_leeway"),
    ])
    .await;
}

#[tokio::test]
async fn a_client_that_is_refused_is_found() {
    let dpop = json!({ "do": "error", "error": "invalid_dpop_proof",
        "error_description": "The DPoP proof JWT header is missing." });
    let world = good().await;
    world.spoil_secret();
    wrong(
        "a secret that is not, or no longer, the client's",
        "client",
        &["Client Secrets", "/client-secret (last changed 20"],
    )
    .assert_found(&steps(&world, None).await);
    assert_each_is_found(vec![
        wrong(
            "a wrong client id",
            "client",
            &["Invalid value for 'client_id'", "client_id must be the Client ID", "General"],
        )
        .edit("0oadevbursar", "0oawrong")
        .also(&["redirect_uri"]),
        wrong(
            "the wrong kind of proof",
            "client",
            &["No client credentials found", "client_authentication must fit"],
        )
        .edit("client_secret_file", "client_authentication = \"none\"\n#"),
        wrong(
            "a client that must use DPoP",
            "client",
            &["DPoP proof", "switch off `Require Demonstrating Proof"],
        )
        .fault(dpop),
        wrong("a network zone", "client", &["403", "Security > Networks"])
            .fault(json!({ "do": "status", "status": 403, "body": "<html>blocked</html>" })),
        wrong("too many requests", "client", &["asked too often", "in a minute"])
            .fault(json!({ "do": "rate_limit" }))
            .only(Verdict::Untold),
    ])
    .await;
}

#[tokio::test]
async fn each_grant_type_that_is_off_is_found() {
    let without = |name: &str| {
        let all = ["authorization_code", "refresh_token", "client_credentials", "password"];
        let mut all: Vec<&str> = all.into_iter().filter(|grant_type| *grant_type != name).collect();
        if name != "device" {
            all.push("urn:ietf:params:oauth:grant-type:device_code");
        }
        json!({ "grant_types": all })
    };
    let (users, none) = without_users();
    assert_each_is_found(vec![
        wrong(
            "no refresh tokens",
            "grant_type",
            &["refresh_token: unauthorized_client", "switch on Refresh Token"],
        )
        .settings(without("refresh_token")),
        wrong(
            "no codes",
            "grant_type",
            &["authorization_code: unauthorized_client", "switch on Authorization Code"],
        )
        .settings(without("authorization_code")),
        wrong("no devices", "grant_type", &["switch on Device Authorization", "login --device"])
            .settings(without("device"))
            .only(Verdict::Doubtful),
        wrong(
            "no passwords",
            "grant_type",
            &["password: unauthorized_client", "switch on Resource Owner Password"],
        )
        .edit("kind     = \"snowflake\"", "kind     = \"snowflake\"\npassword_grant = true")
        .settings(without("password")),
        wrong(
            "nothing for the client itself",
            "grant_type",
            &["client_credentials: unau", "switch on Client Credentials"],
        )
        .edit(users, none)
        .edit(
            "grant = \"client_credentials\"",
            "grant = \"client_credentials\"\nscopes = [\"session:role:PUBLIC\"]",
        )
        .settings(without("client_credentials")),
    ])
    .await;
}

#[tokio::test]
async fn a_policy_that_does_not_match_and_a_scope_that_is_missing_are_found_for_the_client_itself() {
    let (users, none) = without_users();
    let policy = json!({ "do": "error", "error": "access_denied", "grant_type": "client_credentials",
        "error_description": "Policy evaluation failed for this request, please check the policy configurations." });
    let client = |wrong: super::Wrong, scope: &'static str| {
        wrong.edit(users, none).edit("grant = \"client_credentials\"", scope)
    };
    let known = "grant = \"client_credentials\"\nscopes = [\"session:role:PUBLIC\"]";
    let unknown = "grant = \"client_credentials\"\nscopes = [\"session:role:NOSUCH\"]";
    assert_each_is_found(vec![
        client(
            wrong(
                "no policy",
                "grant_type",
                &["Policy evaluation failed", "Access Policies", "client_credentials"],
            ),
            known,
        )
        .fault(policy),
        client(
            wrong("no such scope", "scopes", &["services.snowflake", "there must be session:role:NOSUCH"]),
            unknown,
        ),
        client(wrong("another audience", "token", &["services.snowflake", "> Settings > Audience"]), known)
            .edit("https://dev.snowflakecomputing.com", "https://abc.snowflakecomputing.com"),
        client(wrong("an encrypted token", "token", &["JWE", "switch access token encryption off"]), known)
            .fault(json!({ "do": "jwe", "grant_type": "client_credentials" })),
        client(
            wrong("a token for DPoP", "token", &["DPoP", "switch off `Require Demonstrating Proof"]),
            known,
        )
        .fault(json!({ "do": "dpop", "grant_type": "client_credentials" })),
    ])
    .await;
}

#[tokio::test]
async fn a_redirect_uri_and_scopes_that_are_not_registered_are_found() {
    assert_each_is_found(vec![
        wrong(
            "no redirect URI",
            "redirect_uri",
            &["not registered", "Sign-in redirect URIs, add https://other.example.com/callback/snowflake"],
        )
        .edit("https://bursar.example.com", "https://other.example.com"),
        wrong(
            "a scope that is missing",
            "scopes",
            &["not known there: session:role:NOSUCH", "Add Scope: session:role:NOSUCH"],
        )
        .edit("\"ANALYST\"]", "\"ANALYST\", \"NOSUCH\"]"),
        wrong(
            "a role in lower case",
            "scopes",
            &["session:role:analyst", "the server has session:role:ANALYST", "case count"],
        )
        .edit("\"ANALYST\"]", "\"analyst\"]"),
    ])
    .await;
    // What is unknown can only be guessed where no page is configured.
    let world = good().await;
    world.configure("[connect]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://bursar.example.com\"", "");
    world.configure("\"ANALYST\"]", "\"ANALYST\", \"NOSUCH\"]");
    wrong("without a page", "scopes", &["scopes_supported", "session:role:NOSUCH"])
        .only(Verdict::Doubtful)
        .assert_found(&steps(&world, None).await);
}

#[tokio::test]
async fn what_snowflake_would_not_take_is_found_beside_a_server_that_is_content() {
    let lower =
        json!({ "scopes": { "ausdevsnowflake": ["session:role:analyst", "session:role:ACCOUNTADMIN"] } });
    assert_each_is_found(vec![
        wrong(
            "a role in lower case",
            "service",
            &["role analyst", "show roles like 'analyst'", "session:role:ANALYST"],
        )
        .edit("\"ANALYST\"]", "\"analyst\"]")
        .settings(lower.clone())
        .only(Verdict::Doubtful),
        wrong("a privileged role", "service", &["ACCOUNTADMIN", "alter account set"])
            .edit("\"ANALYST\"]", "\"ACCOUNTADMIN\"]")
            .settings(lower)
            .only(Verdict::Doubtful),
        wrong("any role", "service", &["external_oauth_any_role_mode = 'ENABLE'"])
            .edit("[\"session:role:PUBLIC\"]", "[\"session:role-any\"]")
            .only(Verdict::Doubtful),
        wrong("no role", "service", &["put session:role:PUBLIC"]).edit(
            "scopes   = [\"session:role:PUBLIC\"]\nroles    = [\"PUBLIC\", \"ANALYST\"]",
            "scopes = [\"profile\"]",
        ),
        wrong("no account's audience", "service", &["external_oauth_audience_list = ('api://snow')"])
            .edit("https://dev.snowflakecomputing.com", "api://snow")
            .only(Verdict::Doubtful),
        wrong("no leeway", "leeway", &["dead at once", "Refresh Token"])
            .edit("refresh_token_leeway = \"30s\"", "refresh_token_leeway = \"0s\"")
            .only(Verdict::Doubtful),
    ])
    .await;
}
