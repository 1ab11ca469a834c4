//! The device grant (RFC 8628 3.4): the device asks again and again until its user has decided.

use crate::secret::Secret;

use super::super::device::Poll;
use super::super::refusal::Refusal;
use super::super::scopes;
use super::super::state::State;
use super::{Call, Entitlement};

pub(super) fn redeem(state: &mut State, call: &Call<'_>) -> Result<Entitlement, Refusal> {
    let code = Secret::new(call.required("device_code")?.to_owned()).digest();
    if let Some(user) = state.devices.approved_by(&code) {
        call.enter_user(state, &user)?;
    }
    let approved = match state.devices.poll(&code, call.server, &call.now) {
        Poll::Unknown => return Err(Refusal::InvalidGrant("The device code is invalid or has expired.")),
        Poll::Pending => return Err(Refusal::AuthorizationPending),
        Poll::TooSoon => return Err(Refusal::SlowDown),
        Poll::Expired => return Err(Refusal::ExpiredToken),
        Poll::Denied => return Err(Refusal::AccessDenied),
        Poll::Approved(approved) => approved,
    };
    if !state.may_use_the_client(&approved.user) {
        return Err(Refusal::UserNotAssigned);
    }
    let family = state.log_in(call.server, &approved.user, approved.scopes.clone(), None, approved.at);
    state.families.touch(family, call.now);
    let offline = scopes::has(&approved.scopes, "offline_access");
    let refresh_token = offline.then(|| state.new_refresh_token(family, call.now));
    Ok(Entitlement { family: Some(family), scopes: approved.scopes, nonce: None, refresh_token })
}
