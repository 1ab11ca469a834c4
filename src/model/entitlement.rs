//! What a rule allows and what a run pass leaves of it, in the one notation that both use.

use crate::model::{RoleName, ServiceName};

/// One entry of `services`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entitlement {
    /// `*`
    All,
    /// `S`: its default scopes and all its roles.
    Whole(ServiceName),
    /// `S:R`: role R only.
    Role(ServiceName, RoleName),
}

impl Entitlement {
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

    /// Whether it is about a service's token for `role`, or for its default scopes.
    #[must_use]
    pub fn covers(&self, service: &ServiceName, role: Option<&RoleName>) -> bool {
        match self {
            Self::All => true,
            Self::Whole(whole) => whole == service,
            Self::Role(of, only) => of == service && role == Some(only),
        }
    }
}
