use super::*;
use crate::model::{Kind, Scope, SpeaksFor};
use proptest::prelude::*;

fn service(name: &str, roles: &[&str]) -> (ServiceName, Arc<Service>) {
    let name = ServiceName::parse(name).unwrap();
    let roles = roles.iter().map(|role| (RoleName::parse(role).unwrap(), Scope::from_wire(role))).collect();
    let service = Service {
        name: name.clone(),
        speaks_for: if name.as_str() == "reports" { SpeaksFor::TheClient } else { SpeaksFor::Users },
        authorization_server: "a".into(),
        audience: "x".into(),
        scopes: Scope::from_wire("s"),
        roles,
        user_claim: "sub".into(),
        opaque: false,
        kind: Kind::Generic,
    };
    (name, Arc::new(service))
}

fn policy(rules: Vec<Rule>) -> Policy {
    let services = HashMap::from([
        service("snowflake", &["ANALYST", "PUBLIC"]),
        service("databricks", &[]),
        service("reports", &[]),
    ]);
    Policy::new(rules, services, 65_534)
}

fn rule(uid: u32, services: &[&str], users: &[&str]) -> Rule {
    Rule {
        uid: Some(uid),
        gid: None,
        services: services.iter().map(|text| Services::parse(text).unwrap()).collect(),
        users: users.iter().map(|text| Pattern::new(text)).collect(),
    }
}

fn ask(policy: &Policy, uid: u32, service: &str, user: &str, role: Option<&str>) -> Result<(), Denied> {
    let request = TokenRequest {
        service: ServiceName::parse(service).unwrap(),
        user: UserName::parse(user),
        role: role.map(|role| RoleName::parse(role).unwrap()),
    };
    policy.permit(&Caller::invented(uid, uid), request).map(drop)
}

#[test]
fn a_rule_allows_what_it_names_and_nothing_else() {
    let policy = policy(vec![rule(7, &["snowflake:ANALYST"], &["*@example.com"])]);
    assert_eq!(ask(&policy, 7, "snowflake", "alice@example.com", Some("ANALYST")), Ok(()));
    for (uid, service, user, role) in [
        (8, "snowflake", "alice@example.com", Some("ANALYST")),
        (7, "snowflake", "alice@example.com", Some("PUBLIC")),
        (7, "snowflake", "alice@example.com", None),
        (7, "databricks", "alice@example.com", None),
        (7, "snowflake", "alice@example.org", Some("ANALYST")),
        (7, "nosuch", "alice@example.com", None),
        (7, "snowflake", "alice@example.com", Some("NOSUCH")),
    ] {
        assert_eq!(
            ask(&policy, uid, service, user, role),
            Err(Denied::NoRule),
            "{uid} {service} {user} {role:?}"
        );
    }
}

#[test]
fn a_whole_service_is_its_default_scopes_and_all_its_roles() {
    let policy = policy(vec![rule(7, &["snowflake"], &["*"])]);
    assert_eq!(ask(&policy, 7, "snowflake", "alice", None), Ok(()));
    assert_eq!(ask(&policy, 7, "snowflake", "alice", Some("PUBLIC")), Ok(()));
    assert_eq!(ask(&policy, 7, "snowflake", "alice", Some("NOSUCH")), Err(Denied::UnknownRole));
}

#[test]
fn only_who_may_have_all_services_learns_that_one_does_not_exist() {
    let policy = policy(vec![rule(7, &["*"], &["*"]), rule(8, &["snowflake", "databricks"], &["*"])]);
    assert_eq!(ask(&policy, 7, "nosuch", "alice", None), Err(Denied::UnknownService));
    assert_eq!(ask(&policy, 8, "nosuch", "alice", None), Err(Denied::NoRule));
}

#[test]
fn uid_and_gid_of_one_rule_must_both_hold() {
    let both = Rule { gid: Some(5), ..rule(7, &["*"], &["*"]) };
    let policy = policy(vec![both, Rule { uid: None, ..rule(0, &["*"], &["*"]) }]);
    let request = || TokenRequest {
        service: ServiceName::parse("snowflake").unwrap(),
        user: UserName::parse("alice"),
        role: None,
    };
    assert!(policy.permit(&Caller::invented(7, 5), request()).is_ok());
    assert!(policy.permit(&Caller::invented(7, 6), request()).is_err());
    assert!(
        policy.permit(&Caller::invented(0, 5), request()).is_err(),
        "a rule that names nobody is for nobody"
    );
}

#[test]
fn a_service_without_users_is_asked_for_without_one_and_needs_no_pattern() {
    let policy = policy(vec![
        rule(7, &["reports"], &[]),
        rule(8, &["*"], &["alice"]),
        rule(9, &["snowflake"], &["alice"]),
        rule(9, &["databricks"], &[]),
    ]);
    assert_eq!(ask(&policy, 7, "reports", "", None), Ok(()));
    assert_eq!(ask(&policy, 8, "reports", "", None), Ok(()));
    assert_eq!(ask(&policy, 7, "reports", "alice", None), Err(Denied::NoUsers));
    assert_eq!(ask(&policy, 8, "snowflake", "", None), Err(Denied::UserMissing));
    assert_eq!(ask(&policy, 8, "nosuch", "", None), Err(Denied::UnknownService));
    for service in ["reports", "nosuch", "databricks"] {
        assert_eq!(ask(&policy, 9, service, "", None), Err(Denied::NoRule), "{service}: nothing is told");
    }
    assert_eq!(ask(&policy, 9, "databricks", "alice", None), Err(Denied::NoRule), "for nobody");
}

#[test]
fn a_caller_is_told_what_each_of_its_rules_allows() {
    let policy = policy(vec![
        rule(7, &["snowflake:ANALYST"], &["*@example.com"]),
        rule(7, &["*"], &["alice"]),
        rule(8, &["*"], &["*"]),
    ]);
    let told: Vec<(String, bool, usize, usize)> = policy
        .allowed(&Caller::invented(7, 7))
        .iter()
        .map(|one| (one.service.name.to_string(), one.default_scopes, one.roles.len(), one.users.len()))
        .collect();
    let expected = [
        ("databricks", true, 0, 1),
        ("reports", true, 0, 0),
        ("snowflake", false, 1, 1),
        ("snowflake", true, 2, 1),
    ];
    assert_eq!(
        told,
        expected.map(|(name, defaults, roles, users)| (name.to_owned(), defaults, roles, users))
    );
    assert!(policy.allowed(&Caller::invented(9, 9)).is_empty());
}

#[test]
fn the_overflow_uid_is_nobody_in_particular() {
    let policy = policy(vec![rule(65_534, &["*"], &["*"])]);
    assert_eq!(ask(&policy, 65_534, "snowflake", "alice", None), Err(Denied::NoRule));
}

#[test]
fn patterns_match_whole_names() {
    for (pattern, name, fits) in [
        ("alice", "alice", true),
        ("alice", "alice2", false),
        ("*", "alice", true),
        ("*@example.com", "alice@example.com", true),
        ("*@example.com", "alice@example.com.evil", false),
        ("*@example.com", "@example.com", true),
        ("a*c*e", "abcde", true),
        ("a*c*e", "ace", true),
        ("a*c*e", "aec", false),
        ("aa*aa", "aaa", false),
        ("**", "x", true),
        ("", "x", false),
        ("Alice", "alice", false),
    ] {
        assert_eq!(Pattern::new(pattern).matches(&UserName::parse(name).unwrap()), fits, "{pattern} {name}");
    }
}

proptest! {
    #[test]
    fn another_rule_never_takes_away(
        uid in 0..4_u32, gives in prop::collection::vec(0..4_u32, 0..4), extra in 0..4_u32,
    ) {
        let rules: Vec<Rule> = gives.iter().map(|uid| rule(*uid, &["snowflake"], &["*"])).collect();
        let more = [rules.clone(), vec![rule(extra, &["snowflake:PUBLIC"], &["bob"])]].concat();
        let before = ask(&policy(rules), uid, "snowflake", "alice", None);
        prop_assert_eq!(before, ask(&policy(more), uid, "snowflake", "alice", None));
    }
}
