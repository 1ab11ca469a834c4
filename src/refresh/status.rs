//! What is told of the engine: its doors, and how many grants there are.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Moment;
use crate::metrics::Metrics;
use crate::model::TokenKey;
use crate::refresh::Engine;
use crate::refresh::setup::Door;
use crate::store::Store;

/// How it stands with one authorization server.
#[derive(Clone, Debug)]
pub struct DoorStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Issuer and client.
    pub registration: String,
    /// For how long it is asked nothing, and `None` if it may be.
    pub shut_for: Option<Duration>,
    /// Why, as the metrics call it.
    pub why: Option<&'static str>,
    /// Requests in a minute that it may be asked, and the share of them that the last minute took.
    pub budget: (u32, f64),
}

impl Engine {
    /// How it stands with each authorization server, in the order of their names.
    #[must_use]
    pub fn doors(&self, now: &Moment) -> Vec<DoorStatus> {
        let in_use = self.0.in_use.load_full();
        let status = |(name, door): (&String, &Arc<Door>)| {
            let shut = door.gate.shut_for(now);
            DoorStatus {
                name: name.clone(),
                registration: door.server.registration(),
                budget: (door.budget.per_minute(), door.budget.used(now)),
                why: shut.as_ref().map(|(_, failure)| failure.word()),
                shut_for: shut.map(|(wait, _)| wait),
            }
        };
        let mut doors: Vec<DoorStatus> = in_use.doors.iter().map(status).collect();
        doors.sort_by(|one, other| one.name.cmp(&other.name));
        doors
    }
}

impl Engine {
    /// Woken when a grant has ended, or it is known anew when one will end by itself.
    #[must_use]
    pub fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.0.news)
    }

    /// The tokens that are looked after, and how long until each is due.
    #[must_use]
    pub fn due(&self, now: &Moment) -> Vec<(TokenKey, Duration)> {
        let schedule = self.0.schedule();
        schedule.tokens().map(|(key, due)| (key.clone(), due.saturating_sub(now.boot))).collect()
    }
}

/// Brings the gauges of grants up to date whenever some have come or ended, once a second at most: it looks at them all.
pub(super) async fn count_grants(store: Arc<dyn Store>, metrics: Arc<Metrics>, recount: Arc<Notify>) {
    loop {
        recount.notified().await;
        match store.count().await {
            Ok(counts) => {
                let counts = counts.into_iter();
                metrics
                    .count_grants(counts.map(|(service, state, count)| (service.to_string(), state, count)));
            }
            Err(error) => tracing::warn!(%error, "grants not counted"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Brings the gauges of when grants end up to date, every few seconds at most.
pub(super) async fn tell_expiries(store: Arc<dyn Store>, metrics: Arc<Metrics>, again: Arc<Notify>) {
    loop {
        again.notified().await;
        match store.earliest_expiries().await {
            Ok(ends) => {
                metrics.grants_end(ends.into_iter().map(|(service, end)| (service.to_string(), end.secs())));
            }
            Err(error) => tracing::warn!(%error, "not known when grants end"),
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}
