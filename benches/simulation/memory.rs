//! Grants in memory, with the semantics of the store's contract, as far as an engine that refreshes needs them.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// The store of one service.
pub(crate) struct MemoryStore {
    service: ServiceName,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    grants: HashMap<UserName, Row>,
    /// Those that `unused` may name.
    by_refresh: BTreeSet<(Timestamp, UserName)>,
}

struct Row {
    refresh_token: Secret,
    version: i64,
    rotation: Rotation,
    state: GrantState,
    refreshed_at: Timestamp,
    lease: Option<(String, Duration)>,
    attempt: Option<Moment>,
    /// By role; a user has two at most.
    tokens: Vec<(Option<RoleName>, StoredToken, Timestamp)>,
}

impl Row {
    fn is_idle(&self) -> bool {
        self.state == GrantState::Active && self.attempt.is_none()
    }
}

impl Rows {
    /// Changes a row and keeps the order of the unused ones in step.
    fn change<T>(&mut self, user: &UserName, change: impl FnOnce(&mut Row) -> T) -> Option<T> {
        let row = self.grants.get_mut(user)?;
        let before = row.is_idle().then_some(row.refreshed_at);
        let result = change(row);
        let after = row.is_idle().then_some(row.refreshed_at);
        if before != after {
            before.map(|at| self.by_refresh.remove(&(at, user.clone())));
            after.map(|at| self.by_refresh.insert((at, user.clone())));
        }
        Some(result)
    }
}

/// What this store does not do.
fn not_here<T>() -> Result<T, StoreError> {
    Err(StoreError::Unavailable("the simulation has no such thing".to_owned()))
}

/// All grants belong to the one client of the one server.
pub(crate) const REGISTRATION: &str = "https://okta.invalid simulation";

impl MemoryStore {
    pub(crate) fn new(service: ServiceName) -> Self {
        Self { service, rows: Mutex::default() }
    }

    /// A user has consented, and the grant gave a token last at `refreshed_at`.
    pub(crate) fn connect(&self, user: &UserName, refresh_token: Secret, refreshed_at: Timestamp) {
        let row = Row {
            refresh_token,
            version: 1,
            rotation: Rotation::Rotating,
            state: GrantState::Active,
            refreshed_at,
            lease: None,
            attempt: None,
            tokens: Vec::new(),
        };
        let mut rows = self.rows();
        rows.by_refresh.insert((refreshed_at, user.clone()));
        rows.grants.insert(user.clone(), row);
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant_of(&self, user: &UserName, row: &Row) -> Grant {
        Grant {
            key: GrantKey { service: self.service.clone(), user: user.clone() },
            state: row.state,
            rotation: row.rotation,
            registration: REGISTRATION.to_owned(),
            version: row.version,
            created_at: Timestamp::from_millis(0),
            refreshed_at: Some(row.refreshed_at),
            in_doubt_since: row.attempt,
            expiry: Expiry::Unknown,
            granted_scope: None,
            subject: None,
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn grant(&self, id: &GrantId) -> Result<Option<Grant>, StoreError> {
        Ok(self.rows().grants.get(&id.key.user).map(|row| self.grant_of(&id.key.user, row)))
    }

    async fn grants(&self, _: &Which, _: Option<&GrantKey>, _: u32) -> Result<Vec<Grant>, StoreError> {
        not_here()
    }

    async fn count(&self) -> Result<Vec<(ServiceName, String, i64)>, StoreError> {
        let rows = self.rows();
        let active = rows.grants.values().filter(|row| row.state == GrantState::Active).count();
        Ok(vec![(self.service.clone(), "active".to_owned(), i64::try_from(active).unwrap_or(i64::MAX))])
    }

    async fn in_doubt(&self) -> Result<Vec<GrantId>, StoreError> {
        let rows = self.rows();
        let in_doubt = rows.grants.iter().filter(|(_, row)| row.attempt.is_some());
        let id = |user: &UserName| {
            GrantId::current(GrantKey { service: self.service.clone(), user: user.clone() })
        };
        Ok(in_doubt.map(|(user, _)| id(user)).collect())
    }

    async fn access_token(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
    ) -> Result<Option<StoredToken>, StoreError> {
        let rows = self.rows();
        let tokens = rows.grants.get(&id.key.user).map_or(&[][..], |row| row.tokens.as_slice());
        Ok(tokens.iter().find(|(of, ..)| of.as_ref() == role).map(|(_, token, _)| token.clone()))
    }

    async fn begin(&self, id: &GrantId, lease: &Lease, now: &Moment) -> Result<Begun, StoreError> {
        let begin = |row: &mut Row| {
            if let GrantState::Ended { reason, since } = row.state {
                return Begun::Ended(reason, since);
            }
            if let Some((owner, until)) = &row.lease
                && *owner != lease.owner
                && *until > now.boot
            {
                return Begun::Held(until.saturating_sub(now.boot));
            }
            let since = row.attempt.unwrap_or(*now);
            let in_doubt = row.attempt.replace(since).is_some();
            row.lease = Some((lease.owner.clone(), now.boot + lease.duration));
            Begun::Attempt(Attempt {
                refresh_token: row.refresh_token.clone(),
                version: row.version,
                rotation: row.rotation,
                since,
                in_doubt,
            })
        };
        Ok(self.rows().change(&id.key.user, begin).unwrap_or(Begun::Missing))
    }

    async fn commit(&self, id: &GrantId, version: i64, answer: &Commit) -> Result<Committed, StoreError> {
        let commit = |row: &mut Row| {
            if row.version != version || row.state != GrantState::Active {
                return Committed::Superseded;
            }
            if let Some(token) = &answer.refresh_token {
                row.refresh_token = token.clone();
            }
            row.version += 1;
            row.rotation = answer.rotation;
            row.refreshed_at = answer.now;
            (row.lease, row.attempt) = (None, None);
            let token = StoredToken {
                token: answer.access_token.clone(),
                scope: answer.scope.clone(),
                issued: answer.issued,
                verified: None,
                version: row.version,
            };
            row.tokens.retain(|(role, ..)| *role != answer.role);
            row.tokens.push((answer.role.clone(), token, answer.asked_at));
            Committed::Done(row.version)
        };
        Ok(self.rows().change(&id.key.user, commit).unwrap_or(Committed::Superseded))
    }

    async fn settle(&self, id: &GrantId, version: i64, outcome: &Settled) -> Result<bool, StoreError> {
        let settle = |row: &mut Row| {
            if row.version != version {
                return false;
            }
            row.lease = None;
            match outcome {
                Settled::Unchanged { in_doubt_since } => row.attempt = *in_doubt_since,
                Settled::InDoubt => {}
                Settled::Ended(reason, since) => {
                    row.attempt = None;
                    row.tokens.clear();
                    row.state = GrantState::Ended { reason: *reason, since: *since };
                }
            }
            true
        };
        Ok(self.rows().change(&id.key.user, settle).unwrap_or(false))
    }

    async fn mark_verified(
        &self,
        id: &GrantId,
        role: Option<&RoleName>,
        version: i64,
        against: Digest,
    ) -> Result<(), StoreError> {
        if let Some(row) = self.rows().grants.get_mut(&id.key.user) {
            for (of, token, _) in &mut row.tokens {
                if of.as_ref() == role && token.version == version {
                    token.verified = Some(against);
                }
            }
        }
        Ok(())
    }

    async fn discard(&self, id: &GrantId, role: Option<&RoleName>, version: i64) -> Result<(), StoreError> {
        if let Some(row) = self.rows().grants.get_mut(&id.key.user) {
            row.tokens.retain(|(of, token, _)| of.as_ref() != role || token.version != version);
        }
        Ok(())
    }

    async fn imported_as(&self, _: &ServiceName, _: Digest) -> Result<Option<Grant>, StoreError> {
        Ok(None)
    }

    async fn add_candidate(&self, _: &GrantId, _: &Candidate, _: Timestamp) -> Result<bool, StoreError> {
        not_here()
    }

    async fn abandoned(&self) -> Result<Vec<GrantId>, StoreError> {
        Ok(Vec::new())
    }

    async fn promote(&self, _: &GrantId, _: &UserName) -> Result<bool, StoreError> {
        not_here()
    }

    async fn drop_candidate(&self, _: &GrantId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ensure_client_grant(&self, _: &GrantId, _: &str, _: Timestamp) -> Result<(), StoreError> {
        not_here()
    }

    async fn revoke(&self, _: &GrantId, _: &GrantKey, _: Timestamp) -> Result<Tombstone, StoreError> {
        not_here()
    }

    async fn to_revoke(&self) -> Result<Vec<GrantKey>, StoreError> {
        Ok(Vec::new())
    }

    async fn revocations(&self, _: &GrantKey) -> Result<Vec<PendingRevocation>, StoreError> {
        Ok(Vec::new())
    }

    async fn revoked_since(&self, _: &ServiceName, _: Digest) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn revoked(&self, _: &GrantKey, _: Digest) -> Result<(), StoreError> {
        Ok(())
    }

    async fn candidates(&self) -> Result<Vec<GrantId>, StoreError> {
        Ok(Vec::new())
    }

    async fn erase(&self, _: &GrantKey) -> Result<bool, StoreError> {
        not_here()
    }

    async fn in_use(&self, since: Timestamp) -> Result<Vec<InUse>, StoreError> {
        let rows = self.rows();
        let living = rows.grants.iter().filter(|(_, row)| row.state == GrantState::Active);
        let tokens = living.flat_map(|(user, row)| row.tokens.iter().map(move |token| (user, token)));
        let in_use = tokens.filter(|(_, (.., asked_at))| *asked_at >= since);
        let in_use = in_use.map(|(user, (role, token, asked_at))| InUse {
            key: TokenKey {
                grant: GrantKey { service: self.service.clone(), user: user.clone() },
                role: role.clone(),
            },
            issued: token.issued,
            version: token.version,
            asked_at: *asked_at,
        });
        Ok(in_use.collect())
    }

    async fn unused(
        &self,
        _: &ServiceName,
        before: Timestamp,
        after: Option<&Unused>,
        limit: u32,
    ) -> Result<Vec<Unused>, StoreError> {
        let start =
            after.map_or(Bound::Unbounded, |after| Bound::Excluded((after.since, after.user.clone())));
        let rows = self.rows();
        let idle = rows.by_refresh.range((start, Bound::Unbounded)).take_while(|(since, _)| *since < before);
        let idle =
            idle.take(limit as usize).map(|(since, user)| Unused { user: user.clone(), since: *since });
        Ok(idle.collect())
    }

    async fn newest(&self, id: &GrantId) -> Result<Option<Newest>, StoreError> {
        let rows = self.rows();
        let row = rows.grants.get(&id.key.user).filter(|row| row.is_idle());
        Ok(row.map(|row| Newest { refresh_token: row.refresh_token.clone(), version: row.version }))
    }

    async fn note_expiry(&self, _: &GrantId, _: Expiry) -> Result<(), StoreError> {
        Ok(())
    }

    async fn note_consent(&self, _: &GrantId, _: &Scope, _: Option<&str>) -> Result<(), StoreError> {
        not_here()
    }

    async fn roles_had(&self, _: &[GrantKey]) -> Result<Vec<(GrantKey, RoleName)>, StoreError> {
        not_here()
    }

    async fn note_uses(&self, _: &[(GrantKey, LastUse)]) -> Result<(), StoreError> {
        not_here()
    }

    async fn last_uses(&self, _: &[GrantKey]) -> Result<Vec<(GrantKey, LastUse)>, StoreError> {
        not_here()
    }

    async fn earliest_expiries(&self) -> Result<Vec<(ServiceName, Timestamp)>, StoreError> {
        Ok(Vec::new())
    }

    async fn spill(&self, _: &GrantId, _: i64, _: &Commit) -> Result<(), StoreError> {
        not_here()
    }

    async fn close(&self) {}
}
