//! `GET /v1/token`: the request's shape, then the rule, then the grant; refusals in that order.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, HeaderValue, VARY};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::api::Api;
use crate::api::answer::answer;
use crate::api::error::Problem;
use crate::api::query::Query;
use crate::caller::Caller;
use crate::policy::TokenRequest;

const PARAMETERS: [&str; 4] = ["service", "user", "role", "min_ttl"];

pub(super) async fn vend(
    api: &Api,
    caller: &Caller,
    request: &Parts,
) -> Result<Response<Full<Bytes>>, Problem> {
    let query = Query::parse(request.uri.query(), &PARAMETERS)?;
    query.required("service")?;
    let asked = TokenRequest {
        service: query.service()?.ok_or_else(Problem::unknown_service)?,
        user: query.user()?,
        role: query.role()?,
    };
    let min_ttl = query.seconds("min_ttl")?;
    let terms = api.terms.load_full();
    let service = asked.service.clone();
    let permit = terms.policy.permit(caller, asked).map_err(|denied| {
        let label = if terms.policy.service(&service).is_some() { service.as_str() } else { "unknown" };
        let problem = Problem::from(denied);
        api.metrics.token_requests.with_label_values(&[label, problem.error()]).inc();
        problem
    })?;
    let token = api.broker.vend(&permit, min_ttl, terms.request_timeout).await?;
    tracing::debug!(grant = %permit.key().grant, role = ?permit.key().role, version = token.version, "vended");
    let mut answer = if wants_text(request) {
        answer(StatusCode::OK, "text/plain; charset=utf-8", token.token().expose().to_owned())
    } else {
        answer(StatusCode::OK, "application/json", token.json(&api.broker.now()))
    };
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(answer)
}

/// Whether the caller wants the token alone: `text/plain` is named, and JSON is not.
fn wants_text(request: &Parts) -> bool {
    let mut text = false;
    for value in request.headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            match range.split(';').next().unwrap_or_default().trim() {
                "application/json" => return false,
                "text/plain" => text = true,
                _ => {}
            }
        }
    }
    text
}
