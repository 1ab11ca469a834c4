//! The end of a connection, if that is meant.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};

use crate::audit::{Event, Kind as Recorded};
use crate::connect::attempt::sign_in;
use crate::connect::encode;
use crate::connect::failure::Trouble;
use crate::connect::focus::Focus;
use crate::connect::page::{Disconnect, Disconnected};
use crate::connect::visit::{Visit, render};
use crate::model::{GrantId, GrantKey, GrantState, Kind, Service};

/// How long a user waits for the authorization server at most; it is told in any case.
const PATIENCE: Duration = Duration::from_secs(5);

/// What would end, and what would not.
pub(super) async fn ask(
    visit: &mut Visit<'_>,
    service: &Arc<Service>,
) -> Result<Response<Full<Bytes>>, Trouble> {
    let key = key(visit, service)?;
    let grant = visit.connect.store.grant(&GrantId::current(key.clone())).await?;
    if grant.is_none_or(|grant| grant.state != GrantState::Active) {
        return Err(Trouble::NeverConnected);
    }
    let name = service.name.as_str();
    let page = Disconnect {
        frame: visit.frame(format!("Disconnect {name}?")),
        service: name.to_owned(),
        user: key.user.as_str().to_owned(),
        server: label(visit, service),
        snowflake: service.kind == Kind::Snowflake,
        action: format!("/disconnect/{}", encode(name)),
    };
    Ok(render(StatusCode::OK, &page))
}

/// It is over here at once; the authorization server is told until it has answered.
pub(super) async fn end(
    visit: &mut Visit<'_>,
    service: &Arc<Service>,
) -> Result<Response<Full<Bytes>>, Trouble> {
    let key = key(visit, service)?;
    let left = visit.connect.engine.revoke(&key, PATIENCE).await;
    let word = match &left {
        Ok(Some(_)) => "ok",
        Ok(None) => "not_found",
        Err(failure) => failure.word(),
    };
    visit.connect.traces.record(Event::new(Recorded::Revoke, word).about(&key).in_request(&visit.id));
    let left = left?.ok_or(Trouble::NeverConnected)?;
    let page = Disconnected {
        frame: visit.frame("Disconnected"),
        service: service.name.as_str().to_owned(),
        server: label(visit, service),
        unfinished: !left.is_empty(),
    };
    Ok(render(StatusCode::OK, &page))
}

fn key(visit: &Visit<'_>, service: &Arc<Service>) -> Result<GrantKey, Trouble> {
    let focus = Focus { service: Some(service.name.as_str().to_owned()), ..Focus::default() };
    let user = visit.user(service).ok_or_else(|| Trouble::SignInFirst(Box::new(sign_in(service, &focus))))?;
    Ok(GrantKey { service: service.name.clone(), user })
}

fn label(visit: &Visit<'_>, service: &Service) -> String {
    let place = visit.terms.servers.get(&service.authorization_server);
    place.map(|place| place.label.clone()).unwrap_or_default()
}
