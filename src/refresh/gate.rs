//! One door per authorization server: shut while the server limits, refuses or does not answer, so that its trouble costs
//! it no storm and callers no wait. After a while one request probes; its outcome opens the door or shuts it for longer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::Moment;
use crate::model::Failure;

/// Exchanges in flight at one server, and on top of them those that are in doubt, which can't wait for the others.
/// Okta takes 75 at once from a whole organisation.
const MOST_AT_ONCE: usize = 24;
const MOST_URGENT_AT_ONCE: usize = 48;
/// How long a probe may take before the next one is let through.
const PROBE: Duration = Duration::from_secs(10);
/// First and longest wait after no answer.
const UNANSWERED: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Answers in doubt in a row, at this server, that count as no answer.
const DOUBTS: u32 = 4;
/// First and longest wait after a refusal that concerns the client: an administrator must act.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));

/// The door.
pub(super) struct Gate {
    state: Mutex<State>,
    places: Arc<Semaphore>,
    urgent_places: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    /// Shut until then, by the boot clock, and what callers are told meanwhile.
    shut: Option<(Duration, Failure)>,
    /// Bad outcomes in a row.
    streak: u32,
    /// The probe under way, and how many there have been.
    probe: Option<u64>,
    probes: u64,
    /// Shut because of a rate limit.
    limited: bool,
    /// Until then nothing more probes in the background.
    probing_until: Duration,
}

/// Leave to make one exchange. A probe that ends without telling its outcome lets the next one through.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    probe: Option<u64>,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        if self.probe.is_some() && state.probe == self.probe {
            state.probe = None;
            if let Some((until, _)) = &mut state.shut {
                *until = Duration::ZERO;
            }
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        let [places, urgent_places] =
            [MOST_AT_ONCE, MOST_URGENT_AT_ONCE].map(|most| Arc::new(Semaphore::new(most)));
        Self { state: Mutex::default(), places, urgent_places }
    }
}

impl Gate {
    /// May a request be made now? Refused at once while the door is shut.
    pub(super) fn admit(&self, now: &Moment) -> Result<Pass<'_>, Failure> {
        let mut state = self.lock();
        match &mut state.shut {
            None => Ok(Pass { gate: self, probe: None }),
            Some((until, failure)) if now.boot < *until => {
                Err(failure.clone().with_wait(until.saturating_sub(now.boot)))
            }
            Some((until, _)) => {
                // This one probes; the others wait for its outcome, or for it to take too long.
                *until = now.boot + PROBE;
                state.probes += 1;
                state.probe = Some(state.probes);
                Ok(Pass { gate: self, probe: state.probe })
            }
        }
    }

    /// Is it worth making a request that nobody waits for? If not, when to look again. While the door is shut, one at a
    /// time; and some places are left to those who wait.
    pub(super) fn has_room(&self, now: &Moment) -> Result<(), Duration> {
        if self.places.available_permits() < MOST_AT_ONCE / 4 {
            return Err(Duration::from_millis(100));
        }
        let mut state = self.lock();
        let Some((until, _)) = &state.shut else { return Ok(()) };
        let wait = until.max(&state.probing_until).saturating_sub(now.boot);
        if !wait.is_zero() {
            return Err(wait.clamp(Duration::from_millis(10), Duration::from_secs(1)));
        }
        state.probing_until = now.boot + PROBE;
        Ok(())
    }

    /// Whether requests may be made without a doubt.
    pub(super) fn is_open(&self) -> bool {
        self.lock().shut.is_none()
    }

    /// Leave whatever the door says: for what can't wait, and for administrators.
    pub(super) fn pass(&self) -> Pass<'_> {
        Pass { gate: self, probe: None }
    }

    /// Whether it is shut because of a rate limit.
    pub(super) fn is_limited(&self) -> bool {
        self.lock().limited
    }

    /// For how much longer the server's rate limit is used up, if it is.
    pub(super) fn limited_for(&self, now: &Moment) -> Option<Duration> {
        if self.is_limited() { self.shut_for(now).map(|(wait, _)| wait) } else { None }
    }

    /// For how long it is shut, and what callers are told meanwhile.
    pub(super) fn shut_for(&self, now: &Moment) -> Option<(Duration, Failure)> {
        let state = self.lock();
        let (until, failure) = state.shut.as_ref()?;
        let left = until.checked_sub(now.boot).filter(|left| !left.is_zero())?;
        Some((left, failure.clone()))
    }

    /// Waits for one of the places at this server.
    pub(super) async fn place(&self, urgent: bool) -> Option<OwnedSemaphorePermit> {
        let places = if urgent { &self.urgent_places } else { &self.places };
        // The semaphores are never closed.
        Arc::clone(places).acquire_owned().await.ok()
    }

    /// It answered and takes us. An answer to an earlier request does not end a rate limit.
    pub(super) fn opened(&self) {
        let mut state = self.lock();
        if state.limited && state.probe.is_none() {
            return;
        }
        *state = State { probes: state.probes, ..State::default() };
    }

    /// It takes our client, as an answer from elsewhere than its token endpoint shows: ends only a doubt about that.
    pub(super) fn client_accepted(&self) {
        let mut state = self.lock();
        let doubted =
            matches!(&state.shut, Some((_, Failure::Refused { error, .. })) if error == "invalid_client");
        if doubted {
            *state = State { probes: state.probes, ..State::default() };
        }
    }

    /// It did not answer. `jitter` is 0 to 1000.
    pub(super) fn unanswered(&self, now: &Moment, jitter: u64) {
        self.shut(now, UNANSWERED, jitter, |retry_after| Failure::ServerUnavailable { retry_after });
    }

    /// It may have acted, but no usable answer came. One lost answer is nobody else's business; several in a row are.
    pub(super) fn doubtful(&self, now: &Moment, jitter: u64) {
        let streak = {
            let mut state = self.lock();
            state.streak = state.streak.saturating_add(1);
            state.streak
        };
        if streak >= DOUBTS {
            self.unanswered(now, jitter);
        }
    }

    /// It does not take this client.
    pub(super) fn refused(&self, now: &Moment, failure: Failure) {
        self.shut(now, REFUSED, 1000, |_| failure);
    }

    /// Its rate limit is used up for `wait`; the jitter keeps everybody from coming back in the same instant.
    pub(super) fn limited(&self, now: &Moment, wait: Duration, jitter: u64) {
        let until = now.boot + wait + Duration::from_millis(jitter);
        let mut state = self.lock();
        state.probe = None;
        state.probing_until = Duration::ZERO;
        state.limited = true;
        state.shut = Some((until, Failure::ServerUnavailable { retry_after: wait }));
    }

    fn shut(
        &self,
        now: &Moment,
        bounds: (Duration, Duration),
        jitter: u64,
        failure: impl FnOnce(Duration) -> Failure,
    ) {
        let mut state = self.lock();
        let wait = back_off(state.streak, bounds, jitter);
        state.streak = state.streak.saturating_add(1);
        state.probe = None;
        state.probing_until = Duration::ZERO;
        state.limited = false;
        state.shut = Some((now.boot + wait, failure(wait)));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Doubles from the first bound to the second; `jitter` (0 to 1000) takes its share of the result.
pub(super) fn back_off(streak: u32, (first, longest): (Duration, Duration), jitter: u64) -> Duration {
    let whole = first.saturating_mul(2_u32.saturating_pow(streak.min(20))).min(longest);
    whole / 1000 * u32::try_from(jitter.min(1000)).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock, Timestamp};

    #[test]
    fn a_shut_door_lets_one_probe_through_when_its_time_is_over() {
        let (clock, gate) = (ManualClock::new(Timestamp::from_secs(1_800_000_000)), Gate::default());
        assert!(gate.admit(&clock.now()).is_ok());
        gate.unanswered(&clock.now(), 1000);
        let refused = gate.admit(&clock.now()).err();
        assert_eq!(refused, Some(Failure::ServerUnavailable { retry_after: Duration::from_millis(500) }));
        clock.advance(Duration::from_millis(500));
        let probe = gate.admit(&clock.now());
        assert!(probe.is_ok() && gate.admit(&clock.now()).is_err(), "one at a time");
        gate.opened();
        drop(probe);
        assert!(gate.admit(&clock.now()).is_ok());
    }

    #[test]
    fn a_probe_that_never_reports_back_does_not_shut_the_door_for_good() {
        let (clock, gate) = (ManualClock::new(Timestamp::from_secs(1_800_000_000)), Gate::default());
        gate.unanswered(&clock.now(), 1000);
        clock.advance(Duration::from_secs(1));
        let hangs = gate.admit(&clock.now());
        assert!(hangs.is_ok() && gate.admit(&clock.now()).is_err());
        clock.advance(PROBE);
        drop(gate.admit(&clock.now()).unwrap_or_else(|failure| panic!("{failure:?}")));
        assert!(gate.admit(&clock.now()).is_ok(), "one that ended without an outcome makes room at once");
    }

    #[test]
    fn that_the_client_is_accepted_ends_a_doubt_about_it_and_nothing_else() {
        let clock = ManualClock::new(Timestamp::from_secs(1_800_000_000));
        let refused = |error: &str| Failure::Refused { error: error.to_owned(), hint: "" };
        for (error, opens) in [("invalid_client", true), ("unauthorized_client", false)] {
            let gate = Gate::default();
            gate.refused(&clock.now(), refused(error));
            gate.client_accepted();
            assert_eq!(gate.admit(&clock.now()).is_ok(), opens, "{error}");
        }
        let gate = Gate::default();
        gate.unanswered(&clock.now(), 1000);
        gate.client_accepted();
        assert!(gate.admit(&clock.now()).is_err(), "its token endpoint has not answered");
    }

    #[test]
    fn waits_double_up_to_their_bound() {
        let waits: Vec<u128> = (0..9).map(|streak| back_off(streak, UNANSWERED, 1000).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(back_off(u32::MAX, UNANSWERED, 0), Duration::ZERO);
    }

    #[test]
    fn a_rate_limit_shuts_the_door_until_its_window_ends() {
        let (clock, gate) = (ManualClock::new(Timestamp::from_secs(1_800_000_000)), Gate::default());
        gate.limited(&clock.now(), Duration::from_secs(37), 0);
        gate.opened();
        clock.advance(Duration::from_secs(36));
        let refused = gate.admit(&clock.now()).err();
        assert_eq!(refused, Some(Failure::ServerUnavailable { retry_after: Duration::from_secs(1) }));
        clock.advance(Duration::from_secs(1));
        let probe = gate.admit(&clock.now());
        assert!(probe.is_ok());
        gate.opened();
        assert!(gate.admit(&clock.now()).is_ok());
    }
}
