//! The rules for callers: can somebody be whom each is for?
//!
//! A process can have ids that no account has, and groups that only its unit gives it, so most of this is a doubt.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::check::Step;
use crate::model::UserName;
use crate::policy::{Pattern, Rule};

/// Where the units of services are.
const UNITS: [&str; 6] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/transient",
    "/run/systemd/generator",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What this machine knows of whom a rule names.
#[derive(Debug, Default)]
struct Known {
    user: Option<String>,
    group: Option<String>,
    is_member: bool,
    /// `None` where there is no systemd to ask.
    has_unit: Option<bool>,
}

pub(super) fn look(rules: &[Rule], users: &BTreeSet<UserName>) -> Vec<Step> {
    if rules.is_empty() {
        let remedy =
            "add [[callers]]: for whom (user, group or systemd_unit), which services, whose tokens (users)";
        return vec![Step::bad("callers", "callers", "there is no rule: nobody may have a token", remedy)];
    }
    let judge =
        |(index, rule): (usize, &Rule)| judge(&format!("callers[{}]", index + 1), rule, &known(rule), users);
    rules.iter().enumerate().map(judge).collect()
}

fn known(rule: &Rule) -> Known {
    let user = rule.uid.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    let group = rule.gid.and_then(|gid| Group::from_gid(Gid::from_raw(gid)).ok().flatten());
    let groups =
        user.as_ref().and_then(|user| getgrouplist(&CString::new(user.name.as_str()).ok()?, user.gid).ok());
    let gid = rule.gid.map(Gid::from_raw);
    Known {
        is_member: groups.is_some_and(|groups| gid.is_some_and(|gid| groups.contains(&gid))),
        user: user.map(|user| user.name),
        group: group.map(|group| group.name),
        has_unit: rule.unit.as_deref().and_then(has_unit),
    }
}

/// Whether a unit is installed. Scopes come and go with what runs in them.
fn has_unit(name: &str) -> Option<bool> {
    let runs_here = Path::new("/run/systemd/system").is_dir();
    let stem = name.strip_suffix(".service").filter(|_| runs_here)?;
    let template = stem.split_once('@').map(|(template, _)| format!("{template}@.service"));
    let is_there = |name: &str| UNITS.iter().any(|directory| Path::new(directory).join(name).exists());
    Some(is_there(name) || template.is_some_and(|template| is_there(&template)))
}

fn judge(subject: &str, rule: &Rule, known: &Known, users: &BTreeSet<UserName>) -> Step {
    let doubt = |message: String, remedy: String| Step::doubtful("callers", subject, message, remedy);
    if let (Some(uid), None) = (rule.uid, &known.user) {
        return doubt(
            format!(
                "no account here has uid {uid}: the rule matches nobody, unless a container has that user"
            ),
            "name the user that the workers run as: `ps -o uid,user,group,cmd -C PROGRAM` shows it"
                .to_owned(),
        );
    }
    if let (Some(gid), None) = (rule.gid, &known.group) {
        return doubt(
            format!(
                "no group here has gid {gid}: the rule matches nobody, unless a container has that group"
            ),
            "name a group that the workers are in: `id USER` shows them".to_owned(),
        );
    }
    if let (Some(user), Some(group), false) = (&known.user, &known.group, known.is_member) {
        return doubt(
            format!("{user} is not in group {group}, and both must hold: the rule matches nobody"),
            format!(
                "usermod -aG {group} {user}, or SupplementaryGroups={group} in the workers' unit, which can't be seen from here"
            ),
        );
    }
    if let (Some(unit), Some(false)) = (&rule.unit, known.has_unit) {
        return doubt(
            format!("no unit {unit} is installed: the rule matches nobody"),
            "name the unit that the workers run in: `systemctl list-units --type=service` shows them"
                .to_owned(),
        );
    }
    let for_nobody = |pattern: &&Pattern| !users.iter().any(|user| pattern.matches(user));
    let useless: Vec<&str> = rule.users.iter().filter(for_nobody).map(Pattern::as_str).collect();
    if !rule.users.is_empty() && useless.len() == rule.users.len() && !users.is_empty() {
        let example = users.first().map(UserName::as_str).unwrap_or_default();
        return doubt(
            format!("users = {useless:?} matches none of the users who are connected"),
            format!(
                "write the names as the tokens' user_claim has them, such as {example:?}; `*` is any run of characters"
            ),
        );
    }
    Step::good("callers", subject, whom(rule, known))
}

fn whom(rule: &Rule, known: &Known) -> String {
    let named = |name: &Option<String>| name.clone().unwrap_or_default();
    let all = [
        rule.uid.map(|uid| format!("user {} ({uid})", named(&known.user))),
        rule.gid.map(|gid| format!("group {} ({gid})", named(&known.group))),
        rule.unit.as_ref().map(|unit| match known.has_unit {
            Some(_) => format!("in {unit}"),
            None => format!("in {unit}, which can't be looked for here"),
        }),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    let pass = if rule.needs_pass { ", with a run pass" } else { "" };
    format!("somebody can be {}{pass}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    fn rule() -> Rule {
        Rule { uid: Some(1), users: vec![Pattern::new("*@example.com")], ..Rule::default() }
    }

    fn somebody() -> Known {
        Known { user: Some("airflow".into()), ..Known::default() }
    }

    fn users(names: &[&str]) -> BTreeSet<UserName> {
        names.iter().filter_map(|name| UserName::parse(name)).collect()
    }

    #[test]
    fn a_rule_that_matches_nobody_is_doubted_with_what_to_write() {
        let in_group = Rule { gid: Some(7), ..rule() };
        let in_unit = Rule { unit: Some("x.service".into()), ..rule() };
        let group = || Known { group: Some("workers".into()), ..somebody() };
        for (rule, known, connected, expected) in [
            (rule(), Known::default(), vec![], "ps -o uid"),
            (in_group.clone(), somebody(), vec![], "`id USER`"),
            (in_group, group(), vec![], "usermod -aG workers airflow"),
            (in_unit, Known { has_unit: Some(false), ..somebody() }, vec![], "systemctl list-units"),
            (rule(), somebody(), vec!["alice"], "such as \"alice\""),
        ] {
            let step = judge("callers[1]", &rule, &known, &users(&connected));
            assert_eq!(step.verdict, Verdict::Doubtful, "{step:?}");
            assert!(step.remedy.as_deref().unwrap_or_default().contains(expected), "{step:?}");
        }
    }

    #[test]
    fn a_rule_that_can_match_is_right() {
        let member = Known { group: Some("workers".into()), is_member: true, ..somebody() };
        let unseen = Rule { unit: Some("x.service".into()), ..rule() };
        for (rule, known, connected) in [
            (rule(), somebody(), vec![]),
            (rule(), somebody(), vec!["bob", "alice@example.com"]),
            (Rule { gid: Some(7), ..rule() }, member, vec![]),
            (unseen, somebody(), vec![]),
        ] {
            let step = judge("callers[1]", &rule, &known, &users(&connected));
            assert_eq!(step.verdict, Verdict::Good, "{step:?}");
        }
    }
}
