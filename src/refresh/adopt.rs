//! The refresh token of a consent that was just redeemed becomes a grant once it is known whose it is.
//!
//! It is put down before anything is asked about it, like one that is handed in (import.rs). What does not become a grant
//! is revoked at its server, for nobody would ever use it.

use std::sync::Arc;

use crate::authorization_server::AuthorizationServer;
use crate::fail_point;
use crate::model::{Failure, Grant, GrantId, GrantKey, Scope, ServiceName, TokenKey, UserName};
use crate::refresh::fetch::Want;
use crate::refresh::{Engine, Inner, SHORTLY, store_failure};
use crate::secret::Secret;
use crate::store::{Candidate, StoreError};

impl Engine {
    /// An authorization server as it is configured now, for whoever asks for consents. They count against its budget and
    /// wait for nobody: a storm of refreshes must not keep users from connecting.
    #[must_use]
    pub fn consulted(&self, name: &str) -> Option<Arc<dyn AuthorizationServer>> {
        let door = self.0.in_use.load().doors.get(name).cloned()?;
        door.budget.count(&self.0.parts.clock.now());
        Some(Arc::clone(&door.server))
    }

    /// Makes `refresh_token`, which covers `granted`, the grant of the user that `proof` names. Durable before `proof`
    /// begins; the work goes on if the caller leaves. A first access token is fetched behind the caller's back.
    ///
    /// # Errors
    /// What `proof` says, and what goes wrong on the way; the refresh token is revoked then.
    pub async fn adopt<E>(
        &self,
        service: &ServiceName,
        refresh_token: Secret,
        granted: Scope,
        proof: impl Future<Output = Result<UserName, E>> + Send + 'static,
    ) -> Result<Grant, E>
    where
        E: From<Failure> + Send + 'static,
    {
        let (inner, service) = (Arc::clone(&self.0), service.clone());
        let adoption = async move { inner.adopt(&service, refresh_token, &granted, proof).await };
        let adopted = self.0.parts.tasks.spawn(adoption).await;
        let grant = adopted.unwrap_or_else(|error| Err(Failure::Internal(error.to_string()).into()))?;
        // Proves at once that it can be refreshed, and nobody has to wait for that later.
        let key = TokenKey { grant: grant.key.clone(), role: None };
        drop(self.join(&key, Want::Newer(None)));
        Ok(grant)
    }
}

impl Inner {
    async fn adopt<E: From<Failure>>(
        &self,
        service: &ServiceName,
        refresh_token: Secret,
        granted: &Scope,
        proof: impl Future<Output = Result<UserName, E>>,
    ) -> Result<Grant, E> {
        let failed = |error| E::from(store_failure(&error));
        let service = self.service(service)?;
        let door = self.door(&service)?;
        let candidate = GrantId::candidate(service.name.clone(), refresh_token.digest());
        let _own_turn = self.turns.take(&candidate).await;
        let (store, now) = (&self.parts.store, self.parts.clock.now().wall);
        let registration = door.server.registration();
        let consented = Candidate { refresh_token, registration, consented: true };
        if let Err(error) = store.add_candidate(&candidate, &consented, now).await {
            // Nothing but this knows of it: if its server can't be told now, it is alive there until it lapses.
            let revocation = door.server.revoke(&consented.refresh_token).await;
            tracing::error!(%error, ?revocation, "a consent can't be written down; its refresh token is given back");
            return Err(failed(error));
        }
        fail_point::reached("consented");
        let user = match proof.await {
            Ok(user) => user,
            Err(error) => {
                self.give_back(&candidate).await;
                return Err(error);
            }
        };
        let key = GrantKey { service: service.name.clone(), user };
        let current = GrantId::current(key.clone());
        let _turn = self.turns.take(&current).await;
        if self.unsaved.holds(&current) {
            self.give_back(&candidate).await;
            return Err(Failure::StoreUnavailable { retry_after: SHORTLY }.into());
        }
        match store.promote(&candidate, &key.user).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(Failure::Internal("a consent is gone right after it was given".to_owned()).into());
            }
            Err(error) => {
                // If the store does not take this either, the next start does it.
                self.give_back(&candidate).await;
                return Err(failed(error));
            }
        }
        fail_point::reached("adopted");
        // Only shown: not worth a consent.
        if let Err(error) = store.note_granted_scope(&current, granted).await {
            tracing::warn!(grant = %key, %error, "what was granted is not written down");
        }
        self.drop_cached(&current, &service);
        self.recount.notify_one();
        let grant = store.grant(&current).await.map_err(failed)?;
        let grant =
            grant.ok_or_else(|| Failure::Internal("a grant is gone right after its consent".to_owned()))?;
        self.ask_when_it_ends(&grant, &door, false);
        tracing::info!(grant = %key, %granted, "connected");
        Ok(grant)
    }

    /// What became of consents that the last process was about to make grants of: nobody has heard of them, and whose they
    /// are is not known. What was handed in stays: who has it may hand it in again.
    pub(super) async fn give_back_abandoned(&self) -> Result<(), StoreError> {
        for candidate in self.parts.store.abandoned().await? {
            tracing::warn!(service = %candidate.key.service, "a consent was left half-way when the last process ended; it is given back");
            self.give_back(&candidate).await;
        }
        Ok(())
    }

    /// Nobody will use it: its server is told so, as of any other that is revoked.
    async fn give_back(&self, candidate: &GrantId) {
        let now = self.parts.clock.now().wall;
        match self.parts.store.revoke(candidate, &candidate.key, now).await {
            Ok(_) => self.revoking.wake(),
            Err(error) => tracing::error!(%error, "a consent that came to nothing is not revoked"),
        }
    }
}
