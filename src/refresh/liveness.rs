//! Asks authorization servers about grants: whether those in use still live, where that is wanted (`liveness`), and when they
//! end by themselves. Always with the grant's turn, so that no refresh rotates the token that is asked about.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;

use crate::authorization_server::Introspection;
use crate::cache::Usage;
use crate::clock::Moment;
use crate::model::{EndReason, Expiry, Failure, Grant, GrantId, GrantKey, Issued, Service, TokenKey};
use crate::refresh::admission::Leave;
use crate::refresh::budget::Background;
use crate::refresh::setup::{Door, InUse};
use crate::refresh::timers::Timers;
use crate::refresh::{Engine, Inner, SHORTLY, store_failure};
use crate::secret::Secret;

/// Between two tries to ask, while the server does not answer. Meanwhile grants are taken to live: an outage must not end
/// what outlives it.
const RETRY: Duration = Duration::from_secs(30);
/// While a server is not to be asked, what is to be asked of it is looked at again after this time.
const LATER: Duration = Duration::from_secs(5);
/// What is looked at in one go, and the least pause after that.
const MOST_AT_ONCE: usize = 200;
const SHORT: Duration = Duration::from_millis(50);
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

/// Whether it has a place in the budget.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Taken,
    Needed,
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
    /// What becomes of this key is another grant, which has an end of its own.
    pub(super) fn ask_anew(&self, key: &GrantKey) {
        self.asked.invalidate(key);
    }

    fn timers(&self) -> std::sync::MutexGuard<'_, Timers<(GrantKey, About)>> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// How long before a grant ends by itself that is said.
    #[must_use]
    pub fn warn_before(&self) -> Duration {
        self.0.in_use.load().warn_before
    }

    /// Makes sure that the grant lives, as far as its server can be asked, so that its token may be handed out. The work goes
    /// on if the caller leaves; everybody who waits for the same grant shares it.
    ///
    /// # Errors
    /// If it has ended, or can't be asked about in time.
    pub async fn vouch(&self, key: &TokenKey, usage: &Arc<Usage>) -> Result<(), Failure> {
        let (inner, id, usage) =
            (Arc::clone(&self.0), GrantId::current(key.grant.clone()), Arc::clone(usage));
        let flight = self.0.vouching.join(&key.grant, move || async move {
            let _turn = inner.turns.take(&id).await;
            if usage.is_vouched_for(&inner.parts.clock.now()) {
                return Ok(());
            }
            let service = inner.service(&id.key.service)?;
            let door = inner.door(&service)?;
            inner.check(&id, &service, &door, About::Life, Place::Needed).await
        });
        flight.result().await.unwrap_or(Err(Failure::ServerUnavailable { retry_after: SHORTLY }))
    }
}

impl Inner {
    /// Starts to ask about the grants whose time has come, and says how long there is nothing to ask.
    pub(super) fn check_grants(self: &Arc<Self>, now: &Moment, in_use: &InUse) -> Duration {
        for _ in 0..MOST_AT_ONCE {
            let due = self.checks.timers().due(now.boot);
            let Some(((key, about), _)) = due else {
                let next = self.checks.timers().next();
                return next.map_or(Duration::MAX, |next| next.saturating_sub(now.boot));
            };
            let Some(service) = in_use.services.get(&key.service).cloned() else { continue };
            let Some(door) = in_use.doors.get(&service.authorization_server).cloned() else { continue };
            if about == About::Life && !self.is_asked_for(&key, &service, &door, now) {
                // Whoever asks next waits until the server has been asked.
                continue;
            }
            // While the door is shut nothing is asked: that is no probe's business.
            let may = if door.gate.is_open() { door.gate.has_room(now) } else { Err(LATER) };
            if let Err(wait) = may.and_then(|()| door.budget.take_in_background(now, Background::InUse)) {
                self.checks.timers().set((key, about), now.boot + wait.max(SHORT));
                continue;
            }
            let inner = Arc::clone(self);
            self.parts.tasks.spawn(async move {
                let id = GrantId::current(key);
                let _turn = inner.turns.take(&id).await;
                let _told = inner.check(&id, &service, &door, about, Place::Taken).await;
            });
        }
        SHORT
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
        if let Ok(door) = self.door(service)
            && let Some(liveness) = door.liveness
            && usage.is_vouched_for(&self.parts.clock.now())
            && service.has_users()
        {
            self.check_again(key, &door, liveness);
        }
    }

    fn check_again(&self, key: &GrantKey, door: &Door, wait: Duration) {
        if door.liveness.is_some() {
            let jitter = u32::try_from(self.parts.entropy.below(100)).unwrap_or(0);
            let at = self.parts.clock.now().boot + wait * (700 + jitter) / 1000;
            self.checks.timers().set_at_latest((key.clone(), About::Life), at);
            self.wake.notify_one();
        }
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
    async fn check(
        &self,
        id: &GrantId,
        service: &Service,
        door: &Door,
        about: About,
        place: Place,
    ) -> Result<(), Failure> {
        let (store, asked_at) = (&self.parts.store, self.parts.clock.now());
        let vouch = |until: Duration| {
            self.usages(&id.key, service).iter().for_each(|usage| usage.vouch(asked_at.boot + until));
        };
        let Some(grant) = self.unless_ended(id).await? else {
            return Err(Failure::LoginRequired { reason: EndReason::NeverConnected, since: None });
        };
        if grant.registration != door.server.registration() {
            // Another server's or client's: this one must never see it, and knows nothing of it.
            vouch(RETRY);
            return Ok(());
        }
        let newest = store.newest(id).await.map_err(|error| store_failure(&error))?;
        let newest = newest.filter(|_| !self.unsaved.holds(id) && door.gate.is_open());
        let Some(newest) = newest else {
            // In doubt, or in memory alone, or the server is not to be asked now: taken to live until it can be.
            vouch(RETRY);
            self.check_again(&id.key, door, RETRY);
            return Ok(());
        };
        if place == Place::Needed {
            self.wait_for_budget(door).await?;
        }
        match door.server.introspect(&newest.refresh_token).await {
            Introspection::Active { expires_at, scope } => {
                let expiry = expires_at.map_or(Expiry::Never, Expiry::At);
                if grant.expiry != expiry {
                    store.note_expiry(id, expiry).await.map_err(|error| store_failure(&error))?;
                    self.expiries.notify_one();
                    self.news.notify_one();
                }
                if let Some(scope) = scope.filter(|scope| grant.granted_scope.as_ref() != Some(scope)) {
                    store.note_consent(id, &scope, None).await.map_err(|error| store_failure(&error))?;
                }
                if let Some(liveness) = door.liveness {
                    vouch(liveness);
                    self.check_again(&id.key, door, liveness);
                }
                Ok(())
            }
            Introspection::Inactive if about == About::End => {
                // Nobody wanted to know: a server may say so of whatever it does not let us ask about (RFC 7662 §2.2).
                tracing::info!(grant = %id.key, "the server does not say when the grant ends");
                Ok(())
            }
            Introspection::Inactive => self.confirm(id, service, door).await,
            Introspection::NotOffered => {
                door.offers_no_introspection();
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
                let wait = door.liveness.unwrap_or_default().max(RETRY);
                vouch(wait);
                self.check_again(&id.key, door, wait);
                Ok(())
            }
        }
    }

    /// The server says that the grant is over. It may say so of a token that it does not let us ask about; a refresh tells for
    /// certain.
    async fn confirm(&self, id: &GrantId, service: &Service, door: &Door) -> Result<(), Failure> {
        door.budget.count(&self.parts.clock.now());
        match self.exchange(id, service, None, Leave::Ahead).await {
            Ok(_) => {
                tracing::error!(
                    authorization_server = service.authorization_server,
                    "introspection calls a refresh token inactive that is taken: liveness can't be had from this server"
                );
                let until = self.parts.clock.now().boot + A_DAY;
                self.usages(&id.key, service).iter().for_each(|usage| usage.vouch(until));
                Ok(())
            }
            Err(failure) => {
                if !matches!(failure, Failure::LoginRequired { .. }) {
                    // Not vouched for: nobody gets its tokens until it is known.
                    self.check_again(&id.key, door, RETRY);
                }
                Err(failure)
            }
        }
    }

    /// One introspection that can't wait.
    pub(super) async fn introspect(&self, door: &Door, token: &Secret) -> Introspection {
        door.budget.count(&self.parts.clock.now());
        let answer = door.server.introspect(token).await;
        if answer == Introspection::NotOffered {
            door.offers_no_introspection();
        }
        answer
    }
}
