//! How many are connected, in all and of each uid or network.

use std::collections::HashMap;
use std::net::IpAddr;
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
    by_whom: HashMap<Who, usize>,
}

/// Whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Uid(u32),
    Network(IpAddr),
    /// Nothing is known of them, or they stand for many: they may have all.
    Anybody,
}

/// One connection's place; free again when dropped.
pub(super) struct Seat {
    who: Who,
    taken: Arc<Mutex<Taken>>,
    gauge: prometheus::IntGauge,
}

impl Seats {
    pub(super) fn new(limits: Limits, name: &'static str, metrics: &Metrics) -> Self {
        Self { limits, taken: Arc::default(), gauge: metrics.connections.with_label_values(&[name]) }
    }

    pub(super) fn take(&self, who: Who) -> Result<Seat, &'static str> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.limits.connections {
            return Err("connections");
        }
        let taken_in_all = taken.total;
        let own = taken.by_whom.entry(who).or_default();
        let limits = &self.limits;
        let (most, reason) = match who {
            Who::Uid(_) => (limits.connections_per_uid, "connections_per_uid"),
            Who::Network(_) => (limits.connections_per_uid, "connections_per_address"),
            Who::Anybody => (limits.connections, "connections"),
        };
        if *own >= most {
            return Err(reason);
        }
        // Where one may have all of them there is nobody to keep any for.
        let kept_back = if most < limits.connections { limits.connections / 8 } else { 0 };
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
        if let Some(count) = taken.by_whom.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.by_whom.remove(&self.who);
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
        let first = seats.take(Who::Uid(1)).unwrap_or_else(|why| panic!("{why}"));
        let _second = seats.take(Who::Uid(1)).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(seats.take(Who::Uid(1)).err(), Some("connections_per_uid"));
        let _third = seats.take(Who::Uid(2)).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(seats.take(Who::Uid(3)).err(), Some("connections"));
        drop(first);
        assert!(seats.take(Who::Uid(3)).is_ok());
        assert_eq!(seats.taken.lock().unwrap().by_whom.len(), 2, "nobody is remembered without a connection");
    }

    #[test]
    fn the_last_eighth_is_for_those_who_have_few() {
        let seats = seats(16, 8);
        let take =
            |uid, count| -> Vec<_> { (0..count).map_while(|_| seats.take(Who::Uid(uid)).ok()).collect() };
        let (first, second) = (take(1, 8), take(2, 8));
        assert_eq!((first.len(), second.len()), (8, 6));
        assert_eq!(seats.take(Who::Uid(2)).err(), Some("connections"));
        assert_eq!(take(3, 8).len(), 2, "who has none gets one, until there are no more");
        let everybodys = super::tests::seats(16, 16);
        assert!((0..16).map(|_| everybodys.take(Who::Anybody).ok()).collect::<Option<Vec<_>>>().is_some());
    }

    #[test]
    fn one_network_has_its_part_and_a_proxy_may_have_all() {
        let seats = seats(16, 4);
        let network = |last: u8| Who::Network([203, 0, 113, last].into());
        let own: Vec<_> = (0..9).map_while(|_| seats.take(network(1)).ok()).collect();
        assert_eq!(own.len(), 4);
        assert_eq!(seats.take(network(1)).err(), Some("connections_per_address"));
        assert!(seats.take(network(2)).is_ok());
        let proxys: Vec<_> = (0..16).map_while(|_| seats.take(Who::Anybody).ok()).collect();
        assert_eq!(proxys.len(), 12);
    }
}
