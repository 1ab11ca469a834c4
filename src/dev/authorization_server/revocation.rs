//! `/v1/revoke` (RFC 7009): a refresh token goes with all that came of its login, an access token alone.

use hyper::StatusCode;

use super::family::Verdict;
use super::introspection::token;
use super::reply::Reply;
use super::request::Request;
use super::state::State;

/// 200 and nothing in it, also for a token that is unknown or dead.
pub(super) fn answer(state: &mut State, server: &str, request: &Request) -> Reply {
    match token(state, request) {
        Ok(token) => {
            if let Verdict::Good(family) = state.judge(server, &token, &request.now) {
                state.revoke_family(family, "revoked");
            }
            state.access_tokens.revoke(server, &token.digest());
            Reply::empty(StatusCode::OK).not_stored()
        }
        Err(refusal) => refusal.reply(state.entropy.as_ref()),
    }
}
