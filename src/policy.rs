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
mod tests;
