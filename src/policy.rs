//! Who may have which token: rules are data, deciding is a pure function, and its yes is a `Permit`, without which the
//! broker gives nothing.

use std::collections::HashMap;
use std::sync::Arc;

use crate::caller::Caller;
use crate::model::{GrantKey, RoleName, Service, ServiceName, TokenKey, UserName};

/// The rules and what they speak of.
pub struct Policy {
    rules: Vec<Rule>,
    services: HashMap<ServiceName, Arc<Service>>,
    /// Nobody in particular: never matched.
    overflow_uid: u32,
}

/// One rule of `[[callers]]`. All that it names of a caller must hold.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Its user.
    pub uid: Option<u32>,
    /// Its primary group.
    pub gid: Option<u32>,
    /// What it may ask for.
    pub services: Vec<Services>,
    /// For whom; empty in a rule that is only about services without users.
    pub users: Vec<Pattern>,
}

/// One entry of a rule's `services`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Services {
    /// `*`
    All,
    /// `S`: its default scopes and all its roles.
    Whole(ServiceName),
    /// `S:R`: role R only.
    Role(ServiceName, RoleName),
}

/// A user's name in which `*` matches any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// What a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The service, which may not exist.
    pub service: ServiceName,
    /// The user, who may not exist; nobody where the service's tokens speak for the client itself.
    pub user: Option<UserName>,
    /// The role, which the service may not have.
    pub role: Option<RoleName>,
}

/// Proof that a caller may have a token. Only [`Policy::permit`] makes one.
#[derive(Clone, Debug)]
pub struct Permit {
    key: TokenKey,
}

impl Permit {
    /// Which token.
    #[must_use]
    pub fn key(&self) -> &TokenKey {
        &self.key
    }
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No rule allows it; says nothing of what exists.
    NoRule,
    /// There is no such service, and this caller may know.
    UnknownService,
    /// The service has no such role.
    UnknownRole,
    /// The service's tokens speak for users, and none was named.
    UserMissing,
    /// The service's tokens speak for the client itself, and a user was named.
    NoUsers,
}

/// What a rule lets a caller ask of one service.
#[derive(Clone, Debug)]
pub struct Allowed<'a> {
    /// The service.
    pub service: &'a Service,
    /// Whether its default scopes.
    pub default_scopes: bool,
    /// Which of its roles.
    pub roles: Vec<&'a RoleName>,
    /// For whom; nobody where the tokens speak for the client itself.
    pub users: &'a [Pattern],
}

impl Allowed<'_> {
    /// Whether it is about this user; where there are no users, it is about whoever there is.
    #[must_use]
    pub fn is_about(&self, user: Option<&UserName>) -> bool {
        !self.service.has_users()
            || user.is_some_and(|user| self.users.iter().any(|pattern| pattern.matches(user)))
    }
}

impl Policy {
    /// Compiles the rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>, services: HashMap<ServiceName, Arc<Service>>, overflow_uid: u32) -> Self {
        Self { rules, services, overflow_uid }
    }

    /// Decides. Looks at nothing but its arguments, so that it takes as long for a user who exists as for one who
    /// does not.
    ///
    /// # Errors
    /// In the contract's order: the rule, then the service, then the role.
    pub fn permit(&self, caller: &Caller, request: TokenRequest) -> Result<Permit, Denied> {
        let service = self.services.get(&request.service);
        let has_users = service.is_none_or(|service| service.has_users());
        let mut allowed = false;
        let mut may_know_services = false;
        for rule in self.rules_for(caller) {
            // Without a user nobody learns more of a service than that some rule speaks of it.
            let covers_user = match &request.user {
                Some(user) if has_users => rule.users.iter().any(|pattern| pattern.matches(user)),
                Some(_) => true,
                None => !has_users || !rule.users.is_empty(),
            };
            if covers_user {
                allowed |= rule.services.iter().any(|entry| entry.covers(&request));
                may_know_services |= rule.services.contains(&Services::All);
            }
        }
        let service = match service {
            None if may_know_services => return Err(Denied::UnknownService),
            Some(service) if allowed => service,
            None | Some(_) => return Err(Denied::NoRule),
        };
        if request.role.as_ref().is_some_and(|role| !service.roles.contains_key(role)) {
            return Err(Denied::UnknownRole);
        }
        let user = match (request.user, has_users) {
            (Some(user), true) => user,
            (None, false) => UserName::of_the_client(),
            (None, true) => return Err(Denied::UserMissing),
            (Some(_), false) => return Err(Denied::NoUsers),
        };
        let grant = GrantKey { service: request.service, user };
        Ok(Permit { key: TokenKey { grant, role: request.role } })
    }

    /// A service, whoever may have it.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// What a caller may ask for, rule by rule, the services in the order of their names.
    #[must_use]
    pub fn allowed(&self, caller: &Caller) -> Vec<Allowed<'_>> {
        let mut services: Vec<&Arc<Service>> = self.services.values().collect();
        services.sort_by(|one, other| one.name.cmp(&other.name));
        let covers = |rule: &Rule, service: &Service, role: Option<&RoleName>| {
            let request = TokenRequest { service: service.name.clone(), user: None, role: role.cloned() };
            rule.services.iter().any(|entry| entry.covers(&request))
        };
        let mut allowed = Vec::new();
        for service in services {
            for rule in self.rules_for(caller) {
                let default_scopes = covers(rule, service, None);
                let roles: Vec<_> =
                    service.roles.keys().filter(|role| covers(rule, service, Some(role))).collect();
                let users: &[Pattern] = if service.has_users() { &rule.users } else { &[] };
                let nobody = service.has_users() && users.is_empty();
                if !nobody && (default_scopes || !roles.is_empty()) {
                    allowed.push(Allowed { service, default_scopes, roles, users });
                }
            }
        }
        allowed
    }

    /// What to tell a caller whom no rule allows what it asks about, of this service if it named one.
    #[must_use]
    pub fn nothing_allowed(&self, caller: &Caller, service: Option<&ServiceName>) -> Denied {
        let unknown = service.is_some_and(|service| !self.services.contains_key(service));
        let may_know = self.rules_for(caller).any(|rule| rule.services.contains(&Services::All));
        if unknown && may_know { Denied::UnknownService } else { Denied::NoRule }
    }

    fn rules_for(&self, caller: &Caller) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| self.is_for(rule, caller))
    }

    fn is_for(&self, rule: &Rule, caller: &Caller) -> bool {
        let named = rule.uid.is_some() || rule.gid.is_some();
        named
            && caller.uid() != self.overflow_uid
            && rule.uid.is_none_or(|uid| uid == caller.uid())
            && rule.gid.is_none_or(|gid| gid == caller.gid())
    }
}

impl Services {
    /// Reads an entry: `*`, `S` or `S:R`. Neither part may be empty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        match text.split_once(':') {
            None => ServiceName::parse(text).map(Self::Whole),
            Some((service, role)) => Some(Self::Role(ServiceName::parse(service)?, RoleName::parse(role)?)),
        }
    }

    fn covers(&self, request: &TokenRequest) -> bool {
        match self {
            Self::All => true,
            Self::Whole(service) => *service == request.service,
            Self::Role(service, role) => *service == request.service && request.role.as_ref() == Some(role),
        }
    }
}

impl Pattern {
    /// Any text is a pattern.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole name fits, byte for byte around the `*`s.
    #[must_use]
    pub fn matches(&self, user: &UserName) -> bool {
        let mut pieces = self.0.split('*');
        // `split` gives at least one piece.
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = user.as_str().strip_prefix(first) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            let Some(at) = rest.find(piece) else { return false };
            rest = rest.get(at + piece.len()..).unwrap_or_default();
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Scope, SpeaksFor};
    use proptest::prelude::*;

    fn service(name: &str, roles: &[&str]) -> (ServiceName, Arc<Service>) {
        let name = ServiceName::parse(name).unwrap();
        let roles =
            roles.iter().map(|role| (RoleName::parse(role).unwrap(), Scope::from_wire(role))).collect();
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
            assert_eq!(
                Pattern::new(pattern).matches(&UserName::parse(name).unwrap()),
                fits,
                "{pattern} {name}"
            );
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
}
