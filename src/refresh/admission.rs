//! Before a request is made: is the server's door open, is it this user's turn, has the budget a place?

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::clock::Timestamp;
use crate::model::{Failure, GrantId, RoleName, TokenKey};
use crate::refresh::gate::Pass;
use crate::refresh::setup::Door;
use crate::refresh::{Inner, SHORTLY};

/// How long after its place in the budget a request may be made.
const LATE: Duration = Duration::from_secs(5);

/// Whether an exchange must ask the door.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Leave {
    /// As everybody does.
    Asked,
    /// An administrator wants it now.
    Granted,
    /// Nobody waits for it, and the budget has a place for it: a token in use, or a grant that nobody uses.
    Ahead,
    Idle,
}

impl Inner {
    /// Waits until an exchange may be made.
    ///
    /// # Errors
    /// If the server is not to be asked now.
    pub(super) async fn enter<'a>(
        &self,
        id: &GrantId,
        door: &'a Door,
        urgent: bool,
        leave: Leave,
    ) -> Result<(Option<OwnedSemaphorePermit>, Pass<'a>), Failure> {
        let granted = urgent || leave == Leave::Granted;
        if let (false, Some((_, failure @ Failure::ServerUnavailable { .. }))) =
            (granted, door.gate.shut_for(&self.parts.clock.now()))
        {
            // Nor is a place in the budget spent on it.
            return Err(failure);
        }
        self.pace(id, door).await;
        self.spend(door, urgent, leave).await?;
        let spent_at = self.parts.clock.now();
        let place = door.gate.place(urgent).await;
        if self.parts.clock.now().since(&spent_at).is_none_or(|late| late > LATE) {
            // A place in the budget that was waited past is another minute's: else a slow server's backlog would burst.
            self.spend(door, urgent, leave).await?;
        }
        Ok((place, self.pass(door, granted).await?))
    }

    /// Leave to ask the server. A client that it refuses may have a new secret by now.
    async fn pass<'a>(&self, door: &'a Door, granted: bool) -> Result<Pass<'a>, Failure> {
        match door.gate.admit(&self.parts.clock.now()) {
            Err(_shut) if granted => Ok(door.gate.pass()),
            Err(Failure::Refused { error, .. })
                if error == "invalid_client" && door.server.reload_client_secret().await =>
            {
                Ok(door.gate.pass())
            }
            result => result,
        }
    }

    /// A place in the server's rate limit: at once for what can't wait, and for what has one already.
    async fn spend(&self, door: &Door, urgent: bool, leave: Leave) -> Result<(), Failure> {
        match leave {
            Leave::Ahead | Leave::Idle => Ok(()),
            Leave::Asked | Leave::Granted if urgent => {
                door.budget.count(&self.parts.clock.now());
                Ok(())
            }
            Leave::Asked | Leave::Granted => self.wait_for_budget(door).await,
        }
    }

    /// Waits for a caller's place in the budget.
    ///
    /// # Errors
    /// If that takes longer than anybody should wait, or the process stops.
    pub(super) async fn wait_for_budget(&self, door: &Door) -> Result<(), Failure> {
        let wait = door.budget.take(&self.parts.clock.now());
        let wait = wait.map_err(|retry_after| Failure::ServerUnavailable { retry_after })?;
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.parts.tasks.stopping(), if !wait.is_zero() => {
                Err(Failure::ServerUnavailable { retry_after: SHORTLY })
            }
        }
    }

    /// What the server's last answer said of its rate limit.
    pub(super) fn learn(&self, door: &Door, name: &str) {
        let now = self.parts.clock.now();
        self.parts.metrics.refresh_budget_used.with_label_values(&[name]).set(door.budget.used(&now));
        let Some(seen) = door.server.rate_limit() else { return };
        if let Some(limit) = door.budget.learn(&now, &seen) {
            tracing::warn!(
                authorization_server = name,
                limit,
                requests_per_minute = door.budget.per_minute(),
                "the server's rate limit is below requests_per_minute; keeping to the server's"
            );
        }
    }

    /// When somebody asked for this token last.
    pub(super) fn asked_at(&self, id: &GrantId, role: Option<&RoleName>, leave: Leave) -> Timestamp {
        let key = TokenKey { grant: id.key.clone(), role: role.cloned() };
        let now = self.parts.clock.now();
        let known = self.schedule().usage(&key).and_then(|usage| usage.asked());
        match (known, leave) {
            (_, Leave::Asked) => now.wall,
            (Some(asked), _) => now.wall.minus(now.boot.saturating_sub(asked)),
            (None, Leave::Ahead | Leave::Idle | Leave::Granted) => Timestamp::from_millis(0),
        }
    }

    /// Okta's limit for one user. It is not known whose a candidate is, and each is presented once.
    pub(super) async fn pace(&self, id: &GrantId, door: &Door) {
        if id.candidate.is_none() && !id.key.user.is_the_client() {
            tokio::time::sleep(door.pace.wait(&id.key.user, &self.parts.clock.now())).await;
        }
    }
}
