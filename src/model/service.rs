//! A service as configured: what its tokens are for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{RoleName, Scope, ServiceName};

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Whom its tokens speak for.
    pub speaks_for: SpeaksFor,
    /// The authorization server that it belongs to, by its name.
    pub authorization_server: String,
    /// What `aud` of its tokens must be.
    pub audience: String,
    /// Asked for when no role is named.
    pub scopes: Scope,
    /// The scope of each role.
    pub roles: BTreeMap<RoleName, Scope>,
    /// The claim that names the user.
    pub user_claim: String,
    /// Whether its access tokens are handed on unread.
    pub opaque: bool,
    /// What its drivers want.
    pub kind: Kind,
    /// How a user must have signed in to connect (`acr_values`).
    pub acr_values: Option<String>,
    /// How long ago a user may have signed in to connect (`max_age`).
    pub max_age: Option<Duration>,
    /// Whether a user's password may be taken for a grant (RFC 6749 §4.3, against RFC 9700 §2.4).
    pub password_grant: bool,
}

/// Whom a service's tokens speak for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeaksFor {
    /// A user who has consented (`grant = "authorization_code"`).
    Users,
    /// The client itself (`grant = "client_credentials"`): there is no user, no consent and no refresh token.
    TheClient,
}

/// What a service's drivers want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Snowflake's drivers.
    Snowflake,
    /// Databricks' SDKs and drivers.
    Databricks,
    /// NetSuite.
    Netsuite,
    /// Anything that takes a bearer token.
    Generic,
}

impl Kind {
    /// The word in the configuration and in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snowflake => "snowflake",
            Self::Databricks => "databricks",
            Self::Netsuite => "netsuite",
            Self::Generic => "generic",
        }
    }
}

impl Service {
    /// Whether its tokens speak for users.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.speaks_for == SpeaksFor::Users
    }

    /// The claim that names the user, also of opaque tokens: theirs is in the ID token.
    #[must_use]
    pub fn named_by(&self) -> &str {
        if self.opaque { "preferred_username" } else { &self.user_claim }
    }

    /// What is asked of the authorization server for `role`: for users always with `offline_access`, so that the answer
    /// carries the next refresh token. `None` if the service has no such role.
    #[must_use]
    pub fn scope(&self, role: Option<&RoleName>) -> Option<Scope> {
        let scope = match role {
            None => &self.scopes,
            Some(role) => self.roles.get(role)?,
        };
        Some(if self.has_users() { scope.clone().with("offline_access") } else { scope.clone() })
    }
}
