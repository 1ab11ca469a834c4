//! The control URL, by which tests and developers change and watch the server. The module `authorization_server`
//! describes the calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::DevServer;
use super::fault::{self, Command};
use super::keys::Need;
use super::members::Members;
use super::reply::Reply;
use super::request::Request;
use super::service::Service;
use super::settings::Change;
use super::stats::Stats;

pub(super) async fn answer(service: &Arc<Service>, path: &str, request: &Request) -> Reply {
    let outcome = match (&request.method, path) {
        (&Method::GET, "") => Ok(description(service)),
        (&Method::POST, "faults") => faults(service, request).await,
        (&Method::GET, "settings") => Ok(service.lock().describe()),
        (&Method::POST, "settings") => settings(service, request),
        (&Method::POST, "consents") => consents(service, request),
        (&Method::GET, "stats") => stats(service),
        (&Method::POST, "reset-stats") => {
            service.lock().stats = Stats::default();
            Ok(json!({}))
        }
        (&Method::GET, "issued") => Ok(issued(service)),
        (_, "" | "faults" | "settings" | "consents" | "stats" | "reset-stats" | "issued") => {
            return Reply::json(StatusCode::METHOD_NOT_ALLOWED, &description(service));
        }
        (_, _) => return Reply::json(StatusCode::NOT_FOUND, &description(service)),
    };
    match outcome {
        Ok(body) => Reply::json(StatusCode::OK, &body).not_stored(),
        Err(problem) => Reply::json(StatusCode::BAD_REQUEST, &json!({ "error": problem })),
    }
}

fn body(request: &Request) -> Result<Value, String> {
    serde_json::from_slice(&request.body).map_err(|error| format!("the body is no JSON: {error}"))
}

/// All objects are understood before the first takes effect.
async fn faults(service: &Arc<Service>, request: &Request) -> Result<Value, String> {
    let objects = match body(request)? {
        Value::Array(objects) => objects,
        object @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            vec![object]
        }
    };
    let commands = objects.into_iter().map(Command::read).collect::<Result<Vec<_>, _>>()?;
    for command in &commands {
        check(service, command)?;
    }
    let accepted = commands.len();
    for command in commands {
        carry_out(service, command).await?;
    }
    Ok(json!({ "accepted": accepted }))
}

/// Whether the server and the user that a command names exist.
fn check(service: &Service, command: &Command) -> Result<(), String> {
    let state = service.lock();
    let (server, user) = match command {
        Command::Order(order) => (order.server(), None),
        Command::RotateKeys(server) => (server.as_deref(), None),
        Command::RevokeUser(user)
        | Command::DeactivateUser(user)
        | Command::AssignUser(user)
        | Command::UnassignUser(user) => (None, Some(user)),
        Command::Clear => (None, None),
    };
    if server.is_some_and(|server| !state.servers.contains_key(server)) {
        return Err(format!("server: one of {:?}", state.servers.keys().collect::<Vec<_>>()));
    }
    if user.is_some_and(|user| !state.users.contains_key(user)) {
        return Err(format!("user: one of {:?}", state.users.keys().collect::<Vec<_>>()));
    }
    Ok(())
}

async fn carry_out(service: &Arc<Service>, command: Command) -> Result<(), String> {
    match command {
        Command::Order(order) => {
            let publishes_weak_key = order.asks_for_the_weak_key();
            {
                let mut state = service.lock();
                state.faults.add(order);
                if publishes_weak_key {
                    state.servers.values_mut().for_each(|server| server.keys.publishes_weak_key = true);
                }
            }
            service.make_stray_key().await.map_err(|error| error.to_string())?;
        }
        Command::RotateKeys(server) => {
            let servers = match server {
                Some(server) => vec![server],
                None => service.lock().servers.keys().cloned().collect(),
            };
            for id in servers {
                service.make_keys(&id, Need::ActiveAndNext).await.map_err(|error| error.to_string())?;
                if let Some(server) = service.lock().servers.get_mut(&id) {
                    server.keys.rotate();
                }
            }
        }
        Command::RevokeUser(user) => service.lock().revoke_user(&user, "user_revoked"),
        Command::DeactivateUser(user) => {
            let mut state = service.lock();
            state.revoke_user(&user, "user_deactivated");
            state.users.entry(user).and_modify(|user| user.active = false);
        }
        Command::AssignUser(user) => {
            service.lock().users.entry(user).and_modify(|user| (user.active, user.assigned) = (true, true));
        }
        Command::UnassignUser(user) => {
            let mut state = service.lock();
            state.revoke_user(&user, "user_unassigned");
            state.users.entry(user).and_modify(|user| user.assigned = false);
        }
        Command::Clear => service.lock().faults.clear(),
    }
    Ok(())
}

fn settings(service: &Service, request: &Request) -> Result<Value, String> {
    let body = body(request)?;
    let mut state = service.lock();
    let change = Change::read(&state.settings, body)?;
    state.apply(change)?;
    Ok(state.describe())
}

fn consents(service: &Service, request: &Request) -> Result<Value, String> {
    let mut members = Members::of(body(request)?)?;
    let server = members.text("server")?.unwrap_or_else(|| DevServer::SNOWFLAKE.to_owned());
    let user = members.text("user")?.ok_or("user: whose login is wanted")?;
    let scopes = members.texts("scopes")?;
    members.finish()?;
    let mut state = service.lock();
    let scopes = scopes.unwrap_or_else(|| {
        let created = state.servers.get(&server).map(|server| server.scopes.clone()).unwrap_or_default();
        created.into_iter().chain(["openid".to_owned(), "offline_access".to_owned()]).collect()
    });
    let refresh_token = state.consent(&server, &user, &scopes, service.now())?;
    Ok(json!({ "refresh_token": refresh_token.expose() }))
}

fn stats(service: &Service) -> Result<Value, String> {
    serde_json::to_value(&service.lock().stats).map_err(|error| error.to_string())
}

fn issued(service: &Service) -> Value {
    let state = service.lock();
    let mut by_kind: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for kind in ["access_token", "refresh_token", "id_token"] {
        by_kind.insert(format!("{kind}s"), Vec::new());
    }
    for (kind, token) in &state.issued {
        by_kind.entry(format!("{kind}s")).or_default().push(token);
    }
    json!(by_kind)
}

fn description(service: &Service) -> Value {
    let state = service.lock();
    json!({
        "what": "The control URL of a development authorization server. Never for production.",
        "issuers": state.servers.keys().map(|server| state.issuer(server)).collect::<Vec<_>>(),
        "calls": {
            "POST /control/faults": {
                "takes": "an object or an array of objects: do, next (1), endpoint (token), grant_type, server, and what \
                          the kind needs: status (status, body, content_type, acts), delay (seconds), error (error, \
                          error_description, status), rate_limit (seconds), wrong_subject (user), rotate_keys (server), \
                          *_user (user)",
                "do": fault::kinds(),
            },
            "GET /control/settings": "the settings as they are",
            "POST /control/settings": "changes the settings that are named; also takes scopes ({server: [..]}), users, \
                                       redirect_uris and client_secret_add, which are added",
            "POST /control/consents": "user, server, scopes: gives the refresh token of a completed code flow",
            "GET /control/stats": "counts, without any token",
            "POST /control/reset-stats": "begins to count anew",
            "GET /control/issued": "every token that was issued, to search for leaks",
        },
    })
}
