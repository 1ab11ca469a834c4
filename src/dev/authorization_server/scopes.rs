//! Scope strings (RFC 6749 3.3): what a server knows, and what may be asked of it.

/// Known to every custom authorization server without being created.
pub(super) const OPENID_SCOPES: [&str; 6] =
    ["openid", "profile", "email", "address", "phone", "offline_access"];

/// Okta refuses longer ones.
const MAX_LENGTH: usize = 4096;

/// The scopes of a request in the order they were asked for, or `None` if the text is not a scope string: empty, too
/// long, doubled separators or a scope named twice.
pub(super) fn parse(text: &str) -> Option<Vec<String>> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let mut scopes: Vec<String> = Vec::new();
    for scope in text.split(' ') {
        if scope.is_empty() || !scope.bytes().all(is_scope_byte) || scopes.iter().any(|known| known == scope)
        {
            return None;
        }
        scopes.push(scope.to_owned());
    }
    Some(scopes)
}

pub(super) fn has(scopes: &[String], scope: &str) -> bool {
    scopes.iter().any(|held| held == scope)
}

fn is_scope_byte(byte: u8) -> bool {
    byte == 0x21 || (0x23..=0x5b).contains(&byte) || (0x5d..=0x7e).contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rfc_6749_does_not_allow_is_no_scope_string() {
        assert_eq!(parse("openid session:role:PUBLIC").unwrap(), ["openid", "session:role:PUBLIC"]);
        for text in ["", " openid", "openid  sql", "sql sql", "s\"l", "naïve"] {
            assert!(parse(text).is_none(), "{text:?}");
        }
        assert!(parse(&"a".repeat(4097)).is_none());
    }
}
