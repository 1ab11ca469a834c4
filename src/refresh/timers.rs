//! What is due when: a heap, so that nothing is looked at before its time, however much there is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// One alarm for each key, by the boot clock.
pub(super) struct Timers<K> {
    alarms: HashMap<K, Alarm>,
    // May hold alarms that were set anew or cancelled since; those are passed over when their time comes.
    heap: BinaryHeap<Reverse<(Duration, u64, Ordered<K>)>>,
    set: u64,
}

#[derive(Clone, Copy)]
struct Alarm {
    at: Duration,
    number: u64,
}

/// Keys need no order of their own: numbers are never the same.
struct Ordered<K>(K);

impl<K> PartialEq for Ordered<K> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<K> Eq for Ordered<K> {}
impl<K> PartialOrd for Ordered<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Ordered<K> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { alarms: HashMap::new(), heap: BinaryHeap::new(), set: 0 }
    }
}

impl<K: Clone + Eq + Hash> Timers<K> {
    /// From now on the key's only alarm.
    pub(super) fn set(&mut self, key: K, at: Duration) {
        self.set += 1;
        self.alarms.insert(key.clone(), Alarm { at, number: self.set });
        self.heap.push(Reverse((at, self.set, Ordered(key))));
        if self.heap.len() > 64 && self.heap.len() > self.alarms.len() * 2 {
            self.sweep();
        }
    }

    /// Sets an alarm unless there is an earlier one.
    pub(super) fn set_at_latest(&mut self, key: K, at: Duration) {
        if self.alarms.get(&key).is_none_or(|alarm| alarm.at > at) {
            self.set(key, at);
        }
    }

    /// No alarm any more; answers when it would have rung.
    pub(super) fn cancel(&mut self, key: &K) -> Option<Duration> {
        self.alarms.remove(key).map(|alarm| alarm.at)
    }

    /// The earliest alarm whose time has come.
    pub(super) fn due(&mut self, now: Duration) -> Option<(K, Duration)> {
        while let Some(Reverse((at, _, _))) = self.heap.peek() {
            if *at > now {
                return None;
            }
            let Reverse((at, number, Ordered(key))) = self.heap.pop()?;
            if self.alarms.get(&key).is_some_and(|alarm| alarm.number == number) {
                self.alarms.remove(&key);
                return Some((key, at));
            }
        }
        None
    }

    /// When it is worth looking again.
    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Without it, alarms that are set anew again and again would fill the heap.
    fn sweep(&mut self) {
        let alarms = &self.alarms;
        self.heap.retain(|Reverse((_, number, Ordered(key)))| {
            alarms.get(key).is_some_and(|alarm| alarm.number == *number)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    proptest! {
        #[test]
        fn each_key_rings_once_at_its_last_time(steps in prop::collection::vec((0_u8..20, 0_u64..100, any::<bool>()), 0..500)) {
            let (mut timers, mut expected) = (Timers::default(), BTreeMap::new());
            for (key, at, set) in steps {
                if set {
                    timers.set(key, secs(at));
                    expected.insert(key, secs(at));
                } else {
                    timers.cancel(&key);
                    expected.remove(&key);
                }
            }
            prop_assert!(timers.heap.len() <= 64.max(timers.alarms.len() * 2) + 1, "the heap does not grow");
            let mut last = Duration::ZERO;
            while let Some((key, at)) = timers.due(secs(100)) {
                prop_assert!(at >= last, "in order");
                prop_assert_eq!(expected.remove(&key), Some(at));
                last = at;
            }
            prop_assert!(expected.is_empty());
        }
    }

    #[test]
    fn nothing_rings_before_its_time() {
        let mut timers = Timers::default();
        timers.set("a", secs(5));
        timers.set_at_latest("a", secs(9));
        assert_eq!((timers.due(secs(4)), timers.next()), (None, Some(secs(5))));
        timers.set_at_latest("a", secs(3));
        assert_eq!(timers.due(secs(3)), Some(("a", secs(3))));
        assert_eq!(timers.due(secs(9)), None);
    }
}
