//! What is to be told of grants that have ended, or will: written with the end itself, kept until it was told.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::model::{EndReason, GrantKey};
use crate::store::StoreError;

/// Notices of grants, beside the grants.
#[async_trait]
pub trait NoticeStore: Send + Sync {
    /// Whether there is anybody to be told. If not, no notice is kept, and those that are there go.
    async fn keep_notices(&self, keep: bool) -> Result<(), StoreError>;

    /// Living grants that end by themselves before `before` and of which that was not said yet, the first to end first. It
    /// counts as said from now on, until the end is another one.
    async fn foresee_ends(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Notice>, StoreError>;

    /// The notices that are kept, oldest first, at most `limit` after number `after`.
    async fn notices(&self, after: i64, limit: u32) -> Result<Vec<Notice>, StoreError>;

    /// Done with this one. Its traces stay until [`NoticeStore::wipe_notices`], which is as dear for many as for one.
    async fn forget_notice(&self, number: i64) -> Result<(), StoreError>;

    /// Nothing is left of the notices that were forgotten.
    async fn wipe_notices(&self) -> Result<(), StoreError>;

    /// Gives these up: what each was about.
    async fn drop_notices(&self, which: Dropped) -> Result<Vec<NoticeKind>, StoreError>;
}

/// Which are given up.
#[derive(Clone, Copy, Debug)]
pub enum Dropped {
    /// From before then.
    OlderThan(Timestamp),
    /// The oldest, beyond this many.
    Beyond(u32),
}

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Later ones have higher numbers; 0 for one that is not kept.
    pub number: i64,
    /// Whose grant, for what.
    pub key: GrantKey,
    /// What about it.
    pub what: What,
    /// When the grant ended, or when it was seen that it will.
    pub at: Timestamp,
    /// It is no longer so: the user has connected again meanwhile, or a grant that was to end has ended, or will at another
    /// time.
    pub overtaken: bool,
}

/// What a notice says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The grant is over.
    Ended {
        /// Why.
        reason: EndReason,
        /// By whom.
        by: EndedBy,
    },
    /// The grant ends by itself.
    Ending {
        /// Then.
        at: Timestamp,
    },
}

impl What {
    /// Without the particulars.
    #[must_use]
    pub fn kind(self) -> NoticeKind {
        match self {
            Self::Ended { .. } => NoticeKind::Ended,
            Self::Ending { .. } => NoticeKind::Ending,
        }
    }
}

/// What kind of notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// A grant is over.
    Ended,
    /// A grant will be.
    Ending,
}

impl NoticeKind {
    /// The word in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Ending => "ending",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Ended, Self::Ending].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Who ended a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The authorization server: it takes the refresh token no more.
    AuthorizationServer,
    /// It was revoked here, by its user or an administrator.
    Us,
}

impl EndedBy {
    /// The word in the store and in what is posted.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationServer => "authorization_server",
            Self::Us => "bursar",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::AuthorizationServer, Self::Us].into_iter().find(|by| by.as_str() == word)
    }
}
