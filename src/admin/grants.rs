//! Grants by the admin socket.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::admin::Admin;
use crate::api::answer;
use crate::api::error::Problem;
use crate::api::query::Query;
use crate::model::{
    EndReason, Failure, Grant, GrantId, GrantKey, GrantState, ServiceName, TokenKey, UserName,
};
use crate::policy::Denied;
use crate::secret::Secret;
use crate::store::{StoreError, Which};

const LARGEST_BODY: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

pub(super) async fn list(admin: &Admin, query: Option<&str>) -> Result<Response<Full<Bytes>>, Problem> {
    let query = Query::parse(query, &["service", "user", "state", "cursor", "limit"])?;
    let state = query.get("state").map(str::to_owned);
    if state.as_deref().is_some_and(|state| state != "active" && state.parse::<EndReason>().is_err()) {
        return Err(Problem::invalid_parameter("state", "must be active, expired, revoked or lost"));
    }
    let which = Which { service: query.service()?, user: query.user()?, state };
    let bad_cursor = || Problem::invalid_parameter("cursor", "not one that an earlier page gave");
    let after = query.get("cursor").map(|text| read_cursor(text).ok_or_else(bad_cursor)).transpose()?;
    let limit = query.number("limit", LARGEST_PAGE)?.unwrap_or(PAGE);
    let mut grants = admin.store.grants(&which, after.as_ref(), limit + 1).await.map_err(unavailable)?;
    let more = grants.len() > limit as usize;
    grants.truncate(limit as usize);
    let next = grants.last().filter(|_| more).map(|grant| cursor(&grant.key));
    let grants: Vec<Value> = grants.iter().map(describe).collect();
    Ok(answer::json(StatusCode::OK, &json!({ "grants": grants, "next_cursor": next })))
}

pub(super) async fn import(
    admin: &Admin,
    key: GrantKey,
    body: Incoming,
) -> Result<Response<Full<Bytes>>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        refresh_token: String,
    }
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, LARGEST_BODY).collect()).await;
    let body = body.map_err(|_| Problem::invalid_request("the body takes too long"))?.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Problem::too_large()
        } else {
            Problem::invalid_request("the body broke off")
        }
    })?;
    let body = Zeroizing::new(body.to_bytes().to_vec());
    // serde's own message would quote the body, and a secret with it.
    let body: Body = serde_json::from_slice(&body).map_err(|_| {
        Problem::invalid_request("the body must be {\"refresh_token\": \"…\"} and nothing else")
    })?;
    let refresh_token = Secret::new(body.refresh_token);
    let sane =
        !refresh_token.is_empty() && refresh_token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    if !sane {
        return Err(Problem::invalid_parameter("refresh_token", "must be printable ASCII without spaces"));
    }
    let grant = admin.engine.import(key, refresh_token).await?;
    Ok(answer::json(StatusCode::CREATED, &describe(&grant)))
}

pub(super) async fn refresh(
    admin: &Admin,
    key: GrantKey,
    query: Option<&str>,
) -> Result<Response<Full<Bytes>>, Problem> {
    let role = Query::parse(query, &["role"])?.role()?;
    if !admin.engine.has_role(&key.service, role.as_ref()) {
        return Err(Denied::UnknownRole.into());
    }
    admin.engine.refresh(&TokenKey { grant: key.clone(), role }).await?;
    let grant = admin.store.grant(&GrantId::current(key)).await.map_err(unavailable)?;
    let grant = grant.ok_or_else(|| Problem::not_found("no such grant"))?;
    Ok(answer::json(StatusCode::OK, &describe(&grant)))
}

/// A grant as administrators see it; never a token.
fn describe(grant: &Grant) -> Value {
    let (state, since) = match grant.state {
        GrantState::Active => ("active", None),
        GrantState::Ended { reason, since } => (reason.as_str(), Some(since.to_string())),
    };
    json!({
        "service": grant.key.service.as_str(),
        "user": grant.key.user.as_str(),
        "state": state,
        "since": since,
        "refresh_tokens": grant.rotation.as_str(),
        "created_at": grant.created_at.to_string(),
        "refreshed_at": grant.refreshed_at.map(|at| at.to_string()),
        "in_doubt_since": grant.in_doubt_since.map(|since| since.wall.to_string()),
    })
}

fn cursor(key: &GrantKey) -> String {
    URL_SAFE_NO_PAD.encode(json!([key.service.as_str(), key.user.as_str()]).to_string())
}

fn read_cursor(text: &str) -> Option<GrantKey> {
    let (service, user): (String, String) =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    Some(GrantKey { service: ServiceName::parse(&service)?, user: UserName::parse(&user)? })
}

#[expect(clippy::needless_pass_by_value, reason = "stands in `map_err`")]
fn unavailable(error: StoreError) -> Problem {
    tracing::error!(%error, "the store does not work");
    match error {
        StoreError::Unavailable(_) => {
            Failure::StoreUnavailable { retry_after: Duration::from_secs(1) }.into()
        }
        StoreError::Inconsistent { .. } | StoreError::Seal(_) => Problem::internal(),
    }
}
