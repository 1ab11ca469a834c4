//! Who is refused can ask again as fast as it likes: what it fills the disk with is bounded. The same refusal is written ten
//! times a minute, and a hundred refusals of one uid; the others are counted, and the count is written.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use crate::audit::event::{Event, Kind, Who};
use crate::model::{RoleName, ServiceName, UserName};

const WINDOW: Duration = Duration::from_mins(1);
const ALIKE: u64 = 10;
const OF_ONE_UID: u64 = 100;
/// Uids that are looked after at the same time; more than can be connected.
const MOST_UIDS: usize = 4096;

/// The refusals of the last minute.
#[derive(Default)]
pub(super) struct Floods {
    uids: HashMap<u32, OfUid>,
    /// Of uids that there was no room for.
    beyond: u64,
}

/// Of one uid, from its first one on.
struct OfUid {
    since: Duration,
    written: u64,
    alike: HashMap<Alike, Counted>,
    others: u64,
    gid: u32,
}

/// What makes two refusals the same one.
#[derive(PartialEq, Eq, Hash)]
struct Alike {
    pid: Option<i32>,
    result: Cow<'static, str>,
    service: Option<ServiceName>,
    user: Option<UserName>,
    role: Option<RoleName>,
}

struct Counted {
    written: u64,
    /// The last one that was not, and how many.
    unwritten: Option<(Event, u64)>,
}

impl Floods {
    /// The event, if it is to be written; else it is counted.
    pub(super) fn admit(&mut self, event: Event, now: Duration) -> Option<Event> {
        let Some(who) = event.caller.clone() else { return Some(event) };
        if self.uids.len() >= MOST_UIDS && !self.uids.contains_key(&who.uid()) {
            self.beyond += 1;
            return None;
        }
        let of_uid = self.uids.entry(who.uid()).or_insert_with(|| OfUid {
            since: now,
            written: 0,
            alike: HashMap::new(),
            others: 0,
            gid: who.gid(),
        });
        let alike = Alike {
            pid: who.pid(),
            result: event.result.clone(),
            service: event.service.clone(),
            user: event.user.clone(),
            role: event.role.clone(),
        };
        if let Some(counted) = of_uid.alike.get_mut(&alike)
            && counted.written >= ALIKE
        {
            let count = counted.unwritten.take().map_or(0, |(_, count)| count);
            counted.unwritten = Some((event, count + 1));
            return None;
        }
        if of_uid.written >= OF_ONE_UID {
            of_uid.others += 1;
            return None;
        }
        of_uid.written += 1;
        of_uid.alike.entry(alike).or_insert(Counted { written: 0, unwritten: None }).written += 1;
        Some(event)
    }

    /// The counts of those whose minute is over, or of all.
    pub(super) fn due(&mut self, now: Duration, all: bool) -> Vec<Event> {
        let mut due = Vec::new();
        self.uids.retain(|uid, of_uid| {
            let over = all || now.saturating_sub(of_uid.since) >= WINDOW;
            if over {
                due.extend(of_uid.alike.drain().filter_map(|(_, counted)| counted.unwritten).map(
                    |(event, count)| {
                        Event { count: Some(count), ..event }.detail("as many more like this in a minute")
                    },
                ));
                if of_uid.others > 0 {
                    let event =
                        Event::new(Kind::Refusal, "various").detail("as many more of this uid in a minute");
                    let caller = Some(Who::of_uid(*uid, of_uid.gid));
                    due.push(Event { count: Some(of_uid.others), caller, ..event });
                }
            }
            !over
        });
        // One line a minute too: room is made when a minute is over.
        if self.beyond > 0 && (all || self.uids.len() < MOST_UIDS) {
            let event = Event::new(Kind::Refusal, "various").detail("of more uids than are told apart");
            due.push(Event { count: Some(std::mem::take(&mut self.beyond)), ..event });
        }
        due
    }

    /// Whether there is nobody to look after.
    pub(super) fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Caller;
    use crate::model::RequestId;

    fn refusal(uid: u32, user: &str) -> Event {
        Event::new(Kind::Refusal, "access_denied")
            .by(&Caller::invented(uid, uid), &RequestId::parse("r").unwrap())
            .naming(None, UserName::parse(user))
    }

    #[test]
    fn the_same_refusal_is_written_ten_times_a_minute_and_then_counted() {
        let mut floods = Floods::default();
        let now = Duration::from_secs(100);
        let written = (0..1000).filter_map(|_| floods.admit(refusal(1, "alice"), now)).count();
        assert_eq!(written, 10);
        assert!(floods.admit(refusal(1, "bob"), now).is_some(), "another refusal");
        assert!(floods.admit(refusal(2, "alice"), now).is_some(), "another uid");
        assert!(floods.due(now + Duration::from_secs(59), false).is_empty());
        let due = floods.due(now + WINDOW, false);
        assert_eq!(due.iter().map(|event| event.count).collect::<Vec<_>>(), [Some(990)]);
        assert!(floods.is_empty());
        assert!(floods.admit(refusal(1, "alice"), now + Duration::from_secs(61)).is_some(), "another minute");
    }

    #[test]
    fn a_uid_that_asks_for_another_user_each_time_is_bounded_too() {
        let mut floods = Floods::default();
        let ask =
            |floods: &mut Floods, number| floods.admit(refusal(1, &format!("user{number}")), Duration::ZERO);
        assert_eq!((0..5000).filter_map(|number| ask(&mut floods, number)).count(), 100);
        assert_eq!(floods.uids[&1].alike.len(), 100, "memory is bounded as well");
        let due = floods.due(Duration::ZERO, true);
        assert_eq!(due.iter().map(|event| event.count).collect::<Vec<_>>(), [Some(4900)]);
    }

    #[test]
    fn more_uids_than_are_told_apart_are_counted_together() {
        let mut floods = Floods::default();
        let uids = 0..u32::try_from(MOST_UIDS).unwrap() + 5;
        assert_eq!(uids.filter_map(|uid| floods.admit(refusal(uid, "a"), Duration::ZERO)).count(), MOST_UIDS);
        let due = floods.due(WINDOW, false);
        assert_eq!(due.iter().map(|event| event.count).collect::<Vec<_>>(), [Some(5)]);
    }
}
