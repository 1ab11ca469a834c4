//! `bursar grant …`

use std::io::Read as _;
use std::path::Path;

use hyper::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::client::{self, Refused};
use crate::cli::{Exit, GrantCommand, OneGrant, terminal};

/// No refresh token is longer.
const LONGEST: u64 = 64 * 1024;

pub(super) async fn grant(command: GrantCommand) -> Exit {
    let result = match command {
        GrantCommand::List { service, user, state, json, socket } => {
            let filters = [("service", service), ("user", user), ("state", state)];
            list(&socket.admin_socket, filters, json).await
        }
        GrantCommand::Show(grant) => show(&grant).await,
        GrantCommand::Import { grant, refresh_token_file } => import(&grant, &refresh_token_file).await,
        GrantCommand::Refresh { grant, role } => {
            let role = role.map(|role| format!("?role={}", client::encode(&role))).unwrap_or_default();
            let target = format!("{}/refresh{role}", path(&grant));
            client::ask(&grant.socket.admin_socket, Method::POST, &target, None)
                .await
                .map(|grant| print(&grant))
        }
    };
    result.err().map_or(Exit::Done, |refused| refused.exit)
}

async fn list(socket: &Path, filters: [(&str, Option<String>); 3], as_json: bool) -> Result<(), Refused> {
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
                    terminal::out(&row(["SERVICE", "USER", "STATE", "REFRESHED"]));
                }
                let text = |member: &str| grant.get(member).and_then(Value::as_str).unwrap_or("-");
                terminal::out(&row([text("service"), text("user"), text("state"), text("refreshed_at")]));
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
            terminal::err(&format!("bursar: {} has not connected {}", grant.user, grant.service));
            Err(Refused { exit: Exit::LoginRequired, problem: Value::Null })
        }
    }
}

async fn import(grant: &OneGrant, file: &Path) -> Result<(), Refused> {
    let token = read(file).map_err(|error| {
        terminal::err(&format!("bursar: {}: {error}", file.display()));
        Refused { exit: Exit::Usage, problem: Value::Null }
    })?;
    let body = json!({ "refresh_token": token.trim() });
    let imported = client::ask(&grant.socket.admin_socket, Method::PUT, &path(grant), Some(body)).await;
    if let Err(refused) = &imported
        && let Some(user) = refused.problem.get("user").and_then(Value::as_str)
    {
        terminal::err(&format!(
            "  To accept it for its true user:\n    bursar grant import --service {} --user {user} --refresh-token-file {}",
            grant.service,
            file.display()
        ));
    }
    print(&imported?);
    Ok(())
}

fn read(file: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    if file == Path::new("-") {
        std::io::stdin().lock().take(LONGEST).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(file)?.take(LONGEST).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn path(grant: &OneGrant) -> String {
    format!("/v1/grants/{}/{}", client::encode(&grant.service), client::encode(&grant.user))
}

fn print(grant: &Value) {
    for (name, value) in grant.as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or("-");
        terminal::out(&format!("{name:16}{value}\n"));
    }
}

fn row(columns: [&str; 4]) -> String {
    let [service, user, state, refreshed] = columns;
    format!("{service:16}{user:36}{state:18}{refreshed}\n")
}
