//! `bursar setup snowflake`: the security integration by which an account trusts the authorization server's tokens.

use std::collections::BTreeSet;

use crate::authorization_server::issuer::Issuer;
use crate::cli::setup::quote::{shell_word, sql_name, sql_text};
use crate::cli::setup::sheet::Sheet;
use crate::cli::setup::{ANY_ROLE, ROLE, Trust, list, scopes};
use crate::model::Service;

/// No token may have these unless an account administrator takes them off the blocked list.
const BLOCKED: [&str; 4] = ["ACCOUNTADMIN", "ORGADMIN", "GLOBALORGADMIN", "SECURITYADMIN"];

/// A role that everybody has; the one whose name Snowflake takes in any case.
const PUBLIC: &str = "PUBLIC";

/// In place of what the configuration does not say.
const UNKNOWN_KEYS: &str = "PUT THE JWKS URL HERE";

pub(super) fn page(trust: &Trust<'_>) -> String {
    let service = trust.service;
    let (own, all) = (scopes([service]), scopes(trust.together.iter().copied()));
    let (own, roles) = (Roles::of(&own), Roles::of(&all));
    let integration = integration_name(&service.authorization_server);
    let mut sheet = Sheet::default();
    sheet.say(&format!(
        "What to run in the Snowflake account of [services.{}], as ACCOUNTADMIN or a role that may create integrations. One \
         statement a block; words in capitals inside quotes are for you to replace.",
        service.name
    ));
    create(&mut sheet, trust, &roles, &integration);
    write_roles(&mut sheet, (&own, &roles), &integration);
    users(&mut sheet, trust);
    network(&mut sheet, &integration);
    check(&mut sheet, trust, &own, &integration);
    unknown(&mut sheet);
    sheet.finish()
}

/// What tokens may ask for, as Snowflake reads it.
#[derive(Default)]
struct Roles<'a> {
    named: Vec<&'a str>,
    blocked: Vec<&'a str>,
    any: bool,
    other: Vec<&'a str>,
}

impl<'a> Roles<'a> {
    fn of(scopes: &'a [String]) -> Self {
        let mut roles = Self::default();
        for scope in scopes {
            match scope.strip_prefix(ROLE) {
                Some(role) if BLOCKED.contains(&role) => roles.blocked.push(role),
                Some(role) => {
                    let role = if role.eq_ignore_ascii_case(PUBLIC) { PUBLIC } else { role };
                    if !roles.named.contains(&role) {
                        roles.named.push(role);
                    }
                }
                None if scope == ANY_ROLE => roles.any = true,
                None => roles.other.push(scope),
            }
        }
        roles
    }

    fn has(&self, role: &str) -> bool {
        self.named.contains(&role) || role.eq_ignore_ascii_case(PUBLIC) && self.named.contains(&PUBLIC)
    }
}

/// One integration for each issuer, so it is called by the authorization server's name; any name will do.
fn integration_name(server: &str) -> String {
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    format!("bursar_{}", server.chars().map(plain).collect::<String>().to_ascii_lowercase())
}

fn create(sheet: &mut Sheet, trust: &Trust<'_>, roles: &Roles<'_>, integration: &str) {
    let (service, server) = (trust.service, trust.server);
    sheet.heading("1. Trust the authorization server");
    shared(sheet, trust);
    let issuer = Issuer::of(&server.issuer);
    if let Issuer::Organisation { .. } = issuer {
        sheet.problem(&format!(
            "{} is the Okta organisation's own authorization server: its access tokens are for Okta alone. Snowflake needs a \
             custom one: `bursar setup okta`.",
            server.issuer
        ));
    }
    let named = server.endpoints.as_ref().and_then(|endpoints| endpoints.jwks_uri.as_ref());
    let keys = match (named, &issuer) {
        (Some(url), _) => url.to_string(),
        (None, Issuer::Custom { .. }) => format!("{}/v1/keys", server.issuer),
        (None, Issuer::Organisation { .. } | Issuer::Other) => {
            sheet.say(&format!(
                "The JWKS URL is `jwks_uri` in {}/.well-known/openid-configuration.",
                server.issuer
            ));
            UNKNOWN_KEYS.to_owned()
        }
    };
    let is_okta = matches!(issuer, Issuer::Custom { .. });
    let attribute = if service.user_claim == "email" { "email_address" } else { "login_name" };
    let audiences: BTreeSet<&str> = trust.together.iter().map(|service| service.audience.as_str()).collect();
    let audiences: Vec<String> = audiences.into_iter().map(sql_text).collect();
    let mut lines = vec![
        format!("create security integration {integration}"),
        "  type = external_oauth".to_owned(),
        "  enabled = true".to_owned(),
        format!("  external_oauth_type = {}", if is_okta { "okta" } else { "custom" }),
        format!("  external_oauth_issuer = {}", sql_text(&server.issuer)),
        format!("  external_oauth_jws_keys_url = {}", sql_text(&keys)),
        format!("  external_oauth_audience_list = ({})", audiences.join(", ")),
        format!("  external_oauth_token_user_mapping_claim = {}", sql_text(&service.user_claim)),
        format!("  external_oauth_snowflake_user_mapping_attribute = '{attribute}'"),
    ];
    if !is_okta {
        lines.push("  external_oauth_scope_mapping_attribute = 'scope'".to_owned());
    }
    if roles.any {
        lines.push("  external_oauth_any_role_mode = enable".to_owned());
    } else if !roles.named.is_empty() {
        let names: Vec<String> = roles.named.iter().map(|role| sql_text(role)).collect();
        lines.push(format!("  external_oauth_allowed_roles_list = ({})", names.join(", ")));
    }
    if let Some(last) = lines.last_mut() {
        last.push(';');
    }
    sheet.block(&lines);
    sheet.item(
        "An account has one integration for an issuer. If there is one already, change that one: alter security integration \
         … set, with the lines that differ. Values are compared letter by letter, an issuer with a slash at its end too.",
    );
    if !is_okta {
        sheet.item(
            "If this server's tokens have their scopes as a list in `scp`, as Okta's have, leave out the line about them, and \
             what follows.",
        );
        sheet.say(
            "Scopes in one text have spaces between them. Snowflake expects commas until it is told otherwise, which works \
             only once Snowflake Support has enabled external_oauth_scope_delimiter for the account: ask them, then run:",
        );
        sheet.block(&[
            format!("alter security integration {integration} set").as_str(),
            "  external_oauth_scope_delimiter = ' ';",
        ]);
    }
}

/// An integration that was made for one of them alone would lock out the others.
fn shared(sheet: &mut Sheet, trust: &Trust<'_>) {
    let service = trust.service;
    let others: Vec<&Service> =
        trust.together.iter().copied().filter(|other| other.name != service.name).collect();
    if others.is_empty() {
        return;
    }
    sheet.say(&format!(
        "Tokens of {} come from the same issuer, so in one account it is the same integration: it has the audiences and roles \
         of all of them. Where one is in another account, leave its own out there.",
        list(others.iter().map(|other| format!("[services.{}]", other.name)))
    ));
    for other in others.iter().filter(|other| other.user_claim != service.user_claim) {
        sheet.problem(&format!(
            "services.{}.user_claim is \"{}\", services.{}.user_claim is \"{}\", and one integration maps one claim: in one \
             account they must be the same.",
            service.name, service.user_claim, other.name, other.user_claim
        ));
    }
}

fn write_roles(sheet: &mut Sheet, (own, roles): (&Roles<'_>, &Roles<'_>), integration: &str) {
    sheet.heading("2. Roles");
    if own.named.is_empty() && own.blocked.is_empty() && !own.any {
        sheet.problem(&format!(
            "no scope of this service is {ROLE}ROLE or {ANY_ROLE}, and Snowflake lets no session begin without one. Name \
             roles = [\"…\"], with role_scope left as it is, or {ANY_ROLE} in scopes."
        ));
    }
    for role in &roles.blocked {
        sheet.problem(&format!(
            "{role} is on Snowflake's list of blocked roles, so no token gets it; it is left out above. Better name a role \
             that may less. (An account administrator can take it off the list: the account parameter \
             external_oauth_add_privileged_roles_to_blocked_list.)"
        ));
    }
    if !roles.other.is_empty() {
        sheet.say(&format!("These scopes say nothing to Snowflake: {}.", list(&roles.other)));
    }
    if roles.any {
        sheet.item(&format!(
            "{ANY_ROLE} is among the scopes: a session begins with the user's default role and may go over to any other of \
             theirs, so there is no list of allowed roles above. Without external_oauth_any_role_mode no session would begin \
             at all. To leave it to some roles only:"
        ));
        sheet.block(&[
            format!("alter security integration {integration} set").as_str(),
            "  external_oauth_any_role_mode = enable_for_privilege;",
        ]);
        sheet.block(&[format!("grant use_any_role on integration {integration} to role \"ROLE\";")]);
    }
    for role in roles.named.iter().filter(|role| !is_plain(role)) {
        let name = sql_name(role);
        sheet.item(&format!(
            "{role} is not what Snowflake makes of a name without quotes, which is in upper case: it must have been created \
             as {name}. If it was created without quotes it is called {}: write it so in roles and scopes, here and in Okta. \
             Compare what `desc security integration {integration}` shows for the allowed roles.",
            role.to_uppercase()
        ));
    }
    let to_look_at: Vec<&&str> = roles.named.iter().filter(|role| **role != PUBLIC).collect();
    if !to_look_at.is_empty() {
        sheet.say("Each role must be there and be granted to the users who ask for it. Who has it:");
    }
    for role in to_look_at {
        sheet.block(&[format!("show grants of role {};", sql_name(role))]);
    }
}

/// Whether a role created by this name without quotes is called just so.
fn is_plain(role: &str) -> bool {
    let start = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
    role.bytes().next().is_some_and(start)
        && role.bytes().all(|byte| start(byte) || byte.is_ascii_digit() || byte == b'$')
}

fn users(sheet: &mut Sheet, trust: &Trust<'_>) {
    let claim = &trust.service.user_claim;
    sheet.heading("3. Users");
    if trust.service.has_users() {
        let at_okta = if claim == "sub" { ", at Okta the login, such as alice@example.com," } else { "" };
        if claim == "email" {
            sheet.say(
                "The claim `email` of each token must be one user's email address, and nobody else's. To set it:",
            );
            sheet.block(&["alter user \"USER\" set email = 'alice@example.com';"]);
        } else {
            sheet.say(&format!(
                "The claim `{claim}` of each token{at_okta} must be one user's login name, which need not be the user's name. \
                 To set it:"
            ));
            sheet.block(&["alter user \"USER\" set login_name = 'alice@example.com';"]);
        }
    } else {
        sheet.say(&format!(
            "The tokens speak for the client itself: at Okta their `sub` is the client id. One user of Snowflake's, made for \
             this, has it as its login name{}:",
            if claim == "sub" { String::new() } else { format!(" (if `{claim}` says the same)") }
        ));
        sheet.block(&[format!(
            "alter user \"SERVICE_USER\" set login_name = {};",
            sql_text(&trust.server.client_id)
        )]);
    }
}

fn network(sheet: &mut Sheet, integration: &str) {
    sheet.heading("4. Network policy");
    sheet.say(
        "Snowflake sees the workers' addresses, not bursar's. Where the account has a network policy, it must let them in; \
         one of the integration's own holds for these tokens alone:",
    );
    sheet.block(&[format!("alter security integration {integration} set network_policy = \"POLICY\";")]);
}

fn check(sheet: &mut Sheet, trust: &Trust<'_>, roles: &Roles<'_>, integration: &str) {
    let service = trust.service;
    sheet.heading("5. See that it works");
    let mut command = format!("bursar token --service {}", shell_word(service.name.as_str()));
    if service.has_users() {
        command.push_str(" --user alice@example.com");
    }
    if let Some(role) = service.roles.keys().find(|role| roles.has(role.as_str())) {
        command.push_str(&format!(" --role {}", shell_word(role.as_str())));
    }
    sheet.say("A token, once its user has connected:");
    sheet.block(&[command]);
    sheet.say("What Snowflake says to it (the token stays in the query history, so use one that ends soon):");
    sheet.block(&["select system$verify_external_oauth_token('TOKEN');"]);
    sheet.say("A driver's error has a UUID in brackets. Why that sign-in failed:");
    sheet.block(&["select system$get_login_failure_details('UUID');"]);
    sheet.say("What was entered:");
    sheet.block(&[format!("desc security integration {integration};")]);
    sheet.field(
        "390303",
        &["issuer, audience, keys or signature: compare 1. with the token's claims; or it is not enabled"],
    );
    sheet.field("390304", &["no user has the claim as login name: 3."]);
    sheet.field("390317", &["the role is not in the token, or is blocked or not in the allowed list: 2."]);
    sheet.field("390186", &["the user does not have the role: 2."]);
    sheet.field("390318", &["the token had expired: fetch it when connecting, not before"]);
}

fn unknown(sheet: &mut Sheet) {
    sheet.heading("What this can't know");
    for text in [
        "Whether the audience is this account's: it must be what Okta's authorization server has as its audience.",
        "Whether users' login names are what the claim says, and which roles they have.",
        "Whether an integration for this issuer is there already, and which roles the account blocks besides.",
        "How long tokens live: Okta's access policy says that. A session that has begun goes on after its token's end.",
    ] {
        sheet.item(text);
    }
}
