//! A store in memory that keeps the contract of `src/store.rs` and outlives the engine, as a file does. Nobody revokes here.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bursar::clock::{Moment, Timestamp};
use bursar::model::{
    Expiry, Grant, GrantId, GrantKey, GrantState, LastUse, RoleName, Rotation, Scope, ServiceName, TokenKey,
    UserName,
};
use bursar::secret::{Digest, Secret};
use bursar::store::{
    Attempt, Begun, Candidate, Commit, Committed, InUse, Lease, Newest, PendingRevocation, Settled, Store,
    StoreError, StoredToken, Tombstone, Unused, Which,
};

#[derive(Default)]
pub(super) struct Memory(Mutex<Rows>);

#[derive(Default)]
struct Rows {
    grants: HashMap<GrantId, Row>,
    tokens: HashMap<(GrantId, Option<RoleName>), (StoredToken, Timestamp)>,
}

struct Row {
    grant: Grant,
    refresh_token: Secret,
    origin: Digest,
    lease: Option<(String, Duration)>,
}

impl Memory {
    /// A new process opens the file: leases that are in it are void.
    pub(super) fn opened(&self) {
        self.0.lock().unwrap().grants.values_mut().for_each(|row| row.lease = None);
    }

    pub(super) fn refresh_token(&self, id: &GrantId) -> Option<Secret> {
        self.0.lock().unwrap().grants.get(id).map(|row| row.refresh_token.clone())
    }

    pub(super) fn version(&self, id: &GrantId) -> Option<i64> {
        self.0.lock().unwrap().grants.get(id).map(|row| row.grant.version)
    }
}

impl Rows {
    fn of_version(&mut self, id: &GrantId, version: i64) -> Option<&mut Row> {
        self.grants.get_mut(id).filter(|row| row.grant.version == version)
    }

    fn living(&self) -> impl Iterator<Item = (&GrantId, &Row)> {
        self.grants.iter().filter(|(_, row)| row.grant.state == GrantState::Active)
    }
}

#[async_trait]
impl Store for Memory {
    async fn grant(&self, id: &GrantId) -> Result<Option<Grant>, StoreError> {
        Ok(self.0.lock().unwrap().grants.get(id).map(|row| row.grant.clone()))
    }

    async fn grants(&self, _: &Which, _: Option<&GrantKey>, _: u32) -> Result<Vec<Grant>, StoreError> {
        unreachable!("nobody lists")
    }

    async fn count(&self) -> Result<Vec<(ServiceName, String, i64)>, StoreError> {
        let rows = self.0.lock().unwrap();
        let current = rows.living().filter(|(id, _)| id.candidate.is_none());
        Ok(current.map(|(id, _)| (id.key.service.clone(), "active".to_owned(), 1)).collect())
    }

    async fn in_doubt(&self) -> Result<Vec<GrantId>, StoreError> {
        let rows = self.0.lock().unwrap();
        let in_doubt = rows.living().filter(|(_, row)| row.grant.in_doubt_since.is_some());
        Ok(in_doubt.map(|(id, _)| id.clone()).collect())
    }

    async fn access_token(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
    ) -> Result<Option<StoredToken>, StoreError> {
        let rows = self.0.lock().unwrap();
        Ok(rows.tokens.get(&(id.clone(), role.cloned())).map(|(token, _)| token.clone()))
    }

    async fn begin(&self, id: &GrantId, lease: &Lease, now: &Moment) -> Result<Begun, StoreError> {
        let mut rows = self.0.lock().unwrap();
        let Some(row) = rows.grants.get_mut(id) else { return Ok(Begun::Missing) };
        if let GrantState::Ended { reason, since } = row.grant.state {
            return Ok(Begun::Ended(reason, since));
        }
        if let Some((owner, until)) = &row.lease
            && *owner != lease.owner
            && let Some(left) = until.checked_sub(now.boot)
        {
            return Ok(Begun::Held(left));
        }
        let earlier = row.grant.in_doubt_since;
        let since = earlier.unwrap_or(*now);
        row.grant.in_doubt_since = Some(since);
        row.lease = Some((lease.owner.clone(), now.boot + lease.duration));
        Ok(Begun::Attempt(Attempt {
            refresh_token: row.refresh_token.clone(),
            version: row.grant.version,
            rotation: row.grant.rotation,
            since,
            in_doubt: earlier.is_some(),
        }))
    }

    async fn commit(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<Committed, StoreError> {
        let mut rows = self.0.lock().unwrap();
        let row = rows.of_version(id, version).filter(|row| row.grant.state == GrantState::Active);
        let Some(row) = row else { return Ok(Committed::Superseded) };
        if let Some(token) = &answer.refresh_token {
            row.refresh_token = token.clone();
        }
        row.grant.rotation = answer.rotation;
        row.grant.version += 1;
        row.grant.refreshed_at = Some(answer.now);
        row.grant.in_doubt_since = None;
        row.lease = None;
        let stored = StoredToken {
            token: answer.access_token.clone(),
            scope: answer.scope.clone(),
            issued: answer.issued,
            verified: None,
            version: version + 1,
        };
        rows.tokens.insert((id.clone(), answer.role.clone()), (stored, answer.asked_at));
        Ok(Committed::Done(version + 1))
    }

    async fn settle(&self, id: &GrantId, version: i64, outcome: &Settled) -> Result<bool, StoreError> {
        let mut rows = self.0.lock().unwrap();
        let Some(row) = rows.of_version(id, version) else { return Ok(false) };
        match outcome {
            Settled::InDoubt => row.lease = None,
            Settled::Unchanged { in_doubt_since } => {
                row.lease = None;
                row.grant.in_doubt_since = *in_doubt_since;
            }
            Settled::Ended(reason, since) => {
                if row.grant.state != GrantState::Active {
                    return Ok(false);
                }
                row.lease = None;
                row.grant.in_doubt_since = None;
                row.grant.state = GrantState::Ended { reason: *reason, since: *since };
                rows.tokens.retain(|(of, _), _| of != id);
            }
        }
        Ok(true)
    }

    async fn mark_verified(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
        version: i64,
        against: Digest,
    ) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap();
        if let Some((token, _)) = rows.tokens.get_mut(&(id.clone(), role.cloned()))
            && token.version == version
        {
            token.verified = Some(against);
        }
        Ok(())
    }

    async fn discard(&self, id: &GrantId, role: Option<&RoleName>, version: i64) -> Result<(), StoreError> {
        let this = (id.clone(), role.cloned());
        self.0.lock().unwrap().tokens.retain(|key, (token, _)| *key != this || token.version != version);
        Ok(())
    }

    async fn imported_as(&self, service: &ServiceName, origin: Digest) -> Result<Option<Grant>, StoreError> {
        let rows = self.0.lock().unwrap();
        let of_it = |(id, row): &(&GrantId, &Row)| {
            id.candidate.is_none() && id.key.service == *service && row.origin == origin
        };
        Ok(rows.grants.iter().find(of_it).map(|(_, row)| row.grant.clone()))
    }

    async fn add_candidate(
        &self,
        id: &GrantId,
        candidate: &Candidate,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut rows = self.0.lock().unwrap();
        if let Some(there) = rows.grants.get(id) {
            return Ok(there.grant.version == 1 && there.grant.in_doubt_since.is_none());
        }
        let grant = Grant {
            key: id.key.clone(),
            state: GrantState::Active,
            rotation: Rotation::Unknown,
            registration: candidate.registration.clone(),
            version: 1,
            created_at: now,
            refreshed_at: None,
            in_doubt_since: None,
            expiry: Expiry::Unknown,
            granted_scope: None,
            subject: None,
        };
        let refresh_token = candidate.refresh_token.clone();
        let origin = refresh_token.digest();
        rows.grants.insert(id.clone(), Row { grant, refresh_token, origin, lease: None });
        Ok(true)
    }

    async fn abandoned(&self) -> Result<Vec<GrantId>, StoreError> {
        Ok(Vec::new())
    }

    async fn promote(&self, candidate: &GrantId, user: &UserName) -> Result<bool, StoreError> {
        let mut rows = self.0.lock().unwrap();
        let Some(mut row) = rows.grants.remove(candidate) else { return Ok(false) };
        let proven =
            GrantId::current(GrantKey { service: candidate.key.service.clone(), user: user.clone() });
        let replaced = rows.grants.get(&proven).map_or(0, |row| row.grant.version);
        row.grant.version = row.grant.version.max(replaced) + 1;
        row.grant.key = proven.key.clone();
        rows.tokens.retain(|(of, _), _| *of != proven);
        if let Some((mut token, asked_at)) = rows.tokens.remove(&(candidate.clone(), None)) {
            token.version = row.grant.version;
            rows.tokens.insert((proven.clone(), None), (token, asked_at));
        }
        rows.grants.insert(proven, row);
        Ok(true)
    }

    async fn drop_candidate(&self, candidate: &GrantId) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap();
        rows.grants.remove(candidate);
        rows.tokens.retain(|(of, _), _| of != candidate);
        Ok(())
    }

    async fn in_use(&self, since: Timestamp) -> Result<Vec<InUse>, StoreError> {
        let rows = self.0.lock().unwrap();
        let living =
            |id: &GrantId| rows.grants.get(id).is_some_and(|row| row.grant.state == GrantState::Active);
        let tokens = rows
            .tokens
            .iter()
            .filter(|((id, _), (_, asked_at))| id.candidate.is_none() && *asked_at > since && living(id));
        Ok(tokens
            .map(|((id, role), (token, asked_at))| InUse {
                key: TokenKey { grant: id.key.clone(), role: role.clone() },
                issued: token.issued,
                version: token.version,
                asked_at: *asked_at,
            })
            .collect())
    }

    async fn unused(
        &self,
        _: &ServiceName,
        before: Timestamp,
        after: Option<&Unused>,
        _: u32,
    ) -> Result<Vec<Unused>, StoreError> {
        let rows = self.0.lock().unwrap();
        let idle = rows.living().filter(|(id, row)| {
            id.candidate.is_none() && row.grant.in_doubt_since.is_none() && after.is_none()
        });
        Ok(idle
            .filter_map(|(id, row)| Some((id.key.user.clone(), row.grant.refreshed_at?)))
            .filter(|(_, since)| *since < before)
            .map(|(user, since)| Unused { user, since })
            .collect())
    }

    async fn newest(&self, id: &GrantId) -> Result<Option<Newest>, StoreError> {
        let rows = self.0.lock().unwrap();
        let row = rows
            .grants
            .get(id)
            .filter(|row| row.grant.state == GrantState::Active && row.grant.in_doubt_since.is_none());
        Ok(row.map(|row| Newest { refresh_token: row.refresh_token.clone(), version: row.grant.version }))
    }

    async fn note_expiry(&self, id: &GrantId, expiry: Expiry) -> Result<(), StoreError> {
        if let Some(row) = self.0.lock().unwrap().grants.get_mut(id) {
            row.grant.expiry = expiry;
        }
        Ok(())
    }

    async fn note_consent(
        &self,
        id: &GrantId,
        scope: &Scope,
        subject: Option<&str>,
    ) -> Result<(), StoreError> {
        if let Some(row) = self.0.lock().unwrap().grants.get_mut(id) {
            row.grant.granted_scope = Some(scope.clone());
            row.grant.subject = subject.map(str::to_owned).or(row.grant.subject.take());
        }
        Ok(())
    }

    async fn roles_had(&self, _: &[GrantKey]) -> Result<Vec<(GrantKey, RoleName)>, StoreError> {
        unreachable!("nobody lists")
    }

    async fn note_uses(&self, _: &[(GrantKey, LastUse)]) -> Result<(), StoreError> {
        unreachable!("nobody notes")
    }

    async fn last_uses(&self, _: &[GrantKey]) -> Result<Vec<(GrantKey, LastUse)>, StoreError> {
        unreachable!("nobody lists")
    }

    async fn earliest_expiries(&self) -> Result<Vec<(ServiceName, Timestamp)>, StoreError> {
        Ok(Vec::new())
    }

    async fn revoked_since(&self, _: &ServiceName, _: Digest) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn to_revoke(&self) -> Result<Vec<GrantKey>, StoreError> {
        Ok(Vec::new())
    }

    async fn candidates(&self) -> Result<Vec<GrantId>, StoreError> {
        Ok(Vec::new())
    }

    async fn ensure_client_grant(&self, _: &GrantId, _: &str, _: Timestamp) -> Result<(), StoreError> {
        unreachable!("all tokens here speak for users")
    }

    async fn revoke(&self, _: &GrantId, _: &GrantKey, _: Timestamp) -> Result<Tombstone, StoreError> {
        unreachable!("nobody revokes")
    }

    async fn revocations(&self, _: &GrantKey) -> Result<Vec<PendingRevocation>, StoreError> {
        unreachable!("nobody revokes")
    }

    async fn revoked(&self, _: &GrantKey, _: Digest) -> Result<(), StoreError> {
        unreachable!("nobody revokes")
    }

    async fn erase(&self, _: &GrantKey) -> Result<bool, StoreError> {
        unreachable!("nobody revokes")
    }

    async fn spill(&self, _: &GrantId, _: i64, _: &Commit) -> Result<(), StoreError> {
        unreachable!("it is killed, never stopped")
    }

    async fn close(&self) {}
}
