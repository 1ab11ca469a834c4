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
        acr_values: None,
        max_age: None,
        password_grant: false,
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
        services: services.iter().map(|text| Entitlement::parse(text).unwrap()).collect(),
        users: users.iter().map(|text| Pattern::new(text)).collect(),
        ..Rule::default()
    }
}

fn ask(policy: &Policy, uid: u32, service: &str, user: &str, role: Option<&str>) -> Result<(), Denied> {
    let request = TokenRequest {
        service: ServiceName::parse(service).unwrap(),
        user: UserName::parse(user),
        role: role.map(|role| RoleName::parse(role).unwrap()),
    };
    policy.permit(&Caller::invented(uid, uid), request, &Shown::Nothing).map(drop)
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
    assert!(policy.permit(&Caller::invented(7, 5), request(), &Shown::Nothing).is_ok());
    assert!(policy.permit(&Caller::invented(7, 6), request(), &Shown::Nothing).is_err());
    assert!(
        policy.permit(&Caller::invented(0, 5), request(), &Shown::Nothing).is_err(),
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
        .allowed(&Caller::invented(7, 7), None)
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
    assert!(policy.allowed(&Caller::invented(9, 9), None).is_empty());
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

#[test]
fn groups_are_primary_and_supplementary_and_a_unit_must_be_the_one_that_is_named() {
    let of = |rule: Rule| policy(vec![Rule { uid: None, ..rule }]);
    let asks = |policy: &Policy, caller: &Caller| {
        let request = TokenRequest {
            service: ServiceName::parse("snowflake").unwrap(),
            user: UserName::parse("alice"),
            role: None,
        };
        policy.permit(caller, request, &Shown::Nothing).is_ok()
    };
    let plain = || Caller::invented(7, 5);
    let grouped = of(Rule { gid: Some(9), ..rule(0, &["*"], &["*"]) });
    assert!(!asks(&grouped, &plain()));
    assert!(asks(&grouped, &Caller::invented(7, 9)), "the primary group");
    assert!(asks(&grouped, &plain().with(&[4, 9], None)), "a supplementary one");
    let united = of(Rule { unit: Some("airflow.service".into()), ..rule(0, &["*"], &["*"]) });
    assert!(!asks(&united, &plain()), "not looked at, or of a sibling pid namespace");
    assert!(asks(&united, &plain().with(&[], Some("airflow.service"))));
    assert!(!asks(&united, &plain().with(&[], Some("user@1000.service"))));
    let both = of(Rule { gid: Some(9), unit: Some("airflow.service".into()), ..rule(0, &["*"], &["*"]) });
    assert!(!asks(&both, &plain().with(&[], Some("airflow.service"))));
    assert!(asks(&both, &plain().with(&[9], Some("airflow.service"))));
}

fn shown(pass: RunPass) -> Shown {
    Shown::Pass(Arc::new(pass))
}

#[test]
fn refusals_come_in_the_order_rule_pass_role() {
    let policy = policy(vec![Rule { needs_pass: true, ..rule(7, &["snowflake"], &["*@example.com"]) }]);
    let ask = |uid: u32, service: &str, user: &str, role: Option<&str>, shown: &Shown| {
        let request = TokenRequest {
            service: ServiceName::parse(service).unwrap(),
            user: UserName::parse(user),
            role: role.and_then(RoleName::parse),
        };
        policy.permit(&Caller::invented(uid, uid), request, shown).err()
    };
    let (alice, bob) = ("alice@example.com", "bob@example.com");
    let pass = shown(RunPass::invented(alice, &["snowflake"]));
    let bad = Shown::Bad(Unbelieved::Expired, None);
    for shown in [&Shown::Nothing, &bad, &Shown::Unknown, &pass] {
        assert_eq!(ask(8, "snowflake", alice, None, shown), Some(Denied::NoRule), "no rule: {shown:?}");
        assert_eq!(ask(7, "databricks", alice, None, shown), Some(Denied::NoRule));
        assert_eq!(ask(7, "snowflake", "alice@example.org", None, shown), Some(Denied::NoRule));
    }
    assert_eq!(ask(7, "snowflake", alice, Some("NOSUCH"), &Shown::Nothing), Some(Denied::PassRequired));
    assert_eq!(ask(7, "snowflake", alice, Some("NOSUCH"), &bad), Some(Denied::BadPass(Unbelieved::Expired)));
    assert_eq!(ask(7, "snowflake", alice, None, &Shown::Unknown), Some(Denied::PassUnknown));
    assert_eq!(ask(7, "snowflake", bob, None, &pass), Some(Denied::BadPass(Unbelieved::NotCovered)));
    assert_eq!(ask(7, "snowflake", alice, Some("NOSUCH"), &pass), Some(Denied::UnknownRole));
    assert_eq!(ask(7, "snowflake", alice, None, &pass), None);
    assert_eq!(ask(7, "snowflake", "", None, &pass), None, "whose it is, the pass says");
    assert_eq!(ask(7, "snowflake", "", None, &Shown::Nothing), Some(Denied::PassRequired));
    let other = shown(RunPass::invented("alice@example.org", &["*"]));
    assert_eq!(ask(7, "snowflake", "", None, &other), Some(Denied::NoRule), "and the rule must allow that");
}

#[test]
fn a_pass_that_is_shown_counts_where_none_is_needed() {
    let policy = policy(vec![rule(7, &["*"], &["*"])]);
    let ask = |shown: &Shown| {
        let request = TokenRequest {
            service: ServiceName::parse("snowflake").unwrap(),
            user: UserName::parse("alice"),
            role: None,
        };
        policy.permit(&Caller::invented(7, 7), request, shown).map(|permit| permit.run().cloned())
    };
    assert_eq!(ask(&Shown::Nothing), Ok(None));
    assert_eq!(ask(&shown(RunPass::invented("alice", &["*"]))), Ok(RunId::parse("run")));
    assert!(ask(&shown(RunPass::invented("bob", &["*"]))).is_err());
    assert!(ask(&Shown::Bad(Unbelieved::Signature, None)).is_err());
}

const CALLERS: u32 = 3;
const USERS: [&str; 3] = ["alice@example.com", "bob@example.com", "*"];
const ENTRIES: [&str; 6] =
    ["*", "snowflake", "snowflake:ANALYST", "snowflake:PUBLIC", "databricks", "reports"];

/// Every question that these rules could be asked.
fn questions() -> Vec<(u32, TokenRequest)> {
    let mut questions = Vec::new();
    for uid in 0..CALLERS {
        for service in ["snowflake", "databricks", "reports", "nosuch"] {
            for user in ["", USERS[0], USERS[1], USERS[2], "carol@example.org"] {
                for role in [None, Some("ANALYST"), Some("PUBLIC"), Some("NOSUCH")] {
                    let request = TokenRequest {
                        service: ServiceName::parse(service).unwrap(),
                        user: UserName::parse(user),
                        role: role.and_then(RoleName::parse),
                    };
                    questions.push((uid, request));
                }
            }
        }
    }
    questions
}

fn some<T: Clone + std::fmt::Debug + 'static>(of: &'static [T]) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(prop::sample::select(of), 0..3)
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let users = &["*", "*@example.com", "alice@example.com", "*o*", "b*"];
    (0..CALLERS, some(&ENTRIES), some(users), any::<bool>())
        .prop_map(|(uid, services, users, needs_pass)| Rule { needs_pass, ..rule(uid, &services, &users) })
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(any_rule(), 0..4)
}

fn any_pass() -> impl Strategy<Value = RunPass> {
    (prop::sample::select(&USERS), some(&ENTRIES))
        .prop_map(|(user, services)| RunPass::invented(user, &services))
}

fn may(policy: &Policy, uid: u32, request: &TokenRequest, shown: &Shown) -> bool {
    policy.permit(&Caller::invented(uid, uid), request.clone(), shown).is_ok()
}

proptest! {
    #[test]
    fn a_rule_only_ever_adds_and_only_what_it_names(
        rules in any_rules(), extra in any_rule(), pass in any_pass(), with_pass in any::<bool>(),
    ) {
        let shown = if with_pass { shown(pass) } else { Shown::Nothing };
        let more = policy([rules.clone(), vec![extra.clone()]].concat());
        let (fewer, alone) = (policy(rules), policy(vec![extra]));
        for (uid, request) in questions() {
            let by_either = may(&fewer, uid, &request, &shown) || may(&alone, uid, &request, &shown);
            prop_assert_eq!(may(&more, uid, &request, &shown), by_either, "{} {:?}", uid, request);
        }
    }

    #[test]
    fn a_pass_only_ever_takes_away(rules in any_rules(), pass in any_pass()) {
        let free = policy(rules.iter().cloned().map(|rule| Rule { needs_pass: false, ..rule }).collect());
        let policy = policy(rules);
        let with_pass = shown(pass.clone());
        for (uid, mut request) in questions() {
            let allowed = may(&policy, uid, &request, &with_pass);
            let has_users = request.service.as_str() != "reports";
            if request.user.is_none() && has_users {
                request.user = Some(pass.user().clone());
            }
            let by_pass = pass.covers(&request.service, request.role.as_ref())
                && (!has_users || request.user.as_ref() == Some(pass.user()));
            prop_assert_eq!(
                allowed, by_pass && may(&free, uid, &request, &Shown::Nothing), "{} {:?}", uid, request
            );
        }
    }

    #[test]
    fn what_a_caller_is_told_is_what_it_gets(
        rules in any_rules(), pass in any_pass(), with_pass in any::<bool>(),
    ) {
        let (policy, shown) = (policy(rules), if with_pass { shown(pass) } else { Shown::Nothing });
        for (uid, request) in questions() {
            let unspecific = request.user.is_none() && request.service.as_str() != "reports";
            let contradictory = request.user.is_some() && request.service.as_str() == "reports";
            if unspecific || contradictory {
                continue;
            }
            let caller = Caller::invented(uid, uid);
            let told = policy.usable(&caller, &shown, Some(&request.service), |_| true).unwrap_or_default();
            let covered = told.iter().any(|allowed| {
                allowed.is_about(request.user.as_ref())
                    && request.role.as_ref().map_or(allowed.default_scopes, |role| allowed.roles.contains(&role))
            });
            prop_assert_eq!(may(&policy, uid, &request, &shown), covered, "{} {:?}", uid, request);
        }
    }
}
