//! Refreshes tokens in use before anybody has to wait for them: asks the schedule what is due, and the gate and the budget of
//! its server how much of it may be done now.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::cache::{CachedToken, Usage};
use crate::clock::Moment;
use crate::model::{Failure, TokenKey};
use crate::refresh::budget::Background;
use crate::refresh::gate::back_off;
use crate::refresh::schedule::Times;
use crate::refresh::setup::{Door, InUse};
use crate::refresh::{Engine, Inner, Want};
use crate::store::StoreError;

/// The runtime's timers stand still while the machine sleeps, so the clock is read this often at least.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);
/// Between two tries of a refresh that fails.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// What is assumed of tokens that nobody has seen yet: Okta's default.
const USUAL_LIFE: Duration = Duration::from_hours(1);

/// Runs until the engine is gone.
pub(super) async fn keep_ahead(inner: Weak<Inner>, wake: Arc<Notify>) {
    loop {
        let wait = match inner.upgrade() {
            Some(inner) => inner.look_after_tokens(),
            None => return,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = wake.notified() => {}
        }
    }
}

impl Engine {
    /// A token that is due was handed out. Nobody waits for its successor, which gets no caller's place in the budget: it is
    /// looked after already, or, if nobody had asked for it for long, is so from now on.
    pub fn keep_fresh(&self, key: &TokenKey, token: &CachedToken) {
        token.usage.touch(&self.0.parts.clock.now());
        let known = self.0.schedule().usage(key).is_some();
        if !known {
            self.0.look_after(key, token);
        }
    }
}

impl Inner {
    /// Starts the refreshes that are due and may be made now, and says how long there is nothing to do.
    fn look_after_tokens(self: &Arc<Self>) -> Duration {
        let (now, in_use) = (self.parts.clock.now(), self.in_use.load_full());
        let server_of = |key: &TokenKey| {
            in_use.services.get(&key.grant.service).map(|service| service.authorization_server.clone())
        };
        let servers = {
            let mut schedule = self.schedule();
            schedule.passed(now.boot, now.boot.saturating_sub(in_use.life.idle_after), server_of);
            schedule.servers()
        };
        let mut wait = LONGEST_SLEEP;
        for server in servers {
            wait = wait.min(self.refresh_what_is_due(&server, in_use.doors.get(&server), &now));
        }
        for (name, door) in &in_use.doors {
            self.parts.metrics.refresh_budget_used.with_label_values(&[name]).set(door.budget.used(&now));
        }
        // After the refreshes: whom nobody vouched for in time waits for that as a caller, and callers go first.
        wait = wait.min(self.check_grants(&now, &in_use));
        let next = self.schedule().next();
        next.map_or(wait, |next| wait.min(next.saturating_sub(now.boot)))
    }

    fn refresh_what_is_due(
        self: &Arc<Self>,
        server: &str,
        door: Option<&Arc<Door>>,
        now: &Moment,
    ) -> Duration {
        while self.schedule().backlog(server) > 0 {
            let may = match door {
                Some(door) => door
                    .gate
                    .has_room(now)
                    .and_then(|()| door.budget.take_in_background(now, Background::InUse)),
                // Not configured any more: its services will say so.
                None => Ok(()),
            };
            if let Err(wait) = may {
                return wait;
            }
            let Some(ready) = self.schedule().take(server, now.boot) else { break };
            let (inner, key) = (Arc::clone(self), ready.key.clone());
            let flight = Engine(Arc::clone(self)).join(&key, Want::Ahead(ready));
            self.parts.tasks.spawn(async move {
                let result = flight.await;
                inner.landed(&key, result.as_deref());
            });
        }
        LONGEST_SLEEP
    }

    /// A token was published: from now on it is looked after.
    pub(super) fn look_after(&self, key: &TokenKey, token: &CachedToken) {
        let now = self.parts.clock.now();
        let times = times(&token.issued, token.version, &now);
        self.schedule().published(key, times, &token.usage);
        if let Ok(service) = self.service(&key.grant.service) {
            self.check_in_time(&key.grant, &service, &token.usage);
        }
        if times.due < now.boot + LONGEST_SLEEP {
            self.wake.notify_one();
        }
    }

    /// A flight that the schedule waits for has ended, whoever started it.
    fn landed(&self, key: &TokenKey, result: Result<&CachedToken, &Failure>) {
        let now = self.parts.clock.now();
        let wait = match result {
            // Published, and so scheduled anew; if not, since something changed meanwhile, it is looked for again.
            Ok(_) => RETRY.0,
            Err(Failure::LoginRequired { .. }) => {
                self.schedule().ended(key);
                return;
            }
            Err(Failure::ServerUnavailable { retry_after } | Failure::StoreUnavailable { retry_after }) => {
                *retry_after
            }
            Err(
                Failure::Refused { .. }
                | Failure::TokenInvalid { .. }
                | Failure::RejectedTooOften { .. }
                | Failure::TooManyWaiting
                | Failure::Timeout
                | Failure::UserMismatch { .. }
                | Failure::Internal(_),
            ) => self.holdoffs.left(key, &now).unwrap_or(RETRY.1),
        };
        let jitter = 500 + self.parts.entropy.below(500);
        self.schedule().failed(key, |failures| now.boot + wait.max(back_off(failures, RETRY, jitter)));
    }

    /// How the tokens of this key are used.
    pub(super) fn usage(&self, key: &TokenKey) -> Arc<Usage> {
        let known = self.schedule().usage(key);
        let cached = || self.parts.cache.get(key).map(|token| Arc::clone(&token.usage));
        known.or_else(cached).unwrap_or_else(|| Arc::new(Usage::new(None)))
    }

    /// What was in use when the last process ended is looked after again. What fell due meanwhile goes at the budget's pace,
    /// what ends first going first.
    pub(super) async fn restore(&self) -> Result<usize, StoreError> {
        let (now, in_use) = (self.parts.clock.now(), self.in_use.load_full());
        let since = now.wall.minus(in_use.life.idle_after);
        let tokens = self.parts.store.in_use(since).await?;
        for token in &tokens {
            let asked = now.boot.saturating_sub(token.asked_at.until(now.wall));
            let usage = Arc::new(Usage::new(Some(asked)));
            self.schedule().published(&token.key, times(&token.issued, token.version, &now), &usage);
        }
        self.wake.notify_one();
        let lives = tokens.iter().map(|token| token.issued.refresh_after).filter(|life| !life.is_zero());
        let (count, sum) = lives.fold((0_u32, Duration::ZERO), |(count, sum), life| (count + 1, sum + life));
        let usual = in_use.life.refresh_after(USUAL_LIFE, 500);
        self.say_if_the_budget_is_too_small(&in_use, sum.checked_div(count).unwrap_or(usual)).await?;
        Ok(tokens.len())
    }

    /// If all grants were in use, each would be refreshed once in `every`.
    async fn say_if_the_budget_is_too_small(
        &self,
        in_use: &InUse,
        every: Duration,
    ) -> Result<(), StoreError> {
        let counts = self.parts.store.count().await?;
        for (name, door) in &in_use.doors {
            let of_this =
                |service| in_use.services.get(service).is_some_and(|it| it.authorization_server == *name);
            let grants = counts.iter().filter(|(service, state, _)| state == "active" && of_this(service));
            let grants = u64::try_from(grants.map(|(_, _, count)| count).sum::<i64>()).unwrap_or(0);
            let per_minute =
                |every: Duration| (u128::from(grants) * 60_000).div_ceil(every.as_millis().max(1));
            let needed = per_minute(every) + door.liveness.map_or(0, per_minute);
            let has = u128::from(door.budget.per_minute()) * 8 / 10;
            if needed > has {
                tracing::warn!(
                    authorization_server = name,
                    grants,
                    refresh_every_seconds = every.as_secs(),
                    needed_per_minute = needed,
                    requests_per_minute = door.budget.per_minute(),
                    for_refreshing_ahead = has,
                    "requests_per_minute can't hold these grants if all are in use: raise it as far as the server's rate \
                     limit allows, have tokens live longer, or expect callers to wait"
                );
            }
        }
        Ok(())
    }
}

/// By the boot clock. What is left of a token's life is never more than the wall clock says, so neither are these.
fn times(issued: &crate::model::Issued, version: i64, now: &Moment) -> Times {
    let left = issued.remaining(now);
    let after_due = issued.expires_in.saturating_sub(issued.refresh_after);
    Times { due: now.boot + left.saturating_sub(after_due), ends: now.boot + left, version }
}
