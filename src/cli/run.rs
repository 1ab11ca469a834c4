//! `bursar run …`

use hyper::Method;
use serde_json::Value;

use crate::cli::arguments::RunCommand;
use crate::cli::{Exit, client, terminal};

pub(super) async fn run(command: RunCommand) -> Exit {
    let RunCommand::End { id, socket } = command;
    let target = format!("/v1/runs/{}", client::encode(&id));
    match client::ask(&socket.admin_socket, Method::DELETE, &target, None).await {
        Ok(ended) => {
            let until = ended.get("remembered_until").and_then(Value::as_str).unwrap_or_default();
            terminal::out(&format!("{id}: ended; remembered until {until}\n"));
            Exit::Done
        }
        Err(refused) => refused.exit,
    }
}
