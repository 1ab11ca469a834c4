//! A code that the user types in a browser anywhere (RFC 8628). The sidecar asks until they have.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;

use crate::cli::arguments::LoginArgs;
use crate::cli::client::{self, Refused};
use crate::cli::login::{begin, failed, seconds, text};
use crate::cli::{Exit, terminal};

const PATH: &str = "/v1/device-authorizations";
/// Between two questions to the sidecar, which answers from memory.
const STEP: Duration = Duration::from_secs(1);
/// How often the sidecar may be gone in a row: it may be on its way back, but what was waiting is forgotten then.
const MOST_SILENT: u32 = 5;

pub(super) async fn login(args: &LoginArgs) -> Result<Value, Refused> {
    let socket = &args.socket.admin_socket;
    let begun = client::ask(socket, Method::POST, PATH, Some(begin(args))).await?;
    terminal::out(&instructions(&args.service, &begun));
    let target = format!("{PATH}/{}", client::encode(&text(&begun, "id")));
    let mut left = seconds(&begun, "expires_in");
    let mut silent = 0;
    let refused = loop {
        terminal::progress(&format!("waiting for the user; {}:{:02} left", left / 60, left % 60));
        tokio::time::sleep(STEP).await;
        left = left.saturating_sub(STEP.as_secs());
        match client::send(socket, Method::GET, &target, None).await {
            Ok((status, state)) if status.is_success() => {
                silent = 0;
                match text(&state, "state").as_str() {
                    "connected" => {
                        terminal::progress("");
                        return Ok(state.get("grant").cloned().unwrap_or_default());
                    }
                    "refused" => {
                        break client::refused_by(&state.get("problem").cloned().unwrap_or_default());
                    }
                    _ => {}
                }
            }
            Ok((status, problem)) => break client::refused(status, problem),
            Err(_) if silent < MOST_SILENT => silent += 1,
            Err(error) => break failed(&format!("{}: {error}", socket.display()), Exit::Unavailable),
        }
    };
    Err(refused)
}

fn instructions(service: &str, begun: &Value) -> String {
    let complete = begun.get("verification_uri_complete").and_then(Value::as_str);
    let complete =
        complete.map(|_| format!("or open\n\n    {}\n\n", text(begun, "verification_uri_complete")));
    format!(
        "To connect {service}, open\n\n    {uri}\n\nin a browser, sign in, and enter the code\n\n\n        {code}\n\n\n{complete}\
         The code is good until {until}.\n\
         Enter it only if you yourself have just started this: whoever shows you a code\n\
         that you did not ask for wants to act in your name.\n\n",
        uri = text(begun, "verification_uri"),
        code = text(begun, "user_code"),
        complete = complete.unwrap_or_default(),
        until = text(begun, "expires_at"),
    )
}
