//! Is a log whole, and as it was written? Reads its files once, oldest first, and says of each line what is wrong.

use std::io::{self, BufRead, Read as _};

use serde::Deserialize;

use crate::audit::chain::{Head, Key, Link, Mac, split};

/// No line is longer.
const LONGEST: u64 = 64 * 1024;

/// Something about a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, as it was named.
    pub file: String,
    /// The line in it, from 1; 0 is the file as a whole.
    pub line: u64,
    /// What.
    pub what: String,
    /// Whether the log is not what was written; else it is only worth knowing.
    pub is_problem: bool,
}

/// What the lines were, all in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many.
    pub lines: u64,
    /// The first one's number and time.
    pub first: Option<(u64, String)>,
    /// The last one's.
    pub last: Option<(u64, String)>,
    /// How many things are wrong.
    pub problems: u64,
}

/// Reads files.
pub struct Verifier<'a> {
    keys: &'a [Key],
    /// The key of the lines being read; none if it was not given.
    key: Option<&'a Key>,
    head: Option<Link>,
    from_start: bool,
    tell: Box<dyn FnMut(Finding) + 'a>,
    before: Option<Link>,
    /// A line that is none, waiting for the next one's word for it.
    fragment: Option<Fragment>,
    at: (String, u64),
    summary: Summary,
}

/// What is no line.
struct Fragment {
    at: (String, u64),
    /// Its file ends with it.
    unended: bool,
}

/// What is read of a line.
#[derive(Deserialize)]
struct Line {
    time: String,
    seq: u64,
    event: String,
    count: Option<u64>,
    key: Option<String>,
    prev: Option<String>,
    #[serde(default)]
    torn: bool,
    trouble: Option<String>,
}

impl<'a> Verifier<'a> {
    /// With the keys that the lines may have been written with, the oldest first, and what is told of what is found.
    /// `from_start`: the first line must be the first one of all.
    #[must_use]
    pub fn new(keys: &'a [Key], from_start: bool, tell: impl FnMut(Finding) + 'a) -> Self {
        Self {
            keys,
            key: keys.first(),
            head: None,
            from_start,
            tell: Box::new(tell),
            before: None,
            fragment: None,
            at: (String::new(), 0),
            summary: Summary::default(),
        }
    }

    /// The last line that was written, or a later one. To be read before the files.
    pub fn expect(&mut self, head: Link) {
        self.head = Some(head);
    }

    /// Reads the next file.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn read(&mut self, name: &str, mut input: impl BufRead) -> io::Result<()> {
        self.at = (name.to_owned(), 0);
        let mut line = Vec::new();
        loop {
            line.clear();
            if input.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            self.at.1 += 1;
            let ended = line.strip_suffix(b"\n");
            self.line(ended.unwrap_or(&line), ended.is_none());
        }
    }

    /// After the last file.
    #[must_use]
    pub fn finish(mut self) -> Summary {
        match self.fragment.take() {
            Some(Fragment { at, unended: true }) => {
                self.say(at, false, "is not finished: being written, or torn by a crash".to_owned());
            }
            Some(Fragment { at, unended: false }) => {
                self.say(at, true, "is not a line of this log".to_owned());
            }
            None => {}
        }
        if let Some(head) = self.head.filter(|head| head.seq > 0) {
            let last = self.before.map_or(0, |last| last.seq);
            let file = (self.at.0.clone(), 0);
            if head.seq > last {
                let missing = numbers(last + 1, head.seq);
                self.say(
                    file,
                    true,
                    format!("{missing} at the end: cut off, or lost with the machine's power"),
                );
            } else if self.summary.first.as_ref().is_some_and(|(first, _)| *first > head.seq) {
                self.say(file, false, format!("the head is older than all of these: line {}", head.seq));
            }
        }
        self.summary
    }

    fn line(&mut self, text: &[u8], unended: bool) {
        let parts =
            split(text).and_then(|(body, mac)| Some((body, mac, serde_json::from_slice::<Line>(text).ok()?)));
        let Some((body, mac, line)) = parts else {
            if let Some(earlier) = self.fragment.replace(Fragment { at: self.at.clone(), unended }) {
                self.say(earlier.at, true, "is not a line of this log".to_owned());
            }
            return;
        };
        if let Some(id) = &line.key {
            self.change_key(id);
        }
        let whole = self.check(body, &mac, &line);
        if let Some(Fragment { at, unended }) = self.fragment.take() {
            // The writer itself knows that it left a line unfinished, and says so in the next one of the same file.
            if whole && (line.torn || unended) {
                self.say(
                    at,
                    false,
                    "is not finished: torn by a crash or a full disk; nothing else is missing".to_owned(),
                );
            } else {
                self.say(at, true, "is not a line of this log: changed, or put in".to_owned());
            }
        }
        if line.event == "lost" && whole {
            let count = line.count.unwrap_or(0);
            self.here(false, format!("{count} events before this one could not be written"));
        }
        if let Some(trouble) = line.trouble.as_ref().filter(|_| whole) {
            self.here(false, format!("the writer noted: {trouble}"));
        }
        if let Some(head) = self.head
            && head.seq == line.seq
            && head.mac != mac
        {
            self.here(true, format!("is not the line {} that was written", head.seq));
        }
        self.before = Some(Link { seq: line.seq, mac });
        self.summary.lines += 1;
        let named = (line.seq, line.time);
        self.summary.first.get_or_insert_with(|| named.clone());
        self.summary.last = Some(named);
    }

    fn change_key(&mut self, id: &str) {
        if self.key.is_some_and(|key| key.id() == id) {
            return;
        }
        let keys = self.keys;
        let place = |id: &str| keys.iter().position(|key| key.id() == id);
        let before = self.key.and_then(|key| place(key.id()));
        self.key = keys.iter().find(|key| key.id() == id);
        if before > place(id) && self.key.is_some() {
            // Keys are given oldest first; who has an old one must not be able to go on with it.
            self.here(true, format!("from here on written with key {id}, which had been replaced before"));
            return;
        }
        if self.key.is_none() {
            let given: Vec<&str> = keys.iter().map(Key::id).collect();
            let given = given.join(", ");
            self.here(true, format!("from here on written with key {id}, which is not given (given: {given}); give it with --key-file"));
        } else if self.before.is_some() {
            self.here(false, format!("from here on written with key {id}"));
        }
    }

    /// Whether the line is one that was written, after the line before it.
    fn check(&mut self, body: &[u8], mac: &Mac, line: &Line) -> bool {
        let Some(key) = self.key else { return false };
        let follows = |before: &Mac| key.mac(before, body) == *mac;
        let says = line.prev.as_deref().and_then(Mac::parse).filter(|before| follows(before));
        let Some(before) = self.before else {
            return match says {
                Some(_) if line.seq == 1 => true,
                Some(_) => {
                    self.here(self.from_start, format!("begins at line {} of the log", line.seq));
                    true
                }
                None if line.prev.is_none() => {
                    self.here(
                        true,
                        "is not the first line of a file: what stood before it is missing".to_owned(),
                    );
                    false
                }
                None => self.is_not_right(),
            };
        };
        let expected = before.seq.saturating_add(1);
        if line.seq > expected {
            let missing = numbers(expected, line.seq - 1);
            let place = if self.at.1 == 1 { ", perhaps a whole file" } else { "" };
            self.here(true, format!("{missing} before this one{place}"));
            return says.is_some();
        }
        if line.seq < expected {
            self.here(
                true,
                format!("is line {}, after line {}: out of order, or twice", line.seq, before.seq),
            );
            return says.is_some();
        }
        if follows(&before.mac) {
            return true;
        }
        if says.is_some() {
            self.here(true, "does not follow the line before it, which was changed or replaced".to_owned());
            return true;
        }
        self.is_not_right()
    }

    fn is_not_right(&mut self) -> bool {
        self.here(true, "was changed, or put in, or the line before it was".to_owned());
        false
    }

    fn here(&mut self, is_problem: bool, what: String) {
        self.say(self.at.clone(), is_problem, what);
    }

    fn say(&mut self, (file, line): (String, u64), is_problem: bool, what: String) {
        self.summary.problems += u64::from(is_problem);
        (self.tell)(Finding { file, line, what, is_problem });
    }
}

fn numbers(from: u64, to: u64) -> String {
    if from == to { format!("line {from} is missing") } else { format!("lines {from} to {to} are missing") }
}

/// What a head file says, for whoever verifies; and what is to be said of it.
///
/// # Errors
/// Why it can't be used.
pub fn usable(head: &Head, keys: &[Key], read: impl Fn(&Key) -> Head) -> Result<Link, String> {
    match head {
        Head::Is(link) => Ok(*link),
        Head::Missing => Err("there is none".to_owned()),
        Head::Damaged(why) => Err(why.clone()),
        Head::OtherKey(id, _) => match keys.iter().find(|key| key.id() == id).map(read) {
            Some(Head::Is(link)) => Ok(link),
            Some(Head::Missing | Head::Damaged(_) | Head::OtherKey(..)) | None => {
                Err(format!("it was written with key {id}, which is not given"))
            }
        },
    }
}

#[cfg(test)]
mod tests;
