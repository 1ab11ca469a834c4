//! Accepts connections and serves HTTP/1.1 on them. Nothing that a client does ends the loop, and everything that it can
//! make us do has a limit.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use crate::caller::Caller;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

mod patient;

use patient::Patient;

/// What a client may make us hold.
///
/// A connection costs at most its buffer: with the defaults 1024 x 64 KiB. A head that takes longer than
/// `header_timeout`, or a connection idle for that long, is closed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one uid; on a TCP listener of everybody together.
    pub connections_per_uid: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// Headers of a request.
    pub headers: usize,
    /// From the first byte of a head to its last, and between two requests.
    pub header_timeout: Duration,
    /// How long a connection may take to end once a stop was asked for.
    pub grace: Duration,
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A local process.
    Local(Caller),
    /// Somebody on the network, of whom nothing is known.
    Network(SocketAddr),
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// What is remembered of a connection from one request to the next.
    type Memory: Default + Send + 'static;

    /// What its answers consist of.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static;

    /// What a client is told that is one too many.
    fn too_many(&self) -> Response<Full<Bytes>>;

    /// The answer; every failure is an answer too.
    fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        memory: &Mutex<Self::Memory>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// A listening socket of either kind.
pub trait Listener: Send + 'static {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and who is at its other end.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;

    /// From now on nobody new can come. Whether those who are waiting to be accepted must be served by us, since nobody
    /// else will.
    fn retire(&mut self) -> bool {
        false
    }
}

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&self) -> io::Result<(Self::Stream, Peer)> {
        let (stream, address) = self.accept().await?;
        Ok((stream, Peer::Network(address)))
    }
}

/// How long a client that has just connected may take to ask, once a stop was asked for.
const FIRST_REQUEST: Duration = Duration::from_millis(300);
/// Clients who are being told at the same time that they are too many, and how long that may take each way.
const MOST_TURNED_AWAY: usize = 64;
const TURNED_AWAY: Duration = Duration::from_millis(500);
/// How long to look for clients that wait to be accepted.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// Serves until a stop is asked for; then finishes what is running, and what has connected before that.
pub async fn serve<L: Listener, H: Handler>(
    name: &'static str,
    mut listener: L,
    handler: Arc<H>,
    limits: Limits,
    tasks: Tasks,
    metrics: Arc<Metrics>,
) {
    let seats = Seats::new(limits, name, &metrics);
    let turning_away = Arc::new(Semaphore::new(MOST_TURNED_AWAY));
    let mut retired = false;
    loop {
        let accepted = if retired {
            match tokio::time::timeout(LAST_LOOK, listener.next()).await {
                Ok(accepted) => accepted,
                Err(_nobody_waits) => return,
            }
        } else {
            tokio::select! {
                () = tasks.stopping() => {
                    retired = listener.retire();
                    if retired {
                        continue;
                    }
                    return;
                }
                accepted = listener.next() => accepted,
            }
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_clients(&error) => continue,
            Err(error) => {
                // Out of descriptors or memory: connections end meanwhile, and the loop goes on.
                tracing::error!(listener = name, %error, "can't accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match seats.take(&peer) {
            Ok(seat) => {
                let (handler, stopping) = (Arc::clone(&handler), tasks.clone());
                tasks.spawn(async move {
                    converse(stream, peer, handler, limits, stopping).await;
                    drop(seat);
                });
            }
            Err(reason) => {
                metrics.requests_refused.with_label_values(&[reason]).inc();
                // Those beyond this are not even told.
                if let Ok(place) = Arc::clone(&turning_away).try_acquire_owned() {
                    let answer = handler.too_many();
                    tasks.spawn(async move {
                        turn_away(stream, answer).await;
                        drop(place);
                    });
                }
            }
        }
    }
}

/// What the requests of one connection have in common.
struct Conversation<H: Handler> {
    begun: AtomicBool,
    has_begun: Notify,
    memory: Mutex<H::Memory>,
}

impl<H: Handler> Default for Conversation<H> {
    fn default() -> Self {
        Self { begun: AtomicBool::new(false), has_begun: Notify::new(), memory: Mutex::default() }
    }
}

async fn converse<S, H>(stream: S, peer: Peer, handler: Arc<H>, limits: Limits, tasks: Tasks)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler,
{
    let shared = Arc::new(Conversation::<H>::default());
    let (conversation, stopping, peer) = (Arc::clone(&shared), tasks.clone(), Arc::new(peer));
    let service = service_fn(move |request| {
        if !conversation.begun.swap(true, Ordering::Relaxed) {
            conversation.has_begun.notify_one();
        }
        let (handler, conversation, stopping, peer) =
            (Arc::clone(&handler), Arc::clone(&conversation), stopping.clone(), Arc::clone(&peer));
        async move {
            let mut answer = handler.answer(&peer, &conversation.memory, request).await;
            if stopping.is_stopping() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.head)
        .max_headers(limits.headers)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = tasks.stopping() => {
            // Who has connected and not been heard yet is heard once.
            if !shared.begun.load(Ordering::Relaxed) {
                tokio::select! {
                    _ended = connection.as_mut() => return,
                    () = shared.has_begun.notified() => {}
                    () = tokio::time::sleep(FIRST_REQUEST) => {}
                }
            }
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.grace, connection).await {
                Ok(ended) => ended,
                Err(_too_slow) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Hears a client out, for a moment, and gives it an answer whatever it has said: some clients take an answer that comes
/// before their question for a broken connection.
async fn turn_away<S>(mut stream: S, answer: Response<Full<Bytes>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut head = [0; 4096];
    let _heard_or_not = tokio::time::timeout(TURNED_AWAY, stream.read(&mut head)).await;
    let (head, body) = answer.into_parts();
    let Ok(body) = body.collect().await.map(Collected::to_bytes);
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).into_bytes();
    for (name, value) in &head.headers {
        text.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    text.extend_from_slice(format!("connection: close\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
    text.extend_from_slice(&body);
    let _best_effort = tokio::time::timeout(TURNED_AWAY, stream.write_all(&text)).await;
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | NotConnected)
}

/// Counts who is connected.
struct Seats {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
    gauge: prometheus::IntGauge,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_uid: HashMap<Option<u32>, usize>,
}

/// One connection's place; free again when dropped.
struct Seat {
    who: Option<u32>,
    taken: Arc<Mutex<Taken>>,
    gauge: prometheus::IntGauge,
}

impl Seats {
    fn new(limits: Limits, name: &'static str, metrics: &Metrics) -> Self {
        Self { limits, taken: Arc::default(), gauge: metrics.connections.with_label_values(&[name]) }
    }

    fn take(&self, peer: &Peer) -> Result<Seat, &'static str> {
        let who = match peer {
            Peer::Local(caller) => Some(caller.uid()),
            Peer::Network(_) => None,
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.limits.connections {
            return Err("connections");
        }
        let own = taken.by_uid.entry(who).or_default();
        if *own >= self.limits.connections_per_uid {
            return Err("connections_per_uid");
        }
        *own += 1;
        taken.total += 1;
        self.gauge.inc();
        Ok(Seat { who, taken: Arc::clone(&self.taken), gauge: self.gauge.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gauge.dec();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(count) = taken.by_uid.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.by_uid.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_in_all_and_per_uid_and_given_back() {
        let metrics = Metrics::new().unwrap();
        let limits = Limits {
            connections: 3,
            connections_per_uid: 2,
            head: 16_384,
            headers: 64,
            header_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(1),
        };
        let seats = Seats::new(limits, "vending", &metrics);
        let peer = |uid| Peer::Local(Caller::invented(uid, uid));
        let first = seats.take(&peer(1)).unwrap_or_else(|why| panic!("{why}"));
        let _second = seats.take(&peer(1)).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(seats.take(&peer(1)).err(), Some("connections_per_uid"));
        let _third = seats.take(&peer(2)).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(seats.take(&peer(3)).err(), Some("connections"));
        drop(first);
        assert!(seats.take(&peer(3)).is_ok());
        assert_eq!(seats.taken.lock().unwrap().by_uid.len(), 2, "nobody is remembered without a connection");
    }
}
