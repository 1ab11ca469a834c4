//! The runs of the workflow platform: the passes that they show, and those that have ended.

use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use moka::sync::Cache;

use crate::clock::{Clock, Timestamp};
use crate::jwt::keys::KeySet;
use crate::policy::Shown;
use crate::run_pass::{self, Expectation, RunPass, Unbelieved};
use crate::secret::{Digest, Secret};

/// Which runs have ended.
pub mod ended;

/// Where the keys of passes come from.
pub mod keys;

use ended::EndedRuns;
use keys::PassKeys;

/// Passes that were verified once, with these keys, are not verified again.
const MOST_KNOWN: u64 = 10_000;

/// The bearer token in a request's `Authorization`, if there is one.
pub type Bearer = Result<Option<Secret>, Unbelieved>;

/// A reload may allow longer passes than those that could be shown when a run ended.
const SHORTEST_MEMORY: Duration = Duration::from_hours(24);

/// A pass that was verified, and the keys that proved it: newer ones unmake that.
#[derive(Clone)]
struct Known {
    keys: Arc<KeySet>,
    pass: Arc<RunPass>,
}

/// Reads passes, by one configuration.
pub struct Passes {
    expected: Option<(Expectation, Arc<PassKeys>)>,
    known: Cache<Digest, Known>,
    ended: Arc<EndedRuns>,
    clock: Arc<dyn Clock>,
}

impl Passes {
    /// Believes passes as `expected`; without it, none.
    #[must_use]
    pub fn new(
        expected: Option<(Expectation, Arc<PassKeys>)>,
        ended: Arc<EndedRuns>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { expected, known: Cache::new(MOST_KNOWN), ended, clock }
    }

    /// What comes of what a request shows.
    pub async fn judge(&self, bearer: &Bearer) -> Shown {
        match bearer {
            Ok(None) => Shown::Nothing,
            Ok(Some(pass)) => self.read(pass).await,
            Err(why) => Shown::Bad(*why, None),
        }
    }

    /// Where their keys come from, for the configuration that comes next.
    #[must_use]
    pub fn keys(&self) -> Option<&Arc<PassKeys>> {
        self.expected.as_ref().map(|(_, keys)| keys)
    }

    /// Until when an ended run must be remembered: no pass for it that was issued by now lives longer. `None` where no
    /// passes are taken.
    #[must_use]
    pub fn remember_until(&self) -> Option<Timestamp> {
        let (expected, _) = self.expected.as_ref()?;
        Some(
            self.clock.now().wall.plus(expected.max_lifetime.max(SHORTEST_MEMORY)).plus(run_pass::LEEWAY * 2),
        )
    }

    /// Whether a pass that was believed still is: its time and its run go on.
    ///
    /// # Errors
    /// Which of them does not.
    pub fn still(&self, pass: &RunPass) -> Result<(), Unbelieved> {
        if pass.expires_at() <= self.clock.now().wall {
            return Err(Unbelieved::Expired);
        }
        if self.ended.contains(pass.run()) { Err(Unbelieved::Ended) } else { Ok(()) }
    }

    /// The same of what a request showed when it was judged.
    ///
    /// # Errors
    /// Why the pass counts no longer.
    pub fn still_shown(&self, shown: &Shown) -> Result<(), Unbelieved> {
        match shown {
            Shown::Pass(pass) => self.still(pass),
            Shown::Nothing | Shown::Bad(..) | Shown::Unknown => Ok(()),
        }
    }

    async fn read(&self, pass: &Secret) -> Shown {
        let Some((expected, keys)) = &self.expected else { return Shown::Bad(Unbelieved::NotTaken, None) };
        keys.look_again().await;
        let Some(set) = keys.current() else { return Shown::Unknown };
        let digest = pass.digest();
        let known = self.known.get(&digest).filter(|known| Arc::ptr_eq(&known.keys, &set));
        let pass = match known {
            Some(known) => known.pass,
            None => match self.verify(pass, expected, keys, set).await {
                Ok(believed) => {
                    self.known.insert(digest, believed.clone());
                    believed.pass
                }
                Err(why) => return Shown::Bad(why, None),
            },
        };
        match self.still(&pass) {
            Ok(()) => Shown::Pass(pass),
            Err(why) => Shown::Bad(why, Some(pass.run().clone())),
        }
    }

    async fn verify(
        &self,
        pass: &Secret,
        expected: &Expectation,
        keys: &PassKeys,
        mut set: Arc<KeySet>,
    ) -> Result<Known, Unbelieved> {
        let now = self.clock.now().wall;
        let mut verified = run_pass::verify(pass, &set, expected, now);
        if verified == Err(Unbelieved::Key) {
            // It may be newer than our set.
            keys.look_for_newer().await;
            if let Some(newer) = keys.current().filter(|newer| !Arc::ptr_eq(newer, &set)) {
                set = newer;
                verified = run_pass::verify(pass, &set, expected, now);
            }
        }
        verified.map(|pass| Known { keys: set, pass: Arc::new(pass) })
    }
}

/// RFC 6750 §2.1.
///
/// # Errors
/// If there is an `Authorization` that is no bearer token, or more than one.
pub fn bearer(headers: &HeaderMap) -> Bearer {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
    });
    match (token, values.next()) {
        (Some(token), None) if !token.is_empty() => Ok(Some(Secret::new(token.to_owned()))),
        _ => Err(Unbelieved::NotBearer),
    }
}
