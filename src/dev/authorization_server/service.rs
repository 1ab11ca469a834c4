//! From a request to its reply: counts it, lets a fault have its way, makes the keys it needs, and asks the endpoint.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;

use crate::clock::{Clock, Moment};
use crate::entropy::Entropy;
use crate::secret::Secret;
use crate::tasks::Tasks;

use super::family::FamilyId;
use super::fault::Fault;
use super::form::Form;
use super::key_making::KeyStock;
use super::keys::Need;
use super::refusal::Refusal;
use super::reply::Reply;
use super::request::Request;
use super::route::{Endpoint, Route};
use super::state::State;
use super::{control, endpoints, interference};

/// What all connections share.
pub(super) struct Service {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) tasks: Tasks,
    state: Mutex<State>,
    /// Held while a key is made, so that two requests don't make the same one.
    pub(super) making_keys: tokio::sync::Mutex<()>,
    pub(super) stock: KeyStock,
    pub(super) keys_taken: AtomicUsize,
}

/// A reply, and the mark of its request as under way until it has been brought.
pub(super) struct Answered {
    pub(super) reply: Reply,
    pub(super) under_way: Option<UnderWay>,
}

/// A token request about one family that has not been answered yet.
pub(super) struct UnderWay {
    service: Arc<Service>,
    family: FamilyId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.service.lock().families.leave(self.family);
    }
}

impl Service {
    pub(super) fn new(clock: Arc<dyn Clock>, tasks: Tasks, state: State, stock: KeyStock) -> Self {
        Self {
            clock,
            entropy: state.entropy.clone(),
            tasks,
            state: Mutex::new(state),
            making_keys: tokio::sync::Mutex::new(()),
            stock,
            keys_taken: AtomicUsize::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(super) async fn answer(self: &Arc<Self>, request: Request) -> Answered {
        let (endpoint, server) = match Route::parse(&request.path) {
            Some(Route::Control(rest)) => {
                return Answered { reply: control::answer(self, &rest, &request).await, under_way: None };
            }
            Some(Route::Server(endpoint, server)) if self.lock().servers.contains_key(&server) => {
                (endpoint, server)
            }
            Some(Route::Server(_, server)) => {
                return self.not_found(&format!("{server} (AuthorizationServer)"));
            }
            Some(Route::Activate) => (Endpoint::Activate, String::new()),
            None => return self.not_found(&request.path),
        };
        let (fault, under_way) = self.enter(endpoint, &server, &request);
        if let Some(reply) = fault.as_ref().and_then(|fault| self.instead_of_acting(fault)) {
            return Answered { reply: self.with_request_id(reply), under_way };
        }
        // In a task of its own: bytes that have arrived are acted upon, whether or not the client is still there.
        let this = self.clone();
        let acting = self.tasks.spawn(async move {
            let reply = this.act(endpoint, &server, request, fault).await;
            Answered { reply: this.with_request_id(reply), under_way }
        });
        acting.await.unwrap_or_else(|_panicked| Answered {
            reply: Refusal::Internal.reply(self.entropy.as_ref()),
            under_way: None,
        })
    }

    fn not_found(&self, what: &str) -> Answered {
        let summary = format!("Not found: Resource not found: {what}");
        let reply = Reply::okta_error(StatusCode::NOT_FOUND, "E0000007", &summary, self.entropy.as_ref());
        Answered { reply: self.with_request_id(reply), under_way: None }
    }

    fn with_request_id(&self, reply: Reply) -> Reply {
        reply.with("x-okta-request-id", self.entropy.text(16))
    }

    /// Counts the request, whatever becomes of it, and takes the fault that is meant for it.
    fn enter(
        self: &Arc<Self>,
        endpoint: Endpoint,
        server: &str,
        request: &Request,
    ) -> (Option<Fault>, Option<UnderWay>) {
        let mut state = self.lock();
        let state = &mut *state;
        state.stats.request(endpoint);
        if endpoint != Endpoint::Token {
            return (state.faults.take(endpoint, server, None), None);
        }
        let form = Form::parse(&request.body).unwrap_or_default();
        let grant_type = form.get("grant_type");
        state.stats.token_request(grant_type.unwrap_or("none"));
        let mut under_way = None;
        if let (Some("refresh_token"), Some(token)) = (grant_type, form.get("refresh_token")) {
            let token = Secret::new(token.to_owned());
            let family = state.families.of_token(&token);
            let login = family.and_then(|id| state.families.get(id)).map(|family| &family.login);
            state.stats.presented(&token, login.map(|login| login.user.as_str()));
            if let Some(family) = family {
                state.stats.concurrent(state.families.enter(family));
                under_way = Some(UnderWay { service: self.clone(), family });
            }
        }
        (state.faults.take(endpoint, server, grant_type), under_way)
    }

    fn instead_of_acting(&self, fault: &Fault) -> Option<Reply> {
        let mut state = self.lock();
        interference::instead_of_acting(&mut state, fault, &self.now())
    }

    async fn act(
        &self,
        endpoint: Endpoint,
        server: &str,
        mut request: Request,
        fault: Option<Fault>,
    ) -> Reply {
        if let Some(Fault::Delay(delay)) = fault {
            self.wait(delay).await;
        }
        let need = match endpoint {
            Endpoint::Token => Some(Need::Active),
            Endpoint::Keys => Some(Need::ActiveAndNext),
            Endpoint::Introspect
            | Endpoint::Revoke
            | Endpoint::Discovery
            | Endpoint::Authorize
            | Endpoint::Device
            | Endpoint::Activate => None,
        };
        if let Some(need) = need
            && self.make_keys(server, need).await.is_err()
        {
            return Refusal::Internal.reply(self.entropy.as_ref());
        }
        let reply = {
            let mut state = self.lock();
            // Read under the lock, so that no request is judged by an earlier time than the one before it.
            request.now = self.now();
            endpoints::answer(&mut state, endpoint, server, &request, fault.as_ref())
        };
        interference::after_acting(reply, fault.as_ref())
    }

    async fn wait(&self, delay: Duration) {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.tasks.stopping() => {}
        }
    }
}
