//! `/metrics`, `/live` and `/ready` and nothing else, on a thread and runtime of their own, so that they answer while the
//! main one is stuck.

use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use crate::api::answer::answer;
use crate::cache::TokenCache;
use crate::metrics::Metrics;
use crate::ready::Ready;
use crate::server::{self, Handler, Limits, Peer};
use crate::tasks::Tasks;

const LIMITS: Limits = Limits {
    connections: 64,
    connections_per_uid: 64,
    head: 16 * 1024,
    headers: 64,
    header_timeout: Duration::from_secs(10),
    grace: Duration::from_secs(1),
};

/// What is told about the process.
pub struct Observe {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// What is being waited for.
    pub ready: Ready,
    /// How many tokens are in memory is asked at each scrape.
    pub cache: TokenCache,
}

/// A thread that answers until it is told to stop.
pub struct Observing {
    tasks: Tasks,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Observe {
    /// Serves on `listener`, which must be non-blocking.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(self, listener: StdListener) -> std::io::Result<Observing> {
        let tasks = Tasks::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, metrics) = (tasks.clone(), Arc::clone(&self.metrics));
        let thread = std::thread::Builder::new().name("observe".to_owned()).spawn(move || {
            runtime.block_on(async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => {
                        server::serve("metrics", listener, Arc::new(self), LIMITS, stop.clone(), metrics)
                            .await;
                        // Scrapes take milliseconds; nobody waits longer for one at the end.
                        let _best_effort = tokio::time::timeout(Duration::from_secs(1), stop.stopped()).await;
                    }
                    Err(error) => tracing::error!(%error, "no metrics are served"),
                }
            });
        })?;
        Ok(Observing { tasks, thread: Some(thread) })
    }
}

impl Drop for Observing {
    fn drop(&mut self) {
        self.tasks.stop();
        if let Some(thread) = self.thread.take() {
            let _panicked_or_not = thread.join();
        }
    }
}

impl Handler for Observe {
    type Memory = ();
    type Body = Full<Bytes>;

    fn too_many(&self, _uid: Option<u32>) -> Option<Response<Full<Bytes>>> {
        let text = "text/plain; charset=utf-8";
        Some(answer(StatusCode::TOO_MANY_REQUESTS, text, "too many connections\n"))
    }

    async fn answer(
        self: &Arc<Self>,
        _peer: &Peer,
        _memory: &Mutex<()>,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let text = "text/plain; charset=utf-8";
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return answer(StatusCode::METHOD_NOT_ALLOWED, text, "only GET\n");
        }
        match request.uri().path() {
            "/metrics" => {
                let cached = i64::try_from(self.cache.len()).unwrap_or(i64::MAX);
                self.metrics.access_tokens_cached.set(cached);
                answer(StatusCode::OK, prometheus::TEXT_FORMAT, self.metrics.text())
            }
            "/live" => answer(StatusCode::OK, text, "live\n"),
            "/ready" => match self.ready.waiting_for().as_slice() {
                [] => answer(StatusCode::OK, text, "ready\n"),
                waiting => {
                    let waiting = format!("waiting for: {}\n", waiting.join(", "));
                    answer(StatusCode::SERVICE_UNAVAILABLE, text, waiting)
                }
            },
            _ => answer(StatusCode::NOT_FOUND, text, "/metrics, /live, /ready\n"),
        }
    }
}
