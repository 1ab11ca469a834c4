//! The refresh token of a consent that was just redeemed becomes a grant once it is known whose it is.
//!
//! It is put down before anything is asked about it, like one that is handed in (import.rs). What does not become a grant
//! is revoked at its server, for nobody would ever use it; but only where that leaves the user's other consents alone.

use std::sync::Arc;

use crate::authorization_server::AuthorizationServer;
use crate::fail_point;
use crate::model::{Failure, Grant, GrantId, GrantKey, GrantState, Scope, ServiceName, TokenKey, UserName};
use crate::refresh::fetch::Want;
use crate::refresh::{Door, Engine, Inner, SHORTLY, store_failure};
use crate::secret::Secret;
use crate::store::{Candidate, StoreError};

/// What a consent has brought.
pub struct Consented {
    /// What is kept of it.
    pub refresh_token: Secret,
    /// The issuer and client that it belongs to.
    pub registration: String,
    /// What it covers.
    pub granted: Scope,
}

/// Whose it is.
pub struct Proven {
    /// As the service knows them.
    pub user: UserName,
    /// As the authorization server does, for good.
    pub subject: String,
}

impl Engine {
    /// An authorization server as it is configured now, for whoever asks for consents.
    #[must_use]
    pub fn authorization_server(&self, name: &str) -> Option<Arc<dyn AuthorizationServer>> {
        self.0.in_use.load().doors.get(name).map(|door| Arc::clone(&door.server))
    }

    /// Whether a consent may be redeemed now. They wait for nobody, so that a storm of refreshes keeps no user from connecting;
    /// and there are only so many, since anybody may begin one, so that they keep no refresh from its place.
    #[must_use]
    pub fn admits_consent(&self, authorization_server: &str) -> bool {
        let now = self.0.parts.clock.now();
        let door = self.0.in_use.load().doors.get(authorization_server).cloned();
        door.is_some_and(|door| door.gate.limited_for(&now).is_none() && door.budget.take_consent(&now))
    }

    /// Counts a question about a consent that is timed by what the server says; or, while the server wants none, says so.
    #[must_use]
    pub fn counts_question(&self, authorization_server: &str) -> bool {
        let now = self.0.parts.clock.now();
        let door = self.0.in_use.load().doors.get(authorization_server).cloned();
        door.filter(|door| door.gate.limited_for(&now).is_none())
            .map(|door| door.budget.count(&now))
            .is_some()
    }

    /// Makes what a user has consented to the grant of the one whom `proof` names. Durable before `proof` begins; the work
    /// goes on if the caller leaves. A first access token is fetched behind the caller's back.
    ///
    /// # Errors
    /// What `proof` says, and what goes wrong on the way; what was consented to is given back then.
    pub async fn adopt<E>(
        &self,
        service: &ServiceName,
        consented: Consented,
        proof: impl Future<Output = Result<Proven, E>> + Send + 'static,
    ) -> Result<Grant, E>
    where
        E: From<Failure> + Send + 'static,
    {
        let (inner, service) = (Arc::clone(&self.0), service.clone());
        let adoption = async move { inner.adopt(&service, consented, proof).await };
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
        consented: Consented,
        proof: impl Future<Output = Result<Proven, E>>,
    ) -> Result<Grant, E> {
        let failed = |error| E::from(store_failure(&error));
        let service = self.service(service)?;
        let door = self.door(&service)?;
        let Consented { refresh_token, registration, granted } = consented;
        let candidate = GrantId::candidate(service.name.clone(), refresh_token.digest());
        let _own_turn = self.turns.take(&candidate).await;
        let (store, now) = (&self.parts.store, self.parts.clock.now().wall);
        let consented = Candidate { refresh_token, registration: registration.clone(), consented: true };
        if let Err(error) = store.add_candidate(&candidate, &consented, now).await {
            // Nothing but this knows of it: what its server is not told of now is alive there until it lapses.
            if door.server.revokes_alone() && door.server.registration() == registration {
                let revocation = door.server.revoke(&consented.refresh_token).await;
                tracing::error!(?revocation, "a consent that can't be written down is given back");
            }
            tracing::error!(%error, "a consent can't be written down");
            return Err(failed(error));
        }
        fail_point::reached("consented");
        let Proven { user, subject } = match proof.await {
            Ok(proven) => proven,
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
        if let Err(failure) = self.may_become(&current, &registration, &subject, &door).await {
            self.give_back(&candidate).await;
            return Err(failure.into());
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
        if let Err(error) = store.note_consent(&current, &granted, Some(&subject)).await {
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

    /// Whether this consent may take the place of what is there.
    async fn may_become(
        &self,
        current: &GrantId,
        registration: &str,
        subject: &str,
        door: &Door,
    ) -> Result<(), Failure> {
        let store = &self.parts.store;
        if door.server.registration() != registration {
            let hint = "the configuration has changed while the user signed in: let the user connect again";
            return Err(Failure::Refused { error: "wrong_authorization_server".to_owned(), hint });
        }
        let there = store.grant(current).await.map_err(|error| store_failure(&error))?;
        let there =
            there.filter(|grant| grant.state == GrantState::Active && grant.registration == registration);
        if there.and_then(|grant| grant.subject).is_some_and(|known| known != subject) {
            tracing::error!(grant = %current.key, "another account of the authorization server goes by this name now");
            let hint = "another account of the authorization server has connected under this name, and its grant lives: if \
                        the name has changed hands, revoke that grant first (bursar grant revoke)";
            return Err(Failure::Refused { error: "another_account".to_owned(), hint });
        }
        if !door.server.revokes_alone() {
            // Told of the earlier consent now, it might end this one.
            for pending in store.revocations(&current.key).await.map_err(|error| store_failure(&error))? {
                tracing::warn!(grant = %current.key, "connected again before its server was told of a revocation; it is not told any more");
                let forgotten = store.revoked(&current.key, pending.refresh_token.digest()).await;
                forgotten.map_err(|error| store_failure(&error))?;
            }
        }
        Ok(())
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

    /// Nobody will use it: its server is told so, as of any other that is revoked; unless that might end what the same user has
    /// consented to before.
    async fn give_back(&self, candidate: &GrantId) {
        let (store, now) = (&self.parts.store, self.parts.clock.now().wall);
        let alone = self.service(&candidate.key.service).and_then(|service| self.door(&service));
        let done = if alone.is_ok_and(|door| door.server.revokes_alone()) {
            store.revoke(candidate, &candidate.key, now).await.map(drop)
        } else {
            tracing::info!(service = %candidate.key.service, "a consent that came to nothing is left to lapse");
            store.drop_candidate(candidate).await
        };
        match done {
            Ok(()) => self.revoking.wake(),
            Err(error) => tracing::error!(%error, "a consent that came to nothing is not given back"),
        }
    }
}
