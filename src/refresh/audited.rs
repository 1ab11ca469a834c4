//! What the engine records: each presentation of a refresh token, each grant that ends, each server that is told. Nothing
//! here waits: losing a grant would be worse than losing a line.

use crate::audit::{Event, Kind};
use crate::authorization_server::{Exchange, Refusal, Reply};
use crate::jwt;
use crate::model::{EndReason, GrantId, GrantKey, Reference, RoleName, Service};
use crate::refresh::Inner;
use crate::secret::Secret;

impl Inner {
    /// The server's answer to a refresh that brought nothing.
    pub(super) fn record_refusal(
        &self,
        id: &GrantId,
        service: &Service,
        role: Option<&RoleName>,
        reply: &Reply,
    ) {
        let (result, detail) = match &reply.exchange {
            // Recorded when it is known whether it was kept.
            Exchange::Answered(_) => return,
            Exchange::NotSent(_) => ("not_sent", None),
            Exchange::InDoubt(_) => ("in_doubt", None),
            Exchange::Refused(Refusal::InvalidGrant) => ("invalid_grant", None),
            Exchange::Refused(Refusal::RateLimited { .. }) => ("rate_limited", None),
            Exchange::Refused(Refusal::Configuration(why)) => ("refused", Some(why.error.as_str())),
        };
        if self.parts.audit.is_on() {
            let event = refresh(id, service, role, result, reply.reference.clone());
            self.parts.audit.record(match detail {
                Some(detail) => event.detail(detail),
                None => event,
            });
        }
    }

    /// A refresh that brought this token, which was kept or not.
    pub(super) fn record_refresh(
        &self,
        id: &GrantId,
        service: &Service,
        role: Option<&RoleName>,
        (result, token): (&'static str, &Secret),
        reference: Reference,
    ) {
        if self.parts.audit.is_on() {
            let event = refresh(id, service, role, result, reference);
            self.parts.audit.record(event.token(jwt::mark(token)));
        }
    }

    /// A grant is over: its authorization server takes its refresh token no more.
    pub(super) fn record_end(&self, id: &GrantId, reason: EndReason) {
        if self.parts.audit.is_on() {
            self.parts.audit.record(named(Event::new(Kind::GrantEnd, reason.as_str()), id));
        }
    }

    /// A grant is over: somebody has ended it here, whom another line names.
    pub(super) fn record_end_by_us(&self, id: &GrantId) {
        if self.parts.audit.is_on() {
            let event = Event::new(Kind::GrantEnd, EndReason::Revoked.as_str()).detail("revoked here");
            self.parts.audit.record(named(event, id));
        }
    }

    /// An authorization server was told that a grant is over.
    pub(super) fn record_told(&self, key: &GrantKey, authorization_server: &str, result: &'static str) {
        if self.parts.audit.is_on() {
            let event = Event::new(Kind::Revoke, result).about(key);
            let event = event.at(authorization_server, Reference::default());
            self.parts.audit.record(event.detail("at the authorization server"));
        }
    }
}

fn refresh(
    id: &GrantId,
    service: &Service,
    role: Option<&RoleName>,
    result: &'static str,
    reference: Reference,
) -> Event {
    named(Event::new(Kind::Refresh, result), id).role(role).at(&service.authorization_server, reference)
}

/// Whose a refresh token is that was handed in, is not known before it has proven it.
fn named(event: Event, id: &GrantId) -> Event {
    match id.candidate {
        None => event.about(&id.key),
        Some(_) => event.naming(Some(id.key.service.clone()), None).detail("an import, not proven yet"),
    }
}
