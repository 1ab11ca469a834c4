//! A consent in a browser: it is sent away with something to keep, and comes back with it.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::connect::cookies::{Jar, Style};
use crate::connect::failure::{Trouble, connect_again};
use crate::connect::focus::Focus;
use crate::connect::page::{Again, Onward};
use crate::connect::spent::NotSpent;
use crate::connect::visit::{Visit, render};
use crate::connect::{answer, encode};
use crate::consent::{Ask, Callback, Pending, Purpose, Refused};
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
    /// The roles that are asked for are in `pending`.
    focus: Focus,
    /// Whose it is to finish it.
    process: String,
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
    let purpose = roles.map_or(Purpose::SignIn, Purpose::Connect);
    let again = once_more(service, &purpose, &focus);
    let ask = Ask {
        service: service.name.clone(),
        purpose,
        redirect_uri: visit.terms.redirect_uri(&service.authorization_server),
        login_hint: visit.user(service),
    };
    let begun = connect.consents.begin(&ask).await;
    let (url, pending) = match begun {
        Ok(begun) => begun,
        Err(refused) => {
            connect.traces.failed(visit, service, &refused);
            return Err(Trouble::Refused(Box::new(refused), again));
        }
    };
    let name = cookie(&pending.state);
    let written = String::from_utf8_lossy(&pending.write()).into_owned();
    let focus = match pending.purpose {
        Purpose::Connect(_) => Focus { roles: Vec::new(), ..focus },
        Purpose::SignIn => focus,
    };
    let kept = Kept { pending: written, focus, process: connect.process.clone() };
    let sealed = connect.seals.seal(&name, &kept);
    let sealed = sealed.ok_or_else(|| Trouble::Broken("a consent does not fit into a cookie".to_owned()))?;
    let others = cookies(&visit.jar, visit.terms.style());
    let surplus = (others.len() + 1).saturating_sub(MOST);
    for name in others.iter().take(surplus) {
        visit.remove_cookie(name);
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
    let unsolicited = |visit: &Visit<'_>, service: Option<&ServiceName>| {
        visit.connect.traces.unsolicited(visit, service);
        Trouble::Refused(Box::new(Refused::Unsolicited), None)
    };
    let nobodys = || unsolicited(visit, None);
    let came = Callback::read(query).ok_or_else(nobodys)?;
    let state = came.state.as_ref().ok_or_else(nobodys)?;
    let name = cookie(state);
    let seals = &visit.connect.seals;
    let kept: Option<Kept> =
        visit.jar.values(visit.terms.style(), &name).find_map(|sealed| seals.open(&name, sealed));
    let kept = kept.ok_or_else(nobodys)?;
    let pending = Pending::read(kept.pending.as_bytes()).ok_or_else(nobodys)?;
    // Each server has a redirect URI of its own, to which no other's answer may come (RFC 9700 §4.4).
    if pending.authorization_server != server || pending.state != *state {
        return Err(unsolicited(visit, Some(&pending.service)));
    }
    let mut focus = kept.focus;
    if let Purpose::Connect(roles) = &pending.purpose {
        focus.roles = roles.iter().map(|role| role.as_str().to_owned()).collect();
    }
    if kept.process != visit.connect.process {
        // It may have been redeemed there, and at a second time some servers revoke what came of the first.
        visit.remove_cookie(&name);
        let again = visit.terms.service(pending.service.as_str()).cloned();
        let again = again.and_then(|service| once_more(&service, &pending.purpose, &focus));
        visit.connect.traces.refused(visit, &pending.service, &Refused::TooLate);
        return Err(Trouble::Refused(Box::new(Refused::TooLate), again));
    }
    match visit.connect.returned.spend(state.digest(), pending.until, visit.now.wall) {
        Ok(()) => visit.remove_cookie(&name),
        Err(NotSpent::Again) => {
            visit.remove_cookie(&name);
            return Err(unsolicited(visit, Some(&pending.service)));
        }
        // The browser keeps what it has, and may come again.
        Err(NotSpent::NoRoom) => return Err(Trouble::TooMany),
    }
    let service = visit.terms.service(pending.service.as_str()).cloned();
    let realm = visit.terms.servers.get(server).map(|place| place.realm.clone());
    let (Some(service), Some(realm)) = (service, realm) else {
        return Err(Trouble::Refused(Box::new(Refused::TooLate), None));
    };
    let expected = visit.session.identity(&realm);
    let finished = visit.connect.consents.finish(&pending, &came, expected.as_ref()).await;
    let asked = pending.purpose != Purpose::SignIn;
    match &finished {
        // It was counted, and said, where it was finished.
        finished if asked => visit.connect.traces.finished(visit, &service.name, finished),
        Err(Refused::Unsolicited) => visit.connect.traces.unsolicited(visit, Some(&service.name)),
        Ok(_) | Err(_) => {}
    }
    let connected = finished.map_err(|refused| {
        Trouble::Refused(Box::new(refused), once_more(&service, &pending.purpose, &focus))
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

fn once_more(service: &Service, purpose: &Purpose, focus: &Focus) -> Option<Box<Again>> {
    match purpose {
        Purpose::Connect(_) => connect_again(focus),
        Purpose::SignIn => Some(Box::new(sign_in(service, focus))),
    }
}

/// Only to tell who it is.
pub(super) fn sign_in(service: &Service, focus: &Focus) -> Again {
    let action = format!("/sign-in/{}", encode(service.name.as_str()));
    Again { label: "Sign in", action, focus: focus.clone() }
}

/// Every attempt that this browser was sent away with.
pub(super) fn forget_all(visit: &mut Visit<'_>) {
    for name in cookies(&visit.jar, visit.terms.style()) {
        visit.remove_cookie(&name);
    }
}

/// The names of what browsers keep of consents under way, the oldest first.
pub(super) fn cookies(jar: &Jar, style: Style) -> Vec<String> {
    jar.beginning(style, COOKIE).into_iter().map(|name| format!("{COOKIE}{name}")).collect()
}

fn cookie(state: &Secret) -> String {
    let digest = state.digest().to_string();
    format!("{COOKIE}{}", digest.get(..NAME_LENGTH).unwrap_or_default())
}
