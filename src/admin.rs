//! The admin socket's interface: whoever opens the socket may do everything, so there is no policy here.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use percent_encoding::percent_decode_str;
use tracing::Instrument as _;

use crate::api::answer::{self, request_id};
use crate::api::error::Problem;
use crate::entropy::Entropy;
use crate::model::{GrantKey, ServiceName, UserName};
use crate::refresh::Engine;
use crate::server::{Handler, Peer};
use crate::store::Store;

/// Grants: list, import, refresh.
mod grants;

/// `/metrics`, `/live`, `/ready`, on a listener, thread and runtime of their own.
pub mod observe;

/// The interface that administrators see.
pub struct Admin {
    /// What they administrate.
    pub engine: Engine,
    /// Where it is remembered.
    pub store: Arc<dyn Store>,
    /// The services by name.
    pub services: std::collections::HashSet<ServiceName>,
    /// For request ids.
    pub entropy: Arc<dyn Entropy>,
}

impl Handler for Admin {
    async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let id = request_id(&request, &*self.entropy);
        let uid = match peer {
            Peer::Local(caller) => Some(caller.uid()),
            Peer::Network(_) => return answer::finish(Problem::access_denied().into_answer(&id), &id),
        };
        let span = tracing::info_span!("admin", id = id.as_str(), uid);
        let handle = async {
            let answer = self.route(request).await.unwrap_or_else(|problem| {
                tracing::info!(error = problem.error(), "refused");
                problem.into_answer(&id)
            });
            answer::finish(answer, &id)
        };
        handle.instrument(span).await
    }
}

impl Admin {
    async fn route(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Problem> {
        answer::check_head(&request)?;
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (request.method(), parts.as_slice()) {
            (&Method::GET | &Method::HEAD, ["v1", "grants"]) => {
                grants::list(self, request.uri().query()).await
            }
            (&Method::PUT, ["v1", "grants", service, user]) => {
                let key = self.key(service, user)?;
                grants::import(self, key, request.into_body()).await
            }
            (&Method::POST, ["v1", "grants", service, user, "refresh"]) => {
                grants::refresh(self, self.key(service, user)?, request.uri().query()).await
            }
            (_, ["v1", "grants"]) => Err(Problem::method_not_allowed("GET")),
            (_, ["v1", "grants", _, _]) => Err(Problem::method_not_allowed("PUT")),
            (_, ["v1", "grants", _, _, "refresh"]) => Err(Problem::method_not_allowed("POST")),
            _ => Err(Problem::not_found("there is nothing here; see GET /v1/grants")),
        }
    }

    /// A grant's key from a path, whose service must be configured.
    fn key(&self, service: &str, user: &str) -> Result<GrantKey, Problem> {
        let decode = |part| percent_decode_str(part).decode_utf8().unwrap_or_default();
        let service = ServiceName::parse(&decode(service))
            .filter(|service| self.services.contains(service))
            .ok_or_else(Problem::unknown_service)?;
        let malformed =
            || Problem::invalid_parameter("user", "must be 1 to 256 bytes without control characters");
        let user = UserName::parse(&decode(user)).ok_or_else(malformed)?;
        Ok(GrantKey { service, user })
    }
}
