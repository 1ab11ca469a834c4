//! `bursar token`

use serde_json::Value;

use crate::cli::arguments::{Format, TokenArgs};
use crate::cli::{Exit, client, terminal};

pub(super) async fn token(args: TokenArgs) -> Exit {
    let mut target = format!("/v1/token?service={}", client::encode(&args.service));
    if let Some(user) = &args.user {
        target.push_str("&user=");
        target.push_str(&client::encode(user));
    }
    if let Some(role) = &args.role {
        target.push_str("&role=");
        target.push_str(&client::encode(role));
    }
    if let Some(min_ttl) = args.min_ttl {
        target.push_str(&format!("&min_ttl={}", min_ttl.as_secs()));
    }
    let answer = match client::ask_as_worker(&args.socket, &target).await {
        Ok(answer) => answer,
        Err(refused) => return refused.exit,
    };
    let token = answer.get("access_token").and_then(Value::as_str).unwrap_or_default();
    let line_end = if terminal::is_seen() { "\n" } else { "" };
    match args.format {
        // Some drivers send a file's or a command's newline along with the token.
        Format::Token => terminal::out(&format!("{token}{line_end}")),
        Format::Json => terminal::out(&format!("{answer}\n")),
        Format::Header => terminal::out(&format!("Authorization: Bearer {token}{line_end}")),
    }
    Exit::Done
}
