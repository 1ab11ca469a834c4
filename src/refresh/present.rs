//! One request for tokens.

use crate::authorization_server::{Exchange, Reply};
use crate::model::{GrantId, RoleName, Scope, Service};
use crate::refresh::Inner;
use crate::refresh::setup::Door;
use crate::store::Attempt;

impl Inner {
    /// For whomever they are to speak.
    pub(super) async fn present(
        &self,
        id: &GrantId,
        door: &Door,
        service: &Service,
        role: Option<&RoleName>,
        attempt: &Attempt,
        scope: &Scope,
    ) -> Reply {
        let deadline = door.recovery.deadline;
        let reply = if service.has_users() {
            door.server.refresh(&attempt.refresh_token, scope, deadline).await
        } else {
            let mut reply = door.server.client_credentials(scope, deadline).await;
            if let Exchange::Answered(tokens) = &mut reply.exchange {
                // RFC 6749 §4.4.3: there should be none, and there is nobody whose it could be.
                tokens.refresh_token = None;
            }
            reply
        };
        self.record_refusal(id, service, role, &reply);
        reply
    }
}
