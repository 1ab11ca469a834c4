//! Which of a service's roles a grant covers, as far as that is known.

use crate::model::{Coverage, EndReason, Failure, Grant, RoleName, Service, TokenKey};
use crate::refresh::Engine;

impl Engine {
    /// How it stands with each role that the grant's service has, in the order of their names; none for a service that is not
    /// configured any more. `had` are the roles that a token has come for.
    #[must_use]
    pub fn coverage<'a>(
        &self,
        grant: &Grant,
        had: impl Iterator<Item = &'a RoleName>,
    ) -> Vec<(RoleName, Coverage)> {
        let Some(service) = self.service(&grant.key.service) else { return Vec::new() };
        let (had, now): (Vec<&RoleName>, _) = (had.collect(), self.0.parts.clock.now());
        let is_refused = |role: &RoleName| {
            let key = TokenKey { grant: grant.key.clone(), role: Some(role.clone()) };
            let held = self.0.holdoffs.get(&key, &now);
            matches!(held, Some(Failure::LoginRequired { reason: EndReason::RoleNotGranted, .. }))
        };
        let judge = |role: &RoleName| match () {
            () if is_refused(role) => Coverage::Refused,
            () if had.contains(&role) => Coverage::Granted,
            () => consented(grant, &service, role),
        };
        service.roles.keys().map(|role| (role.clone(), judge(role))).collect()
    }
}

/// By what the server says that the user consented to: a token may have that and no more (RFC 6749 §6).
fn consented(grant: &Grant, service: &Service, role: &RoleName) -> Coverage {
    match (&grant.granted_scope, service.roles.get(role)) {
        (Some(granted), Some(scope)) if scope.of_the_token().without(granted).is_empty() => Coverage::Granted,
        (Some(_), Some(_)) => Coverage::Refused,
        (None, _) | (_, None) => Coverage::Unknown,
    }
}
