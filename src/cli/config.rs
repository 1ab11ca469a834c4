//! `bursar config …`

use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

use crate::cli::{Exit, terminal};
use crate::guarded;
use crate::model::Service;
use crate::policy::{Pattern, Rule};
use crate::settings::connect::Connect;
use crate::settings::{Problem, Settings, keys};

/// A file with every key; the one that is shipped.
const EXAMPLE: &str = include_str!("../../deploy/bursar.example.toml");

pub(super) fn example() -> Exit {
    terminal::out(EXAMPLE);
    Exit::Done
}

pub(super) fn schema() -> Exit {
    terminal::out(&format!("{:#}\n", keys::schema()));
    Exit::Done
}

pub(super) fn check(path: &Path) -> Exit {
    match Settings::load(path) {
        Ok(settings) => {
            for (file, holds) in &settings.files {
                if let Some(doubt) = guarded::doubt(file, *holds) {
                    terminal::err(&format!("warning: {}: {doubt}", file.display()));
                }
            }
            if let Some(doubt) = settings.connect.as_ref().and_then(Connect::doubt) {
                terminal::err(&format!("warning: {doubt}"));
            }
            terminal::out(&format!("{}: ok\n", path.display()));
            for (index, rule) in settings.callers.iter().enumerate() {
                terminal::out(&format!("callers[{}] {}\n", index + 1, allows(rule, &settings.services)));
            }
            Exit::Done
        }
        Err(problems) => {
            report(path, &problems);
            Exit::Usage
        }
    }
}

/// What a rule allows, in words: whom, what, for whom, on what condition.
fn allows(rule: &Rule, services: &[Service]) -> String {
    let named = |id: u32, name: Option<String>| name.map_or(id.to_string(), |name| format!("{name} ({id})"));
    let whom = [
        rule.uid.map(|uid| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            format!("user {}", named(uid, user.map(|user| user.name)))
        }),
        rule.gid.map(|gid| {
            let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
            format!("in group {}", named(gid, group.map(|group| group.name)))
        }),
        rule.unit.as_ref().map(|unit| format!("in {unit}")),
    ];
    let whom: Vec<String> = whom.into_iter().flatten().collect();
    let mut text = format!("{}:", whom.join(", "));
    for service in services {
        let covers = |role| rule.services.iter().any(|entry| entry.covers(&service.name, role));
        let scopes = covers(None).then(|| "default scopes".to_owned());
        let roles = service.roles.keys().filter(|role| covers(Some(role))).map(|role| format!("role {role}"));
        let what: Vec<String> = scopes.into_iter().chain(roles).collect();
        if what.is_empty() || service.has_users() && rule.users.is_empty() {
            continue;
        }
        let users: Vec<&str> = rule.users.iter().map(Pattern::as_str).collect();
        let users = if service.has_users() { users.join(", ") } else { "the client itself".to_owned() };
        text.push_str(&format!("\n  {} ({}) for {users}", service.name, what.join(", ")));
    }
    let pass = if rule.needs_pass { "only with a run pass" } else { "without a run pass" };
    format!("{text}\n  {pass}")
}

/// Every problem on a line of its own.
pub(super) fn report(path: &Path, problems: &[Problem]) {
    for problem in problems {
        terminal::err(&format!("{}: {problem}", path.display()));
    }
}
