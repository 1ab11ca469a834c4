//! What a consent that came to nothing looks like: what happened, and who must do what.

use std::time::Duration;

use hyper::StatusCode;

use crate::api::error::Problem;
use crate::consent::Refused;

/// The word for it is the member `result`, finer than `error`.
impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let word = refused.word();
        let again = |detail: &str| {
            Self::new(StatusCode::CONFLICT, "login_required", format!("{detail}; nothing has changed"))
        };
        let by_the_server =
            |detail| Self::new(StatusCode::BAD_GATEWAY, "authorization_server_refused", detail);
        let problem = match refused {
            Refused::Cancelled => again("the user declined; begin again if that was not meant"),
            Refused::TooLate => again("it took too long; begin again"),
            Refused::NotTaken => {
                again("the authorization server did not take the code or the password; begin again")
            }
            Refused::SignedInTooWeakly => again(
                "the sign-in was not as strong, or as recent, as the service wants (acr_values, max_age); begin again \
                 and sign in anew, with the second factor",
            ),
            Refused::LessGranted(missing) => {
                again(&format!("the user must grant {missing} as well; begin again"))
            }
            Refused::Unsolicited => Self::invalid_request(
                "what came back is not the answer to what was asked; if nobody followed a link twice, somebody tries \
                 to pass off another answer. Begin again",
            ),
            Refused::NotOffered(what) => Self::invalid_request(&format!("not offered: {what}")),
            Refused::OtherUser { came, .. } => Self::new(
                StatusCode::CONFLICT,
                "user_mismatch",
                "somebody else is signed in at the authorization server: sign out there and begin again",
            )
            .with("user", came.as_str()),
            Refused::NotAllowed { hint } => {
                by_the_server("the authorization server does not let this user in; an administrator must act")
                    .with("authorization_server_error", "access_denied")
                    .with("hint", hint)
            }
            Refused::Misconfigured { error, hint } => {
                by_the_server("the authorization server refuses it; an administrator must act")
                    .with("authorization_server_error", error)
                    .with("hint", hint)
            }
            Refused::NoRefreshToken => {
                by_the_server("tokens came without a refresh token, so there is nothing to keep; an administrator must act")
                    .with(
                        "hint",
                        "switch on the grant type Refresh Token in the app integration's General tab in Okta, and let \
                         the access policy's rule grant the scope offline_access",
                    )
            }
            Refused::TokenInvalid { hint } => Self::new(
                StatusCode::BAD_GATEWAY,
                "token_invalid",
                "the authorization server issued tokens that do not verify; they are not kept",
            )
            .with("hint", hint),
            Refused::Unavailable(why) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "authorization_server_unavailable",
                "the authorization server can't be asked now; nothing has changed, begin again later",
            )
            .retry_after(Duration::from_secs(1))
            .because(why),
            Refused::Failed(failure) => failure.into(),
        };
        problem.with("result", word)
    }
}
