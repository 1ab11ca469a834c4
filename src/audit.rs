//! What was done, for whom and by whom, in lines that can't be changed unseen.
//!
//! ```text
//! event     what happened, and its line
//! floods    refusals beyond reason are counted
//! writer    a thread: all lines at hand in one write, then the head
//!   chain   each line ends with a keyed hash of itself and of the one before
//!   file    what is not whole is taken back
//!   resume  where the chain goes on
//! verify    is it all there, as it was written?
//! ```
//!
//! Nobody waits for a line, except who is handed a token while `on_failure = "refuse"`. Ending a grant never depends on it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::ready::Ready;
use crate::secret::Digest;

/// What holds the lines together.
pub mod chain;
/// What is recorded.
pub mod event;
mod file;
mod floods;
mod resume;
/// Is a log whole?
pub mod verify;
mod writer;

use chain::{Head, Key};
pub use event::{Event, Kind};
use file::HeadFile;
use floods::Floods;
use writer::{Message, State, Writer};

/// Events that wait to be written, at most; more are lost, and counted.
const QUEUE: usize = 8192;
/// Vends that are remembered where only the first is written; one that is forgotten is written once more.
const MOST_VENDED: u64 = 100_000;
/// How long what was vended is remembered: longer than tokens live.
const VENDED_FOR: Duration = Duration::from_hours(25);

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The log.
    pub file: PathBuf,
    /// Its key; without one, a key of our own beside the database.
    pub key_file: Option<PathBuf>,
}

/// What a reload may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// A token is written down once per caller, not each time.
    pub first_only: bool,
    /// A token whose line can't be written is not handed out.
    pub refuse: bool,
}

/// The files beside the database.
#[must_use]
pub fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The key that is made where none is configured.
pub const OWN_KEY: &str = ".audit-key";
/// The number and hash of the last line.
pub const HEAD: &str = ".audit-head";

/// A token's line was not written, and without it the token may not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotWritten;

/// The log, for whoever has something to record; clones share it.
#[derive(Clone)]
pub struct Audit(Option<Arc<Inner>>);

struct Inner {
    shared: Arc<Shared>,
    queue: SyncSender<Message>,
    vended: Cache<Vended, ()>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// What makes two vends the same one: token, uid, pid, run.
type Vended = (Digest, Option<(u32, Option<i32>)>, Option<String>);

/// What the writer shares with those who record.
struct Shared {
    path: PathBuf,
    first_only: AtomicBool,
    refuse: AtomicBool,
    reopen: AtomicBool,
    failing: AtomicBool,
    seq: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    floods: Mutex<Floods>,
}

/// How the log does.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it is.
    pub file: PathBuf,
    /// The last line that was written.
    pub seq: u64,
    /// Whether the last try to write failed.
    pub failing: bool,
}

impl Audit {
    /// Nothing is recorded.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Opens the log and starts its writer. After the store was opened: what lies beside the database has one owner, too.
    ///
    /// # Errors
    /// What the operator must mend. A disk that is full is not among it: that is dealt with as `on_failure` says.
    pub fn open(
        config: &Config,
        terms: Terms,
        database: &Path,
        (clock, entropy): (Arc<dyn Clock>, &dyn Entropy),
        metrics: Arc<Metrics>,
        ready: Ready,
    ) -> Result<Self, String> {
        let key = match &config.key_file {
            Some(path) => Key::from_file(path)?,
            None => Key::from_own_file(&beside(database, OWN_KEY), entropy)?,
        };
        let head_path = beside(database, HEAD);
        let found = Head::read(&head_path, &key);
        let shared = Arc::new(Shared {
            path: config.file.clone(),
            first_only: AtomicBool::new(terms.first_only),
            refuse: AtomicBool::new(terms.refuse),
            reopen: AtomicBool::new(false),
            failing: AtomicBool::new(false),
            seq: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            floods: Mutex::default(),
        });
        let (sender, queue) = sync_channel(QUEUE);
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            queue,
            key,
            head: HeadFile::open(&head_path)?,
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            ready,
            state: State::new(Some(found)),
        };
        if let Err(error) = writer.open()
            && !matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return Err(format!("audit.file = \"{}\": {error}", config.file.display()));
        }
        let thread = std::thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || writer.run()).map_err(|error| error.to_string())?;
        let vended = Cache::builder().max_capacity(MOST_VENDED).time_to_live(VENDED_FOR).build();
        Ok(Self(Some(Arc::new(Inner { shared, queue: sender, vended, clock, metrics }))))
    }

    /// Whether anything is recorded; if not, an event need not even be made up.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records an event. Never waits; what can't be written is counted.
    pub fn record(&self, event: Event) {
        if let Some(inner) = &self.0 {
            inner.record(event);
        }
    }

    /// Records that somebody was refused something, unless that has been said often enough.
    pub fn refusal(&self, event: Event) {
        let Some(inner) = &self.0 else { return };
        let admitted = inner.shared.floods().admit(event, inner.clock.now().boot);
        if let Some(event) = admitted {
            inner.record(event);
        }
    }

    /// Records that a token is being handed out. Where that must be written first, waits for it, for `patience` at most.
    ///
    /// # Errors
    /// The token may not leave.
    pub async fn vend(&self, event: Event, patience: Duration) -> Result<(), NotWritten> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let first = inner.shared.first_only.load(Ordering::Relaxed).then(|| vended(&event)).flatten();
        if first.as_ref().is_some_and(|first| inner.vended.contains_key(first)) {
            return Ok(());
        }
        if inner.shared.refuses() {
            let (ack, written) = oneshot::channel();
            let queued = inner.queue.try_send(inner.message(event, Some(ack)));
            let written = match queued {
                Ok(()) => tokio::time::timeout(patience, written).await,
                Err(_full_or_gone) => Ok(Ok(false)),
            };
            if !matches!(written, Ok(Ok(true))) {
                inner.metrics.audit_events.with_label_values(&["refused"]).inc();
                inner.shared.refused.fetch_add(1, Ordering::AcqRel);
                return Err(NotWritten);
            }
        } else {
            inner.record(event);
        }
        // What may not have been written is not done with.
        if let Some(first) = first.filter(|_| !inner.shared.failing.load(Ordering::Relaxed)) {
            inner.vended.insert(first, ());
        }
        Ok(())
    }

    /// Whether a token waits for its line.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.shared.refuses())
    }

    /// Whether the same token for the same caller on the same connection is a line again.
    #[must_use]
    pub fn writes_each(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| !inner.shared.first_only.load(Ordering::Relaxed))
    }

    /// Opens the file by its path, if it was moved: what comes from now on goes into the new one.
    pub fn reopen(&self) {
        if let Some(inner) = &self.0 {
            inner.shared.reopen.store(true, Ordering::Release);
            // If the queue is full, the writer looks anyway.
            let _awake = inner.queue.try_send(Message::Look);
        }
    }

    /// On other terms from now on.
    pub fn set(&self, terms: Terms) {
        if let Some(Inner { shared, vended, .. }) = self.0.as_deref() {
            if terms.refuse && !shared.refuses() {
                // Lines that did not have to be written may not have been.
                vended.invalidate_all();
            }
            shared.first_only.store(terms.first_only, Ordering::Relaxed);
            shared.refuse.store(terms.refuse, Ordering::Relaxed);
        }
    }

    /// Writes what waits, for `patience` at most; nothing is recorded after that.
    pub async fn close(&self, patience: Duration) {
        let Some(inner) = &self.0 else { return };
        let (done, closed) = oneshot::channel();
        let mut message = Message::Close(done);
        let closing = async {
            // Full only for as long as the writer takes for what is in it.
            while let Err(error) = inner.queue.try_send(message) {
                match error {
                    std::sync::mpsc::TrySendError::Full(back) => message = back,
                    std::sync::mpsc::TrySendError::Disconnected(_) => return,
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _gone = closed.await;
        };
        if tokio::time::timeout(patience, closing).await.is_err() {
            tracing::error!("the audit log takes too long to be written; its last lines may be missing");
        }
    }

    /// How it does, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        let shared = &self.0.as_ref()?.shared;
        Some(Status {
            file: shared.path.clone(),
            seq: shared.seq.load(Ordering::Relaxed),
            failing: shared.failing.load(Ordering::Relaxed),
        })
    }
}

fn vended(event: &Event) -> Option<Vended> {
    let token = event.token.as_ref()?.digest();
    let caller = event.caller.as_ref().map(|who| (who.uid(), who.pid()));
    Some((token, caller, event.run.clone()))
}

impl Inner {
    fn message(&self, event: Event, ack: Option<oneshot::Sender<bool>>) -> Message {
        Message::Line(Box::new(Event { time: self.clock.now().wall, ..event }), ack)
    }

    fn record(&self, event: Event) {
        if self.queue.try_send(self.message(event, None)).is_err() {
            self.metrics.audit_events.with_label_values(&["lost"]).inc();
            self.shared.add_lost(1);
        }
    }
}

impl Shared {
    fn floods(&self) -> MutexGuard<'_, Floods> {
        self.floods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuses(&self) -> bool {
        self.refuse.load(Ordering::Relaxed)
    }

    fn add_lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::AcqRel);
    }

    /// Events that were lost and tokens that were refused since a line last told of some.
    fn unwritten(&self) -> (u64, u64) {
        (self.lost.load(Ordering::Acquire), self.refused.load(Ordering::Acquire))
    }

    fn has_unwritten(&self) -> bool {
        self.unwritten() != (0, 0)
    }

    fn take_unwritten(&self) -> (u64, u64) {
        (self.lost.swap(0, Ordering::AcqRel), self.refused.swap(0, Ordering::AcqRel))
    }

    fn put_back_unwritten(&self, (lost, refused): (u64, u64)) {
        self.lost.fetch_add(lost, Ordering::AcqRel);
        self.refused.fetch_add(refused, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
