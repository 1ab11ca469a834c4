//! Who may have which token: rules are data, deciding is a pure function, and its yes is a `Permit`, without which the
//! broker gives nothing.

use std::collections::HashMap;
use std::sync::Arc;

use crate::caller::Caller;
use crate::model::{Entitlement, GrantKey, RoleName, RunId, Service, ServiceName, TokenKey, UserName};
use crate::run_pass::{RunPass, Unbelieved};

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
    /// One of its groups.
    pub gid: Option<u32>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// What it may ask for.
    pub services: Vec<Entitlement>,
    /// For whom; empty in a rule that is only about services without users.
    pub users: Vec<Pattern>,
    /// Whether only with a run pass.
    pub needs_pass: bool,
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

/// What a request shows of a run pass.
#[derive(Clone, Debug)]
pub enum Shown {
    /// None.
    Nothing,
    /// One that is believed.
    Pass(Arc<RunPass>),
    /// One that is not, and why; with the run, where the platform did sign it.
    Bad(Unbelieved, Option<RunId>),
    /// One that can't be judged now.
    Unknown,
}

impl Shown {
    /// The run whose pass it is, by the platform's word.
    #[must_use]
    pub fn run(&self) -> Option<&RunId> {
        match self {
            Self::Pass(pass) => Some(pass.run()),
            Self::Bad(_, run) => run.as_ref(),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

/// Proof that a caller may have a token. Only [`Policy::permit`] makes one.
#[derive(Clone, Debug)]
pub struct Permit {
    key: TokenKey,
    run: Option<RunId>,
}

impl Permit {
    /// Which token.
    #[must_use]
    pub fn key(&self) -> &TokenKey {
        &self.key
    }

    /// For which run, if a pass was shown.
    #[must_use]
    pub fn run(&self) -> Option<&RunId> {
        self.run.as_ref()
    }
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No rule allows it; says nothing of what exists.
    NoRule,
    /// There is no such service, and this caller may know.
    UnknownService,
    /// The rules that allow it want a run pass.
    PassRequired,
    /// A rule allows it, and the run pass that was shown does not.
    BadPass(Unbelieved),
    /// A rule allows it, and the run pass that was shown can't be judged now.
    PassUnknown,
    /// The service has no such role.
    UnknownRole,
    /// The service's tokens speak for users, and none was named.
    UserMissing,
    /// The service's tokens speak for the client itself, and a user was named.
    NoUsers,
}

/// What a rule lets a caller ask of one service, with or without a pass.
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
    /// For whom only, by the pass.
    pub only: Option<&'a UserName>,
    /// Whether the rule wants a pass.
    pub needs_pass: bool,
}

impl Allowed<'_> {
    /// Whether it is about this user; where there are no users, it is about whoever there is.
    #[must_use]
    pub fn is_about(&self, user: Option<&UserName>) -> bool {
        !self.service.has_users()
            || user.is_some_and(|user| {
                self.only.is_none_or(|only| only == user)
                    && self.users.iter().any(|pattern| pattern.matches(user))
            })
    }
}

impl Policy {
    /// Compiles the rules.
    #[must_use]
    pub fn new(rules: Vec<Rule>, services: HashMap<ServiceName, Arc<Service>>, overflow_uid: u32) -> Self {
        Self { rules, services, overflow_uid }
    }

    /// Decides. Looks at nothing but its arguments, so that it takes as long for a user who exists as for one who
    /// does not. Where no user is named, it is the pass's.
    ///
    /// # Errors
    /// In the contract's order: the rule, then the service, then the pass, then the role.
    pub fn permit(
        &self,
        caller: &Caller,
        mut request: TokenRequest,
        shown: &Shown,
    ) -> Result<Permit, Denied> {
        let service = self.services.get(&request.service);
        let has_users = service.is_none_or(|service| service.has_users());
        if let (Shown::Pass(pass), None, true) = (shown, &request.user, has_users) {
            request.user = Some(pass.user().clone());
        }
        let (mut allowed, mut needs_pass, mut may_know_services) = (false, true, false);
        for rule in self.rules_for(caller) {
            // Without a user nobody learns more of a service than that some rule speaks of it.
            let covers_user = match &request.user {
                Some(user) if has_users => rule.users.iter().any(|pattern| pattern.matches(user)),
                Some(_) => true,
                None => !has_users || !rule.users.is_empty(),
            };
            if covers_user {
                if rule.covers(&request.service, request.role.as_ref()) {
                    allowed = true;
                    needs_pass &= rule.needs_pass;
                }
                may_know_services |= rule.services.contains(&Entitlement::All);
            }
        }
        let service = match service {
            None if may_know_services => return Err(Denied::UnknownService),
            Some(service) if allowed => service,
            None | Some(_) => return Err(Denied::NoRule),
        };
        let run = match shown {
            Shown::Nothing if needs_pass => return Err(Denied::PassRequired),
            Shown::Nothing => None,
            Shown::Bad(why, _) => return Err(Denied::BadPass(*why)),
            Shown::Unknown => return Err(Denied::PassUnknown),
            Shown::Pass(pass) => {
                let is_for = !has_users || request.user.as_ref() == Some(pass.user());
                if !is_for || !pass.covers(&request.service, request.role.as_ref()) {
                    return Err(Denied::BadPass(Unbelieved::NotCovered));
                }
                Some(pass.run().clone())
            }
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
        Ok(Permit { key: TokenKey { grant, role: request.role }, run })
    }

    /// Whether any rule is for this caller: whoever no rule is for need not be looked at further.
    #[must_use]
    pub fn knows(&self, caller: &Caller) -> bool {
        self.rules_for(caller).next().is_some()
    }

    /// Whether some rule asks for more of a caller than its uid and primary group.
    #[must_use]
    pub fn looks_closely(&self) -> bool {
        self.rules.iter().any(|rule| rule.gid.is_some() || rule.unit.is_some())
    }

    /// A service, whoever may have it.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// What a caller may ask for, rule by rule, the services in the order of their names; with a pass, what that leaves of
    /// it.
    #[must_use]
    pub fn allowed<'a>(&'a self, caller: &'a Caller, pass: Option<&'a RunPass>) -> Vec<Allowed<'a>> {
        let mut services: Vec<&Arc<Service>> = self.services.values().collect();
        services.sort_by(|one, other| one.name.cmp(&other.name));
        let mut allowed = Vec::new();
        for service in services {
            for rule in self.rules_for(caller) {
                let covers = |role| {
                    rule.covers(&service.name, role)
                        && pass.is_none_or(|pass| pass.covers(&service.name, role))
                };
                let default_scopes = covers(None);
                let roles: Vec<_> = service.roles.keys().filter(|role| covers(Some(role))).collect();
                let users: &[Pattern] = if service.has_users() { &rule.users } else { &[] };
                let only = pass.map(RunPass::user).filter(|_| service.has_users());
                let for_somebody = !service.has_users()
                    || !users.is_empty()
                        && only.is_none_or(|user| users.iter().any(|pattern| pattern.matches(user)));
                if for_somebody && (default_scopes || !roles.is_empty()) {
                    let needs_pass = rule.needs_pass;
                    allowed.push(Allowed { service, default_scopes, roles, users, only, needs_pass });
                }
            }
        }
        allowed
    }

    /// The same, as far as the caller may use it with what it has `shown`, and as far as `wanted` goes.
    ///
    /// # Errors
    /// If nothing is left: why, in the order of [`Policy::permit`].
    pub fn usable<'a>(
        &'a self,
        caller: &'a Caller,
        shown: &'a Shown,
        service: Option<&ServiceName>,
        wanted: impl Fn(&Allowed<'_>) -> bool,
    ) -> Result<Vec<Allowed<'a>>, Denied> {
        let find = |pass| {
            let mut allowed = self.allowed(caller, pass);
            allowed.retain(|allowed| {
                service.is_none_or(|service| allowed.service.name == *service) && wanted(allowed)
            });
            allowed
        };
        let mut by_rules = find(None);
        if by_rules.is_empty() {
            let unknown = service.is_some_and(|service| !self.services.contains_key(service));
            let may_know = self.rules_for(caller).any(|rule| rule.services.contains(&Entitlement::All));
            return Err(if unknown && may_know { Denied::UnknownService } else { Denied::NoRule });
        }
        let (left, denied) = match shown {
            Shown::Bad(why, _) => return Err(Denied::BadPass(*why)),
            Shown::Unknown => return Err(Denied::PassUnknown),
            Shown::Pass(pass) => (find(Some(pass)), Denied::BadPass(Unbelieved::NotCovered)),
            Shown::Nothing => {
                by_rules.retain(|allowed| !allowed.needs_pass);
                (by_rules, Denied::PassRequired)
            }
        };
        if left.is_empty() { Err(denied) } else { Ok(left) }
    }

    fn rules_for(&self, caller: &Caller) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| self.is_for(rule, caller))
    }

    fn is_for(&self, rule: &Rule, caller: &Caller) -> bool {
        let named = rule.uid.is_some() || rule.gid.is_some() || rule.unit.is_some();
        named
            && caller.uid() != self.overflow_uid
            && rule.uid.is_none_or(|uid| uid == caller.uid())
            && rule.gid.is_none_or(|gid| caller.is_in_group(gid))
            && rule.unit.as_deref().is_none_or(|unit| caller.unit() == Some(unit))
    }
}

impl Rule {
    fn covers(&self, service: &ServiceName, role: Option<&RoleName>) -> bool {
        self.services.iter().any(|entitlement| entitlement.covers(service, role))
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
