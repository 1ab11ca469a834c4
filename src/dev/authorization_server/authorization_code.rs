//! Authorization codes between the login and the token request.

use std::time::Duration;

use crate::clock::Moment;

use super::family::{FamilyId, age};

/// Okta's lifetime of a code.
pub(super) const LIFETIME: Duration = Duration::from_mins(5);

#[derive(Clone, Debug)]
pub(super) struct AuthorizationCode {
    pub(super) server: String,
    pub(super) user: String,
    pub(super) scopes: Vec<String>,
    pub(super) redirect_uri: String,
    pub(super) code_challenge: String,
    pub(super) nonce: Option<String>,
    pub(super) acr: Option<String>,
    /// When the user logged in.
    pub(super) at: Moment,
    /// What came of it; a code serves once.
    pub(super) redeemed: Option<FamilyId>,
}

impl AuthorizationCode {
    pub(super) fn is_expired(&self, now: &Moment) -> bool {
        age(now, &self.at) >= LIFETIME
    }

    /// Kept for a while after its end, so that it is known when it comes again.
    pub(super) fn may_be_forgotten(&self, now: &Moment) -> bool {
        age(now, &self.at) >= LIFETIME * 12
    }
}
