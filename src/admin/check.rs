//! `POST /v1/grants/{service}/{user}/check`: one real refresh, and what the token that came of it says. Never the token:
//! without its signature it is none.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::api::answer;
use crate::api::error::Problem;
use crate::api::query::Query;
use crate::jwt;
use crate::model::{GrantKey, RoleName, TokenKey};
use crate::policy::Denied;

/// For the default scopes always by an exchange; for a role also with what is at hand, for there may be many.
pub(super) async fn check(
    admin: &Admin,
    grant: GrantKey,
    query: Option<&str>,
) -> Result<Response<Full<Bytes>>, Problem> {
    let role = Query::parse(query, &["role"])?.role()?;
    let service = admin.engine.service(&grant.service).ok_or_else(Problem::unknown_service)?;
    if service.scope(role.as_ref()).is_none() {
        return Err(Denied::UnknownRole.into());
    }
    let key = TokenKey { grant, role };
    let token = match key.role {
        None => admin.engine.refresh(&key).await?,
        Some(_) => admin.engine.token(&key, None).await?,
    };
    let (header, claims) = match jwt::shown(token.token()) {
        Ok((header, claims)) => (json!(header.into_members()), json!(claims.into_members())),
        Err(_opaque) => (Value::Null, Value::Null),
    };
    let body = json!({
        "service": key.grant.service.as_str(),
        "user": key.grant.user.as_str(),
        "role": key.role.as_ref().map(RoleName::as_str),
        "refreshed": key.role.is_none(),
        "verified": !service.opaque,
        "expires_in": token.issued.expires_in.as_secs(),
        "scope": token.scope.to_string(),
        "header": header,
        "claims": claims,
    });
    Ok(answer::json(StatusCode::OK, &body))
}
