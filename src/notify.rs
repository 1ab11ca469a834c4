//! Says that a grant has ended, or will end by itself: in the audit log and the log, and to a webhook where there is one.
//!
//! ```text
//! store         a notice is written with the end itself, and outlives the process
//! foresee       which grants end within `warn_before`, each said once
//! queue         when the receiver is asked again, and which notice it refused
//!   webhook     one signed POST
//! ```
//!
//! Nobody waits for any of it: a receiver that is down costs rows, of which there is a most.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::audit::{Audit, Event, Kind};
use crate::clock::{Clock, Moment};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::model::LoginUrl;
use crate::store::StoreError;
use crate::store::notices::{Dropped, Notice, NoticeKind, NoticeStore, What};

mod queue;
/// One signed POST.
pub mod webhook;

use queue::Queue;
use webhook::{Posted, Webhook};

/// What is looked for is looked for this often, even if nobody says that there is any.
const LOOK: Duration = Duration::from_mins(1);
/// Ends that are said in one transaction, and notices that are looked at together.
const PAGE: u32 = 100;
/// Notices that are kept; beyond, the oldest go.
const MOST_KEPT: u32 = 10_000;
/// How long a notice is tried to be delivered.
const PATIENCE: Duration = Duration::from_hours(24);
/// While the store does not work.
const LATER: Duration = Duration::from_secs(5);

/// What a reload may change.
pub struct Terms {
    /// How long before a grant ends by itself that is said.
    pub warn_before: Duration,
    /// Who is told, if anybody.
    pub webhook: Option<Webhook>,
    /// Where users connect, if there is a page.
    pub login: Option<LoginUrl>,
}

/// What it is made of.
pub struct Parts {
    /// Where notices are kept.
    pub store: Arc<dyn NoticeStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where it is recorded.
    pub audit: Audit,
    /// Woken when a grant has ended, or it is known anew when one will.
    pub news: Arc<Notify>,
}

/// Says it; clones share it.
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    parts: Parts,
    terms: watch::Sender<Arc<Terms>>,
}

/// Tells whether the terms are others by now.
type Changed = watch::Receiver<Arc<Terms>>;

/// How far one round of deliveries came.
enum Delivered {
    /// There is none whose time has come.
    AsFarAsDue,
    /// The receiver takes them, and there may be more.
    Some,
    /// The receiver does not take one.
    NotThisOne,
}

impl Notifier {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(parts: Parts, terms: Terms) -> Self {
        Self(Arc::new(Inner { parts, terms: watch::Sender::new(Arc::new(terms)) }))
    }

    /// Has notices kept from now on, if there is anybody to be told.
    ///
    /// # Errors
    /// If the store does not work.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let is_told = self.0.terms.borrow().webhook.is_some();
        self.0.parts.store.keep_notices(is_told).await
    }

    /// On other terms from now on. What could not be delivered is tried anew.
    pub async fn replace(&self, terms: Terms) {
        self.0.terms.send_replace(Arc::new(terms));
        if let Err(error) = self.prepare().await {
            tracing::error!(%error, "notices of before are not forgotten");
        }
    }

    /// Goes on until it is dropped, which may be at any time: what was not delivered for certain is delivered again.
    pub async fn run(self) {
        let mut changed = self.0.terms.subscribe();
        loop {
            let terms = Arc::clone(&changed.borrow_and_update());
            let (mut queue, since) = (Queue::default(), self.0.parts.clock.now());
            loop {
                let wait = match self.0.round(&terms, &mut queue, &since, &changed).await {
                    Ok(wait) => wait,
                    Err(error) => {
                        tracing::warn!(%error, "who is to be told of grants that end has to wait");
                        LATER
                    }
                };
                tokio::select! {
                    _ = changed.changed() => break,
                    () = self.0.parts.news.notified() => {}
                    () = tokio::time::sleep(wait.min(LOOK)) => {}
                }
            }
        }
    }
}

impl Inner {
    /// Whatever is to be said, and a page of deliveries at most. How long there is nothing to do. `since` is when these
    /// terms began.
    async fn round(
        &self,
        terms: &Terms,
        queue: &mut Queue,
        since: &Moment,
        changed: &Changed,
    ) -> Result<Duration, StoreError> {
        self.foresee(terms.warn_before).await?;
        let Some(webhook) = &terms.webhook else { return Ok(LOOK) };
        let dropped = self.parts.store.drop_notices(Dropped::Beyond(MOST_KEPT)).await?;
        self.give_up(&dropped, "dropped", "more notices wait than are kept: the oldest are never delivered");
        if let Some(wait) = queue.wait(Instant::now()) {
            return Ok(wait);
        }
        let mut forgotten = false;
        let delivered = self.deliver((webhook, terms.login.as_ref()), queue, changed, &mut forgotten).await;
        if forgotten {
            self.parts.store.wipe_notices().await?;
        }
        match delivered? {
            Delivered::AsFarAsDue => return Ok(LOOK),
            Delivered::Some => return Ok(Duration::ZERO),
            Delivered::NotThisOne => {}
        }
        let now = self.parts.clock.now();
        // Whoever was told nothing while this process was down, or by other terms, gets its time all the same.
        if now.since(since).is_some_and(|age| age > PATIENCE) {
            let old = Dropped::OlderThan(now.wall.minus(PATIENCE));
            let given_up = self.parts.store.drop_notices(old).await?;
            self.give_up(&given_up, "gave_up", "notices were not taken for a day: they are never delivered");
        }
        Ok(queue.wait(Instant::now()).unwrap_or_default())
    }

    /// Says of each grant that ends soon by itself that it does, once.
    async fn foresee(&self, warn_before: Duration) -> Result<(), StoreError> {
        loop {
            let now = self.parts.clock.now().wall;
            let ending = self.parts.store.foresee_ends(now.plus(warn_before), now, PAGE).await?;
            for notice in &ending {
                let What::Ending { at } = notice.what else { continue };
                tracing::warn!(grant = %notice.key, end = %at, "the grant ends soon by itself; its user must connect again");
                if self.parts.audit.is_on() {
                    let event = Event::new(Kind::GrantEnding, "ok").about(&notice.key);
                    self.parts.audit.record(event.detail(format!("ends at {at}")));
                }
            }
            if ending.len() < PAGE as usize {
                return Ok(());
            }
        }
    }

    /// The oldest notices whose time has come, until the receiver does not take one, or the terms are others. What is no
    /// longer so is told to nobody.
    async fn deliver(
        &self,
        (webhook, login): (&Webhook, Option<&LoginUrl>),
        queue: &mut Queue,
        changed: &Changed,
        forgotten: &mut bool,
    ) -> Result<Delivered, StoreError> {
        let (mut after, mut some) = (0, false);
        loop {
            let page = self.parts.store.notices(after, PAGE).await?;
            let whole = page.len() == PAGE as usize;
            for number in page.into_iter().map(|notice| notice.number) {
                after = number;
                if !queue.is_due(number, Instant::now()) {
                    continue;
                }
                // Those before it took their time: is it still so?
                let now = self.parts.store.notices(number - 1, 1).await?.pop();
                let Some(notice) = now.filter(|notice| notice.number == number) else { continue };
                if notice.overtaken {
                    self.parts.store.forget_notice(number).await?;
                    *forgotten = true;
                    self.count(event(notice.what.kind()), "overtaken");
                    continue;
                }
                if !self.post(webhook, login, &notice, queue).await? {
                    return Ok(Delivered::NotThisOne);
                }
                (some, *forgotten) = (true, true);
                if changed.has_changed().unwrap_or(true) {
                    return Ok(Delivered::Some);
                }
            }
            if some {
                return Ok(Delivered::Some);
            }
            if !whole {
                return Ok(Delivered::AsFarAsDue);
            }
        }
    }

    /// Tries one. Whether the receiver has it.
    async fn post(
        &self,
        webhook: &Webhook,
        login: Option<&LoginUrl>,
        notice: &Notice,
        queue: &mut Queue,
    ) -> Result<bool, StoreError> {
        let event = event(notice.what.kind());
        let jitter = self.parts.entropy.below(1001);
        match webhook.post(notice, login).await {
            Posted::Delivered => {
                self.parts.store.forget_notice(notice.number).await?;
                queue.delivered(notice.number);
                self.count(event, "delivered");
                tracing::info!(grant = %notice.key, event, "posted to notify.url");
                return Ok(true);
            }
            Posted::Refused { status, for_good } => {
                tracing::warn!(grant = %notice.key, event, status, "notify.url does not take a notice; tried again");
                queue.refused(notice.number, for_good, Instant::now(), jitter);
            }
            Posted::NoAnswer(why) => {
                tracing::warn!(grant = %notice.key, event, %why, "notify.url does not answer; tried again");
                queue.unanswered(Instant::now(), jitter);
            }
        }
        self.count(event, "failed");
        Ok(false)
    }

    fn give_up(&self, which: &[NoticeKind], result: &str, why: &str) {
        for kind in which {
            self.count(event(*kind), result);
        }
        if !which.is_empty() {
            tracing::error!(count = which.len(), "{why}");
        }
    }

    fn count(&self, event: &str, result: &str) {
        self.parts.metrics.notifications.with_label_values(&[event, result]).inc();
    }
}

/// As it is called in what is posted.
fn event(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::Ended => "grant.ended",
        NoticeKind::Ending => "grant.ending",
    }
}
