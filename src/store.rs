//! What must outlive the process: grants, their refresh tokens, and the access tokens that came last.
//!
//! The contract that every adapter keeps, and `tests/it/store_contract.rs` checks:
//! 1. What a method reported as done is on disk, and still there after a crash.
//! 2. Absence is `None` or a variant of the result, never an error.
//! 3. Whoever writes names the version that it read; a write against another version changes nothing and says so.
//! 4. Tokens go in and come out as `Secret`s and lie sealed in between, bound to the grant that they belong to.
//! 5. Times and ids come in as arguments.

use std::time::Duration;

use async_trait::async_trait;

use crate::clock::{Moment, Timestamp};
use crate::model::{
    EndReason, Expiry, Grant, GrantId, GrantKey, Issued, LastUse, RoleName, Rotation, RunId, Scope,
    ServiceName, TokenKey, UserName,
};
use crate::secret::{Digest, Secret};

/// Reads rows, refuses impossible ones.
mod row;

/// AES-256-GCM around each token.
pub mod seal;

/// The keys that open, and the one that seals.
pub mod keyring;

/// How the keys are changed while the store serves.
pub mod keys;

/// What is to be told of grants.
pub mod notices;

/// What a stopping process could not write, kept beside the store.
mod spill;

/// The embedded store.
pub mod sqlite;

/// Counts and times every operation.
pub mod metered;

/// The port; adapters are below.
#[async_trait]
pub trait Store: Send + Sync {
    /// One grant, or none.
    async fn grant(&self, id: &GrantId) -> Result<Option<Grant>, StoreError>;

    /// Grants that tokens are vended from, in the order of their keys, at most `limit` after `after`.
    async fn grants(
        &self,
        which: &Which,
        after: Option<&GrantKey>,
        limit: u32,
    ) -> Result<Vec<Grant>, StoreError>;

    /// How many grants each service has in each state (`active` or an end reason).
    async fn count(&self) -> Result<Vec<(ServiceName, String, i64)>, StoreError>;

    /// The rows whose last exchange is not known to have taken place or not.
    async fn in_doubt(&self) -> Result<Vec<GrantId>, StoreError>;

    /// The access token that came last for these scopes, dead or alive.
    async fn access_token(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
    ) -> Result<Option<StoredToken>, StoreError>;

    /// Takes the row's lease and writes down that an attempt is under way since `now`, or since the earlier attempt
    /// that is still in doubt. Only after this may its refresh token leave.
    async fn begin(&self, id: &GrantId, lease: &Lease, now: &Moment) -> Result<Begun, StoreError>;

    /// The answer's tokens in one transaction: new refresh token, version + 1, lease and doubt cleared.
    async fn commit(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<Committed, StoreError>;

    /// An attempt that ended without tokens; gives the lease back. A row of another version is left alone: `false`.
    async fn settle(&self, id: &GrantId, version: i64, outcome: &Settled) -> Result<bool, StoreError>;

    /// The access token of this version was verified `against` what is configured, and may be vended after a restart
    /// without being verified again, unless that has changed.
    async fn mark_verified(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
        version: i64,
        against: Digest,
    ) -> Result<(), StoreError>;

    /// Forgets an access token of this version, because it does not verify.
    async fn discard(&self, id: &GrantId, role: Option<&RoleName>, version: i64) -> Result<(), StoreError>;

    /// The grant that became of a refresh token that was handed in for this service, if any.
    async fn imported_as(&self, service: &ServiceName, origin: Digest) -> Result<Option<Grant>, StoreError>;

    /// Puts down a refresh token that is yet to be proven. `false` if it is there already and was presented.
    async fn add_candidate(
        &self,
        id: &GrantId,
        candidate: &Candidate,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// The candidates of consents that an earlier process was about to make grants of.
    async fn abandoned(&self) -> Result<Vec<GrantId>, StoreError>;

    /// Makes a proven candidate the grant of `user`, in place of what was there. `false` if it is gone.
    async fn promote(&self, candidate: &GrantId, user: &UserName) -> Result<bool, StoreError>;

    /// Forgets a candidate that proved worthless.
    async fn drop_candidate(&self, candidate: &GrantId) -> Result<(), StoreError>;

    /// Makes the row that stands for a service whose tokens speak for the client itself, unless it is there. It is no
    /// user's grant, and neither listed nor counted as one.
    async fn ensure_client_grant(
        &self,
        id: &GrantId,
        registration: &str,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Ends a grant for good: no write of an exchange under way brings it back, its access tokens are gone, and its
    /// refresh token waits among the revocations, under `key`, until its server was told. A candidate vanishes altogether.
    async fn revoke(&self, id: &GrantId, key: &GrantKey, now: Timestamp) -> Result<Tombstone, StoreError>;

    /// Whose refresh tokens wait to be revoked at their servers, oldest first.
    async fn to_revoke(&self) -> Result<Vec<GrantKey>, StoreError>;

    /// The refresh tokens of this grant, and of those that it replaced, that wait to be revoked.
    async fn revocations(&self, key: &GrantKey) -> Result<Vec<PendingRevocation>, StoreError>;

    /// Since when this refresh token has been waiting to be revoked, if it does, under whatever key.
    async fn revoked_since(
        &self,
        service: &ServiceName,
        token: Digest,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// The server was told of this one.
    async fn revoked(&self, key: &GrantKey, token: Digest) -> Result<(), StoreError>;

    /// The refresh tokens that were handed in and have not proven whose they are.
    async fn candidates(&self) -> Result<Vec<GrantId>, StoreError>;

    /// Forgets that there ever was this grant, which must have been revoked: `false` if it has not, or is not there. What
    /// waits to be revoked stays until then.
    async fn erase(&self, key: &GrantKey) -> Result<bool, StoreError>;

    /// The tokens that somebody had asked for since `since` when they were written, of grants that live.
    async fn in_use(&self, since: Timestamp) -> Result<Vec<InUse>, StoreError>;

    /// The grants of a service that live, are not in doubt and gave no token since `before`, longest unused first, at most
    /// `limit` after `after`.
    async fn unused(
        &self,
        service: &ServiceName,
        before: Timestamp,
        after: Option<&Unused>,
        limit: u32,
    ) -> Result<Vec<Unused>, StoreError>;

    /// The newest refresh token, to ask its server about it and for nothing else: to be presented it takes `begin`. `None`
    /// unless the grant lives and is not in doubt.
    async fn newest(&self, id: &GrantId) -> Result<Option<Newest>, StoreError>;

    /// The server has said when the grant ends by itself.
    async fn note_expiry(&self, id: &GrantId, expiry: Expiry) -> Result<(), StoreError>;

    /// What the server has said that the consent covers and, where that is known by now, who gave it.
    async fn note_consent(
        &self,
        id: &GrantId,
        scope: &Scope,
        subject: Option<&str>,
    ) -> Result<(), StoreError>;

    /// Of these living grants, the roles that a token has come for.
    async fn roles_had(&self, keys: &[GrantKey]) -> Result<Vec<(GrantKey, RoleName)>, StoreError>;

    /// Who used these grants last, unless somebody has later. What is no grant any more, or was erased, is left out.
    async fn note_uses(&self, uses: &[(GrantKey, LastUse)]) -> Result<(), StoreError>;

    /// Who used each of these last, without those that nobody did.
    async fn last_uses(&self, keys: &[GrantKey]) -> Result<Vec<(GrantKey, LastUse)>, StoreError>;

    /// When the first of each service's living grants ends by itself, of those that are known to.
    async fn earliest_expiries(&self) -> Result<Vec<(ServiceName, Timestamp)>, StoreError>;

    /// Keeps an answer that can't be committed where the next start finds it first.
    async fn spill(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<(), StoreError>;

    /// Lets go of files and locks once everything in progress is done.
    async fn close(&self);
}

/// The workflow platform's runs that are over, beside the grants.
#[async_trait]
pub trait RunStore: Send + Sync {
    /// Remembers `until` then, or longer if it was to be longer, that a run is over.
    async fn end_run(&self, run: &RunId, until: Timestamp, now: Timestamp) -> Result<(), StoreError>;

    /// Those that are remembered beyond `now`.
    async fn ended_runs(&self, now: Timestamp) -> Result<Vec<(RunId, Timestamp)>, StoreError>;
}

/// Which grants to list.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Of this service only.
    pub service: Option<ServiceName>,
    /// Of this user only.
    pub user: Option<UserName>,
    /// In this state only: `active`, or an end reason's word.
    pub state: Option<String>,
    /// Living ones that end by themselves before then only.
    pub ends_before: Option<Timestamp>,
}

/// A token in use, as it was written.
#[derive(Clone, Debug)]
pub struct InUse {
    /// Which.
    pub key: TokenKey,
    /// Its life.
    pub issued: Issued,
    /// The grant's version that it came with.
    pub version: i64,
    /// When somebody asked for it last, as far as was known then.
    pub asked_at: Timestamp,
}

/// A grant that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unused {
    /// Whose.
    pub user: UserName,
    /// Since when.
    pub since: Timestamp,
}

/// A refresh token that may be asked about.
#[derive(Debug)]
pub struct Newest {
    /// The token.
    pub refresh_token: Secret,
    /// Its grant's version.
    pub version: i64,
}

/// A refresh token that was handed in.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The token.
    pub refresh_token: Secret,
    /// The issuer and client that it belongs to.
    pub registration: String,
    /// It came of a consent given here: nobody else has it, and nobody could hand it in again.
    pub consented: bool,
}

/// Who wants a row for itself, and for how long.
#[derive(Clone, Debug)]
pub struct Lease {
    /// This process.
    pub owner: String,
    /// From the moment of `begin`.
    pub duration: Duration,
}

/// What `begin` found.
#[derive(Debug)]
pub enum Begun {
    /// The row is ours until the lease ends.
    Attempt(Attempt),
    /// Another process has it, for at most this long.
    Held(Duration),
    /// The grant has ended.
    Ended(EndReason, Timestamp),
    /// There is no such row.
    Missing,
}

/// A row that is ours.
#[derive(Debug)]
pub struct Attempt {
    /// The newest refresh token.
    pub refresh_token: Secret,
    /// What commit and settle must name.
    pub version: i64,
    /// How its refresh tokens behave.
    pub rotation: Rotation,
    /// When the first of the attempts that are in doubt began: now, unless an earlier one is.
    pub since: Moment,
    /// Whether an earlier attempt is in doubt.
    pub in_doubt: bool,
}

/// The tokens of one answer.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The refresh token to use from now on, if the answer brought one.
    pub refresh_token: Option<Secret>,
    /// How refresh tokens behave, as far as the answer has shown.
    pub rotation: Rotation,
    /// The role that was asked for.
    pub role: Option<RoleName>,
    /// The access token.
    pub access_token: Secret,
    /// Its scope: the answer's, or what was asked for.
    pub scope: Scope,
    /// Its life.
    pub issued: Issued,
    /// When the answer came.
    pub now: Timestamp,
    /// When somebody asked for the token last.
    pub asked_at: Timestamp,
}

/// What became of a commit.
#[derive(Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is on disk, as this version.
    Done(i64),
    /// The row had moved on; nothing was written.
    Superseded,
    /// The grant was revoked meanwhile; the new refresh token waits to be revoked as well.
    Revoked,
}

/// What `revoke` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tombstone {
    /// A grant, which has ended now.
    Put,
    /// The same, and it had ended before: that it did is nothing new.
    PutAfterEnd,
    /// The same, but its refresh token can't be opened, so that nobody can tell its server.
    Unreadable,
    /// One that had been revoked before.
    AlreadyThere,
    /// Nothing.
    Missing,
}

/// A refresh token that its server is yet to forget.
#[derive(Debug)]
pub struct PendingRevocation {
    /// The token.
    pub refresh_token: Secret,
    /// The issuer and client that it belongs to.
    pub registration: String,
    /// Since when its grant has been over here.
    pub since: Timestamp,
}

/// An attempt that ended without tokens.
#[derive(Clone, Debug)]
pub enum Settled {
    /// It changed nothing at the server: not sent, or refused for a reason that leaves the grant alone. A doubt from
    /// before it remains.
    Unchanged {
        /// The doubt from before this attempt.
        in_doubt_since: Option<Moment>,
    },
    /// It is not known whether the server acted; the doubt stays, only the lease is given back.
    InDoubt,
    /// The grant is over.
    Ended(EndReason, Timestamp),
}

/// An access token as it was kept.
#[derive(Clone, Debug)]
pub struct StoredToken {
    /// The token.
    pub token: Secret,
    /// Its scope.
    pub scope: Scope,
    /// Its life.
    pub issued: Issued,
    /// What it was verified against, if it was.
    pub verified: Option<Digest>,
    /// The grant's version that it came with.
    pub version: i64,
}

/// What can go wrong with a store; `Clone`, for those who waited for the same operation share its outcome.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, is full, read-only or locked: the operator must act, or wait.
    #[error("the store does not work: {0}")]
    Unavailable(String),
    /// Columns of a row that can't go together: a bug, or somebody wrote into the database.
    #[error("the store's table {table} has an impossible {column} in the row of {row}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// Which row.
        row: String,
    },
    /// A sealed value was not made by any of our keys, or not for this row.
    #[error("{0}")]
    Seal(#[from] seal::SealError),
}
