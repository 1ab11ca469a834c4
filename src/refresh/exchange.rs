//! One exchange of a grant's refresh token, from the lease to durable: design 2, and what to do when it is in doubt.

use std::time::Duration;

use crate::authorization_server::{Exchange, Introspection, Misconfiguration, Refusal, Tokens};
use crate::clock::{Moment, Timestamp};
use crate::fail_point;
use crate::jwt;
use crate::model::{
    EndReason, Failure, GrantId, GrantState, Issued, Reference, RoleName, Rotation, SameOrNew, Scope, Service,
};
use crate::refresh::admission::Leave;
use crate::refresh::gate::back_off;
use crate::refresh::plan::{Plan, most_tries, plan};
use crate::refresh::{Door, Inner, SHORTLY, store_failure};
use crate::store::{Attempt, Begun, Commit, Committed, Lease, Settled, StoredToken};

/// Between two presentations of a token whose last one is in doubt.
const BETWEEN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// How often one flight takes the lease; presentations are bounded by the plan.
const MOST_ROUNDS: u32 = 64;

/// What an answer answers.
struct Asked<'a> {
    service: &'a Service,
    role: Option<&'a RoleName>,
    scope: &'a Scope,
    /// When somebody asked for this token last.
    at: Timestamp,
    requested_at: Moment,
    reference: Reference,
}

/// What comes next for an attempt.
enum Step {
    Present,
    PresentOnce,
    BeginAnew,
}

impl Inner {
    /// The answer's access token, durable and not verified yet. The caller has the grant's turn.
    pub(super) async fn exchange(
        &self,
        id: &GrantId,
        service: &Service,
        role: Option<&RoleName>,
        leave: Leave,
    ) -> Result<StoredToken, Failure> {
        if self.unsaved.holds(id) {
            // The newest refresh token is in memory alone; the one in the store is used up.
            return Err(Failure::StoreUnavailable { retry_after: SHORTLY });
        }
        let door = self.door(service)?;
        let scope = service.scope(role).ok_or_else(|| Failure::Internal("no such role".to_owned()))?;
        let urgent = self.look_at(id, service, &door).await?;
        if self.parts.tasks.is_stopping() && !urgent {
            return Err(Failure::ServerUnavailable { retry_after: SHORTLY });
        }
        let _entered = self.enter(id, &door, urgent, leave).await?;
        let lease = Lease { owner: self.parts.owner.clone(), duration: self.in_use.load().lease };
        let (mut tries, mut asked_in_vain, mut secret_reloaded) = (0, false, false);
        for _ in 0..MOST_ROUNDS {
            let begun = self.parts.clock.now();
            let attempt = self.begin(id, service, &lease).await?;
            fail_point::reached("leased");
            if tries >= most_tries(attempt.rotation, &door.recovery) {
                self.settle(id, &attempt, Settled::InDoubt).await?;
                return Err(Failure::ServerUnavailable { retry_after: SHORTLY });
            }
            match self.may_present(id, service, &door, &attempt, asked_in_vain).await? {
                Step::Present => {}
                Step::PresentOnce => asked_in_vain = true,
                Step::BeginAnew => continue,
            }
            let requested_at = self.parts.clock.now();
            let left = requested_at.since(&begun).and_then(|age| lease.duration.checked_sub(age));
            if left.is_none_or(|left| left < door.recovery.deadline) {
                tracing::debug!(grant = %id.key, "the lease would end before the request's deadline; taken again");
                self.settle_unchanged(id, &attempt).await?;
                continue;
            }
            tries += 1;
            fail_point::reached("before_exchange");
            let reply = self.present(id, &door, service, role, &attempt, &scope).await;
            fail_point::reached("answered");
            self.learn(&door, &service.authorization_server);
            match reply.exchange {
                Exchange::Answered(tokens) => {
                    door.gate.opened();
                    let (at, reference) = (self.asked_at(id, role, leave), reply.reference);
                    let asked = Asked { service, role, scope: &scope, at, requested_at, reference };
                    return self.keep(id, asked, &attempt, *tokens).await;
                }
                Exchange::NotSent(why) => {
                    tracing::warn!(grant = %id.key, %why, "not sent");
                    door.gate.unanswered(&self.parts.clock.now(), self.parts.entropy.below(1000));
                    self.settle_unchanged(id, &attempt).await?;
                    return Err(Failure::ServerUnavailable { retry_after: SHORTLY });
                }
                Exchange::Refused(Refusal::InvalidGrant) if !service.has_users() => {
                    // There is no grant that could be over: the server takes the client for something else.
                    self.settle_unchanged(id, &attempt).await?;
                    let hint = "the authorization server takes a request for client credentials for one with a grant: is \
                                Client Credentials switched on under Grant type in the app integration's General tab in Okta?";
                    let why = Misconfiguration { error: "invalid_grant".to_owned(), hint };
                    return Err(self.refused(&door, service, &why));
                }
                Exchange::Refused(Refusal::InvalidGrant) => {
                    return Err(self.ended(id, service, &attempt).await?);
                }
                Exchange::Refused(Refusal::RateLimited { retry_after }) => {
                    door.gate.limited(&self.parts.clock.now(), retry_after, self.parts.entropy.below(1000));
                    self.settle_unchanged(id, &attempt).await?;
                    return Err(Failure::ServerUnavailable { retry_after });
                }
                Exchange::Refused(Refusal::Configuration(why)) => {
                    self.settle_unchanged(id, &attempt).await?;
                    if why.error == "invalid_client"
                        && !secret_reloaded
                        && door.server.reload_client_secret().await
                    {
                        tracing::info!(
                            authorization_server = service.authorization_server,
                            "the client secret has changed; trying the new one"
                        );
                        secret_reloaded = true;
                        door.budget.count(&self.parts.clock.now());
                        continue;
                    }
                    return Err(self.refused(&door, service, &why));
                }
                Exchange::InDoubt(why) => {
                    tracing::warn!(grant = %id.key, %why, tries, "in doubt whether the refresh token was used up");
                    if service.has_users() {
                        // However this flight ends, somebody goes on until it is known.
                        self.pursue(id);
                    }
                    if tries == 1 {
                        door.gate.doubtful(&self.parts.clock.now(), self.parts.entropy.below(1000));
                    }
                    let jitter = 500 + self.parts.entropy.below(500);
                    tokio::time::sleep(back_off(tries, BETWEEN, jitter)).await;
                    self.pace(id, &door).await;
                    door.budget.count(&self.parts.clock.now());
                }
            }
        }
        tracing::error!(grant = %id.key, "the lease ends before a request can be sent, again and again: is the disk slow?");
        Err(Failure::ServerUnavailable { retry_after: SHORTLY })
    }

    /// Whether the row's exchange is in doubt inside its leeway, which can't wait.
    ///
    /// # Errors
    /// If there is nothing to exchange, or it belongs to another server or client, which must never see it.
    async fn look_at(&self, id: &GrantId, service: &Service, door: &Door) -> Result<bool, Failure> {
        let grant = self.parts.store.grant(id).await.map_err(|error| store_failure(&error))?;
        let Some(grant) = grant else {
            return Err(Failure::LoginRequired { reason: EndReason::NeverConnected, since: None });
        };
        if let GrantState::Ended { reason, since } = grant.state {
            self.drop_cached(id, service);
            return Err(Failure::LoginRequired { reason, since: Some(since) });
        }
        if grant.registration != door.server.registration() {
            tracing::error!(
                grant = %id.key, belongs_to = grant.registration, configured = door.server.registration(),
                "the grant belongs to another authorization server or client than is configured"
            );
            let hint = "this grant was given to another client, or by another authorization server, than the service is \
                        configured with now: put the configuration right, or let the user connect again";
            return Err(Failure::Refused { error: "wrong_authorization_server".to_owned(), hint });
        }
        self.ask_when_it_ends(&grant, door, id.candidate.is_some());
        let Some(since) = grant.in_doubt_since else { return Ok(false) };
        if !service.has_users() {
            // Whatever became of it, nothing of the client's was used up.
            return Ok(false);
        }
        self.pursue(id);
        let plan = plan(grant.rotation, Some(&since), &self.parts.clock.now(), &door.recovery);
        Ok(grant.rotation != Rotation::Persistent && plan != Plan::AskFirst)
    }

    /// The row is ours, and what we are about to do is written down.
    async fn begin(&self, id: &GrantId, service: &Service, lease: &Lease) -> Result<Attempt, Failure> {
        // Bounded: another process's lease ends, and here only one process owns the store.
        loop {
            let now = self.parts.clock.now();
            match self.parts.store.begin(id, lease, &now).await.map_err(|error| store_failure(&error))? {
                Begun::Attempt(attempt) => return Ok(attempt),
                Begun::Held(left) => tokio::time::sleep(left.min(Duration::from_millis(200))).await,
                Begun::Ended(reason, since) => {
                    self.drop_cached(id, service);
                    return Err(Failure::LoginRequired { reason, since: Some(since) });
                }
                Begun::Missing => {
                    return Err(Failure::LoginRequired { reason: EndReason::NeverConnected, since: None });
                }
            }
        }
    }

    /// Whether the refresh token may be presented now. With `asked_in_vain`, it was presented without an answer to that
    /// question already.
    async fn may_present(
        &self,
        id: &GrantId,
        service: &Service,
        door: &Door,
        attempt: &Attempt,
        asked_in_vain: bool,
    ) -> Result<Step, Failure> {
        let doubt = attempt.in_doubt.then_some(&attempt.since);
        match plan(attempt.rotation, doubt, &self.parts.clock.now(), &door.recovery) {
            Plan::Present => return Ok(Step::Present),
            Plan::Wait(wait) => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => return Ok(Step::BeginAnew),
                    () = self.parts.tasks.stopping() => {}
                }
            }
            Plan::AskFirst => match self.introspect(door, &attempt.refresh_token).await {
                Introspection::Active { .. } => {
                    tracing::info!(grant = %id.key, "the server says that the refresh token was not used up");
                    self.settle(id, attempt, Settled::Unchanged { in_doubt_since: None }).await?;
                    return Ok(Step::BeginAnew);
                }
                Introspection::Inactive => {
                    return Err(self.end(id, service, attempt, EndReason::Lost).await?);
                }
                Introspection::NotOffered if !asked_in_vain => {
                    // Not to try would lose the grant for certain (design 1.3).
                    tracing::warn!(grant = %id.key, "the server can't say whether the refresh token was used up; presenting it once more");
                    return Ok(Step::PresentOnce);
                }
                Introspection::NotOffered => {}
                Introspection::Failed(why) => {
                    tracing::warn!(grant = %id.key, %why, "the server does not say whether the refresh token was used up");
                }
            },
        }
        self.settle(id, attempt, Settled::InDoubt).await?;
        Err(Failure::ServerUnavailable { retry_after: SHORTLY })
    }

    /// Durable before anything else: neither verified nor looked at closer until it is on disk.
    async fn keep(
        &self,
        id: &GrantId,
        asked: Asked<'_>,
        attempt: &Attempt,
        tokens: Tokens,
    ) -> Result<StoredToken, Failure> {
        let rotated = tokens
            .refresh_token
            .as_ref()
            .map(|token| if *token == attempt.refresh_token { SameOrNew::Same } else { SameOrNew::New });
        let is_bearer = tokens.token_type.eq_ignore_ascii_case("bearer");
        let mut answer = Commit {
            refresh_token: tokens.refresh_token,
            rotation: attempt.rotation.learn(rotated),
            role: asked.role.cloned(),
            scope: tokens.scope.unwrap_or_else(|| asked.scope.clone()),
            issued: self.life_of(&tokens.access_token, tokens.expires_in, asked.requested_at),
            access_token: tokens.access_token,
            now: self.parts.clock.now().wall,
            asked_at: asked.at,
        };
        if !is_bearer {
            // The refresh token counts all the same; the access token must never get out.
            answer.issued.expires_in = Duration::ZERO;
        }
        let committed = self.parts.store.commit(id, attempt.version, &answer).await;
        let result = match &committed {
            Ok(Committed::Done(_)) if is_bearer => "ok",
            Ok(Committed::Done(_)) => "token_invalid",
            Ok(Committed::Revoked) => "revoked",
            Ok(Committed::Superseded) => "superseded",
            Err(_) => "store_unavailable",
        };
        self.record_refresh(id, asked.service, asked.role, (result, &answer.access_token), asked.reference);
        let version = match committed {
            Ok(Committed::Done(version)) => {
                fail_point::reached("committed");
                version
            }
            Ok(Committed::Revoked) => {
                self.revoking.wake();
                let since = Some(self.parts.clock.now().wall);
                return Err(Failure::LoginRequired { reason: EndReason::Revoked, since });
            }
            Ok(Committed::Superseded) => {
                tracing::error!(grant = %id.key, "the grant was replaced while its refresh was under way");
                return Err(Failure::ServerUnavailable { retry_after: SHORTLY });
            }
            Err(error) => {
                tracing::error!(grant = %id.key, %error, "a new refresh token can't be written");
                self.unsaved.keep(id.clone(), attempt.version, answer);
                return Err(Failure::StoreUnavailable { retry_after: SHORTLY });
            }
        };
        if !is_bearer {
            let hint = "the token is not a bearer token: the client demands DPoP, which no data driver speaks; switch \
                        off `Require DPoP` in the app integration's General tab in Okta";
            return Err(Failure::TokenInvalid { hint: hint.to_owned() });
        }
        tracing::info!(grant = %id.key, role = ?asked.role, version, "refreshed");
        Ok(StoredToken {
            token: answer.access_token,
            scope: answer.scope,
            issued: answer.issued,
            verified: None,
            version,
        })
    }

    fn life_of(&self, token: &crate::secret::Secret, expires_in: Duration, requested_at: Moment) -> Issued {
        // `exp` can only shorten a life: it is not verified yet.
        let by_claim = jwt::claimed_expiry(token).map(|expiry| requested_at.wall.until(expiry));
        let expires_in = by_claim.map_or(expires_in, |claimed| claimed.min(expires_in));
        let life = self.in_use.load().life;
        let drawn = || {
            let spread = u32::try_from(self.parts.entropy.below(1001)).unwrap_or(0);
            life.refresh_after(expires_in, spread)
        };
        // Of a few draws the one when least else is due: so that what came together, after an outage say, parts ways for good.
        let draws = [drawn(), drawn(), drawn()];
        let crowd = |after: &Duration| self.schedule().crowd(requested_at.boot + *after);
        let refresh_after = draws.into_iter().min_by_key(crowd).unwrap_or_default();
        Issued { requested_at, expires_in, refresh_after }
    }

    /// `invalid_grant` for the newest refresh token.
    async fn ended(&self, id: &GrantId, service: &Service, attempt: &Attempt) -> Result<Failure, Failure> {
        let used_up_unseen = attempt.in_doubt && attempt.rotation != Rotation::Persistent;
        let grant = self.parts.store.grant(id).await.map_err(|error| store_failure(&error))?;
        let over = grant.is_some_and(|grant| grant.ends_before(self.parts.clock.now().wall.plus(SHORTLY)));
        let reason = match (over, used_up_unseen) {
            (true, _) => EndReason::Expired,
            (false, true) => EndReason::Lost,
            (false, false) => EndReason::Revoked,
        };
        self.end(id, service, attempt, reason).await
    }

    async fn end(
        &self,
        id: &GrantId,
        service: &Service,
        attempt: &Attempt,
        reason: EndReason,
    ) -> Result<Failure, Failure> {
        let since = self.parts.clock.now().wall;
        if !self.settle(id, attempt, Settled::Ended(reason, since)).await? {
            // Somebody else's success: what was refused is no longer the newest token.
            return Ok(Failure::ServerUnavailable { retry_after: SHORTLY });
        }
        tracing::warn!(grant = %id.key, %reason, "the grant has ended; its user must connect again");
        self.record_end(id, reason);
        self.drop_cached(id, service);
        self.recount.notify_one();
        self.news.notify_one();
        Ok(Failure::LoginRequired { reason, since: Some(since) })
    }

    fn refused(&self, door: &Door, service: &Service, why: &Misconfiguration) -> Failure {
        let failure = Failure::Refused { error: why.error.clone(), hint: why.hint };
        // A client that may not ask for itself may well ask for its users.
        let everybody = why.concerns_client() && (service.has_users() || why.error == "invalid_client");
        if everybody {
            door.gate.refused(&self.parts.clock.now(), failure.clone());
        } else {
            // It answered: what is wrong concerns this token alone.
            door.gate.opened();
        }
        failure
    }

    async fn settle_unchanged(&self, id: &GrantId, attempt: &Attempt) -> Result<(), Failure> {
        let in_doubt_since = attempt.in_doubt.then_some(attempt.since);
        self.settle(id, attempt, Settled::Unchanged { in_doubt_since }).await.map(drop)
    }

    async fn settle(&self, id: &GrantId, attempt: &Attempt, outcome: Settled) -> Result<bool, Failure> {
        self.parts.store.settle(id, attempt.version, &outcome).await.map_err(|error| store_failure(&error))
    }
}
