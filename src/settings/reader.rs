//! Reads TOML section by section and collects every problem on the way, each with its line.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::guarded::Holds;
use crate::settings::Problem;

/// No time in a configuration is meant to be longer.
const LONGEST: Duration = Duration::from_hours(24 * 366);

/// The problems found so far, and the text that they are in.
pub(super) struct Problems<'t> {
    text: &'t str,
    found: RefCell<Vec<Problem>>,
    files: RefCell<BTreeMap<PathBuf, Holds>>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, found: RefCell::default(), files: RefCell::default() }
    }

    /// The text as TOML, if it is.
    pub(super) fn document(&self) -> Option<Spanned<DeTable<'t>>> {
        match DeTable::parse(self.text) {
            Ok(document) => Some(document),
            Err(error) => {
                let at = error.span().map(|span| span.start);
                self.add(at, "", format!("not TOML: {}", error.message()), false);
                None
            }
        }
    }

    /// All of them, in the order of their lines.
    pub(super) fn found(&self) -> Vec<Problem> {
        let mut found = self.found.borrow().clone();
        found.sort_by(|one, other| (one.line, &one.key).cmp(&(other.line, &other.key)));
        found
    }

    /// The files that were asked for.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Holds> {
        self.files.borrow().clone()
    }

    fn add(&self, at: Option<usize>, key: &str, message: impl Into<String>, of_this_machine: bool) {
        let before = at.and_then(|at| self.text.get(..at));
        let line = before.map_or(0, |before| before.matches('\n').count() + 1);
        let (key, message) = (key.to_owned(), message.into());
        self.found.borrow_mut().push(Problem { line, key, message, of_this_machine });
    }
}

/// One table. What is asked of it counts as known; `finish` reports the rest.
pub(super) struct Section<'a> {
    name: String,
    at: Option<usize>,
    table: Option<&'a DeTable<'a>>,
    known: RefCell<BTreeSet<String>>,
    problems: &'a Problems<'a>,
    finished: Cell<bool>,
}

impl<'a> Section<'a> {
    pub(super) fn root(document: &'a Spanned<DeTable<'a>>, problems: &'a Problems<'a>) -> Self {
        Self::new(String::new(), None, Some(document.get_ref()), problems)
    }

    fn new(
        name: String,
        at: Option<usize>,
        table: Option<&'a DeTable<'a>>,
        problems: &'a Problems<'a>,
    ) -> Self {
        Self { name, at, table, known: RefCell::default(), problems, finished: Cell::new(false) }
    }

    /// A table in it; where it is missing, all of it is.
    pub(super) fn section(&self, key: &str) -> Self {
        let value = self.value(key);
        let table = value.and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.problem(key, format!("must be a section, [{}]", self.full(key)));
            }
            table
        });
        Self::new(self.full(key), value.map(|value| value.span().start), table, self.problems)
    }

    /// The tables in the table of this name, with their names.
    pub(super) fn sections(&self, key: &str) -> Vec<(String, Self)> {
        let parent = self.section(key);
        let names: Vec<String> = parent
            .table
            .into_iter()
            .flat_map(|table| table.keys())
            .map(|name| name.get_ref().to_string())
            .collect();
        let sections = names.into_iter().map(|name| (name.clone(), parent.section(&name))).collect();
        parent.finish();
        sections
    }

    /// The tables of an array of tables.
    pub(super) fn array(&self, key: &str) -> Vec<Self> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.problem(key, format!("must be a list of sections, [[{}]]", self.full(key)));
            return Vec::new();
        };
        let section = |(index, element): (usize, &'a Spanned<DeValue<'a>>)| {
            let name = format!("{}[{}]", self.full(key), index + 1);
            let at = Some(element.span().start);
            let table = element.get_ref().as_table();
            if table.is_none() {
                self.problems.add(at, &name, format!("must be a section, [[{}]]", self.full(key)), false);
            }
            Self::new(name, at, table, self.problems)
        };
        array.iter().enumerate().map(section).collect()
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let value = self.value(key)?;
        let text = value.get_ref().as_str();
        match text {
            Some("") => self.problem(key, "must not be empty"),
            Some(text) => return Some(text.to_owned()),
            None => self.problem(key, "must be a text in quotes"),
        }
        None
    }

    /// A text that must be there; empty where it is not.
    pub(super) fn required_text(&self, key: &str) -> String {
        if self.value(key).is_none() {
            self.missing(key, "is missing");
        }
        self.text(key).unwrap_or_default()
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let texts = value.get_ref().as_array().and_then(|array| {
            array
                .iter()
                .map(|element| element.get_ref().as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        });
        if texts.is_none() {
            self.problem(key, "must be a list of texts, such as [\"a\", \"b\"]");
        }
        texts
    }

    /// One of a few words.
    pub(super) fn choice(&self, key: &str, allowed: &[&'static str]) -> Option<&'static str> {
        let text = self.text(key)?;
        let found = allowed.iter().copied().find(|word| *word == text);
        if found.is_none() {
            self.problem(key, format!("must be one of {}", quoted(allowed)));
        }
        found
    }

    /// A number in a range.
    pub(super) fn number<T>(&self, key: &str, default: T, allowed: RangeInclusive<T>) -> T
    where
        T: TryFrom<u64> + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.value(key) else { return default };
        let number = value.get_ref().as_integer().and_then(|number| {
            let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
            T::try_from(number).ok().filter(|number| allowed.contains(number))
        });
        number.unwrap_or_else(|| {
            self.problem(key, format!("must be a number from {} to {}", allowed.start(), allowed.end()));
            default
        })
    }

    /// Whether it is so; not where nothing is said.
    pub(super) fn flag(&self, key: &str) -> bool {
        let Some(value) = self.value(key) else { return false };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.problem(key, "must be true or false");
            false
        })
    }

    /// A number, if there is one.
    pub(super) fn id(&self, key: &str) -> Option<u32> {
        self.value(key)?;
        Some(self.number(key, 0, 0..=u32::MAX - 1))
    }

    /// A time, such as "30s".
    pub(super) fn duration(&self, key: &str, default: Duration) -> Duration {
        self.text(key).map_or(default, |text| {
            humantime::parse_duration(&text).ok().filter(|time| *time <= LONGEST).unwrap_or_else(|| {
                self.problem(
                    key,
                    "must be a time in quotes, such as \"30s\", \"5m\" or \"1h\", and at most a year",
                );
                default
            })
        })
    }

    /// A time that is not zero.
    pub(super) fn positive_duration(&self, key: &str, default: Duration) -> Duration {
        let duration = self.duration(key, default);
        if duration.is_zero() {
            self.problem(key, "must be longer than nothing");
        }
        duration
    }

    /// A time that is not zero, or "never".
    pub(super) fn duration_or_never(&self, key: &str, default: Option<Duration>) -> Option<Duration> {
        match self.text(key) {
            None => default,
            Some(text) if text == "never" => None,
            Some(_) => Some(self.positive_duration(key, Duration::from_secs(1))),
        }
    }

    /// A path.
    pub(super) fn path(&self, key: &str, default: Option<&str>) -> PathBuf {
        self.text(key).or_else(|| default.map(str::to_owned)).map(PathBuf::from).unwrap_or_default()
    }

    /// A file with a secret: a bare name is a systemd credential, if there is one of that name.
    pub(super) fn file(&self, key: &str, default: Option<&str>) -> PathBuf {
        self.named_file(key, default, Holds::Secret)
    }

    /// A list of such files.
    pub(super) fn files(&self, key: &str) -> Vec<PathBuf> {
        let texts = self.texts(key).unwrap_or_default();
        texts.iter().map(|text| self.named(PathBuf::from(text), Holds::Secret)).collect()
    }

    /// A file that everybody may read.
    pub(super) fn public_file(&self, key: &str) -> PathBuf {
        self.named_file(key, None, Holds::Decisions)
    }

    fn named_file(&self, key: &str, default: Option<&str>, holds: Holds) -> PathBuf {
        self.named(self.path(key, default), holds)
    }

    fn named(&self, path: PathBuf, holds: Holds) -> PathBuf {
        #[expect(clippy::disallowed_methods, reason = "systemd says this way where it has put credentials")]
        let directory = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|_| path.components().count() == 1);
        let credential = directory.map(|directory| PathBuf::from(directory).join(&path));
        let file = credential.filter(|credential| credential.exists()).unwrap_or(path);
        self.problems.files.borrow_mut().insert(file.clone(), holds);
        file
    }

    /// An address and port.
    pub(super) fn address(&self, key: &str, default: SocketAddr) -> SocketAddr {
        self.text(key).map_or(default, |text| {
            text.parse().unwrap_or_else(|_| {
                self.problem(key, "must be an address and a port, such as \"127.0.0.1:9464\"");
                default
            })
        })
    }

    /// Whether the key stands there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Something is wrong with a key's value.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        self.report(key, message, false);
    }

    /// A key's value is fine, and this machine lacks what it names.
    pub(super) fn lacking(&self, key: &str, message: impl Into<String>) {
        self.report(key, message, true);
    }

    /// A key should be there and is not.
    pub(super) fn missing(&self, key: &str, message: impl Into<String>) {
        self.problems.add(self.at, &self.full(key), message, false);
    }

    /// Everything that this version knows has been asked for: what is left is unknown.
    pub(super) fn finish(&self) {
        self.finished.set(true);
        let known = self.known.borrow();
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name = key.get_ref().as_ref();
            if !known.contains(name) {
                let allowed: Vec<&str> = known.iter().map(String::as_str).collect();
                let message = match name {
                    "client_secret" => {
                        "a secret is given by reference: client_secret_file or client_secret_env".to_owned()
                    }
                    _ => format!("unknown key; known here: {}", allowed.join(", ")),
                };
                self.problems.add(Some(key.span().start), &self.full(name), message, false);
            }
        }
    }

    fn report(&self, key: &str, message: impl Into<String>, of_this_machine: bool) {
        let at = self.entry(key).map(|(at, _)| at).or(self.at);
        self.problems.add(at, &self.full(key), message, of_this_machine);
    }

    fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.borrow_mut().insert(key.to_owned());
        self.entry(key).map(|(_, value)| value)
    }

    fn entry(&self, key: &str) -> Option<(usize, &'a Spanned<DeValue<'a>>)> {
        let (key, value) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some((key.span().start, value))
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// A section that was read but never finished would let unknown keys pass.
impl Drop for Section<'_> {
    fn drop(&mut self) {
        debug_assert!(self.finished.get() || std::thread::panicking(), "[{}] was not finished", self.name);
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}
