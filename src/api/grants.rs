//! `GET /v1/grants`: states, times and scopes of the grants that this caller may use.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::api::error::Problem;
use crate::api::query::Query;
use crate::api::{Api, answer};
use crate::caller::Caller;
use crate::model::{Expiry, Failure, Grant, GrantKey, GrantState, ServiceName, UserName};
use crate::policy::{Allowed, Shown};
use crate::store::Which;

/// Grants on a page, unless asked otherwise, and at most.
pub const PAGE: u32 = 100;
/// At most.
pub const LARGEST_PAGE: u32 = 1000;
/// Rows that are looked at for one page, whoever they belong to.
const MOST_ROWS: usize = 5_000;

pub(super) async fn list(
    api: &Api,
    caller: &Caller,
    request: &Parts,
) -> Result<Response<Full<Bytes>>, Problem> {
    let query = Query::parse(request.uri.query(), &["service", "user", "cursor", "limit"])?;
    let (service, user) = (query.service()?, query.user()?);
    let mut after = read_cursor(&query)?;
    let limit = query.number("limit", LARGEST_PAGE)?.unwrap_or(PAGE) as usize;
    let terms = api.terms.load_full();
    let shown = api.shown_in(&terms, caller, request).await;
    let allowed = terms.policy.usable(caller, &shown, service.as_ref(), |allowed| {
        allowed.service.has_users() && user.as_ref().is_none_or(|user| allowed.is_about(Some(user)))
    })?;
    let first = allowed.first().map(|first| &first.service.name);
    let only = allowed.iter().all(|other| Some(&other.service.name) == first);
    let user = user.or_else(|| match &shown {
        Shown::Pass(pass) => Some(pass.user().clone()),
        Shown::Nothing | Shown::Bad(..) | Shown::Unknown => None,
    });
    let place = api.room_to_wait(caller, &terms).ok_or(Failure::TooManyWaiting)?;
    // A list reads many rows, and the store is everybody's.
    let _turn = place.turn().await;
    let which = Which { service: first.filter(|_| only).cloned(), user, ..Which::default() };
    let (mut grants, mut rows, mut more) = (Vec::new(), 0, true);
    while more && grants.len() < limit && rows < MOST_ROWS {
        let page = api.store.grants(&which, after.as_ref(), LARGEST_PAGE).await?;
        more = page.len() == LARGEST_PAGE as usize;
        rows += page.len();
        after = page.last().map(|grant| grant.key.clone());
        let mut visible = page.into_iter().filter(|grant| may_use(&allowed, &grant.key));
        grants.extend(visible.by_ref().take(limit - grants.len()));
        more |= visible.next().is_some();
    }
    // A cursor names a grant, so it may only be one that this caller may know.
    let next = grants.last().filter(|_| more).map(|grant: &Grant| cursor(&grant.key));
    let incomplete = more && next.is_none();
    let grants: Vec<Value> =
        grants.iter().map(|grant| with_scopes(describe(grant), grant, &allowed)).collect();
    Ok(answer::json(
        StatusCode::OK,
        &json!({ "grants": grants, "next_cursor": next, "complete": !incomplete }),
    ))
}

fn may_use(allowed: &[Allowed<'_>], key: &GrantKey) -> bool {
    allowed.iter().any(|allowed| allowed.service.name == key.service && allowed.is_about(Some(&key.user)))
}

/// And which scopes and roles this caller may ask of it.
fn with_scopes(mut described: Value, grant: &Grant, allowed: &[Allowed<'_>]) -> Value {
    let rules: Vec<_> = allowed.iter().filter(|allowed| allowed.service.name == grant.key.service).collect();
    let scope = rules.iter().find(|rule| rule.default_scopes).map(|rule| rule.service.scopes.to_string());
    let roles: BTreeSet<&str> = rules.iter().flat_map(|rule| &rule.roles).map(|role| role.as_str()).collect();
    if let Some(members) = described.as_object_mut() {
        members.insert("scope".to_owned(), json!(scope));
        members.insert("roles".to_owned(), json!(roles));
    }
    described
}

/// A grant as it is told; never a token.
#[must_use]
pub fn describe(grant: &Grant) -> Value {
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
        "expires_at": match grant.expiry {
            Expiry::At(end) => Some(end.to_string()),
            Expiry::Never | Expiry::Unknown => None,
        },
        "in_doubt_since": grant.in_doubt_since.map(|since| since.wall.to_string()),
    })
}

/// Where the next page begins.
#[must_use]
pub fn cursor(key: &GrantKey) -> String {
    URL_SAFE_NO_PAD.encode(json!([key.service.as_str(), key.user.as_str()]).to_string())
}

/// The `cursor` of an earlier page, if it is given.
///
/// # Errors
/// If no page gave it.
pub fn read_cursor(query: &Query<'_>) -> Result<Option<GrantKey>, Problem> {
    let read = |text: &str| {
        let (service, user): (String, String) =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        Some(GrantKey { service: ServiceName::parse(&service)?, user: UserName::parse(&user)? })
    };
    let refused = || Problem::invalid_parameter("cursor", "not one that an earlier page gave");
    query.get("cursor").map(|text| read(text).ok_or_else(refused)).transpose()
}
