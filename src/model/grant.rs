//! A grant as it is remembered, without its refresh token.

use std::fmt;
use std::str::FromStr;

use crate::clock::{Moment, Timestamp};
use crate::model::{GrantKey, Scope};

/// What the store tells of a grant to those who have no business with its refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose, for what.
    pub key: GrantKey,
    /// Active or ended.
    pub state: GrantState,
    /// What is known of its refresh tokens.
    pub rotation: Rotation,
    /// The issuer and client that its refresh tokens belong to.
    pub registration: String,
    /// Counts the refresh tokens that it has had.
    pub version: i64,
    /// When it was imported or connected.
    pub created_at: Timestamp,
    /// When it last gave a token.
    pub refreshed_at: Option<Timestamp>,
    /// Since when it is not known whether an exchange took place.
    pub in_doubt_since: Option<Moment>,
    /// When it ends, however often it is used.
    pub expiry: Expiry,
    /// What the user consented to, where the server has said so.
    pub granted_scope: Option<Scope>,
    /// Who consented, as its server knows them for good (`sub` of the ID token), if that is known: a name may become
    /// another's.
    pub subject: Option<String>,
}

/// Whether a grant covers a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// A token for it has come, or the server says that the user consented to it.
    Granted,
    /// The server refused it lately, or says what the user consented to and the role is not among it.
    Refused,
    /// Nobody has asked for it yet.
    Unknown,
}

/// When a grant ends by itself: at Okta a rotated refresh token inherits the end of the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The server has not been asked yet, or does not say.
    Unknown,
    /// It named no end.
    Never,
    /// Then.
    At(Timestamp),
}

impl Grant {
    /// Whether it lives, and ends by itself before `moment`.
    #[must_use]
    pub fn ends_before(&self, moment: Timestamp) -> bool {
        self.state == GrantState::Active && matches!(self.expiry, Expiry::At(end) if end < moment)
    }
}

/// Whether tokens can be had from a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantState {
    /// As far as is known.
    Active,
    /// No: the user must connect again.
    Ended {
        /// Why.
        reason: EndReason,
        /// Since when.
        since: Timestamp,
    },
}

/// Why a user must connect (again).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// There is no grant.
    NeverConnected,
    /// The refresh token's time was over.
    Expired,
    /// The authorization server takes the newest refresh token no more.
    Revoked,
    /// The user never granted this role.
    RoleNotGranted,
    /// An exchange took place, but its answer never arrived, and the old token no longer counts.
    Lost,
}

/// What a grant's answers have shown of its refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Nothing yet; taken for rotating.
    Unknown,
    /// The same one comes back, and can be presented at will.
    Persistent,
    /// Each is good for one exchange, and for the leeway after it.
    Rotating,
}

impl Rotation {
    /// After an answer to a request with refresh token `sent`. Once rotating, always rotating: a server that rotates
    /// only sometimes (by age, say) must not be taken for one that never does.
    #[must_use]
    pub fn learn(self, answered: Option<SameOrNew>) -> Self {
        match (self, answered) {
            (_, Some(SameOrNew::New)) => Self::Rotating,
            (Self::Unknown, Some(SameOrNew::Same)) => Self::Persistent,
            (known, _) => known,
        }
    }
}

/// How the refresh token of an answer relates to the one presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameOrNew {
    /// It came back.
    Same,
    /// It was replaced.
    New,
}

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $type {
            /// The word in answers, metrics and the store.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = ();

            fn from_str(word: &str) -> Result<Self, ()> {
                match word { $($word => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}

words!(EndReason {
    NeverConnected = "never_connected",
    Expired = "expired",
    Revoked = "revoked",
    RoleNotGranted = "role_not_granted",
    Lost = "lost",
});
words!(Coverage { Granted = "granted", Refused = "refused", Unknown = "unknown" });
words!(Rotation { Unknown = "unknown", Persistent = "persistent", Rotating = "rotating" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_learns_how_its_tokens_rotate_and_does_not_unlearn_it() {
        use Rotation::{Persistent, Rotating, Unknown};
        use SameOrNew::{New, Same};
        assert_eq!(Unknown.learn(None), Unknown);
        assert_eq!(Unknown.learn(Some(Same)), Persistent);
        assert_eq!(Persistent.learn(None), Persistent);
        assert_eq!(Persistent.learn(Some(New)), Rotating);
        assert_eq!(Rotating.learn(Some(Same)), Rotating);
    }
}
