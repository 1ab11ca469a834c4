//! A store with a hook around every operation: it fails, waits or dies where a test says.

use std::sync::Arc;

use async_trait::async_trait;
use bursar::clock::{Moment, Timestamp};
use bursar::model::{Expiry, Grant, GrantId, GrantKey, LastUse, RoleName, Scope, ServiceName, UserName};
use bursar::secret::Digest;
use bursar::store::{
    Begun, Candidate, Commit, Committed, InUse, Lease, Newest, PendingRevocation, Settled, Store, StoreError,
    StoredToken, Tombstone, Unused, Which,
};

/// What happens before and after an operation; both with its name.
#[async_trait]
pub(crate) trait Hook: Send + Sync {
    async fn before(&self, operation: &'static str) -> Result<(), StoreError>;
    /// It was done.
    async fn after(&self, _operation: &'static str) -> Result<(), StoreError> {
        Ok(())
    }
}

pub(crate) struct Hooked {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) hook: Arc<dyn Hook>,
}

macro_rules! hooked {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl Store for Hooked {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$out, StoreError> {
                self.hook.before(stringify!($name)).await?;
                let result = self.inner.$name($($arg),*).await;
                self.hook.after(stringify!($name)).await?;
                result
            })*
            async fn close(&self) {
                self.inner.close().await;
            }
        }
    };
}

hooked! {
    fn grant(id: &GrantId) -> Option<Grant>;
    fn grants(which: &Which, after: Option<&GrantKey>, limit: u32) -> Vec<Grant>;
    fn count() -> Vec<(ServiceName, String, i64)>;
    fn in_doubt() -> Vec<GrantId>;
    fn access_token(id: &GrantId, role: Option<&RoleName>) -> Option<StoredToken>;
    fn begin(id: &GrantId, lease: &Lease, now: &Moment) -> Begun;
    fn commit(id: &GrantId, version: i64, answer: &Commit) -> Committed;
    fn settle(id: &GrantId, version: i64, outcome: &Settled) -> bool;
    fn mark_verified(id: &GrantId, role: Option<&RoleName>, version: i64, against: Digest) -> ();
    fn discard(id: &GrantId, role: Option<&RoleName>, version: i64) -> ();
    fn imported_as(service: &ServiceName, origin: Digest) -> Option<Grant>;
    fn add_candidate(id: &GrantId, candidate: &Candidate, now: Timestamp) -> bool;
    fn abandoned() -> Vec<GrantId>;
    fn promote(candidate: &GrantId, user: &UserName) -> bool;
    fn drop_candidate(candidate: &GrantId) -> ();
    fn ensure_client_grant(id: &GrantId, registration: &str, now: Timestamp) -> ();
    fn revoke(id: &GrantId, key: &GrantKey, now: Timestamp) -> Tombstone;
    fn to_revoke() -> Vec<GrantKey>;
    fn revocations(key: &GrantKey) -> Vec<PendingRevocation>;
    fn revoked_since(service: &ServiceName, token: Digest) -> Option<Timestamp>;
    fn revoked(key: &GrantKey, token: Digest) -> ();
    fn candidates() -> Vec<GrantId>;
    fn erase(key: &GrantKey) -> bool;
    fn in_use(since: Timestamp) -> Vec<InUse>;
    fn unused(service: &ServiceName, before: Timestamp, after: Option<&Unused>, limit: u32) -> Vec<Unused>;
    fn newest(id: &GrantId) -> Option<Newest>;
    fn note_expiry(id: &GrantId, expiry: Expiry) -> ();
    fn note_consent(id: &GrantId, scope: &Scope, subject: Option<&str>) -> ();
    fn roles_had(keys: &[GrantKey]) -> Vec<(GrantKey, RoleName)>;
    fn note_uses(uses: &[(GrantKey, LastUse)]) -> ();
    fn last_uses(keys: &[GrantKey]) -> Vec<(GrantKey, LastUse)>;
    fn earliest_expiries() -> Vec<(ServiceName, Timestamp)>;
    fn spill(id: &GrantId, version: i64, answer: &Commit) -> ();
}
