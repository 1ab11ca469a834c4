//! `bursar setup okta`: what an administrator enters, in the order of Okta's Admin Console.

use std::collections::{BTreeMap, BTreeSet};

use crate::authorization_server::issuer::Issuer;
use crate::cli::setup::list;
use crate::cli::setup::sheet::Sheet;
use crate::model::Service;
use crate::settings::{Server, Settings};

/// The client as Okta knows it.
mod application;
/// Okta's custom authorization servers, and what to register where it is not Okta.
mod authorization_server;

/// The page, or that of one authorization server.
pub(super) fn page(settings: &Settings, only: Option<&str>) -> Result<String, String> {
    if let Some(name) = only.filter(|name| !settings.servers.contains_key(*name)) {
        let names = list(settings.servers.keys());
        return Err(format!("there is no [authorization_servers.{name}]; there is {names}"));
    }
    let clients: Vec<Client<'_>> = clients(settings)
        .into_iter()
        .filter(|client| only.is_none_or(|only| client.servers.iter().any(|(name, _)| *name == only)))
        .collect();
    let mut sheet = Sheet::default();
    sheet.say(
        "What to enter in Okta's Admin Console, from top to bottom. Values are this configuration's own; what is not named \
         stays as Okta proposes it.",
    );
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    for client in &clients {
        if client.is_okta {
            application::write(&mut sheet, next(), client, settings);
        }
        let shown = client.servers.iter().filter(|(name, _)| only.is_none_or(|only| *name == only));
        for (name, server) in shown {
            let number = next();
            match Issuer::of(&server.issuer) {
                Issuer::Custom { id, .. } => {
                    let here = authorization_server::Here { name, server, id: &id };
                    authorization_server::write(&mut sheet, number, client, &here, settings);
                }
                Issuer::Organisation { .. } => {
                    authorization_server::organisation(&mut sheet, number, name, server);
                }
                Issuer::Other => authorization_server::elsewhere(&mut sheet, number, client, name, settings),
            }
        }
    }
    if clients.iter().any(|client| client.is_okta) {
        organisation(&mut sheet, next(), settings, &clients);
    }
    unknown(&mut sheet);
    Ok(sheet.finish())
}

/// One client, and the authorization servers that know it.
struct Client<'a> {
    is_okta: bool,
    domain: String,
    id: &'a str,
    servers: Vec<(&'a str, &'a Server)>,
    services: Vec<&'a Service>,
}

impl Client<'_> {
    fn has_users(&self) -> bool {
        self.services.is_empty() || self.services.iter().any(|service| service.has_users())
    }

    fn speaks_for_itself(&self) -> bool {
        self.services.iter().any(|service| !service.has_users())
    }

    /// The services that still take a user's password.
    fn with_passwords(&self) -> Vec<&str> {
        let with = self.services.iter().filter(|service| service.password_grant);
        with.map(|service| service.name.as_str()).collect()
    }
}

/// An Okta organisation knows a client once, for all of its authorization servers.
fn clients(settings: &Settings) -> Vec<Client<'_>> {
    let mut clients: BTreeMap<(String, &str), Client<'_>> = BTreeMap::new();
    for (name, server) in &settings.servers {
        let (is_okta, domain) = match Issuer::of(&server.issuer) {
            Issuer::Custom { domain, .. } | Issuer::Organisation { domain } => (true, domain),
            Issuer::Other => (false, server.issuer.clone()),
        };
        let id = server.client_id.as_str();
        let client = clients.entry((domain.clone(), id)).or_insert_with(|| Client {
            is_okta,
            domain,
            id,
            servers: Vec::new(),
            services: Vec::new(),
        });
        client.servers.push((name, server));
        let services = &settings.services;
        client.services.extend(services.iter().filter(|service| service.authorization_server == *name));
    }
    clients.into_values().collect()
}

/// What holds for all of the organisation.
fn organisation(sheet: &mut Sheet, number: usize, settings: &Settings, clients: &[Client<'_>]) {
    let okta = || clients.iter().filter(|client| client.is_okta);
    let domains: BTreeSet<&str> = okta().map(|client| client.domain.as_str()).collect();
    sheet.heading(&format!("{number}. All of {}", list(domains)));
    sheet.say("Security > Networks, where your rules ask where a client comes from:");
    sheet.field(
        "IP zone",
        &["the addresses by which bursar's machines reach the Internet (behind a NAT or proxy: its own)"],
    );
    sheet.item(
        "Restrict the app integration's token endpoint to that zone, so that a stolen secret is worth nothing elsewhere \
         (Okta has that since November 2025). Users sign in from their own addresses: that zone is not for them.",
    );
    sheet.say("Settings > Account > Client-based rate limiting:");
    sheet.field("Mode", &["Enforce and log per client"]);
    sheet.item(
        "It counts sign-ins by client, address and device, so that one client gone wild does not use up everybody's limit.",
    );
    sheet.say("The app integration > Application rate limits:");
    let shares: Vec<String> = okta().map(share).collect();
    sheet.field("Token endpoint", &shares);
    sheet.item(
        "That is authorization_servers.*.requests_per_minute, which one bursar never goes beyond; several bursars need as \
         many times that. Unless told otherwise, Okta gives one client half of the organisation's limit.",
    );
    if settings.connect.is_none() {
        sheet.item(
            "This configuration has no [connect], so there is no page where users connect: it would add a redirect URI for \
             each authorization server.",
        );
    }
}

/// What of the rate limit a client must have.
fn share(client: &Client<'_>) -> String {
    let each =
        client.servers.iter().map(|(name, server)| format!("{} for {name}", server.requests_per_minute));
    let sum: u64 = client.servers.iter().map(|(_, server)| u64::from(server.requests_per_minute)).sum();
    format!("at least {sum} a minute for {} ({})", client.id, list(each))
}

fn unknown(sheet: &mut Sheet) {
    sheet.heading("What this can't know");
    for text in [
        "What is in Okta already: `bursar check` asks it, and names what is wrong and where to mend it.",
        "Who may connect, what MFA they need and how long your rules let tokens live.",
        "Whether refresh tokens are persistent there or rotated, and with which grace period.",
        "Whether your organisation has API Access Management, which custom authorization servers need.",
        "The addresses that Okta sees bursar come from.",
        "Whether the services trust the authorization servers yet: `bursar setup snowflake`, `bursar setup databricks`.",
    ] {
        sheet.item(text);
    }
}
