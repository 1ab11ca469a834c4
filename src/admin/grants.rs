//! Grants by the admin socket.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Admin, PATIENCE};
use crate::api::answer;
use crate::api::error::Problem;
use crate::api::grants::{LARGEST_PAGE, PAGE, cursor, describe, read_cursor};
use crate::api::query::Query;
use crate::clock::Timestamp;
use crate::model::{
    Coverage, EndReason, Grant, GrantId, GrantKey, LastUse, RoleName, RunId, TokenKey, UserName,
};
use crate::policy::Denied;
use crate::secret::Secret;
use crate::store::Which;

pub(super) async fn list(admin: &Admin, query: Option<&str>) -> Result<Response<Full<Bytes>>, Problem> {
    let query = Query::parse(query, &["service", "user", "state", "ending", "cursor", "limit"])?;
    let state = query.get("state").map(str::to_owned);
    if state.as_deref().is_some_and(|state| state != "active" && state.parse::<EndReason>().is_err()) {
        return Err(Problem::invalid_parameter("state", "must be active, expired, revoked or lost"));
    }
    let soon = admin.clock.now().wall.plus(admin.engine.warn_before());
    let ends_before = match query.get("ending") {
        None | Some("false") => None,
        Some("true") => Some(soon),
        Some(_) => return Err(Problem::invalid_parameter("ending", "must be true or false")),
    };
    let which = Which { service: query.service()?, user: query.user()?, state, ends_before };
    let after = read_cursor(&query)?;
    let limit = query.number("limit", LARGEST_PAGE)?.unwrap_or(PAGE);
    let mut grants = admin.store.grants(&which, after.as_ref(), limit + 1).await?;
    let more = grants.len() > limit as usize;
    grants.truncate(limit as usize);
    let next = grants.last().filter(|_| more).map(|grant| cursor(&grant.key));
    let grants = described(admin, &grants, soon).await?;
    Ok(answer::json(StatusCode::OK, &json!({ "grants": grants, "next_cursor": next })))
}

/// Grants as administrators see them: also whether each ends by itself before `soon`, what it covers, and who used it last.
async fn described(admin: &Admin, grants: &[Grant], soon: Timestamp) -> Result<Vec<Value>, Problem> {
    let keys: Vec<GrantKey> = grants.iter().map(|grant| grant.key.clone()).collect();
    let uses = admin.uses.last_uses(&keys).await?;
    let had = admin.store.roles_had(&keys).await?;
    let describe = |grant: &Grant| {
        let mut described = describe(grant);
        let last = uses.get(&grant.key);
        if let Some(members) = described.as_object_mut() {
            let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
            put("ending", json!(grant.ends_before(soon)));
            put("granted_scope", json!(grant.granted_scope.as_ref().map(ToString::to_string)));
            let had = had.iter().filter(|(key, _)| *key == grant.key).map(|(_, role)| role);
            put("granted_roles", roles(&admin.engine.coverage(grant, had)));
            put("last_used_at", json!(last.map(|last| last.at.to_string())));
            put("last_used_by", json!(last.map(used_by)));
        }
        described
    };
    Ok(grants.iter().map(describe).collect())
}

fn roles(coverage: &[(RoleName, Coverage)]) -> Value {
    let member = |(role, covered): &(RoleName, Coverage)| (role.to_string(), json!(covered.as_str()));
    Value::Object(coverage.iter().map(member).collect())
}

fn used_by(last: &LastUse) -> Value {
    json!({ "uid": last.uid, "unit": last.unit, "run": last.run.as_ref().map(RunId::as_str) })
}

pub(super) async fn import(
    admin: &Admin,
    key: GrantKey,
    body: &[u8],
) -> Result<Response<Full<Bytes>>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        refresh_token: String,
    }
    // serde's own message would quote the body, and a secret with it.
    let body: Body = serde_json::from_slice(body).map_err(|_| {
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
    let service = admin.engine.service(&key.service).ok_or_else(Problem::unknown_service)?;
    if service.scope(role.as_ref()).is_none() {
        return Err(Denied::UnknownRole.into());
    }
    let token_key = TokenKey { grant: key.clone(), role };
    let refreshed = admin.engine.refresh(&token_key).await;
    refreshed.map_err(|failure| admin.api.terms.load().problem(failure, &token_key))?;
    let grant = admin.store.grant(&GrantId::current(key)).await?;
    let grant = grant.ok_or_else(|| Problem::not_found("no such grant"))?;
    Ok(answer::json(StatusCode::OK, &describe(&grant)))
}

/// 200, or 202 with what is left to do.
pub(super) async fn revoke(admin: &Admin, key: GrantKey) -> Result<Response<Full<Bytes>>, Problem> {
    let left = admin.engine.revoke(&key, PATIENCE).await?;
    let configured = admin.engine.service(&key.service).is_some();
    let left = left.ok_or_else(|| {
        if configured { Problem::not_found("no such grant") } else { Problem::unknown_service() }
    })?;
    let body = json!({
        "service": key.service.as_str(), "user": key.user.as_str(), "state": "revoked", "left": left,
    });
    Ok(answer::json(done_or_not(&left), &body))
}

/// What a sidecar can't reach, said to whoever wants a user forgotten.
const OUT_OF_REACH: [&str; 4] = [
    "tokens that were handed out verify until they expire",
    "the log and the audit file keep the lines that name the user, for as long as they are kept",
    "backups and snapshots of the store",
    "what the authorization server and the services recorded themselves",
];

/// Every trace of a user, as far as it is here; 202 while a server has yet to be told.
pub(super) async fn erase(admin: &Admin, user: &UserName) -> Result<Response<Full<Bytes>>, Problem> {
    let (grants, left) = admin.engine.erase(user, PATIENCE).await?;
    admin.uses.forget(user);
    let body = json!({
        "user": user.as_str(), "grants": grants, "left": left, "out_of_reach": OUT_OF_REACH,
    });
    Ok(answer::json(done_or_not(&left), &body))
}

fn done_or_not(left: &[String]) -> StatusCode {
    if left.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED }
}
