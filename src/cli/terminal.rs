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

/// Whether a person looks at stdout.
pub(super) fn is_seen() -> bool {
    std::io::stdout().is_terminal()
}
