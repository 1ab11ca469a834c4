//! `GET /v1/status`: the sidecar at a glance.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use crate::admin::Admin;
use crate::api::answer;
use crate::api::error::Problem;
use crate::model::RoleName;

/// Refreshes that are named; the others are counted.
const NEXT: usize = 10;

pub(super) async fn status(admin: &Admin) -> Result<Response<Full<Bytes>>, Problem> {
    let now = admin.clock.now();
    let mut grants: Map<String, Value> = Map::new();
    for (service, state, count) in admin.store.count().await? {
        let of_service = grants.entry(service.as_str()).or_insert_with(|| json!({}));
        of_service[state] = json!(count);
    }
    let servers: Vec<Value> = admin
        .engine
        .doors(&now)
        .into_iter()
        .map(|door| {
            json!({
                "name": door.name,
                "registration": door.registration,
                "state": if door.shut_for.is_some() { "waiting" } else { "open" },
                "waiting_seconds": door.shut_for.map(|wait| wait.as_secs()),
                "why": door.why,
                "requests_per_minute": door.budget.0,
                "budget_used": door.budget.1,
            })
        })
        .collect();
    let mut due = admin.engine.due(&now);
    due.sort_by_key(|(_, wait)| *wait);
    let next: Vec<Value> = due
        .iter()
        .take(NEXT)
        .map(|(key, wait)| {
            json!({
                "service": key.grant.service.as_str(),
                "user": key.grant.user.as_str(),
                "role": key.role.as_ref().map(RoleName::as_str),
                "due_in_seconds": wait.as_secs(),
            })
        })
        .collect();
    let waiting = admin.ready.waiting_for();
    let audit = admin
        .audit
        .status()
        .map(|log| json!({ "file": log.file.display().to_string(), "seq": log.seq, "failing": log.failing }));
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": admin.started.wall.to_string(),
        "uptime_seconds": now.since(&admin.started).unwrap_or_default().as_secs(),
        "ready": waiting.is_empty(),
        "waiting_for": waiting,
        "authorization_servers": servers,
        "grants": grants,
        "rows_sealed_with_old_keys": admin.keys.left().await?,
        "waiting_to_be_revoked": admin.engine.waiting_to_be_revoked().await?,
        "access_tokens_cached": admin.cache.count(),
        "tokens_in_use": due.len(),
        "next_refreshes": next,
        "audit": audit,
    });
    Ok(answer::json(StatusCode::OK, &body))
}
