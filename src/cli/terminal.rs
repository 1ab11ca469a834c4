//! What commands print. A reader that has gone away is no error.

use std::io::{IsTerminal as _, Write as _};

/// Exactly this, on stdout.
pub(super) fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _nobody_reads = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// A line on stderr.
pub(super) fn err(line: &str) {
    let _nobody_reads = writeln!(std::io::stderr().lock(), "{line}");
}

/// Whether a person looks at stdout.
pub(super) fn is_seen() -> bool {
    std::io::stdout().is_terminal()
}
