//! A refresh token from elsewhere becomes a grant once it has proven whose it is.
//!
//! It is put down before it is presented, like any other, under its own digest: a crash loses nothing, and handing in
//! the same token again takes up what its first presentation brought, instead of presenting it a second time.

use std::sync::Arc;

use crate::authorization_server::Unverified;
use crate::model::{EndReason, Failure, Grant, GrantId, GrantKey, GrantState, Rotation, Service, TokenKey};
use crate::refresh::admission::Leave;
use crate::refresh::{Engine, Inner, SHORTLY, store_failure};
use crate::secret::Secret;
use crate::store::{Candidate, StoredToken};

impl Engine {
    /// Proves `refresh_token` by one exchange for the service's default scopes and makes it the grant of `key`. The work
    /// goes on if the caller leaves.
    ///
    /// # Errors
    /// [`Failure::UserMismatch`] names the true user; the token is kept, and importing it again for that user
    /// takes it up.
    pub async fn import(&self, key: GrantKey, refresh_token: Secret) -> Result<Grant, Failure> {
        let inner = Arc::clone(&self.0);
        let import = self.0.parts.tasks.spawn(async move { inner.import(&key, &refresh_token).await });
        import.await.unwrap_or_else(|error| Err(Failure::Internal(error.to_string())))
    }
}

impl Inner {
    async fn import(&self, key: &GrantKey, refresh_token: &Secret) -> Result<Grant, Failure> {
        let service = self.service(&key.service)?;
        let candidate = GrantId::candidate(key.service.clone(), refresh_token.digest());
        let current = GrantId::current(key.clone());
        // In this order everywhere, so that two imports can't wait for each other.
        let (_own_turn, _turn) = (self.turns.take(&candidate).await, self.turns.take(&current).await);
        if self.unsaved.holds(&current) {
            return Err(Failure::StoreUnavailable { retry_after: SHORTLY });
        }
        if let Some(grant) = self.known(key, refresh_token).await? {
            return Ok(grant);
        }
        let (now, store) = (self.parts.clock.now().wall, &self.parts.store);
        let registration = self.door(&service)?.server.registration();
        let handed_in = Candidate { refresh_token: refresh_token.clone(), registration, consented: false };
        store.add_candidate(&candidate, &handed_in, now).await.map_err(|error| store_failure(&error))?;
        let stored = self.proof(&candidate, &service).await?;
        let token_key = TokenKey { grant: key.clone(), role: None };
        match self.verify(&service, &token_key, Some(&key.user), &stored).await {
            Ok(_verified) => {}
            Err(Unverified::NoKeys(why)) => {
                tracing::warn!(grant = %key, %why, "an import waits to be verified; import the same token again");
                return Err(Failure::ServerUnavailable { retry_after: SHORTLY });
            }
            Err(Unverified::Invalid(crate::jwt::VerifyError::User(user))) => {
                return Err(Failure::UserMismatch { user });
            }
            Err(Unverified::Invalid(error)) => return Err(Failure::TokenInvalid { hint: error.to_string() }),
        }
        if !store.promote(&candidate, &key.user).await.map_err(|error| store_failure(&error))? {
            return Err(Failure::Internal("a proven candidate is gone".to_owned()));
        }
        self.drop_cached(&current, &service);
        self.recount.notify_one();
        if let (Ok(door), Ok(Some(grant))) = (self.door(&service), store.grant(&current).await) {
            self.ask_when_it_ends(&grant, &door, false);
        }
        // What proved the grant is its first token; should it not be had now, the next request asks again.
        let _not_needed = self.recall(&token_key, &service, None).await;
        let grant = store.grant(&current).await.map_err(|error| store_failure(&error))?;
        tracing::info!(grant = %key, "imported");
        grant.ok_or_else(|| Failure::Internal("a grant is gone right after its import".to_owned()))
    }

    /// The grant that became of this very token when it was handed in before. It was used up then, and presented again it
    /// would end that grant; only a persistent one may be, to revive its own.
    async fn known(&self, key: &GrantKey, refresh_token: &Secret) -> Result<Option<Grant>, Failure> {
        let store = &self.parts.store;
        let revoked = store.revoked_since(&key.service, refresh_token.digest()).await;
        if let Some(since) = revoked.map_err(|error| store_failure(&error))? {
            // Its server is yet to be told, and would end the grant that came of it.
            return Err(Failure::LoginRequired { reason: EndReason::Revoked, since: Some(since) });
        }
        let found = store.imported_as(&key.service, refresh_token.digest()).await;
        let Some(grant) = found.map_err(|error| store_failure(&error))? else { return Ok(None) };
        match grant.state {
            _ if grant.key.user != key.user => Err(Failure::UserMismatch { user: grant.key.user }),
            GrantState::Active => Ok(Some(grant)),
            GrantState::Ended { .. } if grant.rotation == Rotation::Persistent => Ok(None),
            GrantState::Ended { reason, since } => Err(Failure::LoginRequired { reason, since: Some(since) }),
        }
    }

    /// The token that tells whose the candidate is: from its first exchange if that took place already.
    async fn proof(&self, candidate: &GrantId, service: &Service) -> Result<StoredToken, Failure> {
        let store = &self.parts.store;
        let stored = store.access_token(candidate, None).await.map_err(|error| store_failure(&error))?;
        if let Some(stored) =
            stored.filter(|token| !token.issued.remaining(&self.parts.clock.now()).is_zero())
        {
            return Ok(stored);
        }
        let result = self.exchange(candidate, service, None, Leave::Granted).await;
        if let Err(Failure::LoginRequired { reason, .. }) = &result
            && ![EndReason::NeverConnected, EndReason::Lost].contains(reason)
        {
            // Worthless; a later try with the same token should hear it from the server again. Not of one that was used up
            // without an answer: presented again it would end its whole login, so its row stays and tells.
            store.drop_candidate(candidate).await.map_err(|error| store_failure(&error))?;
        }
        result
    }
}
