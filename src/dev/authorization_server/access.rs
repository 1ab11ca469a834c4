//! Access tokens that were handed out: what introspection says of them.

use std::collections::HashMap;

use crate::clock::Timestamp;
use crate::secret::Digest;

use super::family::FamilyId;

/// How many expired tokens may pile up before they are swept away.
const SWEEP_EVERY: usize = 4096;

#[derive(Clone, Debug)]
pub(super) struct AccessToken {
    pub(super) server: String,
    /// The login it came from; none for client credentials.
    pub(super) family: Option<FamilyId>,
    pub(super) jti: String,
    pub(super) subject: String,
    /// The user's login; none for client credentials.
    pub(super) user: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) scope: String,
    pub(super) issued: Timestamp,
    pub(super) expires: Timestamp,
}

/// The ones that were neither revoked nor forgotten because they expired.
#[derive(Default)]
pub(super) struct AccessTokens {
    live: HashMap<Digest, AccessToken>,
    since_sweep: usize,
}

impl AccessTokens {
    pub(super) fn add(&mut self, token: Digest, record: AccessToken, now: Timestamp) {
        self.since_sweep += 1;
        if self.since_sweep >= SWEEP_EVERY {
            self.live.retain(|_, record| record.expires > now);
            self.since_sweep = 0;
        }
        self.live.insert(token, record);
    }

    /// The token, if it is this server's, unexpired and not revoked.
    pub(super) fn find(&self, server: &str, token: &Digest, now: Timestamp) -> Option<&AccessToken> {
        self.live.get(token).filter(|record| record.server == server && record.expires > now)
    }

    /// Only a token of this server is taken away; that it is unknown is no error (RFC 7009 2.2).
    pub(super) fn revoke(&mut self, server: &str, token: &Digest) {
        if self.live.get(token).is_some_and(|record| record.server == server) {
            self.live.remove(token);
        }
    }

    /// All that came from one login.
    pub(super) fn revoke_family(&mut self, family: FamilyId) {
        self.live.retain(|_, record| record.family != Some(family));
    }
}
