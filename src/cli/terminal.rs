//! What commands print. A reader that has gone away is no error.

use std::borrow::Cow;
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

/// A value that somebody else chose, so that it can't move the cursor, end its line, or be read as another: control and
/// format characters are shown as their escapes.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unseen) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unseen(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Unicode's categories Cc, Cf, Zl and Zp.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_be_seen_or_would_be_read_otherwise_is_shown_as_its_escape() {
        for (text, shown) in [
            ("alice@example.com", "alice@example.com"),
            ("Zoë 渡辺 🙂", "Zoë 渡辺 🙂"),
            ("a\u{202e}b\u{2066}c\u{2069}", "a\\u{202e}b\\u{2066}c\\u{2069}"),
            ("a\u{2028}b\u{2029}\n", "a\\u{2028}b\\u{2029}\\u{a}"),
            ("\x1b[2J\u{9b}\t\u{200b}\u{feff}", "\\u{1b}[2J\\u{9b}\\u{9}\\u{200b}\\u{feff}"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
