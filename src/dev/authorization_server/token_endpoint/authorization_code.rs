//! The authorization code grant (RFC 6749 4.1.3) with PKCE (RFC 7636 4.6).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::Secret;

use super::super::fault::Alteration;
use super::super::refusal::{CODE_INVALID, Refusal};
use super::super::reply::sha256;
use super::super::scopes;
use super::super::state::State;
use super::{Call, Entitlement};

pub(super) fn redeem(state: &mut State, call: &Call<'_>) -> Result<Entitlement, Refusal> {
    let code = Secret::new(call.required("code")?.to_owned()).digest();
    let redirect_uri = call.required("redirect_uri")?;
    let verifier = call.required("code_verifier")?;
    let user = state.codes.get(&code).map(|record| record.user.clone());
    if let Some(user) = &user {
        call.enter_user(state, user)?;
    }
    let Some(record) = state.codes.get_mut(&code).filter(|record| record.server == call.server) else {
        return Err(Refusal::InvalidGrant(CODE_INVALID));
    };
    // RFC 6749 4.1.2: a code that comes again has leaked, so what it gave is taken back.
    if let Some(family) = record.redeemed {
        state.revoke_family(family, "code_reuse");
        return Err(Refusal::InvalidGrant(CODE_INVALID));
    }
    if record.is_expired(&call.now) {
        return Err(Refusal::InvalidGrant(CODE_INVALID));
    }
    // One try: a code that was presented with the wrong verifier or address is used up (RFC 6749 10.5).
    let record = record.clone();
    let failure = if record.redirect_uri != redirect_uri {
        Some("The 'redirect_uri' does not match the redirection URI used in the authorization request.")
    } else if !is_verifier(verifier) || URL_SAFE_NO_PAD.encode(sha256(verifier)) != record.code_challenge {
        Some("PKCE verification failed.")
    } else if !state.may_use_the_client(&record.user) {
        Some(CODE_INVALID)
    } else {
        None
    };
    if let Some(text) = failure {
        state.codes.remove(&code);
        return Err(Refusal::InvalidGrant(text));
    }

    let family =
        state.log_in(call.server, &record.user, record.scopes.clone(), record.acr.clone(), record.at);
    if let Some(record) = state.codes.get_mut(&code) {
        record.redeemed = Some(family);
    }
    state.families.touch(family, call.now);
    let offline = scopes::has(&record.scopes, "offline_access")
        && call.distortion.alteration != Some(Alteration::NoRefreshToken);
    let refresh_token = offline.then(|| state.new_refresh_token(family, call.now));
    Ok(Entitlement { family: Some(family), scopes: record.scopes, nonce: record.nonce, refresh_token })
}

/// RFC 7636 4.1
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}
