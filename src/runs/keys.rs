//! The keys of the workflow platform, from a file or an address; what is in use stays in use while nothing better is there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::header::{ACCEPT, HeaderValue};
use hyper::{Request, StatusCode};
use tokio::sync::Mutex as Turn;
use url::Url;

use crate::authorization_server::http::HttpClient;
use crate::authorization_server::keys::{Keys, Want};
use crate::clock::{Clock, Moment};
use crate::guarded::{self, Holds};
use crate::jwt::keys::KeySet;
use crate::run_pass::ALGORITHMS;
use crate::tasks::Tasks;

/// How long a fetch may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often the file is looked at: a key that was taken out stops working within this time.
const GLANCE: Duration = Duration::from_secs(1);

/// Where keys come from.
pub struct PassKeys(Source);

enum Source {
    File { path: PathBuf, clock: Arc<dyn Clock>, seen: Mutex<Seen> },
    Url(Arc<Remote>),
}

/// What the file was when it was looked at last.
struct Seen {
    looked: Moment,
    stamp: Option<Stamp>,
    set: Arc<KeySet>,
}

/// Tells one version of a file from the next, also one that was moved into its place.
type Stamp = (SystemTime, u64, u64);

struct Remote {
    url: Url,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    keys: Keys,
    turn: Turn<()>,
}

impl PassKeys {
    /// A file with a key set (RFC 7517), read again when it changes.
    ///
    /// # Errors
    /// In words for the operator.
    pub fn file(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let stamp = stamp(path);
        let set = Arc::new(read(path)?);
        let seen = Mutex::new(Seen { looked: clock.now(), stamp, set });
        Ok(Self(Source::File { path: path.to_owned(), clock, seen }))
    }

    /// An address that answers with a key set; fetched when first needed.
    #[must_use]
    pub fn url(url: Url, http: HttpClient, clock: Arc<dyn Clock>, tasks: Tasks) -> Self {
        let (keys, turn) = (Keys::default(), Turn::default());
        Self(Source::Url(Arc::new(Remote { url, http, clock, tasks, keys, turn })))
    }

    /// Whether they come from this address.
    #[must_use]
    pub fn are_at(&self, url: &Url) -> bool {
        matches!(&self.0, Source::Url(remote) if remote.url == *url)
    }

    /// Looks for newer keys where it is time to.
    pub(super) async fn look_again(&self) {
        match &self.0 {
            Source::File { path, clock, seen } => glance(path, &**clock, seen),
            Source::Url(remote) => remote.fetch(Want::Usual).await,
        }
    }

    /// Looks for a key that is not in the set.
    pub(super) async fn look_for_newer(&self) {
        match &self.0 {
            Source::File { .. } => {}
            Source::Url(remote) => remote.fetch(Want::Unknown).await,
        }
    }

    /// The set in use.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        match &self.0 {
            Source::File { seen, .. } => {
                Some(Arc::clone(&seen.lock().unwrap_or_else(PoisonError::into_inner).set))
            }
            Source::Url(remote) => remote.keys.current(),
        }
    }
}

impl Remote {
    /// In a task of its own: whoever asks may leave in the middle, and neither stops a fetch nor begins another.
    async fn fetch(self: &Arc<Self>, want: Want) {
        if !self.keys.wants_fetch(want, &self.clock.now()) {
            return;
        }
        // While somebody fetches, what is there will do; who has nothing to go by waits for that, and looks again.
        let known = want == Want::Usual && self.keys.current().is_some();
        if known && self.turn.try_lock().is_err() {
            return;
        }
        let remote = Arc::clone(self);
        let fetching = self.tasks.spawn(async move { remote.fetch_in_turn(want).await });
        if !known {
            let _ended = fetching.await;
        }
    }

    async fn fetch_in_turn(&self, want: Want) {
        let _turn = self.turn.lock().await;
        if !self.keys.wants_fetch(want, &self.clock.now()) {
            return;
        }
        let fetched = fetch(&self.url, &self.http).await;
        self.keys.fetched(want, &self.clock.now());
        match fetched {
            Ok((set, headers)) => self.keys.replace(set, &headers, &self.clock.now()),
            Err(why) => tracing::warn!(url = %self.url, %why, "the keys of run passes could not be fetched"),
        }
    }
}

async fn fetch(url: &Url, http: &HttpClient) -> Result<(KeySet, hyper::HeaderMap), String> {
    let mut request = Request::new(http_body_util::Full::default());
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    let answer = http.send(url, request, DEADLINE).await.map_err(|error| error.to_string())?;
    if answer.status != StatusCode::OK {
        return Err(format!("it answers {}", answer.status));
    }
    let set = KeySet::parse(&answer.body, &ALGORITHMS).map_err(|error| error.to_string())?;
    Ok((set, answer.headers))
}

fn glance(path: &Path, clock: &dyn Clock, seen: &Mutex<Seen>) {
    let now = clock.now();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if now.since(&seen.looked).is_some_and(|age| age < GLANCE) {
        return;
    }
    seen.looked = now;
    let stamp = stamp(path);
    if stamp == seen.stamp {
        return;
    }
    seen.stamp = stamp;
    match read(path) {
        Ok(set) => {
            tracing::info!(path = %path.display(), usable = set.usable(), "the keys of run passes were read again");
            seen.set = Arc::new(set);
        }
        Err(why) => {
            tracing::error!(%why, "the keys of run passes in use stay");
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.size(), metadata.ino()))
}

/// Reads a file of keys.
///
/// # Errors
/// In words for the operator.
pub fn read(path: &Path) -> Result<KeySet, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    // Who can change it can sign passes.
    let document = guarded::read(path, Holds::Decisions).map_err(|error| failed(&error))?;
    KeySet::parse(document.as_bytes(), &ALGORITHMS).map_err(|error| failed(&error))
}
