//! Scopes as RFC 6749 §3.3 writes them: an unordered set of case-sensitive words.

use std::collections::BTreeSet;
use std::fmt;

/// Scopes that say something about the login or the refresh token, not about what an access token may do. Servers add
/// and drop them at will, so they are left out of comparisons.
const ABOUT_THE_LOGIN: [&str; 7] =
    ["openid", "profile", "email", "address", "phone", "offline_access", "device_sso"];

/// A set of scopes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Scope(BTreeSet<String>);

/// A scope has a character that RFC 6749 §3.3 does not allow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is one word of printable ASCII without quotes or backslashes, this is not: {0:?}")]
pub struct ScopeError(String);

impl Scope {
    /// From single words.
    ///
    /// # Errors
    /// Where one is not a scope-token.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, ScopeError> {
        words
            .into_iter()
            .map(|word| {
                let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
                if !word.is_empty() && word.bytes().all(allowed) {
                    Ok(word.to_owned())
                } else {
                    Err(ScopeError(word.to_owned()))
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// From the form that goes over the wire, words separated by spaces. Words that are none are kept: they come from
    /// a server and only have to be compared.
    #[must_use]
    pub fn from_wire(text: &str) -> Self {
        Self(text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }

    /// This set and `word`.
    #[must_use]
    pub fn with(mut self, word: &str) -> Self {
        self.0.insert(word.to_owned());
        self
    }

    /// This set and that one.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.extend(other.0.iter().cloned());
        self
    }

    /// Without what is only about the login: what the access token may do.
    #[must_use]
    pub fn of_the_token(&self) -> Self {
        Self(self.0.iter().filter(|word| !ABOUT_THE_LOGIN.contains(&word.as_str())).cloned().collect())
    }

    /// What `self` has and `other` lacks.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The form that goes over the wire.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(word)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_repetition_carry_no_meaning() {
        assert_eq!(Scope::from_wire("b a  b"), Scope::from_wire("a b"));
        assert_eq!(Scope::from_wire("b a").to_string(), "a b");
    }

    #[test]
    fn case_carries_meaning() {
        assert_ne!(Scope::from_wire("session:role:public"), Scope::from_wire("session:role:PUBLIC"));
    }

    #[test]
    fn what_is_about_the_login_is_left_out_of_comparisons() {
        assert_eq!(Scope::from_wire("openid offline_access a").of_the_token(), Scope::from_wire("a"));
    }

    #[test]
    fn a_word_with_a_space_or_quote_is_refused() {
        assert!(Scope::from_words(["a b"]).is_err());
        assert!(Scope::from_words(["a\""]).is_err());
        assert!(Scope::from_words([""]).is_err());
    }
}
