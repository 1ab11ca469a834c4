//! Speaks HTTP over a Unix socket, for the commands that ask the running sidecar.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::UnixStream;

use crate::cli::arguments::VendingSocket;
use crate::cli::{Exit, terminal};
use crate::secret::Secret;

/// What RFC 3986 lets stand in a path or query as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'@');

/// Percent-encodes a part of a path or a query's value.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Why there is no answer; it has been said on stderr.
pub(super) struct Refused {
    /// What that means for whoever called the command.
    pub(super) exit: Exit,
    /// The problem, if the sidecar named one.
    pub(super) problem: Value,
}

/// Asks, and gives the answer if it is a success; else says on stderr why not.
pub(super) async fn ask(
    socket: &Path,
    method: Method,
    target: &str,
    body: Option<Value>,
) -> Result<Value, Refused> {
    told(socket, send(socket, method, target, body).await)
}

/// Asks as a worker does, with the run pass if there is one.
pub(super) async fn ask_as_worker(socket: &VendingSocket, target: &str) -> Result<Value, Refused> {
    let pass = match &socket.run_pass_file {
        None => None,
        Some(file) => match std::fs::read_to_string(file) {
            Ok(pass) => Some(Secret::new(pass.trim().to_owned())),
            Err(error) => {
                terminal::err(&format!("bursar: {}: {error}", file.display()));
                return Err(Refused { exit: Exit::Usage, problem: Value::Null });
            }
        },
    };
    told(&socket.socket, exchange(&socket.socket, Method::GET, target, None, pass).await)
}

fn told(socket: &Path, answer: Result<(StatusCode, Value), String>) -> Result<Value, Refused> {
    let (status, body) = answer.map_err(|error| {
        terminal::err(&format!("bursar: {}: {error}", socket.display()));
        Refused { exit: Exit::Unavailable, problem: Value::Null }
    })?;
    if status.is_success() { Ok(body) } else { Err(refused(status, body)) }
}

/// What a problem says that came inside an answer.
pub(super) fn refused_by(problem: &Value) -> Refused {
    let status = problem.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    refused(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), problem.clone())
}

/// Asks, and gives the answer whatever it is.
pub(super) async fn send(
    socket: &Path,
    method: Method,
    target: &str,
    body: Option<Value>,
) -> Result<(StatusCode, Value), String> {
    exchange(socket, method, target, body, None).await
}

async fn exchange(
    socket: &Path,
    method: Method,
    target: &str,
    body: Option<Value>,
    pass: Option<Secret>,
) -> Result<(StatusCode, Value), String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let advice = if denied { "is this user in the socket's group?" } else { "is the sidecar running?" };
        format!("{error}; {advice}")
    })?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let mut request = Request::builder().method(method).uri(target).header(HOST, "bursar");
    if let Some(pass) = pass {
        let bearer = HeaderValue::from_str(&format!("Bearer {}", pass.expose()));
        request = request.header(AUTHORIZATION, bearer.map_err(|_| "the run pass is not one line of text")?);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = answer.as_mut() => answer,
        // The answer's future knows why as well, and says it better.
        _ended = connection.as_mut() => answer.await,
    }
}

/// Says why on stderr.
pub(super) fn refused(status: StatusCode, problem: Value) -> Refused {
    Refused { exit: told_why(status, &problem), problem }
}

/// Says why on stderr, and what it means for whoever called the command.
fn told_why(status: StatusCode, body: &Value) -> Exit {
    let text = |member: &str| body.get(member).and_then(Value::as_str);
    let error = text("error").unwrap_or("unknown");
    let detail = text("detail").unwrap_or(status.as_str());
    terminal::err(&format!("bursar: {}: {}", terminal::printable(error), terminal::printable(detail)));
    for member in ["reason", "hint", "authorization_server_error", "user", "login_url", "request_id"] {
        if let Some(value) = text(member) {
            terminal::err(&format!("  {member}: {}", terminal::printable(value)));
        }
    }
    match status.as_u16() {
        400 | 404 | 405 | 413 | 431 => Exit::Usage,
        401 | 403 => Exit::Denied,
        409 if error == "login_required" => Exit::LoginRequired,
        429 | 503 | 504 => Exit::Unavailable,
        _ => Exit::Failed,
    }
}
