//! Where the chain goes on when a file is opened: after its last line, or after the head where the file is a new one, or
//! where its end can't be trusted.

use serde::Deserialize;

use crate::audit::chain::{Head, Key, Link, Mac, split};

/// What was found, and where to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resumed {
    pub(super) link: Link,
    /// The last line has no end.
    pub(super) unended: bool,
    /// And is not whole otherwise.
    pub(super) torn: bool,
    /// What is amiss, for log and line.
    pub(super) trouble: Option<String>,
}

/// Lines that a process may have written after the last head that it wrote.
const MOST_AHEAD: u64 = 1_000_000;

/// `tail` is the end of the file, which may begin within a line.
pub(super) fn resume(tail: &[u8], head: &Head, key: &Key) -> Resumed {
    let unended = tail.last().is_some_and(|last| *last != b'\n');
    let mut lines: Vec<&[u8]> = tail.split(|byte| *byte == b'\n').collect();
    let torn = unended && lines.last().is_some_and(|last| read(last).is_none());
    if torn || !unended {
        lines.pop();
    }
    let last = lines.last().and_then(|line| read(line)).map(|(link, _)| link);
    let (link, trouble) = match (head, last) {
        (Head::Missing, None) => (Link::NONE, None),
        (Head::Missing, Some(last)) => {
            (last, Some("there was no head that tells how many lines there should be".to_owned()))
        }
        (Head::Damaged(why), last) => {
            (last.unwrap_or(Link::NONE), Some(format!("the head could not be read: {why}")))
        }
        (Head::OtherKey(id, head), last) => {
            // Its hash can't be checked: it counts only if it is near.
            let near = |last: &Link| last.seq >= head.seq && last.seq - head.seq < MOST_AHEAD;
            let last = last.filter(near).unwrap_or(*head);
            (last, Some(format!("the lines before were written with key {id}")))
        }
        // The file was moved away, as logrotate does; whether that one is whole, `verify` finds.
        (Head::Is(head), None) if tail.is_empty() => (*head, None),
        (Head::Is(head), None) => {
            (*head, Some(format!("line {} was the last one, but the file has no whole line", head.seq)))
        }
        (Head::Is(head), Some(last)) if *head == last => (last, None),
        (Head::Is(head), Some(last)) if last.seq < head.seq => {
            let trouble =
                format!("line {} was the last one, but the file ends with line {}", head.seq, last.seq);
            (*head, Some(trouble))
        }
        (Head::Is(head), Some(last)) => {
            // The process was killed between writing lines and the head.
            if follows(&lines, head, key) == Some(last) {
                (last, None)
            } else {
                let trouble = format!("what stands after line {} was not written here", head.seq);
                (*head, Some(trouble))
            }
        }
    };
    Resumed { link, unended, torn, trouble }
}

/// The last of the lines, if those after the head's follow from it.
fn follows(lines: &[&[u8]], head: &Link, key: &Key) -> Option<Link> {
    let mut links = lines.iter().filter_map(|line| read(line));
    let mut last = if head.seq == 0 { Link::NONE } else { links.find(|(link, _)| link == head)?.0 };
    for (link, body) in links {
        let right = link.seq == last.seq + 1 && key.mac(&last.mac, body) == link.mac;
        if !right {
            return None;
        }
        last = link;
    }
    Some(last)
}

/// A whole line's number, hash, and what the hash covers.
fn read(line: &[u8]) -> Option<(Link, &[u8])> {
    #[derive(Deserialize)]
    struct Numbered {
        seq: u64,
    }
    let (body, mac): (&[u8], Mac) = split(line)?;
    let numbered: Numbered = serde_json::from_slice(line).ok()?;
    // A number that can't be followed was not written here.
    (numbered.seq < u64::MAX).then_some((Link { seq: numbered.seq, mac }, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::close;
    use crate::audit::event::{Event, Kind, line};

    /// Lines 1 to `count`, and their links.
    fn written(count: u64) -> (Vec<u8>, Vec<Link>) {
        let (mut text, mut links) = (Vec::new(), vec![Link::NONE]);
        for seq in 1..=count {
            let mut one = line(&Event::new(Kind::Vend, "ok"), seq, None);
            let mac = close(&mut one, &Key::for_tests(1), &links.last().unwrap().mac);
            links.push(Link { seq, mac });
            text.extend_from_slice(one.as_bytes());
        }
        (text, links)
    }

    fn at(tail: &[u8], head: &Head) -> (u64, bool, bool) {
        let resumed = resume(tail, head, &Key::for_tests(1));
        (resumed.link.seq, resumed.torn, resumed.trouble.is_some())
    }

    #[test]
    fn it_goes_on_after_the_last_line_or_after_the_head() {
        let (text, links) = written(5);
        assert_eq!(at(b"", &Head::Missing), (0, false, false), "the first start of all");
        assert_eq!(at(&text, &Head::Is(links[5])), (5, false, false));
        assert_eq!(at(b"", &Head::Is(links[5])), (5, false, false), "rotated");
        assert_eq!(at(&text, &Head::Is(links[3])), (5, false, false), "killed before the head was written");
        assert_eq!(at(&text, &Head::Is(Link::NONE)), (5, false, false), "the same, at the very first lines");
    }

    #[test]
    fn what_is_amiss_is_said() {
        let (text, links) = written(5);
        let three: Vec<u8> = text.split_inclusive(|byte| *byte == b'\n').take(3).flatten().copied().collect();
        assert_eq!(at(&three, &Head::Is(links[5])), (5, false, true), "cut off");
        assert_eq!(at(&text, &Head::Missing), (5, false, true));
        assert_eq!(at(&text, &Head::Damaged(String::new())), (5, false, true));
        let mut forged = text.clone();
        forged.extend_from_slice(
            br#"{"seq":18446744073709551614,"mac":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
        );
        forged.push(b'\n');
        assert_eq!(at(&forged, &Head::Is(links[5])), (5, false, true), "appended while nothing ran");
        assert_eq!(at(&text, &Head::OtherKey("x".into(), links[5])), (5, false, true));
    }

    #[test]
    fn a_line_that_was_not_finished_is_not_counted() {
        let (text, links) = written(5);
        assert_eq!(
            at(&text[..text.len() - 1], &Head::Is(links[4])),
            (5, false, false),
            "only its end is missing"
        );
        assert!(resume(&text[..text.len() - 1], &Head::Is(links[4]), &Key::for_tests(1)).unended);
        assert_eq!(at(&text[..text.len() - 40], &Head::Is(links[4])), (4, true, false));
    }
}
