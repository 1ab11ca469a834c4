//! Who used a grant last, and when.

use crate::clock::Timestamp;
use crate::model::RunId;

/// The caller that is being handed a token, as it is at hand then: nothing is copied to compare it.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its user id.
    pub uid: u32,
    /// Its systemd unit, if it was looked at closely and runs in one.
    pub unit: Option<&'a str>,
    /// The run whose pass it showed.
    pub run: Option<&'a RunId>,
}

/// The last time that somebody was handed one of a grant's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// When.
    pub at: Timestamp,
    /// The user id of the caller.
    pub uid: u32,
    /// Its systemd unit, if that was known.
    pub unit: Option<String>,
    /// The run whose pass it showed.
    pub run: Option<RunId>,
}

impl LastUse {
    /// `asker` is handed a token at `at`.
    #[must_use]
    pub fn new(asker: &Asker<'_>, at: Timestamp) -> Self {
        Self { at, uid: asker.uid, unit: asker.unit.map(str::to_owned), run: asker.run.cloned() }
    }

    /// Whether it was this caller.
    #[must_use]
    pub fn was_by(&self, asker: &Asker<'_>) -> bool {
        self.uid == asker.uid && self.unit.as_deref() == asker.unit && self.run.as_ref() == asker.run
    }
}
