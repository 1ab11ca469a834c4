//! What commands print. A reader that has gone away is no error.

use std::io::{IsTerminal as _, Write as _};

/// Exactly this, on stdout.
pub(super) fn out(text: &str) {
    let _nobody_reads = is_read(text);
}

/// The same, and whether there is somebody to read it.
pub(super) fn is_read(text: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_ok()
}

/// A line on stderr.
pub(super) fn err(line: &str) {
    let _nobody_reads = writeln!(std::io::stderr().lock(), "{line}");
}

/// Columns and rows of the terminal that stdout is, or room for everything if it is none.
pub(super) fn size() -> (usize, usize) {
    match terminal_size::terminal_size_of(std::io::stdout()) {
        Some((width, height)) => (usize::from(width.0), usize::from(height.0)),
        None => (usize::MAX, usize::MAX),
    }
}

/// What a person is asked, on stderr, without the end of a line.
pub(super) fn ask(question: &str) {
    let mut stderr = std::io::stderr().lock();
    let _nobody_reads = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
}

/// One line on stderr in place of the one before, and only where a person looks at it; empty, it is gone.
pub(super) fn progress(line: &str) {
    let stderr = std::io::stderr();
    if stderr.is_terminal() {
        // To the beginning of the line, and erase it.
        ask(&format!("\r\x1b[2K{line}"));
    }
}

/// Whether a person looks at stdout.
pub(super) fn is_seen() -> bool {
    std::io::stdout().is_terminal()
}
