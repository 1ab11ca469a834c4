//! Why nothing came of a consent, as its user is told.

use std::time::Duration;

use hyper::StatusCode;

use crate::connect::failure::{Said, Trouble, said};
use crate::consent::Refused;
use crate::model::{Failure, UserName};

const TELL: &str = "You can't mend this yourself. Please tell your administrator what it says here, with the request \
                    number below.";
const NO_REFRESH_TOKEN: &str = "The authorization server issued no refresh token. In Okta: allow the grant type Refresh \
                                Token in the application, and the scope offline_access in the access policy's rule.";

/// How it is said.
pub(super) fn say(refused: Refused) -> Said {
    match refused {
        Refused::Cancelled => said(
            StatusCode::FORBIDDEN,
            "You did not connect",
            "The sign-in was cancelled, so nothing has changed.",
            "If you did not mean to, just try again.",
        ),
        Refused::NotAllowed { hint } => Said {
            status: StatusCode::FORBIDDEN,
            ..for_administrators(
                "Your company does not allow this",
                "The sign-in worked, but a policy says no, or you have not been given this application.",
                hint,
            )
        },
        Refused::NoRefreshToken => for_administrators(
            "The connection would not last",
            "You have signed in, but the sign-in server gave nothing that lasts longer than an hour, so your workflows \
             would soon stand still. Nothing was kept.",
            NO_REFRESH_TOKEN,
        ),
        Refused::LessGranted(missing) => Said {
            detail: Some(format!("Not granted: {missing}")),
            ..said(
                StatusCode::FORBIDDEN,
                "Not everything was granted",
                "You have signed in, but without all that this service needs. Nothing has changed.",
                "Please try again and agree to everything that is asked. If you were not asked, tell your administrator.",
            )
        },
        Refused::OtherUser { expected, came } => other_user(&expected, &came),
        Refused::Unsolicited => said(
            StatusCode::BAD_REQUEST,
            "This sign-in is not one that was begun here",
            "It was used already, comes from another browser, or did not come from the sign-in server that you were \
             sent to. Nothing was done.",
            "If you went back or reloaded a page, all is well: look at your connections. Otherwise start again from there.",
        ),
        Refused::TooLate => said(
            StatusCode::BAD_REQUEST,
            "That took too long",
            "A sign-in must be finished within ten minutes, and begun anew where this page was restarted meanwhile. Nothing \
             has changed.",
            "Please try again.",
        ),
        Refused::NotTaken => said(
            StatusCode::BAD_GATEWAY,
            "The sign-in was not accepted",
            "The sign-in server took back what it had just given. That happens when a page is loaded twice.",
            "Please try again.",
        ),
        Refused::SignedInTooWeakly => said(
            StatusCode::FORBIDDEN,
            "A stronger sign-in is needed",
            "This service wants you to sign in anew, or with a second factor. Nothing has changed.",
            "Please try again and use your second factor. If you are not asked for one, tell your administrator.",
        ),
        Refused::Misconfigured { error, hint } => misconfigured(&error, hint),
        Refused::TokenInvalid { hint } => for_administrators(
            "The sign-in could not be verified",
            "The sign-in server sent something that does not hold. To be safe, nothing was kept.",
            hint,
        ),
        Refused::NotOffered(what) => Said {
            status: StatusCode::NOT_FOUND,
            ..for_administrators("That is not offered here", "This page can't do what was asked.", what)
        },
        Refused::Unavailable(_) => unavailable(),
        Refused::Failed(failure) => failed(failure),
    }
}

/// What no user can mend.
fn for_administrators(title: &'static str, what: &'static str, detail: impl Into<String>) -> Said {
    Said { detail: Some(sentence(&detail.into())), ..said(StatusCode::BAD_GATEWAY, title, what, TELL) }
}

/// Hints are written to follow a colon.
fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

fn misconfigured(error: &str, hint: &str) -> Said {
    for_administrators(
        "The sign-in server refuses this",
        "Something is not set up as it should be between this page and the sign-in server. Nothing has changed.",
        format!("{error}: {hint}"),
    )
}

fn unavailable() -> Said {
    Said {
        retry_after: Some(Duration::from_secs(30)),
        ..said(
            StatusCode::SERVICE_UNAVAILABLE,
            "The sign-in server does not answer",
            "The server where you sign in can't be reached just now. What you had connected stays as it is.",
            "Please try again in a few minutes.",
        )
    }
}

fn other_user(expected: &UserName, came: &UserName) -> Said {
    said(
        StatusCode::CONFLICT,
        "You are two people at the moment",
        format!(
            "You are signed in here as {expected}, but at the sign-in server as {came}. Nothing has changed."
        ),
        format!(
            "To go on as {came}, sign out here first. To go on as {expected}, sign out at the sign-in server and try \
             again."
        ),
    )
}

fn failed(failure: Failure) -> Said {
    match failure {
        Failure::ServerUnavailable { .. } | Failure::Timeout | Failure::TooManyWaiting => unavailable(),
        Failure::Refused { error, hint } => misconfigured(&error, hint),
        Failure::TokenInvalid { hint } => say(Refused::TokenInvalid { hint }),
        Failure::UserMismatch { .. }
        | Failure::LoginRequired { .. }
        | Failure::StoreUnavailable { .. }
        | Failure::RejectedTooOften { .. }
        | Failure::Internal(_) => Trouble::Broken(String::new()).say(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_says_who_must_act_and_an_internal_text_stays_inside() {
        let inside = "dial tcp 10.0.0.7";
        for (refused, status, advice) in [
            (Refused::Cancelled, 403, "try again"),
            (Refused::NotAllowed { hint: "the rule" }, 403, "administrator"),
            (Refused::NoRefreshToken, 502, "administrator"),
            (Refused::TooLate, 400, "try again"),
            (Refused::Unsolicited, 400, "look at your connections"),
            (Refused::Unavailable(inside.into()), 503, "in a few minutes"),
            (Refused::Failed(Failure::Internal(inside.into())), 503, "administrator"),
            (Refused::Failed(Failure::Timeout), 503, "in a few minutes"),
        ] {
            let said = say(refused);
            assert_eq!(said.status.as_u16(), status, "{}", said.title);
            assert!(said.advice.contains(advice), "{}: {}", said.title, said.advice);
            let all = [said.what, said.advice, said.detail.unwrap_or_default()].concat();
            assert!(!all.contains(inside), "{all}");
        }
    }
}
