//! Why no token can be had, by who must act. `api::error` alone knows what each looks like from outside.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::model::{EndReason, UserName};

/// Why no token can be had. `Clone`, for everybody who waited for the same refresh shares its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The user: connect (again).
    LoginRequired {
        /// Why.
        reason: EndReason,
        /// Since when, where that means anything.
        since: Option<Timestamp>,
    },
    /// An administrator of the authorization server; the grant is kept.
    Refused {
        /// The server's word for it.
        error: String,
        /// Where to look.
        hint: &'static str,
    },
    /// An administrator: a token came, but not one that may be handed out.
    TokenInvalid {
        /// What is wrong with it.
        hint: String,
    },
    /// Nobody here: the authorization server does not answer.
    ServerUnavailable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// The operator: the store does not work.
    StoreUnavailable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// The caller: it says too often that a service refuses the token.
    RejectedTooOften {
        /// When it may say so again.
        retry_after: Duration,
    },
    /// The caller: so many of its requests wait already.
    TooManyWaiting,
    /// Nobody: the caller did not want to wait longer; the refresh goes on.
    Timeout,
    /// Whoever imports: the refresh token is another user's.
    UserMismatch {
        /// Whose it is.
        user: UserName,
    },
    /// Us. The text is for the log.
    Internal(String),
}

/// What an authorization server calls a request, for whoever asks its support about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// Okta's `X-Okta-Request-Id`.
    pub okta_request_id: Option<String>,
    /// Okta's `errorId`.
    pub error_id: Option<String>,
}

impl Failure {
    /// The same, where it comes with a wait: with this one.
    #[must_use]
    pub fn with_wait(self, retry_after: Duration) -> Self {
        match self {
            Self::ServerUnavailable { .. } => Self::ServerUnavailable { retry_after },
            Self::StoreUnavailable { .. } => Self::StoreUnavailable { retry_after },
            Self::LoginRequired { .. }
            | Self::Refused { .. }
            | Self::TokenInvalid { .. }
            | Self::RejectedTooOften { .. }
            | Self::TooManyWaiting
            | Self::Timeout
            | Self::UserMismatch { .. }
            | Self::Internal(_) => self,
        }
    }

    /// The metric's word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::LoginRequired { .. } => "login_required",
            Self::Refused { .. } => "authorization_server_refused",
            Self::TokenInvalid { .. } => "token_invalid",
            Self::ServerUnavailable { .. } => "authorization_server_unavailable",
            Self::StoreUnavailable { .. } => "store_unavailable",
            Self::RejectedTooOften { .. } | Self::TooManyWaiting => "too_many_requests",
            Self::Timeout => "timeout",
            Self::UserMismatch { .. } => "user_mismatch",
            Self::Internal(_) => "internal",
        }
    }
}
