//! Consents by the admin socket, for who connects from a terminal: the terminal shows and passes on, and sees no token.
//!
//! ```text
//! authorizations          a browser that comes back to the terminal's loopback address (RFC 8252)
//! device-authorizations   a code that is typed elsewhere (RFC 8628)
//! password-grants         the password of a legacy service user (RFC 6749 §4.3), where it is switched on
//! ```

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::{Host, Url};

use crate::admin::audited::Errand;
use crate::admin::{Admin, decode};
use crate::api::answer;
use crate::api::error::Problem;
use crate::api::grants::describe;
use crate::audit::{Event, Kind};
use crate::consent::{Ask, Callback, Connected, Purpose, Refused};
use crate::model::{RoleName, ServiceName, redirect_uri};
use crate::secret::Secret;

/// What waits for a user.
mod desk;

pub use desk::Desk;

/// What `POST /v1/authorizations` and `/v1/device-authorizations` are asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    service: String,
    #[serde(default)]
    roles: Vec<String>,
    redirect_uri: Option<String>,
}

impl Begin {
    /// The service and the roles; a service that is not configured is not found.
    fn read(
        admin: &Admin,
        body: &[u8],
        takes_redirect_uri: bool,
        errand: &mut Errand,
    ) -> Result<(Self, ServiceName, Vec<RoleName>), Problem> {
        let begin: Self = serde_json::from_slice(body)
            .ok()
            .filter(|begin: &Self| begin.redirect_uri.is_some() == takes_redirect_uri)
            .ok_or_else(|| {
                Problem::invalid_request(if takes_redirect_uri {
                    "the body must be {\"service\": \"…\", \"roles\": [\"…\"], \"redirect_uri\": \"…\"}; roles may be left out"
                } else {
                    "the body must be {\"service\": \"…\", \"roles\": [\"…\"]}; roles may be left out"
                })
            })?;
        errand.service = ServiceName::parse(&begin.service);
        let service = admin.service_named(&begin.service)?;
        let no_role = || Problem::invalid_parameter("roles", "the service has no such role");
        let roles: Option<Vec<RoleName>> = begin.roles.iter().map(|role| RoleName::parse(role)).collect();
        let roles = roles.filter(|roles| roles.iter().all(|role| service.scope(Some(role)).is_some()));
        Ok((begin, service.name.clone(), roles.ok_or_else(no_role)?))
    }
}

/// `POST /v1/authorizations`: where the browser goes.
pub(super) async fn begin(
    admin: &Admin,
    body: &[u8],
    errand: &mut Errand,
) -> Result<Response<Full<Bytes>>, Problem> {
    let (begin, service, roles) = Begin::read(admin, body, true, errand)?;
    let server = admin.service_named(service.as_str())?.authorization_server.clone();
    let redirect_uri = loopback(begin.redirect_uri.as_deref().unwrap_or_default(), &server)
        .ok_or_else(|| bad_redirect_uri(&server))?;
    let ask = Ask { service, purpose: Purpose::Connect(roles), redirect_uri, login_hint: None };
    let (url, pending) = admin.desk.consents.begin(&ask).await.map_err(|refused| errand.refused(refused))?;
    let body = json!({
        "authorization_url": url.as_str(),
        "redirect_uri": pending.redirect_uri.as_str(),
        "expires_at": pending.until.to_string(),
        "expires_in": admin.clock.now().wall.until(pending.until).as_secs(),
    });
    let id = admin.desk.add_authorization(pending)?;
    Ok(answer::json(StatusCode::CREATED, &with_id(body, &id)))
}

/// `POST /v1/authorizations/{id}`: the browser has come back. Once for each.
pub(super) async fn finish(
    admin: &Admin,
    id: &str,
    body: &[u8],
    errand: &mut Errand,
) -> Result<Response<Full<Bytes>>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Came {
        query: String,
    }
    errand.way = Some("code");
    let pending = admin.desk.take_authorization(&decode(id));
    let gone =
        || Problem::not_found("no such authorization waits: it was finished, or it is over; begin again");
    let pending = pending.ok_or_else(gone)?;
    errand.service = Some(pending.service.clone());
    // serde's own message would quote the body, and a code with it.
    let came: Came = serde_json::from_slice(body).map_err(|_| {
        Problem::invalid_request("the body must be {\"query\": \"code=…&state=…\"} and nothing else")
    })?;
    let callback = Callback::read(&came.query).ok_or_else(|| errand.refused(Refused::Unsolicited))?;
    let connected = admin.desk.consents.finish(&pending, &callback, None).await;
    answered(connected, errand)
}

/// `POST /v1/password-grants`
pub(super) async fn by_password(
    admin: &Admin,
    body: &[u8],
    errand: &mut Errand,
) -> Result<Response<Full<Bytes>>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Login {
        service: String,
        username: String,
        password: String,
    }
    errand.way = Some("password");
    // serde's own message would quote the body, and a password with it.
    let login: Login = serde_json::from_slice(body).map_err(|_| {
        Problem::invalid_request(
            "the body must be {\"service\": \"…\", \"username\": \"…\", \"password\": \"…\"} and nothing else",
        )
    })?;
    let password = Secret::new(login.password);
    errand.service = ServiceName::parse(&login.service);
    let service = admin.service_named(&login.service)?.name.clone();
    if login.username.is_empty() || password.is_empty() {
        return Err(Problem::invalid_request("username and password must not be empty"));
    }
    let connected = admin.desk.consents.by_password(&service, &login.username, &password).await;
    answered(connected, errand)
}

/// `POST /v1/device-authorizations`: what the user is shown. It is asked after by a task of its own from now on.
pub(super) async fn begin_device(
    admin: &Admin,
    body: &[u8],
    errand: &mut Errand,
) -> Result<Response<Full<Bytes>>, Problem> {
    let (_, service, roles) = Begin::read(admin, body, false, errand)?;
    admin.desk.check_room_for_device()?;
    let device = admin.desk.consents.begin_device(&service, roles).await;
    let device = device.map_err(|refused| errand.refused(refused))?;
    let shown = &device.authorization;
    let mut body = json!({
        "user_code": shown.user_code,
        "verification_uri": shown.verification_uri,
        "expires_at": device.until.to_string(),
        "expires_in": shown.expires_in.as_secs(),
        "interval": shown.interval.as_secs(),
    });
    if let (Some(complete), Some(body)) = (&shown.verification_uri_complete, body.as_object_mut()) {
        body.insert("verification_uri_complete".to_owned(), json!(complete));
    }
    let id = admin.desk.add_device(device.until)?;
    let body = with_id(body, &id);
    let (desk, tasks, audit) = (Arc::clone(&admin.desk), admin.api.tasks.clone(), admin.audit.clone());
    let mut errand = Errand { way: Some("device"), ..errand.clone() };
    admin.api.tasks.spawn(async move {
        let finished = desk.consents.finish_device(&device, &tasks).await;
        errand.note(&finished);
        if audit.is_on() {
            let word = errand.word.unwrap_or("ok");
            audit.record(errand.onto(Event::new(Kind::Connect, word)));
        }
        desk.decide(&id, finished);
    });
    Ok(answer::json(StatusCode::CREATED, &body))
}

/// `GET /v1/device-authorizations/{id}`: what has become of it.
pub(super) fn device(admin: &Admin, id: &str, errand: &Errand) -> Result<Response<Full<Bytes>>, Problem> {
    let unknown = || Problem::not_found("no such device authorization, or it has been over for some time");
    let id = decode(id);
    let (until, decided) = admin.desk.device(&id).ok_or_else(unknown)?;
    let body = match decided {
        None => json!({ "state": "pending", "expires_at": until.to_string() }),
        Some(Ok(connected)) => json!({ "state": "connected", "grant": grant(&connected)? }),
        Some(Err(refused)) => {
            let problem = Problem::from(refused).json(&errand.id);
            let problem: Value = serde_json::from_str(&problem).unwrap_or_default();
            json!({ "state": "refused", "problem": problem })
        }
    };
    Ok(answer::json(StatusCode::OK, &with_id(body, &id)))
}

fn answered(
    connected: Result<Connected, Refused>,
    errand: &mut Errand,
) -> Result<Response<Full<Bytes>>, Problem> {
    errand.note(&connected);
    Ok(answer::json(StatusCode::CREATED, &grant(&connected?)?))
}

/// The grant as it is listed, and what was granted.
fn grant(connected: &Connected) -> Result<Value, Problem> {
    let grant = connected.grant.as_ref().ok_or_else(Problem::internal)?;
    let mut body = describe(grant);
    if let Some(body) = body.as_object_mut() {
        body.insert("scope".to_owned(), json!(connected.granted.to_string()));
    }
    Ok(body)
}

fn with_id(mut body: Value, id: &str) -> Value {
    if let Some(body) = body.as_object_mut() {
        body.insert("id".to_owned(), json!(id));
    }
    body
}

/// Only the terminal's own machine, by its address (RFC 8252 §7.3, §8.3), and the path that this authorization server's
/// answers come to: no answer of another one's can be taken for its own. Without a path, that one is put there.
fn loopback(text: &str, server: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_here = match url.host()? {
        Host::Ipv4(address) => address == std::net::Ipv4Addr::LOCALHOST,
        Host::Ipv6(address) => address == std::net::Ipv6Addr::LOCALHOST,
        Host::Domain(_) => false,
    };
    let here = url.origin().ascii_serialization();
    let whole = redirect_uri(&Url::parse(&here).ok()?, server);
    // Compared with its normal form, so that nothing hides in it.
    let is_plain = [whole.as_str(), here.as_str()].contains(&text);
    let has_all = url.scheme() == "http" && url.port().is_some_and(|port| port > 0);
    (is_here && is_plain && has_all).then_some(whole)
}

fn bad_redirect_uri(server: &str) -> Problem {
    let why = format!("must be http://127.0.0.1:PORT/callback/{server}, or [::1] in its place");
    Problem::invalid_parameter("redirect_uri", &why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_back_to_this_machine_and_its_own_server_s_path_alone() {
        let taken = |text| loopback(text, "production").map(String::from);
        for good in ["http://127.0.0.1:8976/callback/production", "http://[::1]:1/callback/production"] {
            assert_eq!(taken(good).as_deref(), Some(good));
        }
        assert_eq!(
            taken("http://127.0.0.1:5000").as_deref(),
            Some("http://127.0.0.1:5000/callback/production")
        );
        for bad in [
            "https://127.0.0.1:8976/callback/production",
            "http://localhost:8976/callback/production",
            "http://127.0.0.1/callback/production",
            "http://127.0.0.1:0/callback/production",
            "http://127.0.0.2:8976/callback/production",
            "http://127.0.0.1:8976/callback/staging",
            "http://127.0.0.1:8976/callback/production/",
            "http://127.0.0.1:8976/callback/x/../production",
            "http://127.0.0.1:8976/callback/production?x=1",
            "http://127.0.0.1:8976/callback/production#x",
            "http://user@127.0.0.1:8976/callback/production",
            "http://127.0.0.1:8976@evil.example/callback/production",
            "http://0x7f.1:8976/callback/production",
            "http://evil.example:8976/callback/production",
            "",
        ] {
            assert_eq!(taken(bad), None, "{bad}");
        }
    }
}
