//! When the receiver is asked again. One that does not answer is left alone altogether; one that refuses a notice is tried
//! with the next one, so that none stands in the way of all others.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Between two tries: up to the first after one failure, twice that after each other one, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_hours(1));
/// For a notice that the receiver says is none.
const SLOWLY: (Duration, Duration) = (Duration::from_mins(10), Duration::from_hours(1));
/// Refusals that are remembered; of notices beyond them, the oldest, most are gone.
const MOST_REMEMBERED: usize = 10_000;
/// However lucky the draw.
const LEAST: Duration = Duration::from_millis(100);

/// What has failed so far.
#[derive(Default)]
pub(super) struct Queue {
    failures: u32,
    not_before: Option<Instant>,
    refused: BTreeMap<i64, Refused>,
}

struct Refused {
    times: u32,
    not_before: Instant,
    for_good: bool,
}

impl Queue {
    /// How long the receiver is left alone, if it is.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.not_before.filter(|then| *then > now).map(|then| then - now)
    }

    /// Whether this notice may be tried.
    pub(super) fn is_due(&self, number: i64, now: Instant) -> bool {
        self.refused.get(&number).is_none_or(|refused| refused.not_before <= now)
    }

    /// The receiver works; what it refused because it did not is tried at once.
    pub(super) fn delivered(&mut self, number: i64) {
        (self.failures, self.not_before) = (0, None);
        self.refused.remove(&number);
        self.refused.retain(|_, refused| refused.for_good);
    }

    /// The receiver does not answer. `jitter` is drawn from 0 to 1000.
    pub(super) fn unanswered(&mut self, now: Instant, jitter: u64) {
        self.not_before = Some(now + back_off(self.failures, RETRY, jitter));
        self.failures = self.failures.saturating_add(1);
    }

    /// The receiver does not take this notice, now or, as it says, ever.
    pub(super) fn refused(&mut self, number: i64, for_good: bool, now: Instant, jitter: u64) {
        self.unanswered(now, jitter);
        let times = self.refused.get(&number).map_or(0, |refused| refused.times);
        let wait = back_off(times, if for_good { SLOWLY } else { RETRY }, jitter);
        let times = times.saturating_add(1);
        self.refused.insert(number, Refused { times, not_before: now + wait, for_good });
        if self.refused.len() > MOST_REMEMBERED {
            self.refused.pop_first();
        }
    }
}

/// Full jitter: anywhere up to a limit that doubles with each failure.
fn back_off(failures: u32, (first, longest): (Duration, Duration), jitter: u64) -> Duration {
    let limit = first.saturating_mul(2_u32.saturating_pow(failures)).min(longest);
    let jitter = u32::try_from(jitter.min(1000)).unwrap_or(1000);
    (limit * jitter / 1000).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[tokio::test]
    async fn a_receiver_that_does_not_answer_is_asked_less_and_less_often() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert_eq!(queue.wait(now), None);
        let mut waits = Vec::new();
        for _ in 0..14 {
            queue.unanswered(now, 1000);
            waits.push(queue.wait(now).unwrap());
            assert!(queue.is_due(1, now), "the same notice is next");
        }
        assert_eq!(waits[..3], [secs(2), secs(4), secs(8)]);
        assert_eq!(waits[13], secs(3600), "not less often than that");
        assert_eq!(queue.wait(now + secs(3600)), None);
        queue.unanswered(now, 0);
        assert_eq!(queue.wait(now), Some(LEAST), "full jitter, but never at once");
        queue.delivered(1);
        queue.unanswered(now, 1000);
        assert_eq!(queue.wait(now), Some(secs(2)), "from the beginning");
    }

    #[tokio::test]
    async fn a_notice_that_is_refused_lets_others_pass() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.refused(1, true, now, 1000);
        queue.refused(2, false, now, 1000);
        assert!(!queue.is_due(1, now) && !queue.is_due(2, now) && queue.is_due(3, now));
        assert!(queue.wait(now).is_some(), "but not at once");
        assert!(!queue.is_due(1, now + secs(599)) && queue.is_due(1, now + secs(600)), "slowly");
        queue.delivered(3);
        assert!(queue.is_due(2, now), "it was the receiver's fault");
        assert!(!queue.is_due(1, now), "it is still wrong");
    }
}
