//! The vending socket's interface: method and path to handler, and what all answers have in common.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use tracing::Instrument as _;

use crate::broker::Broker;
use crate::caller::Caller;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::model::ServiceName;
use crate::policy::Policy;
use crate::server::{Handler, Peer};

/// The parameters of a request's query.
pub mod query;

/// Every failure's status, code and sentence.
pub mod error;

/// `GET /v1/token`.
mod token;

/// What all answers have in common: request ids and headers.
pub mod answer;

use answer::request_id;
use error::Problem;

/// The interface that workers see.
pub struct Api {
    /// Who may.
    pub policy: Policy,
    /// Who gives.
    pub broker: Broker,
    /// What may stand in a metric's `service` label.
    pub services: HashSet<ServiceName>,
    /// How long a caller waits at most.
    pub request_timeout: Duration,
    /// For request ids.
    pub entropy: Arc<dyn Entropy>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Handler for Api {
    async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let id = request_id(&request, &*self.entropy);
        let Peer::Local(caller) = peer else {
            // Tokens never leave over TCP, whatever listener this handler is put behind.
            return answer::finish(Problem::access_denied().into_answer(&id), &id);
        };
        let span = tracing::info_span!("request", id = id.as_str(), uid = caller.uid(), pid = caller.pid());
        let handle = async {
            let answer = self.route(&caller, &request).await.unwrap_or_else(|problem| {
                tracing::info!(error = problem.error(), "refused");
                problem.into_answer(&id)
            });
            answer::finish(answer, &id)
        };
        handle.instrument(span).await
    }
}

impl Api {
    async fn route(
        &self,
        caller: &Caller,
        request: &Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Problem> {
        answer::check_head(request)?;
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/v1/token") => token::vend(self, caller, request).await,
            (_, "/v1/token") => Err(Problem::method_not_allowed("GET")),
            _ => Err(Problem::not_found("there is nothing here; see GET /v1/token")),
        }
    }
}
