//! The thread that writes: the runtime that serves must never wait for a disk. All lines at hand are written at once; then
//! the head; both reach the disk within a second.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::audit::Shared;
use crate::audit::chain::{Head, Key, Link, close};
use crate::audit::event::{Event, Kind, Opening, line};
use crate::audit::file::{HeadFile, LogFile};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::ready::{Latch, Ready};

/// Lines that are written at once, at most.
const MOST_AT_ONCE: usize = 1024;
/// How long lines may be in the kernel alone.
const TICK: Duration = Duration::from_secs(1);
/// Between two complaints about the same thing.
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(10);

/// What the writer is told.
pub(super) enum Message {
    /// To write this, and to whom it matters whether it was.
    Line(Box<Event>, Option<oneshot::Sender<bool>>),
    /// To look at what it shares with us.
    Look,
    /// To finish.
    Close(oneshot::Sender<()>),
}

/// What the writer works with.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Receiver<Message>,
    pub(super) key: Key,
    pub(super) head: HeadFile,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: Ready,
    pub(super) state: State,
}

/// How far it is.
pub(super) struct State {
    /// None while it can't be opened.
    pub(super) log: Option<LogFile>,
    /// What the last process left, until that has been looked at.
    pub(super) found: Option<Head>,
    /// The last line that is whole.
    pub(super) link: Link,
    /// The next line is the first one of its file, or of this process.
    pub(super) opening: bool,
    /// The file ends within a line; an end of line comes first.
    pub(super) unended: bool,
    /// And that line is not whole.
    pub(super) torn: bool,
    /// What was found amiss, for the next line.
    pub(super) trouble: Option<String>,
    /// Something may be in the kernel alone, since then.
    pub(super) unsynced: Option<Duration>,
    pub(super) latch: Option<Latch>,
    pub(super) complained: Option<Duration>,
}

impl State {
    pub(super) fn new(found: Option<Head>) -> Self {
        Self {
            log: None,
            found,
            link: Link::NONE,
            opening: true,
            unended: false,
            torn: false,
            trouble: None,
            unsynced: None,
            latch: None,
            complained: None,
        }
    }
}

/// A line that is being written.
struct Pending {
    kind: Kind,
    link: Link,
    ack: Option<oneshot::Sender<bool>>,
}

impl Writer {
    /// Opens the log by its path, new or not. What is in the way of that is returned.
    pub(super) fn open(&mut self) -> io::Result<()> {
        let here = Head::Is(self.state.link);
        let head = self.state.found.as_ref().unwrap_or(&here);
        let (log, resumed) = LogFile::open(&self.shared.path, head, &self.key)?;
        if let Some(trouble) = &resumed.trouble {
            tracing::error!(path = %self.shared.path.display(), trouble, "the audit log is not as it was left");
        }
        self.state = State {
            log: Some(log),
            found: None,
            link: resumed.link,
            opening: true,
            unended: resumed.unended,
            torn: resumed.torn,
            trouble: resumed.trouble,
            ..std::mem::replace(&mut self.state, State::new(None))
        };
        Ok(())
    }

    /// Until it is told to finish, or everybody who could tell it is gone.
    pub(super) fn run(mut self) {
        let mut closing = None;
        let mut gone = false;
        while closing.is_none() && !gone {
            let mut lines = Vec::new();
            let mut take = |message| match message {
                Message::Line(event, ack) => lines.push((*event, ack)),
                Message::Look => {}
                Message::Close(done) => closing = Some(done),
            };
            let first = if self.has_business() {
                self.queue.recv_timeout(TICK)
            } else {
                self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match first {
                Ok(message) => take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => gone = true,
            }
            for message in self.queue.try_iter().take(MOST_AT_ONCE) {
                take(message);
            }
            let last = closing.is_some() || gone;
            self.turn(lines, last);
        }
        self.sync();
        let (lost, refused) = self.shared.unwritten();
        if lost > 0 {
            tracing::error!(lost, refused, "the audit log ends without events that could not be written");
        }
        // The next process may be waiting for the file.
        drop(self.state.log.take());
        if let Some(done) = closing {
            let _nobody_waits = done.send(());
        }
    }

    /// Whether something is to be done even if nobody says anything.
    fn has_business(&self) -> bool {
        self.state.unsynced.is_some() || self.shared.has_unwritten() || !self.shared.floods().is_empty()
    }

    fn turn(&mut self, lines: Vec<(Event, Option<oneshot::Sender<bool>>)>, last: bool) {
        let now = self.clock.now();
        self.look_at_file();
        let unwritten = self.shared.take_unwritten();
        let counts = self.shared.floods().due(now.boot, last);
        let stamp = |event: Event| Event { time: now.wall, ..event };
        let lost = (unwritten != (0, 0)).then(|| {
            let (lost, refused) = unwritten;
            let event = Event::new(Kind::Lost, "lost")
                .detail("events that could not be written, and tokens refused for that");
            stamp(Event { count: Some(lost), refused: Some(refused), ..event })
        });
        let counts = counts.into_iter().map(|event| (stamp(event), None));
        let events = lost.map(|event| (event, None)).into_iter().chain(lines).chain(counts);
        let (text, ends, pending) = self.render(events);
        if !pending.is_empty() {
            self.write(&text, &ends, pending, unwritten);
        }
        if last || self.state.unsynced.is_some_and(|since| now.boot.saturating_sub(since) >= TICK) {
            self.sync();
        }
    }

    /// Whatever has become of the file that we write.
    fn look_at_file(&mut self) {
        let asked = self.shared.reopen.swap(false, Ordering::AcqRel);
        let open = match &self.state.log {
            None => true,
            Some(log) => asked && log.was_moved(&self.shared.path),
        };
        if open {
            self.sync();
            if let Err(error) = self.open() {
                // The old one goes on, if there is one, until it can be done.
                self.complain(&error);
                self.shared.reopen.fetch_or(asked, Ordering::AcqRel);
            } else if asked {
                tracing::info!(path = %self.shared.path.display(), "the audit log was opened anew");
            }
        }
        if self.state.log.as_ref().is_some_and(LogFile::was_shortened) && !self.state.opening {
            let trouble =
                "the file was cut by somebody while it was written: logrotate needs no copytruncate";
            tracing::error!(path = %self.shared.path.display(), trouble, "the audit log is not as it was left");
            self.state.trouble = Some(trouble.to_owned());
            self.state.opening = true;
        }
    }

    fn render(
        &self,
        events: impl Iterator<Item = (Event, Option<oneshot::Sender<bool>>)>,
    ) -> (Vec<u8>, Vec<usize>, Vec<Pending>) {
        let (mut text, mut ends, mut pending) = (Vec::new(), Vec::new(), Vec::new());
        let mut link = self.state.link;
        if self.state.unended {
            text.push(b'\n');
        }
        for (event, ack) in events {
            let opening = (self.state.opening && pending.is_empty()).then_some(Opening {
                key: &self.key,
                before: link.mac,
                torn: self.state.torn,
                trouble: self.state.trouble.as_deref(),
            });
            let seq = link.seq.saturating_add(1);
            let mut one = line(&event, seq, opening.as_ref());
            link = Link { seq, mac: close(&mut one, &self.key, &link.mac) };
            text.extend_from_slice(one.as_bytes());
            ends.push(text.len());
            pending.push(Pending { kind: event.kind, link, ack });
        }
        (text, ends, pending)
    }

    /// `unwritten` is what the first line tells of, if it does.
    fn write(&mut self, text: &[u8], ends: &[usize], pending: Vec<Pending>, unwritten: (u64, u64)) {
        let (bytes, torn, error) = match &mut self.state.log {
            Some(log) => {
                let appended = log.append(text, ends);
                (appended.bytes, appended.torn, appended.error)
            }
            None => (0, false, Some(io::Error::other("it is not open"))),
        };
        let (mut written, mut lost) = (0, 0);
        for (pending, end) in pending.into_iter().zip(ends) {
            let is_written = *end <= bytes;
            if is_written {
                written += 1;
                self.state.link = pending.link;
            }
            match (is_written, pending.ack) {
                (_, Some(ack)) => {
                    let _caller_has_left = ack.send(is_written);
                }
                (false, None) if pending.kind == Kind::Lost => {
                    self.shared.put_back_unwritten(unwritten);
                }
                (false, None) => lost += 1,
                (true, None) => {}
            }
        }
        let count = |word, count| self.metrics.audit_events.with_label_values(&[word]).inc_by(count);
        count("written", written);
        count("lost", lost);
        self.shared.add_lost(lost);
        if written > 0 {
            (self.state.opening, self.state.unended, self.state.torn) = (false, false, false);
            self.state.trouble = None;
            self.shared.seq.store(self.state.link.seq, Ordering::Relaxed);
            self.state.unsynced.get_or_insert(self.clock.now().boot);
            if let Err(error) = self.head.write(&self.state.link, &self.key) {
                self.complain(&io::Error::new(error.kind(), format!("its head: {error}")));
            }
        }
        if torn {
            (self.state.opening, self.state.unended, self.state.torn) = (true, true, true);
        }
        self.fails(error);
    }

    fn fails(&mut self, error: Option<io::Error>) {
        let failed_before = self.shared.failing.swap(error.is_some(), Ordering::AcqRel);
        match error {
            Some(error) => self.complain(&error),
            None if failed_before => {
                self.state.complained = None;
                tracing::info!(path = %self.shared.path.display(), "the audit log can be written again");
            }
            None => {}
        }
        let holds = self.shared.failing.load(Ordering::Acquire) && self.shared.refuses();
        match (holds, self.state.latch.is_some()) {
            (true, false) => self.state.latch = Some(self.ready.hold("audit")),
            (false, true) => self.state.latch = None,
            (true, true) | (false, false) => {}
        }
    }

    fn complain(&mut self, error: &io::Error) {
        let now = self.clock.now().boot;
        if self.state.complained.is_none_or(|last| now.saturating_sub(last) >= BETWEEN_COMPLAINTS) {
            self.state.complained = Some(now);
            let (lost, refused) = self.shared.unwritten();
            tracing::error!(path = %self.shared.path.display(), %error, lost, refused, "the audit log can't be written");
        }
    }

    fn sync(&mut self) {
        if self.state.unsynced.take().is_none() {
            return;
        }
        // The lines first: a head that is ahead of them would say that some were cut off.
        let log = self.state.log.as_ref().map_or(Ok(()), LogFile::sync);
        if let Err(error) = log.and_then(|()| self.head.sync()) {
            self.complain(&error);
        }
    }
}
