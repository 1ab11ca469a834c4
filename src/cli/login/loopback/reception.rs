//! Where the browser comes back to: one address, one answer. Whatever else comes is sent away, and what comes is never
//! repeated on a page.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::cli::client::{self, Refused};

/// Browsers open some ahead, and don't use them all.
const MOST_CONNECTIONS: usize = 16;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the browser may take to fetch its last page.
const FAREWELL: Duration = Duration::from_secs(2);
/// Between two tries to accept, where the system has nothing left.
const PAUSE: Duration = Duration::from_millis(100);

type Outcome = Result<Value, Refused>;

/// Where the browser comes back to.
pub(super) struct Reception {
    host: String,
    path: String,
    state: String,
    /// The sidecar's socket, and where what came is handed in.
    sidecar: (PathBuf, String),
    /// Who waits for the answer, until it has come.
    waiting: Mutex<Option<oneshot::Sender<Outcome>>>,
}

impl Reception {
    pub(super) fn new(
        address: SocketAddr,
        redirect_uri: &str,
        state: String,
        sidecar: (PathBuf, String),
    ) -> Self {
        let host = address.to_string();
        let path = redirect_uri.strip_prefix(&format!("http://{host}")).unwrap_or_default().to_owned();
        Self { host, path, state, sidecar, waiting: Mutex::default() }
    }

    /// Until the browser has come back, and seen what came of it.
    pub(super) async fn wait(self, listener: TcpListener) -> Outcome {
        let (sender, mut outcome) = oneshot::channel();
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        let (this, mut connections) = (Arc::new(self), JoinSet::new());
        let outcome = loop {
            let has_room = connections.len() < MOST_CONNECTIONS;
            tokio::select! {
                outcome = &mut outcome => break outcome,
                accepted = listener.accept(), if has_room => match accepted {
                    Ok((stream, _)) => {
                        let this = Arc::clone(&this);
                        let service = service_fn(move |request| {
                            let this = Arc::clone(&this);
                            async move { Ok::<_, Infallible>(this.answer(request).await) }
                        });
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEADER_TIMEOUT)
                            .keep_alive(false)
                            .serve_connection(TokioIo::new(stream), service);
                        connections.spawn(connection);
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                _ended = connections.join_next(), if !connections.is_empty() => {}
            }
        };
        drop(listener);
        let farewell = async { while connections.join_next().await.is_some() {} };
        let _seen_or_not = tokio::time::timeout(FAREWELL, farewell).await;
        outcome.unwrap_or_else(|_| Err(super::failed("nobody waits any more", crate::cli::Exit::Failed)))
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let is_us = hosts.next().is_some_and(|host| host == self.host.as_str()) && hosts.next().is_none();
        let query = request.uri().query().unwrap_or_default();
        // A page from elsewhere can send the browser here as well, by another name or with another answer.
        if !is_us || request.uri().path() != self.path {
            return page(StatusCode::NOT_FOUND, "Nothing is here", "");
        }
        if request.method() != Method::GET {
            return page(StatusCode::METHOD_NOT_ALLOWED, "Nothing is here", "");
        }
        if !self.is_ours(query) {
            let why =
                "This does not belong to the login that waits here. Follow the address in the terminal.";
            return page(StatusCode::BAD_REQUEST, "Not what was asked", why);
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(waiting) = waiting else {
            return page(StatusCode::GONE, "This login is over", "The terminal tells what came of it.");
        };
        let (socket, target) = &self.sidecar;
        let outcome = client::ask(socket, Method::POST, target, Some(json!({ "query": query }))).await;
        let page = match &outcome {
            Ok(_) => page(StatusCode::OK, "Connected", "You can close this window."),
            Err(refused) => page(StatusCode::OK, "Not connected", &told(&refused.problem)),
        };
        let _terminal_is_gone = waiting.send(outcome);
        page
    }

    fn is_ours(&self, query: &str) -> bool {
        let mut states = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "state");
        states.next().is_some_and(|(_, state)| state == self.state) && states.next().is_none()
    }
}

/// What the sidecar says of it.
fn told(problem: &Value) -> String {
    let detail = problem.get("detail").and_then(Value::as_str);
    format!("{}. The terminal tells more.", detail.unwrap_or("The sidecar does not answer"))
}

fn page(status: StatusCode, heading: &str, text: &str) -> Response<Full<Bytes>> {
    let (heading, text) = (escape(heading), escape(text));
    let body = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{heading}</title>\n\
         <main><h1>{heading}</h1>\n<p>{text}</p></main>\n</html>\n"
    );
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONNECTION, "close"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
