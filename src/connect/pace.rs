//! How often one client may ask: a bucket for each address that holds so many and fills evenly.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;

/// So many addresses are told from each other; those beyond share one bucket.
const MOST: usize = 10_000;

/// How fast a bucket fills, and how many it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) every: Duration,
    pub(super) holds: u32,
}

/// The buckets; each is the moment at which it is full again.
pub(super) struct Paces<K> {
    pace: Pace,
    full_again: Mutex<HashMap<Option<K>, Duration>>,
}

impl<K: Hash + Eq> Paces<K> {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, full_again: Mutex::default() }
    }

    /// Takes one from a bucket, if there is one in it. `now` is time since boot.
    pub(super) fn take(&self, who: K, now: Duration) -> bool {
        let mut buckets = self.full_again.lock().unwrap_or_else(PoisonError::into_inner);
        let mut who = Some(who);
        if buckets.len() >= MOST && !buckets.contains_key(&who) {
            // Whoever has a full one is as good as unknown.
            buckets.retain(|_, full_again| *full_again > now);
            if buckets.len() >= MOST {
                who = None;
            }
        }
        let full_again = buckets.entry(who).or_insert(now);
        let after = (*full_again).max(now) + self.pace.every;
        let there = after <= now + self.pace.every * self.pace.holds;
        if there {
            *full_again = after;
        }
        there
    }
}

/// Who asks: the address that the connection comes from; behind a proxy on this machine, the one that the proxy has seen.
/// Of an IPv6 address the network counts, for a client has all of that.
pub(super) fn client(from: SocketAddr, headers: &HeaderMap) -> IpAddr {
    let address = from.ip().to_canonical();
    if !address.is_loopback() {
        return network(address);
    }
    // The last one is what the proxy itself put there; those before it are the client's word.
    let line = headers.get_all("x-forwarded-for").into_iter().next_back();
    let last = line.and_then(|line| line.to_str().ok()).and_then(|line| line.rsplit(',').next());
    last.and_then(|last| last.trim().parse().ok()).map_or(address, network)
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { every: Duration::from_millis(100), holds: 5 };
    const START: Duration = Duration::from_secs(100);

    #[test]
    fn a_bucket_holds_so_many_and_fills_evenly_whoever_else_asks() {
        let paces = Paces::new(PACE);
        let took = |who, now| (0..20).filter(|_| paces.take(who, now)).count();
        assert_eq!(took(1, START), 5);
        assert_eq!(took(2, START), 5);
        assert_eq!(took(1, START + Duration::from_millis(250)), 2);
        assert_eq!(took(1, START + Duration::from_mins(1)), 5);
    }

    #[test]
    fn addresses_beyond_the_bound_share_and_the_map_does_not_grow() {
        let paces = Paces::new(PACE);
        let taken = (0..2 * MOST).filter(|who| paces.take(*who, START)).count();
        assert_eq!(taken, MOST + 5);
        assert_eq!(paces.full_again.lock().unwrap().len(), MOST + 1);
        assert!(paces.take(usize::MAX, START + Duration::from_secs(1)), "those who are idle are forgotten");
    }

    #[test]
    fn a_proxy_is_believed_on_this_machine_alone_and_only_its_own_word() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "1.1.1.1, 203.0.113.9".parse().unwrap());
        let ask = |from: &str| client(from.parse().unwrap(), &headers).to_string();
        assert_eq!(ask("127.0.0.1:1"), "203.0.113.9");
        assert_eq!(ask("198.51.100.1:1"), "198.51.100.1");
        assert_eq!(ask("[2001:db8:1:2:3:4:5:6]:1"), "2001:db8:1:2::");
        assert_eq!(client("127.0.0.1:1".parse().unwrap(), &HeaderMap::new()).to_string(), "127.0.0.1");
    }
}
