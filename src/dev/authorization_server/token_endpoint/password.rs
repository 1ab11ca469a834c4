//! The password grant (RFC 6749 4.3), which RFC 9700 2.4 forbids and Okta still has.

use super::super::refusal::Refusal;
use super::super::scopes;
use super::super::state::State;
use super::super::users::PASSWORD;
use super::{Call, Entitlement, requested_scopes};

pub(super) fn redeem(state: &mut State, call: &Call<'_>) -> Result<Entitlement, Refusal> {
    let (user, password) = (call.required("username")?, call.required("password")?);
    let scopes = requested_scopes(state, call)?.ok_or(Refusal::InvalidScope)?;
    let known = state.users.get(user).filter(|user| user.active && password == PASSWORD);
    let Some(known) = known else {
        return Err(Refusal::InvalidGrant("The credentials provided were invalid."));
    };
    if !known.assigned {
        return Err(Refusal::UserNotAssigned);
    }
    call.enter_user(state, user)?;
    let family = state.log_in(call.server, user, scopes.clone(), None, call.now);
    let offline = scopes::has(&scopes, "offline_access");
    let refresh_token = offline.then(|| state.new_refresh_token(family, call.now));
    Ok(Entitlement { family: Some(family), scopes, nonce: None, refresh_token })
}
