//! The vending socket's interface: method and path to handler, and what all answers have in common.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;

use crate::audit::Audit;
use crate::broker::Broker;
use crate::caller::Caller;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::model::{Failure, LoginUrl, RequestId, RequestIds, TokenKey};
use crate::policy::{Policy, Shown};
use crate::runs::ended::EndedRuns;
use crate::runs::{self, Bearer, Passes};
use crate::server::places::{Place, Places};
use crate::server::{Handler, Peer};
use crate::store::Store;
use crate::tasks::Tasks;

/// The parameters of a request's query.
pub mod query;

/// Every failure's status, code and sentence.
pub mod error;

/// Reads bodies, or does away with them.
pub mod body;

/// `GET /v1/token`.
mod token;

/// The same question on the same connection.
mod again;

/// What is recorded.
mod audited;

/// `GET /v1/token/events`.
mod events;

/// `POST /v1/introspect`.
mod introspect;

/// `GET /v1/services`.
mod services;

/// `GET /v1/grants`.
pub mod grants;

/// How often one uid may ask.
mod pace;

/// What all answers have in common: request ids and headers.
pub mod answer;

pub use again::Memory;
use answer::request_id;
use error::Problem;
use events::Events;
use pace::{Heard, Paces};
use query::Query;

/// This interface, described.
pub const OPENAPI: &str = include_str!("api/openapi.json");

/// The interface that workers see.
pub struct Api {
    /// What a reload replaces.
    pub terms: ArcSwap<Terms>,
    /// Who gives.
    pub broker: Broker,
    /// Where grants are remembered.
    pub store: Arc<dyn Store>,
    /// Which runs are over.
    pub ended: Arc<EndedRuns>,
    /// Changes with the terms.
    pub news: watch::Sender<()>,
    /// What each uid does at the moment.
    pub load: Load,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What owns those who speak to them.
    pub tasks: Tasks,
    /// Names requests.
    pub ids: RequestIds,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where it is recorded who gets what.
    pub audit: Audit,
}

/// On what terms workers get something.
pub struct Terms {
    /// Who may.
    pub policy: Policy,
    /// How long a caller waits at most.
    pub request_timeout: Duration,
    /// Requests of one uid in a second.
    pub requests_per_second: u32,
    /// Event streams of one uid at the same time.
    pub event_streams: usize,
    /// Which run passes are believed.
    pub passes: Passes,
    /// Requests of one uid that wait at the same time.
    pub waiting_requests: usize,
    /// Where users connect, if there is a page.
    pub connect: Option<LoginUrl>,
}

impl Terms {
    /// A failure as it is answered: with the place where the user connects, if that would help.
    #[must_use]
    pub fn problem(&self, failure: Failure, key: &TokenKey) -> Problem {
        let helps = matches!(failure, Failure::LoginRequired { .. });
        let problem = Problem::from(failure);
        match self.connect.as_ref().filter(|_| helps) {
            Some(page) => problem.with("login_url", page.of(&key.grant.service, key.role.as_ref())),
            None => problem,
        }
    }
}

/// What each uid does at the moment, as far as that has bounds.
#[derive(Default)]
pub struct Load {
    paces: Paces,
    streams: Places,
    waiting: Places,
}

/// What a caller waits for an answer that tells it once more to wait a second.
const FAR_TOO_OFTEN: Duration = Duration::from_secs(1);

impl Handler for Api {
    type Memory = Memory;
    type Body = Either<Full<Bytes>, Events>;

    fn admits(&self, uid: Option<u32>) -> bool {
        let (most, now) = (self.terms.load().requests_per_second, self.clock.now().boot);
        uid.is_none_or(|uid| self.load.paces.admit(uid, most, now))
    }

    fn too_many(&self, uid: Option<u32>) -> Option<Response<Full<Bytes>>> {
        let (most, now) = (self.terms.load().requests_per_second, self.clock.now().boot);
        let told = uid.is_none_or(|uid| self.load.paces.tell(uid, most, now));
        told.then(|| answer::too_many(&self.ids))
    }

    async fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        memory: &Mutex<Memory>,
        request: Request<Incoming>,
    ) -> Response<Self::Body> {
        let (request, mut body) = request.into_parts();
        let id = request_id(&request, &self.ids);
        let Peer::Local(caller) = peer else {
            // Tokens never leave over TCP, whatever listener this handler is put behind.
            return answer::finish(Problem::access_denied().into_answer(&id), &id).map(Either::Left);
        };
        let has_asked = {
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut memory.has_asked, true)
        };
        let heard = if has_asked { self.hears(caller) } else { Heard::Yes };
        if heard != Heard::Yes {
            return self.too_often(heard, &id, &body).await.map(Either::Left);
        }
        let say = || self.load.paces.say(caller.uid(), self.clock.now().boot);
        if request.method == Method::GET && request.uri.path() == events::PATH {
            match self.listen(caller, &request, &id).await {
                Ok(mut stream) => {
                    body::dispose(&mut body, &mut stream).await;
                    return answer::finish(stream, &id).map(Either::Right);
                }
                Err(problem) => {
                    self.note(&problem);
                    audited::refusal(self, caller, &id, &request, &problem);
                    return answer::conclude(Err(problem), &id, caller, &mut body, say)
                        .await
                        .map(Either::Left);
                }
            }
        }
        let result = match again::answer(self, memory, &request, (caller, &id)) {
            Some(answer) => Ok(answer),
            None => self.route((caller, &id), memory, &request, &mut body).await.inspect_err(|problem| {
                self.note(problem);
                audited::refusal(self, caller, &id, &request, problem);
            }),
        };
        answer::conclude(result, &id, caller, &mut body, say).await.map(Either::Left)
    }
}

impl Api {
    /// Other terms hold from now on; who is served on the ones before looks whether they still are.
    pub fn replace(&self, terms: Terms) {
        self.terms.store(Arc::new(terms));
        self.news.send_replace(());
    }

    /// Counts a request.
    fn hears(&self, caller: &Caller) -> Heard {
        let most = self.terms.load().requests_per_second;
        self.load.paces.ask(caller.uid(), most, self.clock.now().boot)
    }

    /// Refuses a request before it was looked at. Who does not care is answered later: then each of its connections costs
    /// one refusal a second.
    async fn too_often(&self, heard: Heard, id: &RequestId, body: &Incoming) -> Response<Full<Bytes>> {
        self.metrics.requests_refused.with_label_values(&["requests_per_second"]).inc();
        if heard == Heard::FarTooOften {
            tokio::time::sleep(FAR_TOO_OFTEN).await;
        }
        let mut answer = answer::finish(Problem::too_often(id), id);
        if !body.is_end_stream() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// A place for a request that takes a wait; `None` is counted.
    fn room_to_wait(&self, caller: &Caller, terms: &Terms) -> Option<Place> {
        let place = self.load.waiting.take(caller.uid(), terms.waiting_requests);
        if place.is_none() {
            self.metrics.requests_refused.with_label_values(&["waiting_requests"]).inc();
        }
        place
    }

    fn note(&self, problem: &Problem) {
        if ["invalid_request", "too_large"].contains(&problem.error()) {
            self.metrics.requests_refused.with_label_values(&[problem.error()]).inc();
        }
    }

    async fn listen(
        self: &Arc<Self>,
        caller: &Caller,
        request: &Parts,
        id: &RequestId,
    ) -> Result<Response<Events>, Problem> {
        answer::check_head(request)?;
        events::open(self, caller, request, id).await
    }

    /// What comes of what a request shows of a run pass. Whoever no rule is for is not worth a signature.
    async fn shown(&self, terms: &Terms, caller: &Caller, bearer: &Bearer) -> Shown {
        if !terms.policy.knows(caller) {
            return Shown::Nothing;
        }
        let judged = terms.passes.judge(bearer);
        tokio::time::timeout(terms.request_timeout, judged).await.unwrap_or(Shown::Unknown)
    }

    /// The same for a request.
    async fn shown_in(&self, terms: &Terms, caller: &Caller, request: &Parts) -> Shown {
        self.shown(terms, caller, &runs::bearer(&request.headers)).await
    }

    async fn route(
        &self,
        (caller, id): (&Caller, &RequestId),
        memory: &Mutex<Memory>,
        request: &Parts,
        body: &mut Incoming,
    ) -> Result<Response<Full<Bytes>>, Problem> {
        answer::check_head(request)?;
        let read = matches!(request.method, Method::GET | Method::HEAD);
        match request.uri.path() {
            "/v1/token" if read => token::vend(self, (caller, id), memory, request).await,
            "/v1/services" if read => services::list(self, caller, request).await,
            "/v1/grants" if read => grants::list(self, caller, request).await,
            "/v1/openapi.json" if read => {
                Query::parse(request.uri.query(), &[])?;
                Ok(answer::answer(StatusCode::OK, "application/json", OPENAPI))
            }
            "/v1/introspect" if request.method == Method::POST => {
                introspect::introspect(self, caller, request, body).await
            }
            "/v1/token" | "/v1/services" | "/v1/grants" | "/v1/openapi.json" => {
                Err(Problem::method_not_allowed("GET, HEAD"))
            }
            "/v1/token/events" => Err(Problem::method_not_allowed("GET")),
            "/v1/introspect" => Err(Problem::method_not_allowed("POST")),
            _ => Err(Problem::not_found("there is nothing here; see GET /v1/openapi.json")),
        }
    }
}
