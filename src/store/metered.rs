//! Counts and times every operation of a store, and holds readiness back while writes fail; the adapters stay free of both.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::clock::{Clock, Moment, Timestamp};
use crate::metrics::Metrics;
use crate::model::{
    Expiry, Grant, GrantId, GrantKey, LastUse, RoleName, RunId, Scope, ServiceName, UserName,
};
use crate::ready::{Latch, Ready};
use crate::secret::Digest;
use crate::store::keyring::Keyring;
use crate::store::keys::{Batch, Keys, Place, Retired};
use crate::store::notices::{Dropped, Notice, NoticeKind, NoticeStore};
use crate::store::seal::KeyId;
use crate::store::{
    Begun, Candidate, Commit, Committed, InUse, Lease, Newest, PendingRevocation, RunStore, Settled, Store,
    StoreError, StoredToken, Tombstone, Unused, Which,
};

/// A store that is measured.
pub struct MeteredStore<S> {
    inner: S,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    ready: Ready,
    failing: Mutex<Option<Latch>>,
}

/// Reads may go well while the disk is full.
const WRITES: [&str; 5] = ["begin", "commit", "settle", "add_candidate", "revoke"];

impl<S> MeteredStore<S> {
    /// Measures `inner`.
    pub fn new(inner: S, clock: Arc<dyn Clock>, metrics: Arc<Metrics>, ready: Ready) -> Self {
        Self { inner, clock, metrics, ready, failing: Mutex::default() }
    }

    fn note(&self, operation: &str, result: Result<(), &StoreError>) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) if WRITES.contains(&operation) => *failing = None,
            Err(StoreError::Unavailable(_)) if failing.is_none() => *failing = Some(self.ready.hold("store")),
            Ok(()) | Err(_) => {}
        }
    }

    async fn measured<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let started = self.clock.now();
        let result = work.await;
        self.note(operation, result.as_ref().map(|_| ()));
        let took = self.clock.now().since(&started).unwrap_or_default();
        let word = match &result {
            Ok(_) => "ok",
            Err(StoreError::Unavailable(_)) => "unavailable",
            Err(StoreError::Inconsistent { .. }) => "inconsistent",
            Err(StoreError::Seal(_)) => "seal",
        };
        self.metrics.store_operations.with_label_values(&[operation, word]).inc();
        self.metrics.store_operation_duration.with_label_values(&[operation]).observe(took.as_secs_f64());
        result
    }
}

#[async_trait]
impl<S: Store> Store for MeteredStore<S> {
    async fn grant(&self, id: &GrantId) -> Result<Option<Grant>, StoreError> {
        self.measured("grant", self.inner.grant(id)).await
    }
    async fn grants(
        &self,
        which: &Which,
        after: Option<&GrantKey>,
        limit: u32,
    ) -> Result<Vec<Grant>, StoreError> {
        self.measured("grants", self.inner.grants(which, after, limit)).await
    }
    async fn count(&self) -> Result<Vec<(ServiceName, String, i64)>, StoreError> {
        self.measured("count", self.inner.count()).await
    }
    async fn in_doubt(&self) -> Result<Vec<GrantId>, StoreError> {
        self.measured("in_doubt", self.inner.in_doubt()).await
    }
    async fn access_token(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
    ) -> Result<Option<StoredToken>, StoreError> {
        self.measured("access_token", self.inner.access_token(id, role)).await
    }
    async fn begin(&self, id: &GrantId, lease: &Lease, now: &Moment) -> Result<Begun, StoreError> {
        self.measured("begin", self.inner.begin(id, lease, now)).await
    }
    async fn commit(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<Committed, StoreError> {
        self.measured("commit", self.inner.commit(id, version, answer)).await
    }
    async fn settle(&self, id: &GrantId, version: i64, outcome: &Settled) -> Result<bool, StoreError> {
        self.measured("settle", self.inner.settle(id, version, outcome)).await
    }
    async fn mark_verified(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
        version: i64,
        against: Digest,
    ) -> Result<(), StoreError> {
        self.measured("mark_verified", self.inner.mark_verified(id, role, version, against)).await
    }
    async fn discard(&self, id: &GrantId, role: Option<&RoleName>, version: i64) -> Result<(), StoreError> {
        self.measured("discard", self.inner.discard(id, role, version)).await
    }
    async fn imported_as(&self, service: &ServiceName, origin: Digest) -> Result<Option<Grant>, StoreError> {
        self.measured("imported_as", self.inner.imported_as(service, origin)).await
    }
    async fn add_candidate(
        &self,
        id: &GrantId,
        candidate: &Candidate,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.measured("add_candidate", self.inner.add_candidate(id, candidate, now)).await
    }
    async fn abandoned(&self) -> Result<Vec<GrantId>, StoreError> {
        self.measured("abandoned", self.inner.abandoned()).await
    }
    async fn promote(&self, candidate: &GrantId, user: &UserName) -> Result<bool, StoreError> {
        self.measured("promote", self.inner.promote(candidate, user)).await
    }
    async fn drop_candidate(&self, candidate: &GrantId) -> Result<(), StoreError> {
        self.measured("drop_candidate", self.inner.drop_candidate(candidate)).await
    }
    async fn ensure_client_grant(
        &self,
        id: &GrantId,
        registration: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.measured("ensure_client_grant", self.inner.ensure_client_grant(id, registration, now)).await
    }
    async fn revoke(&self, id: &GrantId, key: &GrantKey, now: Timestamp) -> Result<Tombstone, StoreError> {
        self.measured("revoke", self.inner.revoke(id, key, now)).await
    }
    async fn to_revoke(&self) -> Result<Vec<GrantKey>, StoreError> {
        self.measured("to_revoke", self.inner.to_revoke()).await
    }
    async fn revocations(&self, key: &GrantKey) -> Result<Vec<PendingRevocation>, StoreError> {
        self.measured("revocations", self.inner.revocations(key)).await
    }
    async fn revoked_since(
        &self,
        service: &ServiceName,
        token: Digest,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.measured("revoked_since", self.inner.revoked_since(service, token)).await
    }
    async fn revoked(&self, key: &GrantKey, token: Digest) -> Result<(), StoreError> {
        self.measured("revoked", self.inner.revoked(key, token)).await
    }
    async fn candidates(&self) -> Result<Vec<GrantId>, StoreError> {
        self.measured("candidates", self.inner.candidates()).await
    }
    async fn erase(&self, key: &GrantKey) -> Result<bool, StoreError> {
        self.measured("erase", self.inner.erase(key)).await
    }
    async fn in_use(&self, since: Timestamp) -> Result<Vec<InUse>, StoreError> {
        self.measured("in_use", self.inner.in_use(since)).await
    }
    async fn unused(
        &self,
        service: &ServiceName,
        before: Timestamp,
        after: Option<&Unused>,
        limit: u32,
    ) -> Result<Vec<Unused>, StoreError> {
        self.measured("unused", self.inner.unused(service, before, after, limit)).await
    }
    async fn newest(&self, id: &GrantId) -> Result<Option<Newest>, StoreError> {
        self.measured("newest", self.inner.newest(id)).await
    }
    async fn note_expiry(&self, id: &GrantId, expiry: Expiry) -> Result<(), StoreError> {
        self.measured("note_expiry", self.inner.note_expiry(id, expiry)).await
    }
    async fn note_consent(
        &self,
        id: &GrantId,
        scope: &Scope,
        subject: Option<&str>,
    ) -> Result<(), StoreError> {
        self.measured("note_consent", self.inner.note_consent(id, scope, subject)).await
    }
    async fn roles_had(&self, keys: &[GrantKey]) -> Result<Vec<(GrantKey, RoleName)>, StoreError> {
        self.measured("roles_had", self.inner.roles_had(keys)).await
    }
    async fn note_uses(&self, uses: &[(GrantKey, LastUse)]) -> Result<(), StoreError> {
        self.measured("note_uses", self.inner.note_uses(uses)).await
    }
    async fn last_uses(&self, keys: &[GrantKey]) -> Result<Vec<(GrantKey, LastUse)>, StoreError> {
        self.measured("last_uses", self.inner.last_uses(keys)).await
    }
    async fn earliest_expiries(&self) -> Result<Vec<(ServiceName, Timestamp)>, StoreError> {
        self.measured("earliest_expiries", self.inner.earliest_expiries()).await
    }
    async fn spill(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<(), StoreError> {
        self.measured("spill", self.inner.spill(id, version, answer)).await
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

#[async_trait]
impl<S: Store + RunStore> RunStore for MeteredStore<S> {
    async fn end_run(&self, run: &RunId, until: Timestamp, now: Timestamp) -> Result<(), StoreError> {
        self.measured("end_run", self.inner.end_run(run, until, now)).await
    }
    async fn ended_runs(&self, now: Timestamp) -> Result<Vec<(RunId, Timestamp)>, StoreError> {
        self.measured("ended_runs", self.inner.ended_runs(now)).await
    }
}

#[async_trait]
impl<S: Store + NoticeStore> NoticeStore for MeteredStore<S> {
    async fn keep_notices(&self, keep: bool) -> Result<(), StoreError> {
        self.measured("keep_notices", self.inner.keep_notices(keep)).await
    }
    async fn foresee_ends(
        &self,
        before: Timestamp,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Notice>, StoreError> {
        self.measured("foresee_ends", self.inner.foresee_ends(before, now, limit)).await
    }
    async fn notices(&self, after: i64, limit: u32) -> Result<Vec<Notice>, StoreError> {
        self.measured("notices", self.inner.notices(after, limit)).await
    }
    async fn forget_notice(&self, number: i64) -> Result<(), StoreError> {
        self.measured("forget_notice", self.inner.forget_notice(number)).await
    }
    async fn wipe_notices(&self) -> Result<(), StoreError> {
        self.measured("wipe_notices", self.inner.wipe_notices()).await
    }
    async fn drop_notices(&self, which: Dropped) -> Result<Vec<NoticeKind>, StoreError> {
        self.measured("drop_notices", self.inner.drop_notices(which)).await
    }
}

#[async_trait]
impl<S: Keys> Keys for MeteredStore<S> {
    async fn take(&self, keyring: Keyring) -> Result<(), StoreError> {
        self.measured("take_keys", self.inner.take(keyring)).await
    }
    fn sealing_key(&self) -> KeyId {
        self.inner.sealing_key()
    }
    async fn count_old(&self) -> Result<u64, StoreError> {
        self.measured("count_old", self.inner.count_old()).await
    }
    async fn reseal(&self, from: &Place, limit: u32) -> Result<Batch, StoreError> {
        self.measured("reseal", self.inner.reseal(from, limit)).await
    }
    async fn retire(&self, damaged: &HashMap<KeyId, u64>) -> Result<Vec<Retired>, StoreError> {
        self.measured("retire_keys", self.inner.retire(damaged)).await
    }
}
