//! Access tokens in memory. moka bounds the number; whether a token is still good is the token's own time, looked at on
//! every read.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moka::sync::Cache;
use serde_json::json;

use crate::clock::{Moment, Timestamp};
use crate::jwt::{self, Verified};
use crate::model::{Asker, Issued, LastUse, Scope, TokenKey, TokenMark};
use crate::secret::Secret;

mod last_use;

/// Tokens kept at most; a token takes about 3 KB with its prepared answer.
const MOST_TOKENS: u64 = 250_000;
/// Memory of what nobody asked for in this long is given back.
const IDLE: Duration = Duration::from_hours(25);

/// The tokens that may be handed out.
#[derive(Clone)]
pub struct TokenCache {
    tokens: Cache<TokenKey, Arc<CachedToken>>,
    generation: Arc<AtomicU64>,
}

/// How a token is used: shared by the tokens that follow one another under one key, and by those who look after them.
#[derive(Debug)]
pub struct Usage {
    // Milliseconds of the boot clock; 0 is never.
    asked: AtomicU64,
    vouched: AtomicU64,
    last: last_use::Slot,
}

impl Usage {
    /// Asked for at `asked` of the boot clock; nobody has to vouch for it.
    #[must_use]
    pub fn new(asked: Option<Duration>) -> Self {
        let asked = asked.map_or(0, |asked| millis(asked).max(1));
        let (asked, vouched) = (AtomicU64::new(asked), AtomicU64::new(u64::MAX));
        Self { asked, vouched, last: last_use::Slot::default() }
    }

    /// Somebody asks for it.
    pub fn touch(&self, now: &Moment) {
        self.asked.store(millis(now.boot).max(1), Ordering::Relaxed);
    }

    /// When somebody did last, if ever.
    #[must_use]
    pub fn asked(&self) -> Option<Duration> {
        Some(self.asked.load(Ordering::Relaxed)).filter(|asked| *asked > 0).map(Duration::from_millis)
    }

    /// A token is handed to `asker`. Whether that is to be made known to whoever saves it.
    #[must_use]
    pub fn note_use(&self, asker: &Asker<'_>, at: Timestamp) -> bool {
        self.last.note(asker, at)
    }

    /// To whom one was handed last, if any was.
    #[must_use]
    pub fn last_use(&self) -> Option<LastUse> {
        self.last.get()
    }

    /// That use has been saved. Whether there is nothing newer; if so, the next one is to be made known again.
    #[must_use]
    pub fn is_saved(&self, saved: &LastUse) -> bool {
        self.last.saved(saved)
    }

    /// As if none had ever been handed out.
    pub fn forget_use(&self) {
        self.last.forget();
    }

    /// The authorization server has said that the grant lives, which is good until then.
    pub fn vouch(&self, until: Duration) {
        self.vouched.store(millis(until), Ordering::Relaxed);
    }

    /// Whether that is still good, or nobody has to vouch.
    #[must_use]
    pub fn is_vouched_for(&self, now: &Moment) -> bool {
        millis(now.boot) < self.vouched.load(Ordering::Relaxed)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
    /// Who uses it.
    pub usage: Arc<Usage>,
    // The JSON answer, cut where `expires_in` stands: only that number changes between two answers.
    head: Vec<u8>,
    tail: Vec<u8>,
    mark: OnceLock<TokenMark>,
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

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tokens.iter().count()
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
    pub fn new(
        key: &TokenKey,
        verified: Verified,
        issued: Issued,
        scope: Scope,
        version: i64,
        usage: Arc<Usage>,
    ) -> Self {
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
        Self { verified, issued, scope, version, usage, head, tail, mark: OnceLock::new() }
    }

    /// The bearer token.
    #[must_use]
    pub fn token(&self) -> &Secret {
        self.verified.token()
    }

    /// What names it in the audit log.
    #[must_use]
    pub fn mark(&self) -> &TokenMark {
        self.mark.get_or_init(|| jwt::mark(self.token()))
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
    use crate::clock::{Clock as _, ManualClock};
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
        let token = CachedToken::new(
            &key,
            verified,
            issued,
            Scope::from_wire("offline_access a"),
            1,
            Arc::new(Usage::new(None)),
        );
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
