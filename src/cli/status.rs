//! `bursar status`

use std::path::Path;

use hyper::Method;

use crate::cli::arguments::StatusArgs;
use crate::cli::{Exit, client, terminal};

/// Columns.
mod table;
/// The answer, laid out for a person.
mod view;
/// The same again and again.
mod watch;

/// What is asked of the admin socket.
const TARGET: &str = "/v1/status";

pub(super) async fn status(args: StatusArgs) -> Exit {
    let socket = args.socket.admin_socket;
    if args.watch {
        return watch::watch(&socket, args.interval, args.json).await;
    }
    once(&socket, args.json).await
}

async fn once(socket: &Path, as_json: bool) -> Exit {
    match client::ask(socket, Method::GET, TARGET, None).await {
        Ok(status) if as_json => terminal::out(&format!("{status}\n")),
        Ok(status) => terminal::out(&view::glance(&status, terminal::size().0)),
        Err(refused) => return refused.exit,
    }
    Exit::Done
}
