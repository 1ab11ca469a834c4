//! Why nothing came of a consent, by who must act.

use crate::authorization_server::Misconfiguration;
use crate::model::{Failure, UserName};

/// Why nothing came of a consent.
#[derive(Clone, Debug)]
pub enum Refused {
    /// The user said no.
    Cancelled,
    /// An administrator of the authorization server: no policy allows it, or the user is not assigned.
    NotAllowed {
        /// Where to look.
        hint: &'static str,
    },
    /// An administrator: tokens came without a refresh token, so there is nothing to keep.
    NoRefreshToken,
    /// The user: this scope must be granted, for it is what the service asks for by default.
    LessGranted(String),
    /// The user: somebody else is signed in at the authorization server.
    OtherUser {
        /// Who it had to be.
        expected: UserName,
        /// Who it was.
        came: UserName,
    },
    /// Nobody here: what came back does not belong to what was asked. A link that was followed twice, or an attack.
    Unsolicited,
    /// The user: it took too long; once more.
    TooLate,
    /// The user: the code or the password was not taken.
    NotTaken,
    /// The user, or an administrator: the sign-in was not as strong, or as recent, as the service wants.
    SignedInTooWeakly,
    /// An administrator of the authorization server.
    Misconfigured {
        /// The server's word for it.
        error: String,
        /// Where to look.
        hint: &'static str,
    },
    /// An administrator: tokens came that do not verify.
    TokenInvalid {
        /// What is wrong with them.
        hint: String,
    },
    /// An administrator: it is not offered here.
    NotOffered(&'static str),
    /// Nobody: the authorization server does not answer. The text is for the log.
    Unavailable(String),
    /// As for tokens.
    Failed(Failure),
}

impl Refused {
    /// The metric's word, also in the audit log.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::NotAllowed { .. } => "not_allowed",
            Self::NoRefreshToken => "no_refresh_token",
            Self::LessGranted(_) => "less_granted",
            Self::OtherUser { .. } => "other_user",
            Self::Unsolicited => "unsolicited",
            Self::TooLate => "too_late",
            Self::NotTaken => "not_taken",
            Self::SignedInTooWeakly => "signed_in_too_weakly",
            Self::Misconfigured { .. } => "authorization_server_refused",
            Self::TokenInvalid { .. } => "token_invalid",
            Self::NotOffered(_) => "not_offered",
            Self::Unavailable(_) => "authorization_server_unavailable",
            Self::Failed(failure) => failure.word(),
        }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What the server refuses, at its token endpoint or by sending the browser back (facts A6, RFC 6749 §4.1.2.1).
impl From<Misconfiguration> for Refused {
    fn from(why: Misconfiguration) -> Self {
        match why.error.as_str() {
            "access_denied" => Self::NotAllowed { hint: why.hint },
            "expired_token" => Self::TooLate,
            "unmet_authentication_requirements" => Self::SignedInTooWeakly,
            "temporarily_unavailable" | "server_error" => Self::Unavailable(why.error),
            _ => Self::Misconfigured { error: why.error, hint: why.hint },
        }
    }
}
