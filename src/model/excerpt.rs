//! What is repeated of a text that came from outside: enough to tell it by, never so much that it fills a log.

/// Longer than any issuer, audience or client that is meant.
const MOST: usize = 200;

/// The text, or its beginning.
#[must_use]
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(excerpt(&"é".repeat(MOST)), "é".repeat(MOST));
        assert_eq!(excerpt(&"é".repeat(MOST + 1)), "é".repeat(MOST) + "…");
        assert_eq!(excerpt(""), "");
    }
}
