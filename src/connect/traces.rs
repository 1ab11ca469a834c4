//! What stays of what users do, and of what others try in their name: the audit log, and for what never comes to a consent
//! the count and a line in the log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::{Audit, Event, Kind};
use crate::connect::pace::{Pace, Paces};
use crate::connect::visit::Visit;
use crate::consent::{Connected, Refused};
use crate::metrics::Metrics;
use crate::model::{Service, ServiceName};

/// What anybody can bring about fills no disk: of one client, and of all.
const OF_ONE: Pace = Pace { every: Duration::from_secs(6), holds: 10 };
const OF_ALL: Pace = Pace { every: Duration::from_millis(500), holds: 120 };

/// Where it stays.
pub(super) struct Traces {
    audit: Audit,
    metrics: Arc<Metrics>,
    of_one: Paces<IpAddr>,
    of_all: Paces<()>,
}

impl Traces {
    pub(super) fn new(audit: Audit, metrics: Arc<Metrics>) -> Self {
        Self { audit, metrics, of_one: Paces::new(OF_ONE), of_all: Paces::new(OF_ALL) }
    }

    pub(super) fn record(&self, event: Event) {
        self.audit.record(event);
    }

    /// A consent that was redeemed, or would have been.
    pub(super) fn finished(
        &self,
        visit: &Visit<'_>,
        service: &ServiceName,
        finished: &Result<Connected, Refused>,
    ) {
        let word = finished.as_ref().map_or_else(Refused::word, |_| "ok");
        let user = match finished {
            Ok(connected) => Some(connected.identity.name.clone()),
            Err(Refused::OtherUser { came, .. }) => Some(came.clone()),
            Err(_) => None,
        };
        let event = Event::new(Kind::Connect, word).naming(Some(service.clone()), user);
        self.audit.record(event.in_request(&visit.id));
    }

    /// The browser could not even be sent away; `consent` has counted it.
    pub(super) fn failed(&self, visit: &Visit<'_>, service: &Service, refused: &Refused) {
        if self.is_in_pace(visit) {
            let event = Event::new(Kind::Connect, refused.word()).naming(Some(service.name.clone()), None);
            self.audit.record(event.in_request(&visit.id));
        }
    }

    /// What came back belongs to nothing that was asked, or not any more; of this service, as far as that is known.
    pub(super) fn unsolicited(&self, visit: &Visit<'_>, service: Option<&ServiceName>) {
        self.turned_away(visit, service, &Refused::Unsolicited);
    }

    /// What came back is not looked into.
    pub(super) fn refused(&self, visit: &Visit<'_>, service: &ServiceName, refused: &Refused) {
        self.turned_away(visit, Some(service), refused);
    }

    fn turned_away(&self, visit: &Visit<'_>, service: Option<&ServiceName>, refused: &Refused) {
        // Only names that are configured become labels.
        let service = service.filter(|service| visit.terms.service(service.as_str()).is_some());
        let (name, result) = (service.map_or("unknown", ServiceName::as_str), refused.word());
        self.metrics.connects.with_label_values(&[name, result]).inc();
        if !self.is_in_pace(visit) {
            return;
        }
        let (id, client) = (visit.id.as_str(), visit.client);
        tracing::warn!(id, service = name, result, %client, "an answer came back that is not redeemed");
        let event = Event::new(Kind::Connect, result).naming(service.cloned(), None);
        self.audit.record(event.in_request(&visit.id));
    }

    fn is_in_pace(&self, visit: &Visit<'_>) -> bool {
        self.of_one.take(visit.client, visit.now.boot) && self.of_all.take((), visit.now.boot)
    }
}
