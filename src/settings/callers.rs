//! `[[callers]]`, and the names of users and groups.

use nix::unistd::{Group, User};

use crate::caller::overflow_uid;
use crate::model::Service;
use crate::policy::{Pattern, Rule, Services};
use crate::settings::reader::Section;

pub(super) fn read(root: &Section<'_>, services: &[Service]) -> Vec<Rule> {
    root.array("callers").iter().map(|section| rule(section, services)).collect()
}

fn rule(section: &Section<'_>, services: &[Service]) -> Rule {
    let rule = Rule {
        uid: either(section, "uid", "user", user),
        gid: either(section, "gid", "group", |section, name| group(section, "group", name)),
        services: entries(section, services),
        users: section.texts("users").unwrap_or_default().iter().map(|text| Pattern::new(text)).collect(),
    };
    if !["uid", "user", "gid", "group"].iter().any(|key| section.has(key)) {
        section.missing("user", "is missing: say whom the rule is for, by user, uid, group or gid");
    }
    if rule.uid == Some(overflow_uid()) {
        section.problem(
            "uid",
            "is the number of every user that this user namespace does not know; nobody can be told by it",
        );
    }
    let about_users = rule.services.iter().any(|entry| match entry {
        Services::All => true,
        Services::Whole(name) | Services::Role(name, _) => {
            services.iter().find(|service| service.name == *name).is_none_or(Service::has_users)
        }
    });
    if rule.users.is_empty() && about_users {
        section.missing("users", "is missing: whose tokens it may have, such as [\"*@example.com\"]");
    }
    match section.choice("run_pass", &["none", "required"]) {
        Some("required") => section.problem("run_pass", "needs a section [run_passes], which this version does not have"),
        None if !section.has("run_pass") && (about_users || section.has("users")) => section.missing(
            "run_pass",
            "is missing: \"none\" lets every process of this user act for all of `users`; say so if that is meant",
        ),
        _ => {}
    }
    section.finish();
    rule
}

fn entries(section: &Section<'_>, services: &[Service]) -> Vec<Services> {
    let texts = section.texts("services");
    if texts.as_ref().is_none_or(Vec::is_empty) && (texts.is_some() || !section.has("services")) {
        section.missing("services", "is missing: what it may ask for, such as [\"snowflake:ANALYST\"]");
    }
    let read = |text: &String| {
        let entry = Services::parse(text);
        let problem = match &entry {
            None => Some(format!("{text:?} is not a service, service:role or \"*\"")),
            Some(Services::All) => None,
            Some(Services::Whole(name) | Services::Role(name, _)) => {
                let service = services.iter().find(|service| service.name == *name);
                match (service, &entry) {
                    (None, _) => Some(format!("there is no [services.{name}]")),
                    (Some(service), Some(Services::Role(_, role))) if !service.roles.contains_key(role) => {
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
            section.problem(
                "user",
                format!("there is no user {name:?} here; where names can't be looked up, use uid"),
            );
            None
        }
        Err(error) => {
            section.problem("user", format!("{name:?} can't be looked up: {error}"));
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
            section.problem(key, format!("there is no group {name:?} here"));
            None
        }
        Err(error) => {
            section.problem(key, format!("{name:?} can't be looked up: {error}"));
            None
        }
    }
}
