//! The client credentials grant (RFC 6749 4.4): for the client itself, so never with a user's scopes.

use super::super::refusal::Refusal;
use super::super::scopes::OPENID_SCOPES;
use super::super::state::State;
use super::{Call, Entitlement, requested_scopes};

pub(super) fn redeem(state: &State, call: &Call<'_>) -> Result<Entitlement, Refusal> {
    let scopes = requested_scopes(state, call)?.ok_or(Refusal::InvalidScope)?;
    if scopes.iter().any(|scope| OPENID_SCOPES.contains(&scope.as_str())) {
        return Err(Refusal::InvalidScope);
    }
    Ok(Entitlement { family: None, scopes, nonce: None, refresh_token: None })
}
