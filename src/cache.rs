//! Access tokens in memory. moka bounds the number; whether a token is still good is the token's own time, looked at on
//! every read.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use serde_json::json;

use crate::clock::Moment;
use crate::jwt::Verified;
use crate::model::{Issued, Scope, TokenKey};
use crate::secret::Secret;

/// Tokens kept at most; a token takes about 3 KB with its prepared answer.
const MOST_TOKENS: u64 = 100_000;
/// Memory of what nobody asked for in this long is given back.
const IDLE: Duration = Duration::from_hours(25);

/// The tokens that may be handed out.
#[derive(Clone)]
pub struct TokenCache {
    tokens: Cache<TokenKey, Arc<CachedToken>>,
    generation: Arc<AtomicU64>,
}

/// An access token that was verified and is durable.
pub struct CachedToken {
    verified: Verified,
    /// Its life.
    pub issued: Issued,
    /// Its scope.
    pub scope: Scope,
    /// The grant's version that it came with.
    pub version: i64,
    // The JSON answer, cut where `expires_in` stands: only that number changes between two answers.
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Default for TokenCache {
    fn default() -> Self {
        let tokens = Cache::builder().max_capacity(MOST_TOKENS).time_to_idle(IDLE).build();
        Self { tokens, generation: Arc::default() }
    }
}

impl TokenCache {
    /// The token, dead or alive.
    #[must_use]
    pub fn get(&self, key: &TokenKey) -> Option<Arc<CachedToken>> {
        self.tokens.get(key)
    }

    /// From now on this one.
    pub fn put(&self, key: TokenKey, token: Arc<CachedToken>) {
        self.tokens.insert(key, token);
        self.changed();
    }

    /// No longer.
    pub fn remove(&self, key: &TokenKey) {
        self.tokens.invalidate(key);
        self.changed();
    }

    /// None of them any longer.
    pub fn clear(&self) {
        self.tokens.invalidate_all();
        self.changed();
    }

    /// Another number after each change: what was got at this one is still what is there.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Which there are, and how long until each is due; one that is due already waits for somebody to ask for it.
    #[must_use]
    pub fn due(&self, now: &Moment) -> Vec<(Arc<TokenKey>, Duration)> {
        let left = |token: &CachedToken| {
            let after_due = token.issued.expires_in.saturating_sub(token.issued.refresh_after);
            token.issued.remaining(now).saturating_sub(after_due)
        };
        self.tokens.iter().map(|(key, token)| (key, left(&token))).collect()
    }

    /// How many there are, roughly.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.tokens.entry_count()
    }

    /// Whether there are none, roughly.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl CachedToken {
    /// Prepares the answer once.
    #[must_use]
    pub fn new(key: &TokenKey, verified: Verified, issued: Issued, scope: Scope, version: i64) -> Self {
        let head = json!({ "access_token": verified.token().expose(), "token_type": "Bearer" }).to_string();
        let mut tail = json!({
            "expires_at": issued.expires_at().to_string(),
            "scope": scope.of_the_token().to_string(),
            "service": key.grant.service.as_str(),
        });
        if let Some(members) = tail.as_object_mut()
            && !key.grant.user.is_the_client()
        {
            members.insert("user".to_owned(), key.grant.user.as_str().into());
        }
        let tail = tail.to_string();
        let head = format!("{},\"expires_in\":", head.trim_end_matches('}')).into_bytes();
        let tail = format!(",{}", tail.trim_start_matches('{')).into_bytes();
        Self { verified, issued, scope, version, head, tail }
    }

    /// The bearer token.
    #[must_use]
    pub fn token(&self) -> &Secret {
        self.verified.token()
    }

    /// What `/v1/token` answers at `now`.
    #[must_use]
    pub fn json(&self, now: &Moment) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.head.len() + self.tail.len() + 8);
        body.extend_from_slice(&self.head);
        // Writing into a vector does not fail.
        let _written = write!(body, "{}", self.issued.remaining(now).as_secs());
        body.extend_from_slice(&self.tail);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, ManualClock, Timestamp};
    use crate::model::{GrantKey, ServiceName, UserName};

    #[test]
    fn the_answer_is_json_and_counts_down() {
        let clock = ManualClock::new(Timestamp::from_secs(1_795_438_000));
        let key = TokenKey {
            grant: GrantKey {
                service: ServiceName::parse("a\"}{").unwrap(),
                user: UserName::parse("alice@example.com").unwrap(),
            },
            role: None,
        };
        let issued = Issued {
            requested_at: clock.now(),
            expires_in: Duration::from_secs(100),
            refresh_after: Duration::from_secs(75),
        };
        let verified = Verified::opaque(Secret::new("tok\"en}".into()));
        let token = CachedToken::new(&key, verified, issued, Scope::from_wire("offline_access a"), 1);
        for left in [100, 99] {
            let answer: serde_json::Value = serde_json::from_slice(&token.json(&clock.now())).unwrap();
            assert_eq!(
                answer,
                json!({
                    "access_token": "tok\"en}", "token_type": "Bearer", "expires_in": left,
                    "expires_at": "2026-11-23T12:48:20Z", "scope": "a", "service": "a\"}{", "user": "alice@example.com",
                })
            );
            clock.advance(Duration::from_secs(1));
        }
    }
}
