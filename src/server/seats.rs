//! How many are connected, in all and of each uid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Metrics;
use crate::server::Limits;

/// Who has fewer connections than this gets one of those that are kept back.
const FEW: usize = 4;

/// Counts who is connected.
pub(super) struct Seats {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
    gauge: prometheus::IntGauge,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_uid: HashMap<Option<u32>, usize>,
}

/// One connection's place; free again when dropped.
pub(super) struct Seat {
    who: Option<u32>,
    taken: Arc<Mutex<Taken>>,
    gauge: prometheus::IntGauge,
}

impl Seats {
    pub(super) fn new(limits: Limits, name: &'static str, metrics: &Metrics) -> Self {
        Self { limits, taken: Arc::default(), gauge: metrics.connections.with_label_values(&[name]) }
    }

    pub(super) fn take(&self, who: Option<u32>) -> Result<Seat, &'static str> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.limits.connections {
            return Err("connections");
        }
        let taken_in_all = taken.total;
        let own = taken.by_uid.entry(who).or_default();
        if *own >= self.limits.connections_per_uid {
            return Err("connections_per_uid");
        }
        // Where one uid may have all of them there is nobody to keep any for.
        let limits = &self.limits;
        let kept_back =
            if limits.connections_per_uid < limits.connections { limits.connections / 8 } else { 0 };
        if *own >= FEW && taken_in_all + kept_back >= self.limits.connections {
            return Err("connections");
        }
        *own += 1;
        taken.total += 1;
        self.gauge.inc();
        Ok(Seat { who, taken: Arc::clone(&self.taken), gauge: self.gauge.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gauge.dec();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(count) = taken.by_uid.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.by_uid.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seats(connections: usize, connections_per_uid: usize) -> Seats {
        let limits = Limits {
            connections,
            connections_per_uid,
            head: 16_384,
            headers: 64,
            header_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(1),
        };
        Seats::new(limits, "vending", &Metrics::new().unwrap())
    }

    #[test]
    fn seats_are_counted_in_all_and_per_uid_and_given_back() {
        let seats = seats(3, 2);
        let first = seats.take(Some(1)).unwrap_or_else(|why| panic!("{why}"));
        let _second = seats.take(Some(1)).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(seats.take(Some(1)).err(), Some("connections_per_uid"));
        let _third = seats.take(Some(2)).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(seats.take(Some(3)).err(), Some("connections"));
        drop(first);
        assert!(seats.take(Some(3)).is_ok());
        assert_eq!(seats.taken.lock().unwrap().by_uid.len(), 2, "nobody is remembered without a connection");
    }

    #[test]
    fn the_last_eighth_is_for_those_who_have_few() {
        let seats = seats(16, 8);
        let take = |uid, count| -> Vec<_> { (0..count).map_while(|_| seats.take(Some(uid)).ok()).collect() };
        let (first, second) = (take(1, 8), take(2, 8));
        assert_eq!((first.len(), second.len()), (8, 6));
        assert_eq!(seats.take(Some(2)).err(), Some("connections"));
        assert_eq!(take(3, 8).len(), 2, "who has none gets one, until there are no more");
        let everybodys = super::tests::seats(16, 16);
        assert!((0..16).map(|_| everybodys.take(None).ok()).collect::<Option<Vec<_>>>().is_some());
    }
}
