//! May this refresh token be presented now? Pure; design 1.3.

use std::time::Duration;

use crate::clock::Moment;
use crate::model::Rotation;

/// What the authorization server allows, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How long a rotated-away refresh token still works there.
    pub leeway: Duration,
    /// How long one request may take.
    pub deadline: Duration,
}

/// What to do with the newest refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Present it.
    Present,
    /// Ask whether it is still good, and present it only then.
    AskFirst,
    /// Neither: whether it was used up can't be told yet.
    Wait(Duration),
}

/// How often one flight may present a refresh token whose last presentation is in doubt. Inside a leeway every try counts,
/// for after it the grant may be lost; elsewhere there is no hurry, and callers are better told.
#[must_use]
pub fn most_tries(rotation: Rotation, recovery: &Recovery) -> u32 {
    if rotation == Rotation::Persistent || recovery.leeway.is_zero() { 3 } else { 16 }
}

/// `since` is when the first attempt in doubt began; `None` if there is none.
#[must_use]
pub fn plan(rotation: Rotation, since: Option<&Moment>, now: &Moment, recovery: &Recovery) -> Plan {
    let Some(since) = since else { return Plan::Present };
    if rotation == Rotation::Persistent {
        return Plan::Present;
    }
    // The server can't have rotated the token before the attempt began: a replay that ends inside the leeway counted
    // from there is inside the server's.
    let last_arrival = recovery.leeway.max(recovery.deadline);
    let until_known = last_arrival + recovery.leeway;
    let age = now.since(since);
    // Before this boot, if that can't be known: asked too early, a server calls a token active whose leeway is not over.
    let at_least = age.unwrap_or(now.boot);
    match age {
        Some(age) if age + recovery.deadline <= recovery.leeway => Plan::Present,
        // A server without leeway says `inactive` as soon as the token is used up, but the request may still be on its way.
        _ if recovery.leeway.is_zero() && at_least < recovery.deadline => {
            Plan::Wait(recovery.deadline.saturating_sub(at_least))
        }
        _ if recovery.leeway.is_zero() => Plan::AskFirst,
        // It may have rotated as late as the last replay arrives, and calls the old token active until its leeway is over.
        _ if at_least <= until_known => {
            Plan::Wait(until_known.saturating_sub(at_least) + Duration::from_secs(1))
        }
        _ => Plan::AskFirst,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock, Timestamp};

    const OKTA: Recovery = Recovery { leeway: Duration::from_secs(30), deadline: Duration::from_secs(5) };
    const STRICT: Recovery = Recovery { leeway: Duration::ZERO, ..OKTA };

    fn after(seconds: u64, rotation: Rotation, recovery: &Recovery) -> Plan {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let since = clock.now();
        clock.advance(Duration::from_secs(seconds));
        plan(rotation, Some(&since), &clock.now(), recovery)
    }

    #[test]
    fn without_a_doubt_a_token_is_presented() {
        let now = ManualClock::new(Timestamp::from_secs(1_800_000_000)).now();
        assert_eq!(plan(Rotation::Rotating, None, &now, &STRICT), Plan::Present);
    }

    #[test]
    fn in_doubt_it_is_replayed_only_where_it_must_arrive_inside_the_leeway() {
        for rotation in [Rotation::Rotating, Rotation::Unknown] {
            assert_eq!(after(0, rotation, &OKTA), Plan::Present);
            assert_eq!(after(25, rotation, &OKTA), Plan::Present);
            assert_eq!(after(26, rotation, &OKTA), Plan::Wait(Duration::from_secs(35)));
            assert_eq!(after(60, rotation, &OKTA), Plan::Wait(Duration::from_secs(1)));
            assert_eq!(after(61, rotation, &OKTA), Plan::AskFirst);
            assert_eq!(after(100_000, rotation, &OKTA), Plan::AskFirst);
        }
    }

    #[test]
    fn a_server_without_leeway_is_always_asked_first() {
        assert_eq!(
            after(3, Rotation::Unknown, &STRICT),
            Plan::Wait(Duration::from_secs(2)),
            "it may still arrive"
        );
        assert_eq!(after(5, Rotation::Rotating, &STRICT), Plan::AskFirst);
    }

    #[test]
    fn a_persistent_token_is_replayed_at_will() {
        assert_eq!(after(100_000, Rotation::Persistent, &STRICT), Plan::Present);
    }

    #[test]
    fn an_age_that_can_not_be_known_counts_as_outside_the_leeway() {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let since = clock.now();
        clock.reboot();
        let after_reboot = |clock: &ManualClock| plan(Rotation::Rotating, Some(&since), &clock.now(), &OKTA);
        // Ten seconds after the boot the leeway may last, and the answer `active` would mean nothing.
        assert_eq!(after_reboot(&clock), Plan::Wait(Duration::from_secs(51)));
        clock.advance(Duration::from_secs(51));
        assert_eq!(after_reboot(&clock), Plan::AskFirst);
    }

    #[test]
    fn no_answer_is_asked_for_while_a_used_up_token_may_still_be_called_active() {
        let mut replayed = 0;
        while after(replayed, Rotation::Rotating, &OKTA) == Plan::Present {
            replayed += 1;
            assert!(replayed <= OKTA.leeway.as_secs(), "replayed outside the leeway");
        }
        // The last replay arrives a deadline later, and from then on the leeway lasts.
        let last_of_the_leeway = replayed - 1 + OKTA.deadline.as_secs() + OKTA.leeway.as_secs();
        for age in replayed..=last_of_the_leeway {
            assert!(matches!(after(age, Rotation::Rotating, &OKTA), Plan::Wait(_)), "{age}");
        }
    }
}
