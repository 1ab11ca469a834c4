//! Asks authorization servers about grants: whether those in use still live, where that is wanted (`liveness`), and when they
//! end by themselves. Always with the grant's turn, so that no refresh rotates the token that is asked about.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::authorization_server::Introspection;
use crate::cache::Usage;
use crate::clock::Moment;
use crate::model::{EndReason, Expiry, Failure, Grant, GrantId, GrantKey, Issued, Service, TokenKey};
use crate::refresh::budget::Background;
use crate::refresh::setup::{Door, InUse};
use crate::refresh::timers::Timers;
use crate::refresh::{Engine, Inner, store_failure};
use crate::secret::Secret;
use crate::store::Settled;

/// Between two tries to ask, while the server does not answer. Meanwhile grants are taken to live: an outage must not end
/// what outlives it.
const RETRY: Duration = Duration::from_secs(30);
/// When it ends is asked once a day at most.
const A_DAY: Duration = Duration::from_hours(24);
/// A grant that ends so soon after it should be warned of is asked about again: some servers move the end at each use.
const SOON: Duration = Duration::from_hours(7 * 24);
/// What is asked is spread over this time.
const SPREAD: u64 = 10_000;

/// What is to be asked, and when.
pub(super) struct Checks {
    timers: Mutex<Timers<(GrantKey, About)>>,
    /// Whose end was asked for lately.
    asked: Cache<GrantKey, ()>,
}

/// What about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum About {
    Life,
    End,
}

impl Default for Checks {
    fn default() -> Self {
        let asked = Cache::builder().max_capacity(100_000).time_to_live(A_DAY).build();
        Self { timers: Mutex::default(), asked }
    }
}

impl Checks {
    fn timers(&self) -> std::sync::MutexGuard<'_, Timers<(GrantKey, About)>> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// How long before a grant ends by itself that is said.
    #[must_use]
    pub fn warn_before(&self) -> Duration {
        self.0.warn_before()
    }

    /// Makes sure that the grant lives, as far as its server can be asked, so that its token may be handed out.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn vouch(&self, key: &TokenKey, usage: &Usage) -> Result<(), Failure> {
        let inner = &self.0;
        let id = GrantId::current(key.grant.clone());
        let _turn = inner.turns.take(&id).await;
        if usage.is_vouched_for(&inner.parts.clock.now()) {
            return Ok(());
        }
        let service = inner.service(&key.grant.service)?;
        let door = inner.door(&service)?;
        tokio::time::sleep(door.budget.take(&inner.parts.clock.now())).await;
        inner.check(&id, &service, &door).await
    }
}

impl Inner {
    /// Starts to ask about the grants whose time has come, and says how long there is nothing to ask.
    pub(super) fn check_grants(self: &Arc<Self>, now: &Moment, in_use: &InUse) -> Duration {
        loop {
            let due = self.checks.timers().due(now.boot);
            let Some(((key, about), _)) = due else { break };
            let Some(service) = in_use.services.get(&key.service).cloned() else { continue };
            let Some(door) = in_use.doors.get(&service.authorization_server).cloned() else { continue };
            if about == About::Life && !self.is_asked_for(&key, &service, &door, now) {
                // Whoever asks next waits until the server has been asked.
                continue;
            }
            let may = door.gate.has_room(now);
            if let Err(wait) = may.and_then(|()| door.budget.take_in_background(now, Background::InUse)) {
                let at = now.boot + wait.max(Duration::from_secs(1));
                self.checks.timers().set((key, about), at);
                continue;
            }
            let inner = Arc::clone(self);
            self.parts.tasks.spawn(async move {
                let id = GrantId::current(key);
                let _turn = inner.turns.take(&id).await;
                let _told = inner.check(&id, &service, &door).await;
            });
        }
        let next = self.checks.timers().next();
        next.map_or(Duration::MAX, |next| next.saturating_sub(now.boot))
    }

    /// Whether somebody asked for one of the grant's tokens since its server was asked last.
    fn is_asked_for(&self, grant: &GrantKey, service: &Service, door: &Door, now: &Moment) -> bool {
        let since = now.boot.saturating_sub(door.liveness.unwrap_or_default());
        self.usages(grant, service).iter().any(|usage| usage.asked().is_some_and(|asked| asked >= since))
    }

    fn usages(&self, grant: &GrantKey, service: &Service) -> Vec<Arc<Usage>> {
        let roles = std::iter::once(None).chain(service.roles.keys().map(|role| Some(role.clone())));
        let keys = roles.map(|role| TokenKey { grant: grant.clone(), role });
        keys.filter_map(|key| self.parts.cache.get(&key).map(|token| Arc::clone(&token.usage))).collect()
    }

    /// A token has come: an exchange shows that its grant lives, and from when the next look is due.
    pub(super) fn vouch(&self, service: &Service, usage: &Usage, issued: &Issued) {
        let liveness = self.door(service).ok().and_then(|door| door.liveness).filter(|_| service.has_users());
        let Some(liveness) = liveness else {
            usage.vouch(Duration::MAX);
            return;
        };
        let now = self.parts.clock.now();
        let age = now.since(&issued.requested_at).unwrap_or(liveness);
        usage.vouch(now.boot + liveness.saturating_sub(age));
    }

    /// Has the server asked about a grant in use once more before what it said last is too old.
    pub(super) fn check_in_time(&self, key: &GrantKey, service: &Service, usage: &Usage) {
        if let Some(liveness) = self.door(service).ok().and_then(|door| door.liveness)
            && usage.is_vouched_for(&self.parts.clock.now())
            && service.has_users()
        {
            self.check_at((key.clone(), About::Life), liveness);
        }
    }

    fn check_at(&self, what: (GrantKey, About), liveness: Duration) {
        let jitter = u32::try_from(self.parts.entropy.below(100)).unwrap_or(0);
        let at = self.parts.clock.now().boot + liveness * (700 + jitter) / 1000;
        self.checks.timers().set_at_latest(what, at);
        self.wake.notify_one();
    }

    /// A grant of which it is not known when it ends, or that seems to end soon: its server is asked, a little later.
    pub(super) fn ask_when_it_ends(&self, grant: &Grant, door: &Door, is_candidate: bool) {
        let soon = self.parts.clock.now().wall.plus(SOON);
        let asks = match grant.expiry {
            Expiry::Unknown => true,
            Expiry::Never => false,
            Expiry::At(end) => end < soon,
        };
        let of_a_user = !is_candidate && !grant.key.user.is_the_client();
        if asks && of_a_user && door.introspects() && !self.checks.asked.contains_key(&grant.key) {
            self.checks.asked.insert(grant.key.clone(), ());
            let wait = Duration::from_millis(1000 + self.parts.entropy.below(SPREAD));
            let at = self.parts.clock.now().boot + wait;
            self.checks.timers().set_at_latest((grant.key.clone(), About::End), at);
            self.wake.notify_one();
        }
    }

    /// Asks; the caller has the grant's turn.
    async fn check(&self, id: &GrantId, service: &Service, door: &Door) -> Result<(), Failure> {
        let (store, asked_at) = (&self.parts.store, self.parts.clock.now());
        let Some(newest) = store.newest(id).await.map_err(|error| store_failure(&error))? else {
            // Over, or in doubt: somebody goes after that.
            return self.unless_ended(id).await.map(drop);
        };
        if self.unsaved.holds(id) {
            // The newest one is in memory alone, and what the store has may be used up.
            return Ok(());
        }
        let vouch = |until: Duration| {
            self.usages(&id.key, service).iter().for_each(|usage| usage.vouch(asked_at.boot + until));
        };
        match self.ask(door, &newest.refresh_token).await {
            Introspection::Active { expires_at } => {
                let expiry = expires_at.map_or(Expiry::Never, Expiry::At);
                let known = store.grant(id).await.map_err(|error| store_failure(&error))?;
                if known.is_some_and(|grant| grant.expiry != expiry) {
                    store.note_expiry(id, expiry).await.map_err(|error| store_failure(&error))?;
                    self.recount.notify_one();
                }
                if let Some(end) = expires_at.filter(|end| *end < asked_at.wall.plus(self.warn_before())) {
                    tracing::warn!(grant = %id.key, %end, "the grant ends soon by itself; its user must connect again");
                }
                if let Some(liveness) = door.liveness {
                    vouch(liveness);
                    self.check_at((id.key.clone(), About::Life), liveness);
                }
                Ok(())
            }
            Introspection::Inactive => {
                let over = store.grant(id).await.map_err(|error| store_failure(&error))?;
                let over = over.is_some_and(|grant| grant.ends_before(asked_at.wall));
                let reason = if over { EndReason::Expired } else { EndReason::Revoked };
                let ended = Settled::Ended(reason, asked_at.wall);
                let settled = store.settle(id, newest.version, &ended).await;
                if !settled.map_err(|error| store_failure(&error))? {
                    // It has moved on: whoever did that knows better.
                    return Ok(());
                }
                tracing::warn!(grant = %id.key, %reason, "the server says that the grant is over; its user must connect again");
                self.drop_cached(id, service);
                self.recount.notify_one();
                Err(Failure::LoginRequired { reason, since: Some(asked_at.wall) })
            }
            Introspection::NotOffered => {
                if door.liveness.is_some() {
                    tracing::error!(
                        authorization_server = service.authorization_server,
                        "liveness is configured, and the server offers no introspection: grants are taken to live"
                    );
                    vouch(A_DAY);
                }
                Ok(())
            }
            Introspection::Failed(why) => {
                tracing::warn!(grant = %id.key, %why, "the server does not say whether the grant lives");
                if let Some(liveness) = door.liveness {
                    let wait = RETRY.min(liveness);
                    vouch(wait);
                    self.check_at((id.key.clone(), About::Life), wait);
                }
                Ok(())
            }
        }
    }

    /// One introspection that is counted in the budget.
    pub(super) async fn introspect(&self, door: &Door, token: &Secret) -> Introspection {
        door.budget.count(&self.parts.clock.now());
        self.ask_whatever(door, token).await
    }

    /// One that has a place in it already.
    async fn ask(&self, door: &Door, token: &Secret) -> Introspection {
        if let Some((_, failure)) = door.gate.shut_for(&self.parts.clock.now()) {
            return Introspection::Failed(format!("it is not asked for now: {}", failure.word()));
        }
        self.ask_whatever(door, token).await
    }

    async fn ask_whatever(&self, door: &Door, token: &Secret) -> Introspection {
        let answer = door.server.introspect(token).await;
        if answer == Introspection::NotOffered {
            door.offers_no_introspection();
        }
        answer
    }

    fn warn_before(&self) -> Duration {
        self.in_use.load().warn_before
    }
}
