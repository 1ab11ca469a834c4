//! A consent in a browser: it is sent away with something to keep, and comes back with it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::audit::{Event, Kind};
use crate::connect::failure::{Trouble, connect_again};
use crate::connect::focus::Focus;
use crate::connect::page::{Again, Onward};
use crate::connect::visit::{Visit, render};
use crate::connect::{answer, encode};
use crate::consent::{Ask, Callback, Connected, Pending, Purpose, Refused};
use crate::model::{RoleName, Service, ServiceName};
use crate::secret::Secret;

/// A browser is sent away with so many at the same time; then the oldest is given up.
const MOST: usize = 4;
const COOKIE: &str = "consent-";
/// Of the digest of `state`, so that the cookie's name tells nothing of it.
const NAME_LENGTH: usize = 8;

/// What the browser keeps, sealed.
#[derive(Serialize, Deserialize)]
struct Kept {
    pending: String,
    focus: Focus,
}

/// Sends the browser to the service's authorization server, for a grant with these roles, or only to tell who it is.
pub(super) async fn begin(
    visit: &mut Visit<'_>,
    service: &Arc<Service>,
    roles: Option<Vec<RoleName>>,
    focus: Focus,
) -> Result<Response<Full<Bytes>>, Trouble> {
    let connect = visit.connect;
    if !connect.begun.take(visit.client, visit.now.boot) {
        return Err(Trouble::TooMany);
    }
    let again =
        if roles.is_some() { connect_again(&focus) } else { Some(Box::new(sign_in(service, &focus))) };
    let ask = Ask {
        service: service.name.clone(),
        purpose: roles.map_or(Purpose::SignIn, Purpose::Connect),
        redirect_uri: visit.terms.redirect_uri(&service.authorization_server),
        login_hint: visit.user(service),
    };
    let begun = connect.consents.begin(&ask).await;
    let (url, pending) = begun.map_err(|refused| Trouble::Refused(Box::new(refused), again))?;
    let name = cookie(&pending.state);
    let written = String::from_utf8_lossy(&pending.write()).into_owned();
    let kept = Kept { pending: written, focus };
    let sealed = connect.seals.seal(&name, &kept);
    let sealed = sealed.ok_or_else(|| Trouble::Broken("a consent does not fit into a cookie".to_owned()))?;
    let others = visit.jar.beginning(visit.terms.style(), COOKIE);
    let surplus = (others.len() + 1).saturating_sub(MOST);
    let surplus: Vec<String> =
        others.into_iter().take(surplus).map(|name| format!("{COOKIE}{name}")).collect();
    for name in surplus {
        visit.remove_cookie(&name);
    }
    visit.set_cookie(&name, &sealed, visit.now.wall.until(pending.until));
    Ok(send(visit, service, &url))
}

/// By a redirect, where the page that the form is on has said that its forms may lead there.
fn send(visit: &mut Visit<'_>, service: &Service, url: &Url) -> Response<Full<Bytes>> {
    let place = visit.terms.servers.get(&service.authorization_server);
    let listed = place.is_some_and(|place| place.origins.contains(&url.origin().ascii_serialization()));
    let announced = listed || url.scheme() == "https";
    if announced {
        return answer::see_other(url.as_str());
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    let page = Onward { frame: visit.frame("One more step"), href: url.as_str().to_owned(), host };
    render(StatusCode::OK, &page)
}

/// The browser has come back from a server.
pub(super) async fn finish(
    visit: &mut Visit<'_>,
    server: &str,
    query: &str,
) -> Result<Response<Full<Bytes>>, Trouble> {
    let unsolicited = || Trouble::Refused(Box::new(Refused::Unsolicited), None);
    let came = Callback::read(query).ok_or_else(unsolicited)?;
    let state = came.state.as_ref().ok_or_else(unsolicited)?;
    let name = cookie(state);
    let seals = &visit.connect.seals;
    let kept: Option<Kept> =
        visit.jar.values(visit.terms.style(), &name).find_map(|sealed| seals.open(&name, sealed));
    let kept = kept.ok_or_else(unsolicited)?;
    let pending = Pending::read(kept.pending.as_bytes()).ok_or_else(unsolicited)?;
    // Each server has a redirect URI of its own, to which no other's answer may come (RFC 9700 §4.4).
    if pending.authorization_server != server || pending.state != *state {
        return Err(unsolicited());
    }
    visit.remove_cookie(&name);
    if !visit.connect.returned.spend(state.digest(), pending.until, visit.now.wall) {
        return Err(unsolicited());
    }
    let focus = kept.focus;
    let service = visit.terms.service(pending.service.as_str()).cloned();
    let realm = visit.terms.servers.get(server).map(|place| place.realm.clone());
    let (Some(service), Some(realm)) = (service, realm) else {
        return Err(Trouble::Refused(Box::new(Refused::TooLate), None));
    };
    let expected = visit.session.identity(&realm);
    let finished = visit.connect.consents.finish(&pending, &came, expected.as_ref()).await;
    let asked = pending.purpose != Purpose::SignIn;
    if asked {
        record(visit, &service.name, &finished);
    }
    let connected = finished.map_err(|refused| {
        let again = if asked { connect_again(&focus) } else { Some(Box::new(sign_in(&service, &focus))) };
        Trouble::Refused(Box::new(refused), again)
    })?;
    let id = visit.new_session_id();
    visit.session.sign_in(id, &realm, &connected.identity, visit.now.wall);
    visit.session_has_changed();
    if !asked {
        return Ok(answer::see_other(&focus.at("/")));
    }
    let after = Focus { service: None, roles: Vec::new(), ..focus };
    Ok(answer::see_other(&after.at(&format!("/connected/{}", encode(service.name.as_str())))))
}

fn record(visit: &Visit<'_>, service: &ServiceName, finished: &Result<Connected, Refused>) {
    let word = finished.as_ref().map_or_else(Refused::word, |_| "ok");
    let user = match finished {
        Ok(connected) => Some(connected.identity.name.clone()),
        Err(Refused::OtherUser { came, .. }) => Some(came.clone()),
        Err(_) => None,
    };
    let event = Event::new(Kind::Connect, word).naming(Some(service.clone()), user);
    visit.connect.audit.record(event.in_request(&visit.id));
}

/// Only to tell who it is.
pub(super) fn sign_in(service: &Service, focus: &Focus) -> Again {
    let action = format!("/sign-in/{}", encode(&service.authorization_server));
    Again { label: "Sign in", action, focus: focus.clone() }
}

/// Every attempt that this browser was sent away with.
pub(super) fn forget_all(visit: &mut Visit<'_>) {
    let names = visit.jar.beginning(visit.terms.style(), COOKIE);
    let names: Vec<String> = names.into_iter().map(|name| format!("{COOKIE}{name}")).collect();
    for name in names {
        visit.remove_cookie(&name);
    }
}

fn cookie(state: &Secret) -> String {
    let digest = state.digest().to_string();
    format!("{COOKIE}{}", digest.get(..NAME_LENGTH).unwrap_or_default())
}
