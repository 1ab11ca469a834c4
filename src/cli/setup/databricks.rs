//! `bursar setup databricks`: the federation policy by which an account trusts the authorization server's tokens.

use serde_json::{Value, json};

use crate::authorization_server::issuer::Issuer;
use crate::cli::setup::quote::shell_word;
use crate::cli::setup::sheet::Sheet;
use crate::cli::setup::{Trust, scopes};

pub(super) fn page(trust: &Trust<'_>) -> String {
    let service = trust.service;
    let mut sheet = Sheet::default();
    sheet.say(&format!(
        "What to enter in the Databricks account of [services.{}], as an account administrator. One command a block; words in \
         capitals are for you to replace.",
        service.name
    ));
    if let Issuer::Organisation { .. } = Issuer::of(&trust.server.issuer) {
        sheet.problem(&format!(
            "{} is the Okta organisation's own authorization server: its access tokens are for Okta alone. Databricks needs a \
             custom one: `bursar setup okta`.",
            trust.server.issuer
        ));
    }
    if service.has_users() {
        account_policy(&mut sheet, trust);
    } else {
        principal_policy(&mut sheet, trust);
    }
    exchange(&mut sheet, trust);
    unknown(&mut sheet, trust);
    sheet.finish()
}

fn account_policy(sheet: &mut Sheet, trust: &Trust<'_>) {
    let (service, server) = (trust.service, trust.server);
    sheet.heading("1. An account federation policy");
    sheet.say("Account console > Security > Authentication > Federation policies > Create policy:");
    sheet.field("Issuer URL", &[&server.issuer]);
    sheet.field("Audiences", &[&service.audience]);
    sheet.field("Subject claim", &[&service.user_claim]);
    sheet.say("Or with Databricks' command (0.239.0 or newer; not in a workspace's web terminal):");
    sheet.block(&["databricks auth login --host ACCOUNT_CONSOLE_URL --account-id ACCOUNT_ID"]);
    let policy = oidc_policy(trust, "subject_claim", &service.user_claim);
    sheet.block(&with_json("databricks account federation-policy create --json", &policy));
    keys(sheet, trust);
    sheet.item(&format!(
        "The claim `{}` of each token must be a Databricks user's name, which is an email address{}.",
        service.user_claim,
        if service.user_claim == "sub" { ": at Okta `sub` is the login" } else { "" }
    ));
    sheet.item(
        "The policy lets this authorization server say who anybody in the account is: it must be one that only your \
         organisation controls. Without audiences Databricks would expect the account's id there.",
    );
}

/// For tokens that speak for the client itself: those are no user's.
fn principal_policy(sheet: &mut Sheet, trust: &Trust<'_>) {
    let server = trust.server;
    sheet.heading("1. A federation policy of a service principal");
    sheet.say(
        "The tokens of this service speak for the client itself (grant = \"client_credentials\"), so they are no user's but a \
         service principal's. Make or choose one, and give it this policy:",
    );
    sheet.field("Issuer URL", &[&server.issuer]);
    sheet.field("Audiences", &[&trust.service.audience]);
    sheet.field("Subject", &[format!("{} (at Okta `sub` is the client id)", server.client_id)]);
    let policy = oidc_policy(trust, "subject", &server.client_id);
    let command = "databricks account service-principal-federation-policy create SERVICE_PRINCIPAL_ID --json";
    sheet.block(&with_json(command, &policy));
    keys(sheet, trust);
}

fn oidc_policy(trust: &Trust<'_>, member: &str, subject: &str) -> Value {
    let mut policy = json!({ "issuer": trust.server.issuer, "audiences": [trust.service.audience] });
    if let Some(policy) = policy.as_object_mut() {
        policy.insert(member.to_owned(), subject.into());
    }
    json!({ "oidc_policy": policy })
}

/// A command and its JSON, in lines: inside the shell's quotes they are JSON's white space.
fn with_json(command: &str, value: &Value) -> Vec<String> {
    let word = shell_word(&format!("{value:#}"));
    format!("{command} {word}").lines().map(str::to_owned).collect()
}

fn keys(sheet: &mut Sheet, trust: &Trust<'_>) {
    let named = trust.server.endpoints.as_ref().and_then(|endpoints| endpoints.jwks_uri.as_ref());
    sheet.item(&match named {
        Some(url) => format!("The keys are not where discovery would say: add \"jwks_uri\": \"{url}\" to the policy."),
        None => "Key validation: leave it empty; Databricks finds the keys by the issuer, and follows their rotation.".to_owned(),
    });
}

fn exchange(sheet: &mut Sheet, trust: &Trust<'_>) {
    let service = trust.service;
    sheet.heading("2. The exchange");
    sheet.say(
        "bursar hands out the authorization server's token as it is, and Databricks takes it in exchange for one of its own \
         (RFC 8693). Its SDKs do that by themselves if they find the token in a file (DATABRICKS_OIDC_TOKEN_FILEPATH with \
         DATABRICKS_AUTH_TYPE=file-oidc), and its SQL drivers if they are given it as the access token. By hand, once its \
         user has connected:",
    );
    let mut token = format!("bursar token --service {}", shell_word(service.name.as_str()));
    if service.has_users() {
        token.push_str(" --user alice@example.com");
    }
    let mut lines = vec![
        format!("{token} |"),
        "  curl --fail-with-body https://WORKSPACE/oidc/v1/token \\".to_owned(),
        "    -d grant_type=urn:ietf:params:oauth:grant-type:token-exchange \\".to_owned(),
        "    -d subject_token_type=urn:ietf:params:oauth:token-type:jwt \\".to_owned(),
        "    -d scope=all-apis \\".to_owned(),
        "    --data-urlencode subject_token@-".to_owned(),
    ];
    if !service.has_users() {
        lines.insert(5, "    -d client_id=APPLICATION_ID_OF_THE_PRINCIPAL \\".to_owned());
    }
    sheet.block(&lines);
    sheet.item("The answer has an access_token: issuer, audience and name are as Databricks wants them.");
    sheet.item("`scope=sql` is enough for warehouses alone.");
    if service.opaque {
        sheet.problem(
            "access_token = \"opaque\": only a JWT can be exchanged. If the authorization server issues some, say \"jwt\".",
        );
    }
    let scopes = scopes([service]);
    if service.has_users() && scopes.is_empty() {
        sheet.item("The service asks for no scope of its own: the federation policy looks at none.");
    }
    if !service.roles.is_empty() {
        sheet.item("Databricks knows no roles in tokens: what a user may do there is granted there.");
    }
}

fn unknown(sheet: &mut Sheet, trust: &Trust<'_>) {
    sheet.heading("What this can't know");
    sheet.item(
        "The account's id and console, and the workspace's host (such as dbc-a1b2c3d4.cloud.databricks.com).",
    );
    sheet.item(if trust.service.has_users() {
        "Whether users' names in Databricks are what the claim says: that is what provisioning (SCIM) is for."
    } else {
        "Which service principal it is to be, and what that may do."
    });
    sheet.item("How long the exchanged token lives: as long as the one it was given for, which Okta's access policy says.");
    sheet.item("Whether there is a policy for this issuer already: an account has 20 at most.");
}
