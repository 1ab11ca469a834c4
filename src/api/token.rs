//! `GET /v1/token`: the request's shape, then the rule, then the grant; refusals in that order.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, HeaderValue, VARY};
use hyper::{Request, Response, StatusCode};

use crate::api::Api;
use crate::api::answer::answer;
use crate::api::error::Problem;
use crate::api::query::Query;
use crate::caller::Caller;
use crate::policy::TokenRequest;

const PARAMETERS: [&str; 4] = ["service", "user", "role", "min_ttl"];

pub(super) async fn vend<B>(
    api: &Api,
    caller: &Caller,
    request: &Request<B>,
) -> Result<Response<Full<Bytes>>, Problem> {
    let query = Query::parse(request.uri().query(), &PARAMETERS)?;
    let missing = |name| Problem::invalid_parameter(name, "missing");
    let asked = TokenRequest {
        service: query.service()?.ok_or_else(|| missing("service"))?,
        user: query.user()?.ok_or_else(|| missing("user"))?,
        role: query.role()?,
    };
    let min_ttl = query.seconds("min_ttl")?;
    let service = asked.service.clone();
    let permit = api.policy.permit(caller, asked).map_err(|denied| {
        let label = if api.services.contains(&service) { service.as_str() } else { "unknown" };
        let problem = Problem::from(denied);
        api.metrics.token_requests.with_label_values(&[label, problem.error()]).inc();
        problem
    })?;
    let token = api.broker.vend(&permit, min_ttl, api.request_timeout).await?;
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
fn wants_text<B>(request: &Request<B>) -> bool {
    let accepted: Vec<&str> = request
        .headers()
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .map(str::trim)
        .collect();
    accepted.contains(&"text/plain") && !accepted.contains(&"application/json")
}
