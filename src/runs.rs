//! The runs of the workflow platform: the passes that they show, and those that have ended.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use moka::sync::Cache;

use crate::clock::{Clock, Timestamp};
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

/// Reads passes, by one configuration.
pub struct Passes {
    expected: Option<(Expectation, PassKeys)>,
    known: Cache<Digest, Arc<RunPass>>,
    ended: Arc<EndedRuns>,
    clock: Arc<dyn Clock>,
}

impl Passes {
    /// Believes passes as `expected`; without it, none.
    #[must_use]
    pub fn new(
        expected: Option<(Expectation, PassKeys)>,
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
            Err(why) => Shown::Bad(*why),
        }
    }

    /// Until when an ended run must be remembered: no pass for it that was issued by now lives longer. `None` where no
    /// passes are taken.
    #[must_use]
    pub fn remember_until(&self) -> Option<Timestamp> {
        let (expected, _) = self.expected.as_ref()?;
        Some(self.clock.now().wall.plus(expected.max_lifetime).plus(run_pass::LEEWAY * 2))
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
            Shown::Nothing | Shown::Bad(_) | Shown::Unknown => Ok(()),
        }
    }

    async fn read(&self, pass: &Secret) -> Shown {
        let Some((expected, keys)) = &self.expected else { return Shown::Bad(Unbelieved::NotTaken) };
        // Newer keys unmake what older ones have proved.
        if keys.look_again().await {
            self.known.invalidate_all();
        }
        let digest = pass.digest();
        let pass = match self.known.get(&digest) {
            Some(known) => known,
            None => match self.verify(pass, expected, keys).await {
                Ok(believed) => {
                    let believed = Arc::new(believed);
                    self.known.insert(digest, Arc::clone(&believed));
                    believed
                }
                Err(shown) => return shown,
            },
        };
        match self.still(&pass) {
            Ok(()) => Shown::Pass(pass),
            Err(why) => Shown::Bad(why),
        }
    }

    async fn verify(&self, pass: &Secret, expected: &Expectation, keys: &PassKeys) -> Result<RunPass, Shown> {
        let now = self.clock.now().wall;
        let set = keys.current().ok_or(Shown::Unknown)?;
        match run_pass::verify(pass, &set, expected, now) {
            // The key may be newer than our set.
            Err(Unbelieved::Key) if keys.look_for_newer().await => {
                let newer = keys.current().ok_or(Shown::Unknown)?;
                run_pass::verify(pass, &newer, expected, now).map_err(Shown::Bad)
            }
            verified => verified.map_err(Shown::Bad),
        }
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
