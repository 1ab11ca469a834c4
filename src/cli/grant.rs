//! `bursar grant …`

use std::path::Path;

use hyper::Method;
use nix::unistd::User;
use serde_json::Value;

use crate::cli::arguments::{GrantCommand, OneGrant};
use crate::cli::client::{self, Refused};
use crate::cli::terminal::printable;
use crate::cli::{Exit, terminal};

mod import;

pub(super) async fn grant(command: GrantCommand) -> Exit {
    let result = match command {
        GrantCommand::List { service, user, state, ending, json, socket } => {
            let ending = ending.then(|| "true".to_owned());
            let filters = [("service", service), ("user", user), ("state", state), ("ending", ending)];
            list(&socket.admin_socket, filters, json).await
        }
        GrantCommand::Show(grant) => show(&grant).await,
        GrantCommand::Import(arguments) => import::import(arguments).await,
        GrantCommand::Revoke(grant) => {
            let target = path(&grant.service, &grant.user);
            client::ask(&grant.socket.admin_socket, Method::DELETE, &target, None)
                .await
                .map(|answer| told(&format!("{} of {}: revoked", grant.service, grant.user), &answer))
        }
        GrantCommand::Erase { user, socket } => {
            let target = format!("/v1/users/{}", client::encode(&user));
            client::ask(&socket.admin_socket, Method::DELETE, &target, None).await.map(|answer| {
                let grants = answer.get("grants").and_then(Value::as_u64).unwrap_or(0);
                told(&format!("{user}: {grants} grants forgotten"), &answer);
            })
        }
        GrantCommand::Refresh { grant, role } => {
            let role = role.map(|role| format!("?role={}", client::encode(&role))).unwrap_or_default();
            let target = format!("{}/refresh{role}", path(&grant.service, &grant.user));
            client::ask(&grant.socket.admin_socket, Method::POST, &target, None)
                .await
                .map(|grant| print(&grant))
        }
    };
    result.err().map_or(Exit::Done, |refused| refused.exit)
}

async fn list(socket: &Path, filters: [(&str, Option<String>); 4], as_json: bool) -> Result<(), Refused> {
    let filters: String = filters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("&{name}={}", client::encode(&value?))))
        .collect();
    let mut cursor = String::new();
    let mut first = true;
    loop {
        let page = client::ask(socket, Method::GET, &format!("/v1/grants?limit=1000{cursor}{filters}"), None)
            .await?;
        for grant in page.get("grants").and_then(Value::as_array).into_iter().flatten() {
            if as_json {
                terminal::out(&format!("{grant}\n"));
            } else {
                if first {
                    terminal::out(&row(["SERVICE", "USER", "STATE", "REFRESHED", "ENDS", "USED"]));
                }
                let text = |member: &str| grant.get(member).and_then(Value::as_str).unwrap_or("-");
                terminal::out(&row([
                    text("service"),
                    text("user"),
                    text("state"),
                    text("refreshed_at"),
                    text("expires_at"),
                    text("last_used_at"),
                ]));
            }
            first = false;
        }
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={}", client::encode(next)),
            None => break,
        }
    }
    if first && !as_json {
        terminal::err("no grants");
    }
    Ok(())
}

async fn show(grant: &OneGrant) -> Result<(), Refused> {
    let (service, user) = (client::encode(&grant.service), client::encode(&grant.user));
    let target = format!("/v1/grants?service={service}&user={user}");
    let page = client::ask(&grant.socket.admin_socket, Method::GET, &target, None).await?;
    match page.pointer("/grants/0") {
        Some(found) => {
            print(found);
            Ok(())
        }
        None => {
            let said = format!("{} has not connected {}", grant.user, grant.service);
            terminal::err(&format!("bursar: {}", printable(&said)));
            Err(Refused { exit: Exit::LoginRequired, problem: Value::Null })
        }
    }
}

/// What was done, what is left to do, and what can't be done from here.
fn told(done: &str, answer: &Value) {
    terminal::out(&format!("{}\n", printable(done)));
    let list = |member: &str| answer.get(member).and_then(Value::as_array).cloned().unwrap_or_default();
    for (heading, member) in [("left to do", "left"), ("out of reach from here", "out_of_reach")] {
        let items = list(member);
        if !items.is_empty() {
            terminal::out(&format!("{heading}:\n"));
        }
        for item in items.iter().filter_map(Value::as_str) {
            terminal::out(&format!("  {}\n", printable(item)));
        }
    }
}

fn path(service: &str, user: &str) -> String {
    format!("/v1/grants/{}/{}", client::encode(service), client::encode(user))
}

fn print(grant: &Value) {
    for (name, value) in grant.as_object().into_iter().flatten() {
        terminal::out(&format!("{:16}{}\n", printable(name), printable(&shown(name, value))));
    }
}

fn shown(name: &str, value: &Value) -> String {
    match (name, value) {
        ("last_used_by", Value::Object(_)) => used_by(value),
        (_, Value::String(text)) => text.clone(),
        (_, Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        (_, Value::Object(members)) if !members.is_empty() => {
            let member =
                |(name, value): (&String, &Value)| format!("{name} {}", value.as_str().unwrap_or("-"));
            members.iter().map(member).collect::<Vec<_>>().join(", ")
        }
        _ => "-".to_owned(),
    }
}

/// The caller by number, and by name where this machine has one for it.
fn used_by(caller: &Value) -> String {
    let uid = caller.get("uid").and_then(Value::as_u64).and_then(|uid| u32::try_from(uid).ok());
    let name =
        uid.and_then(|uid| User::from_uid(uid.into()).ok().flatten()).map(|user| format!(" ({})", user.name));
    let part = |member: &str, what: &str| {
        caller.get(member).and_then(Value::as_str).map(|text| format!(", {what} {text}")).unwrap_or_default()
    };
    format!(
        "uid {}{}{}{}",
        uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string()),
        name.unwrap_or_default(),
        part("unit", "unit"),
        part("run", "run")
    )
}

fn row(columns: [&str; 6]) -> String {
    let [service, user, state, refreshed, ends, used] = columns.map(printable);
    format!("{service:16}{user:36}{state:18}{refreshed:22}{ends:22}{used}\n")
}
