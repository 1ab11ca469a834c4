//! `[[callers]]`, and the names of users and groups.

use nix::unistd::{Group, User};

use crate::caller::{overflow_gid, overflow_uid};
use crate::model::{Entitlement, Service};
use crate::policy::{Pattern, Rule};
use crate::settings::reader::Section;

pub(super) fn read(root: &Section<'_>, services: &[Service], passes: bool) -> Vec<Rule> {
    root.array("callers").iter().map(|section| rule(section, services, passes)).collect()
}

fn rule(section: &Section<'_>, services: &[Service], passes: bool) -> Rule {
    let rule = Rule {
        uid: either(section, "uid", "user", user),
        gid: either(section, "gid", "group", |section, name| group(section, "group", name)),
        unit: section.text("systemd_unit"),
        services: entries(section, services),
        users: section.texts("users").unwrap_or_default().iter().map(|text| Pattern::new(text)).collect(),
        needs_pass: false,
    };
    if !["uid", "user", "gid", "group", "systemd_unit"].iter().any(|key| section.has(key)) {
        section.missing(
            "user",
            "is missing: say whom the rule is for, by user, uid, group, gid or systemd_unit",
        );
    }
    if rule.unit.as_deref().is_some_and(|unit| !is_unit(unit)) {
        section.problem(
            "systemd_unit",
            "must be a system service or scope by its whole name, such as \"airflow-worker.service\"",
        );
    }
    if rule.gid == Some(overflow_gid()) {
        section.problem(
            "gid",
            "is the number of every group that this user namespace does not know; nobody can be told by it",
        );
    }
    if rule.uid == Some(overflow_uid()) {
        section.problem(
            "uid",
            "is the number of every user that this user namespace does not know; nobody can be told by it",
        );
    }
    let about_users = rule.services.iter().any(|entry| match entry {
        Entitlement::All => true,
        Entitlement::Whole(name) | Entitlement::Role(name, _) => {
            services.iter().find(|service| service.name == *name).is_none_or(Service::has_users)
        }
    });
    if rule.users.is_empty() && about_users {
        section.missing("users", "is missing: whose tokens it may have, such as [\"*@example.com\"]");
    }
    let run_pass = section.choice("run_pass", &["none", "required"]);
    match run_pass {
        Some("required") if !passes => {
            section.problem("run_pass", "needs a section [run_passes]: who signs run passes, and with which keys");
        }
        None if !section.has("run_pass") && (about_users || section.has("users")) => section.missing(
            "run_pass",
            "is missing: \"none\" lets every process of this user act for all of `users`; say so if that is meant",
        ),
        _ => {}
    }
    section.finish();
    Rule { needs_pass: run_pass == Some("required"), ..rule }
}

fn is_unit(name: &str) -> bool {
    let stem = name.strip_suffix(".service").or_else(|| name.strip_suffix(".scope"));
    stem.is_some_and(|stem| !stem.is_empty()) && !name.contains(['/', '*'])
}

fn entries(section: &Section<'_>, services: &[Service]) -> Vec<Entitlement> {
    let texts = section.texts("services");
    if texts.as_ref().is_none_or(Vec::is_empty) && (texts.is_some() || !section.has("services")) {
        section.missing("services", "is missing: what it may ask for, such as [\"snowflake:ANALYST\"]");
    }
    let read = |text: &String| {
        let entry = Entitlement::parse(text);
        let problem = match &entry {
            None => Some(format!("{text:?} is not a service, service:role or \"*\"")),
            Some(Entitlement::All) => None,
            Some(Entitlement::Whole(name) | Entitlement::Role(name, _)) => {
                let service = services.iter().find(|service| service.name == *name);
                match (service, &entry) {
                    (None, _) => Some(format!("there is no [services.{name}]")),
                    (Some(service), Some(Entitlement::Role(_, role)))
                        if !service.roles.contains_key(role) =>
                    {
                        Some(format!("services.{name}.roles has no {role:?}"))
                    }
                    (Some(_), _) => None,
                }
            }
        };
        if let Some(problem) = problem {
            section.problem("services", problem);
        }
        entry
    };
    texts.unwrap_or_default().iter().filter_map(read).collect()
}

/// A number, or a name that is looked up.
fn either(
    section: &Section<'_>,
    number: &str,
    name: &str,
    look_up: impl FnOnce(&Section<'_>, &str) -> Option<u32>,
) -> Option<u32> {
    if section.has(number) && section.has(name) {
        section.problem(name, format!("either this or {number}, not both"));
    }
    let named = section.text(name).and_then(|text| look_up(section, &text));
    // A name that can't be looked up must not leave a rule that is for everybody: no one has this id.
    let unusable = section.has(name).then_some(u32::MAX);
    section.id(number).or(named).or(unusable)
}

fn user(section: &Section<'_>, name: &str) -> Option<u32> {
    match User::from_name(name) {
        Ok(Some(user)) => Some(user.uid.as_raw()),
        Ok(None) => {
            section.lacking(
                "user",
                format!("there is no user {name:?} here; where names can't be looked up, use uid"),
            );
            None
        }
        Err(error) => {
            section.lacking("user", format!("{name:?} can't be looked up: {error}"));
            None
        }
    }
}

pub(super) fn group(section: &Section<'_>, key: &str, name: &str) -> Option<u32> {
    match Group::from_name(name) {
        Ok(Some(group)) => Some(group.gid.as_raw()),
        // A number, where names can't be looked up.
        Ok(None) if name.parse::<u32>().is_ok_and(|gid| gid != u32::MAX) => name.parse().ok(),
        Ok(None) => {
            section.lacking(key, format!("there is no group {name:?} here"));
            None
        }
        Err(error) => {
            section.lacking(key, format!("{name:?} can't be looked up: {error}"));
            None
        }
    }
}
