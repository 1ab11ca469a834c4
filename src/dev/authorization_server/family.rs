//! Families: all that came of one login, and the refresh tokens that followed one another in it.
//!
//! Pure bookkeeping: whoever calls has authenticated the client and says what time it is. A family that ended stays, so
//! that its tokens are known to be dead.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::{Moment, Timestamp};
use crate::secret::{Digest, Secret};

/// Names one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FamilyId(u64);

/// What a login decided once and for all; refreshes change none of it.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// The authorization server's id.
    pub(super) server: String,
    pub(super) user: String,
    pub(super) scopes: Vec<String>,
    pub(super) at: Moment,
    pub(super) acr: Option<String>,
    /// When the family's refresh tokens end, however often they are rotated.
    pub(super) expires: Option<Timestamp>,
}

pub(super) struct Family {
    pub(super) login: Login,
    newest: Option<Secret>,
    used: Moment,
    ended: bool,
    in_flight: u64,
}

struct RefreshToken {
    family: FamilyId,
    retired: Option<Moment>,
}

/// What a presented refresh token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The newest, or retired so recently that it still counts.
    Good(FamilyId),
    /// Retired longer ago than the leeway, in a family that lives: somebody has a copy.
    Reused(FamilyId),
    /// Never issued here, issued by another authorization server, expired, or of a family that ended.
    Dead,
}

/// Every family and refresh token since the start.
#[derive(Default)]
pub(super) struct Families {
    by_id: HashMap<FamilyId, Family>,
    tokens: HashMap<Digest, RefreshToken>,
    opened: u64,
}

impl Families {
    pub(super) fn open(&mut self, login: Login) -> FamilyId {
        self.opened += 1;
        let id = FamilyId(self.opened);
        let used = login.at;
        self.by_id.insert(id, Family { login, newest: None, used, ended: false, in_flight: 0 });
        id
    }

    /// `token` becomes the family's newest; the one before, whichever was presented, is retired as of `now`.
    pub(super) fn add_token(&mut self, id: FamilyId, token: Secret, now: Moment) {
        let Some(family) = self.by_id.get_mut(&id) else { return };
        self.tokens.insert(token.digest(), RefreshToken { family: id, retired: None });
        if let Some(before) = family.newest.replace(token)
            && let Some(record) = self.tokens.get_mut(&before.digest())
        {
            record.retired = Some(now);
        }
    }

    /// The idle window begins anew.
    pub(super) fn touch(&mut self, id: FamilyId, now: Moment) {
        if let Some(family) = self.by_id.get_mut(&id) {
            family.used = now;
        }
    }

    pub(super) fn judge(
        &self,
        server: &str,
        token: &Secret,
        now: &Moment,
        leeway: Duration,
        idle_window: Duration,
    ) -> Verdict {
        let Some(record) = self.tokens.get(&token.digest()) else { return Verdict::Dead };
        let Some(family) = self.by_id.get(&record.family) else { return Verdict::Dead };
        let expired = family.login.expires.is_some_and(|expires| expires <= now.wall);
        let idle = age(now, &family.used) >= idle_window;
        if family.ended || family.login.server != server || expired || idle {
            return Verdict::Dead;
        }
        match &record.retired {
            Some(retired) if age(now, retired) >= leeway => Verdict::Reused(record.family),
            Some(_) | None => Verdict::Good(record.family),
        }
    }

    /// Every refresh token of the family is dead from now on. `None` if that was so before.
    pub(super) fn end(&mut self, id: FamilyId) -> Option<&Login> {
        let family = self.by_id.get_mut(&id)?;
        if family.ended {
            return None;
        }
        family.ended = true;
        Some(&family.login)
    }

    pub(super) fn get(&self, id: FamilyId) -> Option<&Family> {
        self.by_id.get(&id)
    }

    /// The family of a refresh token, dead or alive.
    pub(super) fn of_token(&self, token: &Secret) -> Option<FamilyId> {
        self.tokens.get(&token.digest()).map(|record| record.family)
    }

    /// The families of `user` that live.
    pub(super) fn of_user(&self, user: &str) -> Vec<FamilyId> {
        let theirs = self.by_id.iter().filter(|(_, family)| family.login.user == user && !family.ended);
        theirs.map(|(id, _)| *id).collect()
    }

    /// One more request about this family has begun; answers how many are now under way.
    pub(super) fn enter(&mut self, id: FamilyId) -> u64 {
        self.by_id.get_mut(&id).map_or(0, |family| {
            family.in_flight += 1;
            family.in_flight
        })
    }

    pub(super) fn leave(&mut self, id: FamilyId) {
        if let Some(family) = self.by_id.get_mut(&id) {
            family.in_flight = family.in_flight.saturating_sub(1);
        }
    }
}

impl Family {
    pub(super) fn newest(&self) -> Option<&Secret> {
        self.newest.as_ref()
    }
}

/// By the boot clock. A reboot of the clock's machine is none of this server's, which stands for another machine, so
/// that the wall clock has to do then.
pub(super) fn age(now: &Moment, then: &Moment) -> Duration {
    now.since(then).unwrap_or_else(|| then.wall.until(now.wall))
}

#[cfg(test)]
mod tests;
