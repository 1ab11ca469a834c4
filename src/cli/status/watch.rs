//! `bursar status --watch`: asked again and again, and drawn over itself where a person looks at a terminal.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use hyper::{Method, StatusCode};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getpgrp, tcgetpgrp};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::cli::status::table::cut;
use crate::cli::status::{TARGET, view};
use crate::cli::{Exit, client, terminal};
use crate::clock::{Clock as _, SystemClock, Timestamp};

/// How long an answer may take before the sidecar counts as not reachable.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn watch(socket: &Path, every: Duration, as_json: bool) -> Exit {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        terminal::err("bursar: the system gives no signals");
        return Exit::Failed;
    };
    let mut asked_to_end = listen_for_q(as_json);
    let watching = async {
        let clock = SystemClock::new(0);
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut screen = Screen::new(every, as_json);
        loop {
            ticks.tick().await;
            let is_seen = match (ask(socket).await, screen.drawn) {
                (Ok(status), _) => screen.show(status),
                // What never answered is rather a mistyped path than something that will be back.
                (Err(why), false) => {
                    terminal::err(&format!("bursar: {}: {why}", socket.display()));
                    return Exit::Unavailable;
                }
                (Err(why), true) => screen.lost(&why, clock.now().wall),
            };
            if !is_seen {
                return Exit::Done;
            }
        }
    };
    tokio::select! {
        exit = watching => exit,
        _ = interrupt.recv() => {
            if terminal::is_seen() {
                // Where the terminal has put its ^C.
                terminal::out("\n");
            }
            Exit::Done
        }
        _ = terminate.recv() => Exit::Done,
        Some(()) = asked_to_end.recv() => Exit::Done,
    }
}

async fn ask(socket: &Path) -> Result<Value, String> {
    let answer = timeout(PATIENCE, client::send(socket, Method::GET, TARGET, None)).await;
    match answer.unwrap_or_else(|_| Err("it does not answer".to_owned()))? {
        (StatusCode::OK, status) => Ok(status),
        (code, problem) => {
            let text = |member: &str| problem.get(member).and_then(Value::as_str);
            Err(format!(
                "{}: {}",
                terminal::printable(text("error").unwrap_or(code.as_str())),
                terminal::printable(text("detail").unwrap_or("no detail"))
            ))
        }
    }
}

/// Says when a line with a `q` has been typed, where a person types and looks; what comes by a pipe is for somebody else. The
/// thread waits for its next line when the process ends.
fn listen_for_q(as_json: bool) -> mpsc::Receiver<()> {
    let (tell, told) = mpsc::channel(1);
    let stdin = std::io::stdin();
    let is_ours = stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|group| group == getpgrp());
    if as_json || !terminal::is_seen() || !is_ours {
        return told;
    }
    let read = move || {
        // Sent to the background later, reading would stop all of the process: so the read fails, and nothing but this
        // thread ends.
        let mut background = SigSet::empty();
        background.add(Signal::SIGTTIN);
        if background.thread_block().is_err() {
            return;
        }
        let typed = std::io::stdin().lines().map_while(Result::ok).any(|line| line.trim() == "q");
        if typed {
            let _over_anyway = tell.blocking_send(());
        }
    };
    // Without it there is still Ctrl-C.
    let _heard_or_not = std::thread::Builder::new().name("keys".to_owned()).spawn(read);
    told
}

/// What was shown last, and where.
struct Screen {
    every: Duration,
    as_json: bool,
    on_terminal: bool,
    drawn: bool,
    last: Value,
    lost_since: Option<Timestamp>,
}

impl Screen {
    fn new(every: Duration, as_json: bool) -> Self {
        let on_terminal = terminal::is_seen() && !as_json;
        Self { every, as_json, on_terminal, drawn: false, last: Value::Null, lost_since: None }
    }

    /// Whether there is still somebody who sees it; so with the others.
    fn show(&mut self, status: Value) -> bool {
        self.lost_since = None;
        let is_seen = if self.as_json {
            terminal::is_read(&format!("{status}\n"))
        } else {
            self.draw(&view::glance(&status, terminal::size().0))
        };
        (self.last, self.drawn) = (status, true);
        is_seen
    }

    /// It does not answer: says so above what it said last.
    fn lost(&mut self, why: &str, now: Timestamp) -> bool {
        let since = *self.lost_since.get_or_insert(now);
        if self.as_json {
            let line = json!({ "reachable": false, "since": since.to_string(), "why": why });
            return terminal::is_read(&format!("{line}\n"));
        }
        let last = view::glance(&self.last, terminal::size().0);
        self.draw(&format!("NOT REACHABLE since {since}\n{why}\n\nWhat it said last:\n{last}"))
    }

    fn draw(&self, text: &str) -> bool {
        if !self.on_terminal {
            let between = if self.drawn { "\n" } else { "" };
            return terminal::is_read(&format!("{between}{text}"));
        }
        let footer =
            format!("every {}; Ctrl-C, or q and Enter, ends it", humantime::format_duration(self.every));
        terminal::is_read(&frame(text, &footer, terminal::size(), self.drawn))
    }
}

/// One picture: drawn over the one before without a moment of darkness, and no longer than the screen, which must not scroll.
fn frame(text: &str, footer: &str, (width, height): (usize, usize), is_over_another: bool) -> String {
    const HOME: &str = "\x1b[H";
    const CLEAR: &str = "\x1b[2J";
    const CLEAR_LINE: &str = "\x1b[K";
    const CLEAR_BELOW: &str = "\x1b[J";
    let room = height.saturating_sub(3).max(1);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.iter().take(room).copied();
    let hidden = lines.len().saturating_sub(room);
    let footer = if hidden == 0 { footer.to_owned() } else { format!("{hidden} more; {footer}") };
    let mut frame = if is_over_another { HOME.to_owned() } else { format!("{CLEAR}{HOME}") };
    for line in shown.chain(["", footer.as_str()]) {
        frame.push_str(&cut(line, width));
        frame.push_str(CLEAR_LINE);
        frame.push('\n');
    }
    frame + CLEAR_BELOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_drawn_over_the_one_before_and_never_scrolls() {
        let first = frame("one\ntwo\n", "ends", (80, 24), false);
        assert_eq!(first, "\x1b[2J\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[K\nends\x1b[K\n\x1b[J");
        let next = frame("a\nb\nc\nlonger\n", "ends", (5, 5), true);
        assert_eq!(next, "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[K\n2 mo…\x1b[K\n\x1b[J");
        assert!(next.matches('\n').count() < 5, "the line after the last is on the screen");
    }
}
