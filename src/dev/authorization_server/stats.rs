//! What `GET /control/stats` tells: counts, and never a token.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::secret::{Digest, Secret};

use super::route::Endpoint;

/// Tokens that nobody issued are counted one by one up to this many; a client that guesses fills no memory.
const MAX_REFRESH_TOKENS: usize = 100_000;

/// Since the start, or since `reset-stats`.
#[derive(Default, Serialize)]
pub(super) struct Stats {
    requests: BTreeMap<&'static str, u64>,
    token_requests_by_grant_type: BTreeMap<String, u64>,
    /// Successful ones.
    refreshes: u64,
    refreshes_by_scope: BTreeMap<String, u64>,
    #[serde(serialize_with = "by_short_digest")]
    refresh_tokens: HashMap<Digest, TokenUse>,
    /// Refresh tokens that were decided on more than once while tokens rotate.
    presented_twice: u64,
    reuse_detected: u64,
    families_revoked: Vec<FamilyRevoked>,
    rate_limited: u64,
    max_concurrent_token_requests_per_family: u64,
}

#[derive(Default, Serialize)]
struct TokenUse {
    user: Option<String>,
    presented: u64,
    accepted: u64,
    presented_outside_leeway: u64,
    /// Rotated, or refused for good.
    #[serde(skip)]
    decided: u64,
}

#[derive(Serialize)]
struct FamilyRevoked {
    user: String,
    server: String,
    reason: &'static str,
}

/// How a presented refresh token fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A new one came in its place.
    Rotated,
    /// It stays as it is.
    Kept,
    /// `invalid_grant`.
    Refused,
    /// `invalid_grant`, since it had been rotated away longer ago than the leeway.
    Reused,
}

impl Stats {
    pub(super) fn request(&mut self, endpoint: Endpoint) {
        *self.requests.entry(endpoint.name()).or_default() += 1;
    }

    pub(super) fn token_request(&mut self, grant_type: &str) {
        // Names come from the client: those beyond the first few are counted together.
        let known = self.token_requests_by_grant_type.len() < 32
            || self.token_requests_by_grant_type.contains_key(grant_type);
        let name = if known { grant_type } else { "other" };
        *self.token_requests_by_grant_type.entry(name.to_owned()).or_default() += 1;
    }

    pub(super) fn presented(&mut self, token: &Secret, user: Option<&str>) {
        if let Some(usage) = self.usage(token) {
            usage.presented += 1;
            usage.user = user.map(str::to_owned);
        }
    }

    pub(super) fn decided(&mut self, token: &Secret, fate: Fate, rotating: bool) {
        let Some(usage) = self.usage(token) else { return };
        match fate {
            Fate::Rotated | Fate::Kept => usage.accepted += 1,
            Fate::Refused => {}
            Fate::Reused => usage.presented_outside_leeway += 1,
        }
        if rotating && fate != Fate::Kept {
            usage.decided += 1;
            if usage.decided == 2 {
                self.presented_twice += 1;
            }
        }
    }

    pub(super) fn refreshed(&mut self, scope: &str) {
        self.refreshes += 1;
        *self.refreshes_by_scope.entry(scope.to_owned()).or_default() += 1;
    }

    pub(super) fn reuse_detected(&mut self) {
        self.reuse_detected += 1;
    }

    pub(super) fn family_revoked(&mut self, user: &str, server: &str, reason: &'static str) {
        self.families_revoked.push(FamilyRevoked {
            user: user.to_owned(),
            server: server.to_owned(),
            reason,
        });
    }

    pub(super) fn rate_limited(&mut self) {
        self.rate_limited += 1;
    }

    pub(super) fn concurrent(&mut self, requests: u64) {
        let max = &mut self.max_concurrent_token_requests_per_family;
        *max = (*max).max(requests);
    }

    fn usage(&mut self, token: &Secret) -> Option<&mut TokenUse> {
        let digest = token.digest();
        if self.refresh_tokens.len() >= MAX_REFRESH_TOKENS && !self.refresh_tokens.contains_key(&digest) {
            return None;
        }
        Some(self.refresh_tokens.entry(digest).or_default())
    }
}

fn by_short_digest<S: serde::Serializer>(
    uses: &HashMap<Digest, TokenUse>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    const SHORT: usize = 16;
    serializer.collect_map(uses.iter().map(|(digest, usage)| {
        let name: String = digest.to_string().chars().take(SHORT).collect();
        (name, usage)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_presented_twice_once_it_was_rotated_or_refused_and_comes_again() {
        let mut stats = Stats::default();
        let (first, second) = (Secret::new("a".into()), Secret::new("b".into()));
        stats.decided(&first, Fate::Kept, true);
        stats.decided(&first, Fate::Rotated, true);
        assert_eq!(stats.presented_twice, 0);
        stats.decided(&first, Fate::Reused, true);
        stats.decided(&first, Fate::Refused, true);
        stats.decided(&second, Fate::Refused, false);
        stats.decided(&second, Fate::Refused, false);
        assert_eq!(stats.presented_twice, 1);
    }

    #[test]
    fn tokens_are_named_by_the_beginning_of_their_digest() {
        let mut stats = Stats::default();
        stats.presented(&Secret::new("abc".into()), Some("alice"));
        let shown = serde_json::to_value(&stats).unwrap();
        assert_eq!(shown["refresh_tokens"]["ba7816bf8f01cfea"]["presented"], 1);
        assert_eq!(shown["refresh_tokens"]["ba7816bf8f01cfea"]["user"], "alice");
    }
}
