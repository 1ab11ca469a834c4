//! The admin socket's interface: whoever opens the socket may do everything, so there is no policy here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::admin::audited::Errand;
use crate::admin::keys::KeyRotation;
use crate::api::Api;
use crate::api::answer::{self, request_id};
use crate::api::body;
use crate::api::error::Problem;
use crate::api::query::Query;
use crate::audit::Audit;
use crate::cache::TokenCache;
use crate::clock::{Clock, Moment};
use crate::model::{GrantKey, RequestIds, RunId, Service, ServiceName, UserName};
use crate::ready::Ready;
use crate::refresh::Engine;
use crate::server::{Handler, Peer};
use crate::store::Store;
use crate::uses::Uses;

/// What is recorded.
mod audited;

/// One real refresh, to look at what comes of it.
mod check;
/// Consents, for who connects from a terminal.
pub mod consents;

/// Grants: list, import, refresh, revoke; and users, who are forgotten.
mod grants;

/// Every row sealed anew.
pub mod keys;

/// The sidecar at a glance.
mod status;

/// `/metrics`, `/live`, `/ready`, on a listener, thread and runtime of their own.
pub mod observe;

/// The interface that administrators see.
pub struct Admin {
    /// What they administrate.
    pub engine: Engine,
    /// Where it is remembered.
    pub store: Arc<dyn Store>,
    /// Who used which grant last.
    pub uses: Arc<Uses>,
    /// What is in memory.
    pub cache: TokenCache,
    /// What is being waited for.
    pub ready: Ready,
    /// What workers see, and with it which runs are over.
    pub api: Arc<Api>,
    /// Reads the configuration again.
    pub reload: Arc<dyn Reload>,
    /// Seals the store anew.
    pub keys: KeyRotation,
    /// Where users are asked who connect from a terminal.
    pub desk: Arc<consents::Desk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// When the process began.
    pub started: Moment,
    /// Names requests.
    pub ids: RequestIds,
    /// Where it is recorded what they do.
    pub audit: Audit,
}

/// How long an administrator waits for an authorization server at most.
const PATIENCE: Duration = Duration::from_secs(15);

/// Reads the configuration again beside the one in use and swaps, or keeps the old one and says why.
#[async_trait]
pub trait Reload: Send + Sync {
    /// # Errors
    /// Every reason why the old one stays in use.
    async fn reload(&self) -> Result<(), Vec<String>>;
}

impl Handler for Admin {
    type Memory = ();
    type Body = Full<Bytes>;

    fn too_many(&self, _uid: Option<u32>) -> Option<Response<Full<Bytes>>> {
        Some(answer::too_many(&self.ids))
    }

    async fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        _memory: &Mutex<()>,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let (request, mut body) = request.into_parts();
        let id = request_id(&request, &self.ids);
        let Peer::Local(caller) = peer else {
            return answer::finish(Problem::access_denied().into_answer(&id), &id);
        };
        // What was asked for is done, and recorded, whether or not who asked waits for the answer.
        let (this, caller, name) = (Arc::clone(self), caller.clone(), id.clone());
        let answering = self.api.tasks.spawn(async move {
            let mut errand = Errand::new(caller.clone(), id.clone());
            let result = this.route(&request, &mut body, &mut errand).await;
            if let Some(event) = audited::event(&errand, &request, &result).filter(|_| this.audit.is_on()) {
                this.audit.record(event);
            }
            answer::conclude(result, &id, &caller, &mut body, || Some(0)).await
        });
        answering.await.unwrap_or_else(|_| answer::finish(Problem::internal().into_answer(&name), &name))
    }
}

impl Admin {
    async fn route(
        &self,
        request: &Parts,
        body: &mut Incoming,
        errand: &mut Errand,
    ) -> Result<Response<Full<Bytes>>, Problem> {
        answer::check_head(request)?;
        let path = request.uri.path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let query = request.uri.query();
        let takes_query =
            matches!(parts.as_slice(), ["v1", "grants"] | ["v1", "grants", _, _, "refresh" | "check"]);
        if !takes_query {
            Query::parse(query, &[])?;
        }
        match (&request.method, parts.as_slice()) {
            (&Method::GET | &Method::HEAD, ["v1", "grants"]) => grants::list(self, query).await,
            (&Method::PUT, ["v1", "grants", service, user]) => {
                let key = self.key(service, user)?;
                grants::import(self, key, &body::read(body).await?).await
            }
            (&Method::DELETE, ["v1", "grants", service, user]) => {
                // Also of a service that is not configured any more.
                let name = ServiceName::parse(&decode(service)).ok_or_else(Problem::unknown_service)?;
                grants::revoke(self, GrantKey { service: name, user: user_of(user)? }).await
            }
            (&Method::POST, ["v1", "grants", service, user, "refresh"]) => {
                grants::refresh(self, self.key(service, user)?, query).await
            }
            (&Method::POST, ["v1", "grants", service, user, "check"]) => {
                check::check(self, self.key(service, user)?, query).await
            }
            (&Method::DELETE, ["v1", "users", user]) => grants::erase(self, &user_of(user)?).await,
            (&Method::DELETE, ["v1", "runs", run]) => self.end_run(run).await,
            (&Method::GET | &Method::HEAD, ["v1", "status"]) => status::status(self).await,
            (&Method::POST, ["v1", "reload"]) => match self.reload.reload().await {
                Ok(()) => Ok(answer::json(StatusCode::OK, &json!({ "reloaded": true }))),
                Err(problems) => {
                    let problem = Problem::invalid_request("the configuration in use stays; see `problems`");
                    Err(problem.with("problems", problems))
                }
            },
            (&Method::POST, ["v1", "keys", "rotate"]) => self.keys.rotate().await,
            (&Method::GET | &Method::HEAD, ["v1", "keys", "rotate"]) => self.keys.progress(),
            (&Method::POST, ["v1", "authorizations"]) => {
                consents::begin(self, &body::read(body).await?, errand).await
            }
            (&Method::POST, ["v1", "authorizations", id]) => {
                consents::finish(self, id, &body::read(body).await?, errand).await
            }
            (&Method::POST, ["v1", "device-authorizations"]) => {
                consents::begin_device(self, &body::read(body).await?, errand).await
            }
            (&Method::GET | &Method::HEAD, ["v1", "device-authorizations", id]) => {
                consents::device(self, id, errand)
            }
            (&Method::POST, ["v1", "password-grants"]) => {
                consents::by_password(self, &body::read(body).await?, errand).await
            }
            (_, ["v1", "keys", "rotate"]) => Err(Problem::method_not_allowed("GET, HEAD, POST")),
            (_, ["v1", "grants" | "status"] | ["v1", "device-authorizations", _]) => {
                Err(Problem::method_not_allowed("GET, HEAD"))
            }
            (_, ["v1", "grants", _, _]) => Err(Problem::method_not_allowed("PUT, DELETE")),
            (_, ["v1", "users" | "runs", _]) => Err(Problem::method_not_allowed("DELETE")),
            (
                _,
                ["v1", "grants", _, _, "refresh" | "check"]
                | ["v1", "authorizations", _]
                | ["v1", "reload" | "authorizations" | "device-authorizations" | "password-grants"],
            ) => Err(Problem::method_not_allowed("POST")),
            _ => Err(Problem::not_found("there is nothing here; see GET /v1/grants and GET /v1/status")),
        }
    }

    /// Ends a run: no token for its pass any more, and whoever listens for it is let go of.
    async fn end_run(&self, run: &str) -> Result<Response<Full<Bytes>>, Problem> {
        let malformed = || Problem::invalid_parameter("run", "must be a run pass's `jti`");
        let run = RunId::parse(&decode(run)).ok_or_else(malformed)?;
        let not_taken =
            || Problem::not_found("no run passes are taken here: the configuration has no [run_passes]");
        let until = self.api.terms.load().passes.remember_until().ok_or_else(not_taken)?;
        self.api.ended.end(run.clone(), until, self.clock.now().wall).await?;
        tracing::info!(run = %run, until = %until, "a run has ended");
        let body = json!({ "run": run.as_str(), "ended": true, "remembered_until": until.to_string() });
        Ok(answer::json(StatusCode::OK, &body))
    }

    /// A grant's key from a path, whose service must be configured and have users.
    fn key(&self, service: &str, user: &str) -> Result<GrantKey, Problem> {
        let service = self.service(service)?;
        if !service.has_users() {
            return Err(Problem::invalid_parameter("user", "the service's tokens speak for no user"));
        }
        Ok(GrantKey { service: service.name.clone(), user: user_of(user)? })
    }

    fn service(&self, name: &str) -> Result<Arc<Service>, Problem> {
        self.service_named(&decode(name))
    }

    fn service_named(&self, name: &str) -> Result<Arc<Service>, Problem> {
        let name = ServiceName::parse(name);
        name.and_then(|name| self.engine.service(&name)).ok_or_else(Problem::unknown_service)
    }
}

fn user_of(part: &str) -> Result<UserName, Problem> {
    let malformed = || {
        Problem::invalid_parameter("user", "must be 1 to 256 characters, none of them a control character")
    };
    UserName::parse(&decode(part)).ok_or_else(malformed)
}

fn decode(part: &str) -> String {
    percent_decode_str(part).decode_utf8().unwrap_or_default().into_owned()
}
