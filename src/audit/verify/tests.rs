use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::audit::chain::close;
use crate::audit::event::{Event, Kind as EventKind, Opening, line as write_line};

/// Lines after `before`; the first of them opens a file.
fn written(key: &Key, mut before: Link, count: u64, torn: bool) -> (Vec<String>, Link) {
    let mut lines = Vec::new();
    for index in 0..count {
        let opening = (index == 0).then_some(Opening { key, before: before.mac, torn, trouble: None });
        let event = Event::new(EventKind::Vend, "ok").detail(format!("number {index}"));
        let seq = before.seq + 1;
        let mut line = write_line(&event, seq, opening.as_ref());
        before = Link { seq, mac: close(&mut line, key, &before.mac) };
        lines.push(line);
    }
    (lines, before)
}

fn key() -> Key {
    Key::for_tests(1)
}

/// What is found in files, problems marked with `!`.
fn found(files: &[&str], keys: &[Key], head: Option<Link>, from_start: bool) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    let tell = |finding: Finding| {
        let mark = if finding.is_problem { "!" } else { "" };
        found.borrow_mut().push(format!("{mark}{}:{} {}", finding.file, finding.line, finding.what));
    };
    let mut verifier = Verifier::new(keys, from_start, tell);
    if let Some(head) = head {
        verifier.expect(head);
    }
    for (index, text) in files.iter().enumerate() {
        verifier.read(&index.to_string(), text.as_bytes()).unwrap();
    }
    let summary = verifier.finish();
    let problems = found.borrow().iter().filter(|what| what.starts_with('!')).count();
    assert_eq!(summary.problems, problems as u64);
    found.into_inner()
}

fn problems(text: &str, head: Link) -> Vec<String> {
    let mut found = found(&[text], &[key()], Some(head), true);
    found.retain(|what| what.starts_with('!'));
    found
}

#[test]
fn what_was_written_is_whole_in_one_file_or_in_many() {
    let (first, middle) = written(&key(), Link::NONE, 3, false);
    let (second, end) = written(&key(), middle, 4, false);
    let (one, other) = (first.concat(), second.concat());
    let nothing: Vec<String> = Vec::new();
    assert_eq!(found(&[&one, &other], &[key()], Some(end), true), nothing);
    assert_eq!(found(&[&(one.clone() + &other)], &[key()], Some(end), true), nothing);
    assert_eq!(
        found(&[&one, &other], &[key()], Some(middle), true),
        nothing,
        "written on since the head was read"
    );
    assert_eq!(found(&[&other], &[key()], Some(end), false), ["0:1 begins at line 4 of the log"]);
    assert_eq!(found(&[&other], &[key()], Some(end), true), ["!0:1 begins at line 4 of the log"]);
}

#[test]
fn each_kind_of_tampering_is_found_where_it_was_done() {
    let (lines, head) = written(&key(), Link::NONE, 6, false);
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        problems(&lines.concat(), head)
    };
    let one = |found: Vec<String>, expected: &str| {
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(expected), "{found:?}");
    };
    one(with(&|lines| lines[2] = lines[2].replace("number 2", "number 7")), "!0:3 was changed");
    one(with(&|lines| lines[5] = lines[5].replace("number 5", "number 7")), "!0:6 was changed");
    one(with(&|lines| lines[0] = lines[0].replace("number 0", "number 7")), "!0:1 was changed");
    one(with(&|lines| drop(lines.remove(3))), "!0:4 line 4 is missing");
    one(with(&|lines| drop(lines.drain(2..4))), "!0:3 lines 3 to 4 are missing");
    one(with(&|lines| drop(lines.drain(..2))), "!0:1 is not the first line of a file");
    one(with(&|lines| drop(lines.split_off(4))), "!0:0 lines 5 to 6 are missing at the end");
    one(with(&|lines| lines.push("{}\n".to_owned())), "!0:7 is not a line of this log");
    one(with(&|lines| lines.insert(3, "\n".to_owned())), "!0:4 is not a line of this log");
    assert!(!with(&|lines| lines.swap(2, 3)).is_empty());
    assert!(!with(&|lines| lines.insert(3, lines[1].clone())).is_empty(), "a line twice");
    assert!(!with(&|lines| lines.insert(6, lines[5].clone())).is_empty(), "the last line twice");
    assert!(!with(&|lines| lines.clear()).is_empty());
}

#[test]
fn a_file_that_is_missing_is_found() {
    let (first, one) = written(&key(), Link::NONE, 3, false);
    let (_, two) = written(&key(), one, 3, false);
    let (third, three) = written(&key(), two, 3, false);
    let found = found(&[&first.concat(), &third.concat()], &[key()], Some(three), true);
    assert_eq!(found, ["!1:1 lines 4 to 6 are missing before this one, perhaps a whole file"]);
}

#[test]
fn a_torn_line_is_told_from_a_forged_one() {
    let (first, middle) = written(&key(), Link::NONE, 3, false);
    let (second, end) = written(&key(), middle, 3, true);
    let (same, _) = written(&key(), middle, 3, false);
    let torn = &second[0][..50];
    let text = |second: &[String]| format!("{}{torn}\n{}", first.concat(), second.concat());
    let noted = found(&[&text(&second)], &[key()], Some(end), true);
    assert_eq!(noted, ["0:4 is not finished: torn by a crash or a full disk; nothing else is missing"]);
    let forged = found(&[&text(&same)], &[key()], None, true);
    assert_eq!(forged, ["!0:4 is not a line of this log: changed, or put in"], "the writer knows of none");
    let being_written = format!("{}{torn}", first.concat());
    let noted = found(&[&being_written], &[key()], Some(middle), true);
    assert_eq!(noted, ["0:4 is not finished: being written, or torn by a crash"]);
}

#[test]
fn another_key_is_told_and_its_lines_are_checked_if_it_is_given() {
    let other = Key::for_tests(2);
    let (first, middle) = written(&key(), Link::NONE, 3, false);
    let (second, end) = written(&other, middle, 3, false);
    let text = first.concat() + &second.concat();
    let both = [key(), other.clone()];
    let told = format!("0:4 from here on written with key {}", other.id());
    assert_eq!(found(&[&text], &both, Some(end), true), [told]);
    assert!(found(&[&text], &[key()], None, true)[0].starts_with("!0:4 from here on written with key"));
    let forged = text.replace("number 2", "number 9");
    assert_eq!(found(&[&forged], &both, Some(end), true).len(), 3, "the line of either key");
}

#[test]
fn lost_events_are_said() {
    let mut line = write_line(
        &Event { count: Some(7), ..Event::new(EventKind::Lost, "lost") },
        1,
        Some(&Opening { key: &key(), before: Mac::NOTHING, torn: false, trouble: Some("it rained") }),
    );
    close(&mut line, &key(), &Mac::NOTHING);
    let found = found(&[&line], &[key()], None, true);
    assert_eq!(
        found,
        ["0:1 7 events before this one could not be written", "0:1 the writer noted: it rained"]
    );
}

proptest! {
    /// Any bytes in place of any others: whatever was written by us alone is found to be whole, and nothing else.
    #[test]
    fn any_edit_is_found(start in 0usize..2000, length in 0usize..400, put in proptest::collection::vec(any::<u8>(), 0..40)) {
        let (lines, head) = written(&key(), Link::NONE, 8, false);
        let text = lines.concat().into_bytes();
        let start = start % text.len();
        let end = (start + length).min(text.len());
        let mut edited = text.clone();
        edited.splice(start..end, put);
        // Without its last end of line the log says the same.
        prop_assume!(edited != text && edited != text[..text.len() - 1]);
        let found = RefCell::new(0);
        let keys = [key()];
        let mut verifier = Verifier::new(&keys, true, |finding: Finding| *found.borrow_mut() += u64::from(finding.is_problem));
        verifier.expect(head);
        verifier.read("log", edited.as_slice()).unwrap();
        let summary = verifier.finish();
        prop_assert!(summary.problems > 0);
    }

    /// Lines taken out, doubled and put elsewhere.
    #[test]
    fn any_rearrangement_is_found(order in proptest::collection::vec(0usize..8, 0..12)) {
        prop_assume!(order != [0, 1, 2, 3, 4, 5, 6, 7]);
        let (lines, head) = written(&key(), Link::NONE, 8, false);
        let text: String = order.iter().map(|index| lines[*index].clone()).collect();
        prop_assert!(!problems(&text, head).is_empty());
    }
}
