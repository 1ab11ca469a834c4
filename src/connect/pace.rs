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
/// Whoever comes to our own certificate has met no proxy, and says of itself whatever it likes.
pub(super) fn client(from: SocketAddr, headers: &HeaderMap, behind_proxy: bool) -> IpAddr {
    if let Some(network) = stranger(from) {
        return network;
    }
    let address = from.ip().to_canonical();
    if !behind_proxy {
        return address;
    }
    // The last one is what the proxy itself put there; those before it are the client's word.
    let line = headers.get_all("x-forwarded-for").into_iter().next_back();
    let last = line.and_then(|line| line.to_str().ok()).and_then(|line| line.rsplit(',').next());
    last.and_then(|last| seen(last.trim())).map_or(address, network)
}

/// An address, with or without a port.
fn seen(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse().ok().map(|with_port: SocketAddr| with_port.ip()))
}

/// The network that a connection comes from, if it is not this machine.
pub(super) fn stranger(from: SocketAddr) -> Option<IpAddr> {
    let address = from.ip().to_canonical();
    (!address.is_loopback()).then(|| network(address))
}

/// Of an IPv6 address the network counts, for a client has all of that.
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
        let ask = |from: &str| client(from.parse().unwrap(), &headers, true).to_string();
        assert_eq!(ask("127.0.0.1:1"), "203.0.113.9");
        assert_eq!(ask("198.51.100.1:1"), "198.51.100.1");
        assert_eq!(ask("[2001:db8:1:2:3:4:5:6]:1"), "2001:db8:1:2::");
        let here = "127.0.0.1:1".parse().unwrap();
        assert_eq!(client(here, &HeaderMap::new(), true).to_string(), "127.0.0.1");
        assert_eq!(
            client(here, &headers, false).to_string(),
            "127.0.0.1",
            "with a certificate there is no proxy"
        );
        for (said, expected) in [
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db8:1:2:3::4]:4711", "2001:db8:1:2::"),
            ("[2001:db8:1:2:3::4]", "2001:db8:1:2::"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
            ("unknown", "127.0.0.1"),
            ("203.0.113.9, nobody", "127.0.0.1"),
        ] {
            headers.insert("x-forwarded-for", said.parse().unwrap());
            assert_eq!(client(here, &headers, true).to_string(), expected, "{said}");
        }
    }

    #[test]
    fn who_comes_from_elsewhere_is_its_network_and_this_machine_is_nobody() {
        let of = |from: &str| stranger(from.parse().unwrap()).map(|network| network.to_string());
        assert_eq!(of("[2001:db8:1:2:3:4:5:6]:1").as_deref(), Some("2001:db8:1:2::"));
        assert_eq!(of("[::ffff:198.51.100.1]:1").as_deref(), Some("198.51.100.1"));
        assert_eq!((of("127.0.0.2:1"), of("[::1]:1"), of("[::ffff:127.0.0.1]:1")), (None, None, None));
    }
}
