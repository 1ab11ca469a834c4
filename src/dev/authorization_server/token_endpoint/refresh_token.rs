//! The refresh grant (RFC 6749 6): rotation, leeway, reuse.

use crate::secret::Secret;

use super::super::family::Verdict;
use super::super::fault::Alteration;
use super::super::refusal::{REFRESH_TOKEN_INVALID, Refusal};
use super::super::scopes;
use super::super::state::State;
use super::super::stats::Fate;
use super::{Call, Entitlement, requested_scopes};

pub(super) fn redeem(state: &mut State, call: &Call<'_>) -> Result<Entitlement, Refusal> {
    let presented = Secret::new(call.required("refresh_token")?.to_owned());
    let rotating = state.is_rotating();
    let login =
        state.families.of_token(&presented).and_then(|id| state.families.get(id)).map(|family| &family.login);
    let user = login.map(|login| login.user.clone());
    if let Some(user) = &user {
        call.enter_user(state, user)?;
    }
    let family = match state.judge(call.server, &presented, &call.now) {
        Verdict::Good(family) if user.is_some_and(|user| state.may_use_the_client(&user)) => family,
        Verdict::Good(_) | Verdict::Dead => {
            state.stats.decided(&presented, Fate::Refused, rotating);
            return Err(Refusal::InvalidGrant(REFRESH_TOKEN_INVALID));
        }
        Verdict::Reused(family) => {
            state.stats.decided(&presented, Fate::Reused, rotating);
            state.stats.reuse_detected();
            state.revoke_family(family, "reuse");
            return Err(Refusal::InvalidGrant(REFRESH_TOKEN_INVALID));
        }
    };
    let granted = state.families.get(family).map(|family| family.login.scopes.clone()).unwrap_or_default();
    let scopes = requested_scopes(state, call)?.unwrap_or_else(|| granted.clone());
    if !scopes.iter().all(|scope| scopes::has(&granted, scope)) {
        return Err(Refusal::InvalidScope);
    }

    state.families.touch(family, call.now);
    // What Okta answers without `offline_access` among the scopes is not documented. Strictest for the client: no
    // refresh token comes, and the one it holds stays good.
    let keeps = !scopes::has(&scopes, "offline_access")
        || matches!(
            call.distortion.alteration,
            Some(Alteration::NoRefreshToken | Alteration::SameRefreshToken)
        );
    let refresh_token = if keeps {
        (call.distortion.alteration == Some(Alteration::SameRefreshToken)).then(|| presented.clone())
    } else if rotating {
        Some(state.new_refresh_token(family, call.now))
    } else {
        // The newest one, which is the presented one unless tokens rotated until a moment ago.
        state.families.get(family).and_then(|family| family.newest()).cloned()
    };
    let fate = if rotating && !keeps { Fate::Rotated } else { Fate::Kept };
    state.stats.decided(&presented, fate, rotating);
    state.stats.refreshed(&scopes.join(" "));
    Ok(Entitlement { family: Some(family), scopes, nonce: None, refresh_token })
}
