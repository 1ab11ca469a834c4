//! Why a request of a client is refused, with the texts and statuses that Okta gives.

use hyper::StatusCode;

use crate::entropy::Entropy;

use super::rate_limit::Allowance;
use super::reply::Reply;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// 400: malformed in the way that the text says.
    InvalidRequest(String),
    /// 401: the client gave nothing to be known by.
    NoCredentials,
    /// 401
    WrongSecret,
    /// 401, in Okta's own shape.
    UnknownClient,
    /// 400: the grant type exists and the application may not use it; with those that it may.
    GrantTypeNotAllowed(Vec<String>),
    UnsupportedGrantType,
    /// 400: the code, refresh token, password or device code is no good.
    InvalidGrant(&'static str),
    InvalidScope,
    UserNotAssigned,
    /// RFC 8628 3.5
    AuthorizationPending,
    SlowDown,
    ExpiredToken,
    AccessDenied,
    RateLimited(Allowance),
    /// A key could not be made.
    Internal,
}

pub(super) const REFRESH_TOKEN_INVALID: &str = "The refresh token is invalid or expired.";
pub(super) const CODE_INVALID: &str = "The authorization code is invalid or has expired.";
pub(super) const NOT_ASSIGNED: &str = "User is not assigned to the client application.";
pub(super) const SCOPE_UNKNOWN: &str =
    "One or more scopes are not configured for the authorization server resource.";

impl Refusal {
    pub(super) fn invalid_request(text: &str) -> Self {
        Self::InvalidRequest(text.to_owned())
    }

    pub(super) fn reply(&self, entropy: &dyn Entropy) -> Reply {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        let unauthorized = |description| {
            Reply::oauth_error(StatusCode::UNAUTHORIZED, "invalid_client", description)
                .with("www-authenticate", "Basic realm=\"okta\"")
        };
        match self {
            Self::InvalidRequest(text) => Reply::oauth_error(BAD, "invalid_request", text),
            Self::NoCredentials => unauthorized("No client credentials found."),
            Self::WrongSecret => {
                unauthorized("The client secret supplied for a confidential client is invalid.")
            }
            Self::UnknownClient => {
                let summary = "Invalid value for 'client_id' parameter.";
                Reply::okta_error(StatusCode::UNAUTHORIZED, "invalid_client", summary, entropy)
            }
            Self::GrantTypeNotAllowed(allowed) => Reply::oauth_error(
                BAD,
                "unauthorized_client",
                &format!(
                    "The client is not authorized to use the provided grant type. Configured grant types: [{}]",
                    allowed.join(", ")
                ),
            ),
            Self::UnsupportedGrantType => Reply::oauth_error(
                BAD,
                "unsupported_grant_type",
                "The authorization grant type is not supported by the authorization server.",
            ),
            Self::InvalidGrant(text) => Reply::oauth_error(BAD, "invalid_grant", text),
            Self::InvalidScope => Reply::oauth_error(BAD, "invalid_scope", SCOPE_UNKNOWN),
            Self::UserNotAssigned => Reply::oauth_error(BAD, "access_denied", NOT_ASSIGNED),
            Self::AuthorizationPending => Reply::oauth_error(
                BAD,
                "authorization_pending",
                "The device authorization is pending. Please try again later.",
            ),
            Self::SlowDown => Reply::oauth_error(
                BAD,
                "slow_down",
                "Polling more often than the interval allows; wait 5 seconds longer.",
            ),
            Self::ExpiredToken => Reply::oauth_error(BAD, "expired_token", "The device code has expired."),
            Self::AccessDenied => {
                Reply::oauth_error(BAD, "access_denied", "The user denied the authorization.")
            }
            Self::RateLimited(allowance) => {
                let summary = "API call exceeded rate limit due to too many requests.";
                allowance.announce(Reply::okta_error(
                    StatusCode::TOO_MANY_REQUESTS,
                    "E0000047",
                    summary,
                    entropy,
                ))
            }
            Self::Internal => {
                let summary = "Internal Server Error";
                Reply::okta_error(StatusCode::INTERNAL_SERVER_ERROR, "E0000009", summary, entropy)
            }
        }
    }
}
