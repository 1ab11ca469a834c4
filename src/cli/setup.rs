//! `bursar setup …`: what to enter on the other side, with this configuration's own values.
//!
//! Each page is a pure function of the settings: nothing is asked of anybody, so that it works on any machine, and what it
//! can't know it says. Secrets are in none of them.

use std::path::Path;
use std::time::Duration;

use crate::cli::arguments::SetupCommand;
use crate::cli::{Exit, config, terminal};
use crate::model::{Kind, Scope, Service};
use crate::settings::{Problem, Server, Settings};

mod databricks;
mod okta;
mod quote;
mod sheet;
mod snowflake;

/// What Snowflake takes a role's name from.
const ROLE: &str = "session:role:";

/// Lets a user take any of their roles at Snowflake.
const ANY_ROLE: &str = "session:role-any";

pub(super) fn setup(command: &SetupCommand) -> Exit {
    let (SetupCommand::Okta { config, .. }
    | SetupCommand::Snowflake { config, .. }
    | SetupCommand::Databricks { config, .. }) = command;
    let path = &config.config;
    let (settings, lacking) = match Settings::load_anywhere(path) {
        Ok(read) => read,
        Err(problems) => {
            config::report(path, &problems);
            return Exit::Usage;
        }
    };
    warn(path, &lacking);
    match page(command, &settings) {
        Ok(page) => {
            terminal::out(&page);
            Exit::Done
        }
        Err(why) => {
            terminal::err(&format!("bursar: {why}"));
            Exit::Usage
        }
    }
}

/// What is missing on this machine does not matter here, and may where bursar runs.
fn warn(path: &Path, lacking: &[Problem]) {
    for problem in lacking {
        terminal::err(&format!("warning: {}: {problem}", path.display()));
    }
    if !lacking.is_empty() {
        terminal::err("warning: what is printed does not depend on these; bursar does, where it runs");
    }
}

fn page(command: &SetupCommand, settings: &Settings) -> Result<String, String> {
    Ok(match command {
        SetupCommand::Okta { service: Some(service), .. } => {
            okta::page(settings, Some(&named(settings, service)?.authorization_server))?
        }
        SetupCommand::Okta { server, .. } => okta::page(settings, server.as_deref())?,
        SetupCommand::Snowflake { service, .. } => {
            snowflake::page(&Trust::of(settings, service, Kind::Snowflake)?)
        }
        SetupCommand::Databricks { service, .. } => {
            databricks::page(&Trust::of(settings, service, Kind::Databricks)?)
        }
    })
}

fn named<'a>(settings: &'a Settings, name: &str) -> Result<&'a Service, String> {
    let services = &settings.services;
    services.iter().find(|service| service.name.as_str() == name).ok_or_else(|| {
        let names = list(services.iter().map(|service| service.name.as_str()));
        format!("there is no [services.{name}]; there is {names}")
    })
}

/// A service, and the authorization server that it is to trust.
struct Trust<'a> {
    service: &'a Service,
    /// All services of its kind whose tokens come from there, so itself, too.
    together: Vec<&'a Service>,
    server: &'a Server,
}

impl<'a> Trust<'a> {
    fn of(settings: &'a Settings, name: &str, kind: Kind) -> Result<Self, String> {
        let services = &settings.services;
        let kind_name = kind.as_str();
        let service = named(settings, name)?;
        if service.kind != kind {
            let same = list(
                services.iter().filter(|service| service.kind == kind).map(|service| service.name.as_str()),
            );
            return Err(format!(
                "services.{name}.kind is \"{}\", not \"{kind_name}\"; services of that kind: {same}",
                service.kind.as_str()
            ));
        }
        let server = settings.servers.get(&service.authorization_server);
        let server = server.ok_or_else(|| format!("services.{name} has no authorization server"))?;
        let is_with_it = |other: &&Service| {
            other.kind == kind && other.authorization_server == service.authorization_server
        };
        let together = services.iter().filter(is_with_it).collect();
        Ok(Self { service, together, server })
    }
}

/// What is asked for in a service's tokens, word by word, whatever the role.
fn scopes<'a>(services: impl IntoIterator<Item = &'a Service>) -> Vec<String> {
    let mut words = Scope::default();
    for service in services {
        for scope in std::iter::once(&service.scopes).chain(service.roles.values()) {
            for word in scope.of_the_token().to_string().split(' ').filter(|word| !word.is_empty()) {
                words = words.with(word);
            }
        }
    }
    words.to_string().split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A time as the configuration writes it; a minute is 60s, as everywhere in Okta.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let whole =
        units.into_iter().find(|(_, unit)| (seconds > 60 || *unit == 1) && seconds.is_multiple_of(*unit));
    match whole.filter(|_| time.subsec_nanos() == 0) {
        Some((name, unit)) => format!("{}{name}", seconds / unit),
        None => humantime::format_duration(time).to_string(),
    }
}

/// Names in a sentence.
fn list<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
