//! `[services.*]`

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Kind, RoleName, Scope, Service, ServiceName, SpeaksFor};
use crate::settings::Server;
use crate::settings::reader::Section;

pub(super) fn read(root: &Section<'_>, servers: &BTreeMap<String, Server>) -> Vec<Service> {
    let sections = root.sections("services");
    if sections.is_empty() {
        root.missing("services", "at least one is needed: [services.snowflake]");
    }
    sections.into_iter().filter_map(|(name, section)| service(&name, &section, servers)).collect()
}

fn service(name: &str, section: &Section<'_>, servers: &BTreeMap<String, Server>) -> Option<Service> {
    // A colon would be taken for a role in a rule, and `unknown` is what metrics call all others.
    let service_name = ServiceName::parse(name).filter(|_| !name.contains([':', '*']) && name != "unknown");
    if service_name.is_none() {
        section.missing("", "a service's name must not be `unknown` nor have `:`, `*` or control characters");
    }
    let authorization_server = section.required_text("authorization_server");
    if !authorization_server.is_empty() && !servers.contains_key(&authorization_server) {
        section.problem(
            "authorization_server",
            format!("there is no [authorization_servers.{authorization_server}]"),
        );
    }
    let audience = section.required_text("audience");
    let scopes = section.texts("scopes").unwrap_or_default();
    let scopes = scope(section, "scopes", scopes.iter().map(String::as_str));
    let roles = roles(section);
    let user_claim = section.text("user_claim").unwrap_or_else(|| "sub".to_owned());
    let opaque = section.choice("access_token", &["jwt", "opaque"]) == Some("opaque");
    let kind = match section.choice("kind", &["snowflake", "databricks", "netsuite", "generic"]) {
        Some("snowflake") => Kind::Snowflake,
        Some("databricks") => Kind::Databricks,
        Some("netsuite") => Kind::Netsuite,
        _ => Kind::Generic,
    };
    let speaks_for = match section.choice("grant", &["authorization_code", "client_credentials"]) {
        Some("client_credentials") => SpeaksFor::TheClient,
        _ => SpeaksFor::Users,
    };
    let acr_values = section.text("acr_values");
    let max_age =
        section.has("max_age").then(|| section.positive_duration("max_age", Duration::from_hours(12)));
    let password_grant = section.flag("password_grant");
    if speaks_for == SpeaksFor::TheClient {
        for key in ["acr_values", "max_age", "password_grant"].iter().filter(|key| section.has(key)) {
            section.problem(key, "is about users who connect; this service's tokens speak for no user");
        }
    }
    let server = servers.get(&authorization_server);
    if !opaque
        && server
            .is_some_and(|server| server.endpoints.as_ref().is_some_and(|known| known.jwks_uri.is_none()))
    {
        section.missing(
            "access_token",
            format!(
                "a JWT can't be verified without authorization_servers.{authorization_server}.jwks_uri; name it, or set \
                 access_token = \"opaque\""
            ),
        );
    }
    section.finish();
    Some(Service {
        name: service_name?,
        speaks_for,
        authorization_server,
        audience,
        scopes,
        roles,
        user_claim,
        opaque,
        kind,
        acr_values,
        max_age,
        password_grant,
    })
}

fn roles(section: &Section<'_>) -> BTreeMap<RoleName, Scope> {
    let template = section.text("role_scope").unwrap_or_else(|| "session:role:{role}".to_owned());
    if !template.contains("{role}") {
        section.problem("role_scope", "must have {role} in it, such as \"session:role:{role}\"");
    }
    let names = section.texts("roles").unwrap_or_default();
    names
        .iter()
        .filter_map(|name| {
            let Some(role) = RoleName::parse(name) else {
                section.problem("roles", format!("{name:?} is not a name"));
                return None;
            };
            Some((role, scope(section, "roles", [template.replace("{role}", name).as_str()])))
        })
        .collect()
}

fn scope<'a>(section: &Section<'_>, key: &str, words: impl IntoIterator<Item = &'a str>) -> Scope {
    Scope::from_words(words).unwrap_or_else(|error| {
        section.problem(key, error.to_string());
        Scope::default()
    })
}
