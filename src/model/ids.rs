//! Names and keys: parsed once at the border, compared as wholes ever after.
//!
//! Keys are structs, never joined strings: `("ab", "c")` and `("a", "bc")` are different grants.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::entropy::Entropy;
use crate::secret::Digest;

/// Longest name taken from outside, in characters. Okta's logins have at most 100 characters.
const LONGEST: usize = 256;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes 1 to 256 characters, none of them a control character; anything else is `None`.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let sane = !text.is_empty()
                    && text.chars().take(LONGEST + 1).count() <= LONGEST
                    && !text.chars().any(char::is_control);
                sane.then(|| Self(Arc::from(text)))
            }

            /// The text, byte for byte as it came.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// A service of the configuration.
    ServiceName
}
name! {
    /// Whom a token speaks for.
    UserName
}
name! {
    /// A role of a service; selects a scope and is passed on byte for byte.
    RoleName
}

name! {
    /// One run of a workflow: its pass's `jti`.
    RunId
}

impl UserName {
    /// Stands where a user's name would be if the token speaks for the client itself (RFC 6749 §4.4). No name that is
    /// parsed is empty.
    #[must_use]
    pub fn of_the_client() -> Self {
        Self(Arc::from(""))
    }

    /// Whether it is nobody's, since the token speaks for the client itself.
    #[must_use]
    pub fn is_the_client(&self) -> bool {
        self.0.is_empty()
    }

    /// Stands where a user's name would be while it is not known whose a refresh token is. No login has spaces.
    #[must_use]
    pub fn unproven() -> Self {
        Self(Arc::from("not proven yet"))
    }
}

/// Which grant: a user's consent for one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantKey {
    /// The service it is for.
    pub service: ServiceName,
    /// The user who consented.
    pub user: UserName,
}

impl fmt::Display for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.user.is_the_client() {
            write!(f, "{} of the client itself", self.service)
        } else {
            write!(f, "{} of {}", self.service, self.user)
        }
    }
}

/// Which row: the grant that is vended from, or a refresh token that was handed in and is not proven yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantId {
    /// The grant that it is; for an unproven one only its service is known.
    pub key: GrantKey,
    /// For an unproven one, the digest of the refresh token that was handed in: the same token handed in again
    /// finds what became of it instead of being presented a second time.
    pub candidate: Option<Digest>,
}

impl GrantId {
    /// The grant that tokens are vended from.
    #[must_use]
    pub fn current(key: GrantKey) -> Self {
        Self { key, candidate: None }
    }

    /// A refresh token that was handed in for `service`; whose it is, its first access token will say.
    #[must_use]
    pub fn candidate(service: ServiceName, refresh_token: Digest) -> Self {
        Self { key: GrantKey { service, user: UserName::unproven() }, candidate: Some(refresh_token) }
    }
}

/// Which access token: callers never name scopes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey {
    /// The grant it comes from.
    pub grant: GrantKey,
    /// The role it is down-scoped to; `None` for the service's default scopes.
    pub role: Option<RoleName>,
}

/// Names an access token without giving it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMark {
    jti: Option<Arc<str>>,
    digest: Digest,
}

impl TokenMark {
    /// By its own id, if it has a sane one, and its SHA-256.
    #[must_use]
    pub fn new(jti: Option<&str>, digest: Digest) -> Self {
        let sane = |jti: &&str| !jti.is_empty() && jti.len() <= LONGEST && !jti.chars().any(char::is_control);
        Self { jti: jti.filter(sane).map(Arc::from), digest }
    }

    /// Its `jti`; an opaque token has none.
    #[must_use]
    pub fn jti(&self) -> Option<&str> {
        self.jti.as_deref()
    }

    /// The SHA-256 of the whole token.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// The first 16 hexadecimal digits of the SHA-256: enough to find a token again, by whoever has it.
impl fmt::Display for TokenMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digest.to_string().get(..16).unwrap_or_default())
    }
}

/// Names one request in answers and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

/// Makes request ids: cheaply, since each request wants one, and unlike those of any other process.
pub struct RequestIds {
    process: u32,
    count: AtomicU64,
}

impl RequestIds {
    /// Draws what tells this process from others.
    #[must_use]
    pub fn new(entropy: &dyn Entropy) -> Self {
        let mut process = [0; 4];
        entropy.fill(&mut process);
        Self { process: u32::from_le_bytes(process), count: AtomicU64::new(1) }
    }

    /// A new one.
    #[must_use]
    pub fn next(&self) -> RequestId {
        RequestId(format!("{:08x}-{:06}", self.process, self.count.fetch_add(1, Ordering::Relaxed)))
    }
}

impl RequestId {
    /// The caller's own, if it is sane: 1 to 64 of letters, digits and `-_.`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let sane = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        sane.then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_emptiness_length_and_control_characters() {
        assert!(UserName::parse("alice@example.com").is_some());
        assert!(UserName::parse("").is_none());
        assert!(UserName::parse(&"ä".repeat(256)).is_some());
        assert!(UserName::parse(&"a".repeat(257)).is_none());
        assert!(UserName::parse("alice\n").is_none());
    }

    #[test]
    fn request_ids_are_sane_and_each_is_another() {
        let ids = RequestIds::new(&crate::entropy::SystemEntropy);
        let (one, other) = (ids.next(), ids.next());
        assert_ne!(one, other);
        assert_eq!(RequestId::parse(one.as_str()), Some(one));
    }

    #[test]
    fn a_callers_request_id_is_taken_only_if_sane() {
        assert!(RequestId::parse("0193-abc_D.e").is_some());
        for bad in ["", "a b", "a\"b", "ä", &"a".repeat(65)] {
            assert!(RequestId::parse(bad).is_none(), "{bad}");
        }
    }
}
