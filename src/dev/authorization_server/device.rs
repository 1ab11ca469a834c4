//! Devices that wait for their users (RFC 8628).

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::secret::Digest;

use super::family::age;

/// How long a device code lives.
pub(super) const LIFETIME: Duration = Duration::from_mins(10);

/// What `slow_down` adds to the interval, for good (RFC 8628 3.5).
const SLOWER: Duration = Duration::from_secs(5);

/// A device's request on its way to being decided.
struct Waiting {
    server: String,
    user_code: String,
    scopes: Vec<String>,
    began: Moment,
    interval: Duration,
    polled: Option<Moment>,
    decision: Option<Decision>,
}

enum Decision {
    Approved { user: String, at: Moment },
    Denied,
}

/// What a device learns when it asks.
#[derive(Debug, PartialEq)]
pub(super) enum Poll {
    Unknown,
    Pending,
    TooSoon,
    Expired,
    Denied,
    Approved(Approved),
}

#[derive(Debug, PartialEq)]
pub(super) struct Approved {
    pub(super) user: String,
    pub(super) scopes: Vec<String>,
    pub(super) at: Moment,
}

#[derive(Default)]
pub(super) struct Devices(HashMap<Digest, Waiting>);

impl Devices {
    pub(super) fn add(
        &mut self,
        device_code: Digest,
        user_code: String,
        server: &str,
        scopes: Vec<String>,
        interval: Duration,
        now: Moment,
    ) {
        self.0.retain(|_, waiting| age(&now, &waiting.began) < LIFETIME * 2);
        let server = server.to_owned();
        let waiting =
            Waiting { server, user_code, scopes, began: now, interval, polled: None, decision: None };
        self.0.insert(device_code, waiting);
    }

    /// The user with this code has decided: `Some` login to approve. `false` if no device waits for that code.
    pub(super) fn decide(&mut self, user_code: &str, user: Option<&str>, now: &Moment) -> bool {
        let code = normalized(user_code);
        let waiting = self.0.values_mut().find(|waiting| {
            normalized(&waiting.user_code) == code
                && waiting.decision.is_none()
                && age(now, &waiting.began) < LIFETIME
        });
        let Some(waiting) = waiting else { return false };
        waiting.decision = Some(match user {
            Some(user) => Decision::Approved { user: user.to_owned(), at: *now },
            None => Decision::Denied,
        });
        true
    }

    /// Who said yes, without asking in the device's name.
    pub(super) fn approved_by(&self, device_code: &Digest) -> Option<String> {
        match &self.0.get(device_code)?.decision {
            Some(Decision::Approved { user, .. }) => Some(user.clone()),
            Some(Decision::Denied) | None => None,
        }
    }

    /// A code that was approved is used up by the answer that says so.
    pub(super) fn poll(&mut self, device_code: &Digest, server: &str, now: &Moment) -> Poll {
        let Some(waiting) = self.0.get_mut(device_code).filter(|waiting| waiting.server == server) else {
            return Poll::Unknown;
        };
        if age(now, &waiting.began) >= LIFETIME {
            return Poll::Expired;
        }
        let before = waiting.polled.replace(*now);
        if before.is_some_and(|before| age(now, &before) < waiting.interval) {
            waiting.interval += SLOWER;
            return Poll::TooSoon;
        }
        match &waiting.decision {
            None => Poll::Pending,
            Some(Decision::Denied) => Poll::Denied,
            Some(Decision::Approved { user, at }) => {
                let approved = Approved { user: user.clone(), scopes: waiting.scopes.clone(), at: *at };
                self.0.remove(device_code);
                Poll::Approved(approved)
            }
        }
    }
}

/// Users type codes in lower case and without the dash (RFC 8628 6.1).
fn normalized(user_code: &str) -> String {
    user_code.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock, Timestamp};
    use crate::secret::Secret;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn waiting() -> (ManualClock, Devices, Digest) {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let (mut devices, code) = (Devices::default(), Secret::new("device".into()).digest());
        devices.add(code, "ABCD-EFGH".into(), "here", vec!["sql".into()], INTERVAL, clock.now());
        (clock, devices, code)
    }

    #[test]
    fn who_asks_too_soon_must_be_slower_from_then_on() {
        let (clock, mut devices, code) = waiting();
        assert_eq!(devices.poll(&code, "here", &clock.now()), Poll::Pending);
        clock.advance(Duration::from_secs(4));
        assert_eq!(devices.poll(&code, "here", &clock.now()), Poll::TooSoon);
        clock.advance(Duration::from_secs(9));
        assert_eq!(devices.poll(&code, "here", &clock.now()), Poll::TooSoon);
        clock.advance(Duration::from_secs(15));
        assert_eq!(devices.poll(&code, "here", &clock.now()), Poll::Pending);
    }

    #[test]
    fn an_approval_is_given_out_once() {
        let (clock, mut devices, code) = waiting();
        assert!(devices.decide("abcdefgh", Some("alice"), &clock.now()));
        assert!(!devices.decide("ABCD-EFGH", None, &clock.now()), "it was decided");
        assert_eq!(devices.poll(&code, "there", &clock.now()), Poll::Unknown);
        assert!(
            matches!(devices.poll(&code, "here", &clock.now()), Poll::Approved(by) if by.user == "alice")
        );
        assert_eq!(devices.poll(&code, "here", &clock.now()), Poll::Unknown);
    }

    #[test]
    fn a_denial_and_the_end_of_a_code_are_told() {
        let (clock, mut devices, code) = waiting();
        assert!(devices.decide("ABCD-EFGH", None, &clock.now()));
        assert_eq!(devices.poll(&code, "here", &clock.now()), Poll::Denied);
        clock.advance(LIFETIME);
        assert_eq!(devices.poll(&code, "here", &clock.now()), Poll::Expired);
        assert!(!devices.decide("ABCD-EFGH", None, &clock.now()));
    }
}
