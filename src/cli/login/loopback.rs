//! A browser on this machine, which comes back to a port of the loopback address (RFC 8252 §7.3).

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tokio::net::TcpListener;
use url::Url;

use crate::cli::arguments::LoginArgs;
use crate::cli::client::{self, Refused};
use crate::cli::login::{begin, failed, seconds, text};
use crate::cli::{Exit, terminal};

/// What the browser meets here.
mod reception;

use reception::Reception;

const PATH: &str = "/v1/authorizations";

pub(super) async fn login(args: &LoginArgs) -> Result<Value, Refused> {
    let socket = &args.socket.admin_socket;
    let (listener, address) = listen(args.port).await?;
    let mut body = begin(args);
    if let Some(body) = body.as_object_mut() {
        // The sidecar puts the path of the service's authorization server there.
        body.insert("redirect_uri".to_owned(), Value::from(format!("http://{address}")));
    }
    let begun = client::ask(socket, Method::POST, PATH, Some(body)).await?;
    let url = text(&begun, "authorization_url");
    let reception = Reception::new(
        address,
        &text(&begun, "redirect_uri"),
        parameter(&url, "state"),
        (socket.clone(), format!("{PATH}/{}", client::encode(&text(&begun, "id")))),
    );
    terminal::out(&format!(
        "To connect {}, sign in here, in a browser on this machine:\n\n{url}\n\n",
        args.service
    ));
    if !args.no_browser {
        open(&url);
    }
    terminal::progress("waiting for the browser to come back");
    // The sidecar's word for that it is over is better than ours, if the browser comes in the last second.
    let patience = Duration::from_secs(seconds(&begun, "expires_in") + 1);
    let came = tokio::time::timeout(patience, reception.wait(listener)).await;
    terminal::progress("");
    came.unwrap_or_else(|_elapsed| {
        Err(failed("nobody came back in time; run `bursar login` again", Exit::LoginRequired))
    })
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), Refused> {
    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let bound = TcpListener::bind(wanted).await.and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|error| {
        let why =
            format!("{wanted}: {error}; another login may be waiting there, and --port takes another port");
        failed(&why, Exit::Unavailable)
    })
}

fn parameter(url: &str, name: &str) -> String {
    let url = Url::parse(url).ok();
    let found = url
        .and_then(|url| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()));
    found.unwrap_or_default()
}

/// Where there is a display; if it does not work, the address has been printed.
#[expect(clippy::disallowed_methods, reason = "the command's own surroundings, which no configuration tells")]
fn open(url: &str) {
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|display| !display.is_empty()));
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if has_display || cfg!(target_os = "macos") {
        let quiet = Stdio::null;
        let started = Command::new(program).arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
        drop(started);
    }
}
