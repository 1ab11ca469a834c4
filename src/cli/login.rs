//! `bursar login`: connects a user from a terminal. The sidecar asks the authorization server and keeps what it gives; here
//! an address or a code is shown, and what a browser brings back is passed on.

use serde_json::{Value, json};

use crate::cli::arguments::LoginArgs;
use crate::cli::client::Refused;
use crate::cli::{Exit, terminal};

/// A code that is typed elsewhere.
mod device;
/// A browser on this machine.
mod loopback;
/// A password on stdin.
mod password;

pub(super) async fn login(args: LoginArgs) -> Exit {
    let result = if args.device {
        device::login(&args).await
    } else if let Some(username) = args.username.as_ref().filter(|_| args.password_stdin) {
        password::login(&args, username).await
    } else {
        loopback::login(&args).await
    };
    match result {
        Ok(grant) => {
            terminal::out(&format!("{}\n", connected(&grant)));
            Exit::Done
        }
        Err(refused) => refused.exit,
    }
}

/// What the sidecar is asked.
fn begin(args: &LoginArgs) -> Value {
    json!({ "service": args.service, "roles": args.role })
}

fn connected(grant: &Value) -> String {
    format!(
        "connected: {} of {} (scopes {})",
        text(grant, "service"),
        text(grant, "user"),
        text(grant, "scope")
    )
}

/// A member, as a terminal may show it.
fn text(of: &Value, member: &str) -> String {
    terminal::printable(of.get(member).and_then(Value::as_str).unwrap_or("-")).into_owned()
}

fn seconds(of: &Value, member: &str) -> u64 {
    of.get(member).and_then(Value::as_u64).unwrap_or(0)
}

/// It ended without an answer of the sidecar's.
fn failed(why: &str, exit: Exit) -> Refused {
    terminal::err(&format!("bursar: {why}"));
    Refused { exit, problem: Value::Null }
}
