//! Accepts connections and serves HTTP/1.1 on them. Nothing that a client does ends the loop, and everything that it can
//! make us do has a limit.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::caller::Caller;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

mod patient;

/// What one uid may have only so many of.
pub mod places;

mod reception;

mod seats;

use patient::Patient;
use reception::Reception;

/// What a client may make us hold.
///
/// A connection costs at most its buffer: with the defaults 1024 x 64 KiB. A head that takes longer than
/// `header_timeout`, or a connection idle for that long, is closed. The last eighth of the connections is for those who
/// have few, so that nobody's many keep others out.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one uid, or of one network.
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

    /// Whether one who has connected may stay, as far as how often this uid comes is concerned.
    fn admits(&self, _uid: Option<u32>) -> bool {
        true
    }

    /// What a client is told that is one too many, if it is worth an answer.
    fn too_many(&self, uid: Option<u32>) -> Option<Response<Full<Bytes>>>;

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
    /// Who comes.
    type Guest: Guest + 'static;

    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Guest>> + Send;

    /// From now on nobody new can come. Whether those who are waiting to be accepted must be served by us, since nobody
    /// else will.
    fn retire(&mut self) -> bool {
        false
    }
}

/// One who has connected. Nothing is done for it yet: in a flood most are sent away, and that must cost us less than coming
/// costs them.
pub trait Guest: Send {
    /// The connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Whose process it is; `None` on the network.
    fn uid(&self) -> Option<u32>;

    /// The network that it comes from, where one may have only so many connections.
    fn network(&self) -> Option<IpAddr> {
        None
    }

    /// The connection alone, to say that there is no place.
    ///
    /// # Errors
    /// If it is over, or the system gives no more.
    fn leave(self) -> io::Result<Self::Stream>;

    /// The connection, and who exactly is at its other end.
    ///
    /// # Errors
    /// If it is over, or the system gives no more.
    fn enter(self) -> io::Result<(Self::Stream, Peer)>;
}

impl Listener for TcpListener {
    type Guest = (TcpStream, SocketAddr);

    async fn next(&self) -> io::Result<Self::Guest> {
        self.accept().await
    }
}

impl Guest for (TcpStream, SocketAddr) {
    type Stream = TcpStream;

    fn uid(&self) -> Option<u32> {
        None
    }

    fn leave(self) -> io::Result<TcpStream> {
        Ok(self.0)
    }

    fn enter(self) -> io::Result<(TcpStream, Peer)> {
        Ok((self.0, Peer::Network(self.1)))
    }
}

/// How long a client that has just connected may take to ask, once a stop was asked for.
const FIRST_REQUEST: Duration = Duration::from_millis(300);
/// How long to look for clients that wait to be accepted.
const LAST_LOOK: Duration = Duration::from_millis(10);
/// So many are accepted before those who are connected have their turn.
const ACCEPTED_AT_ONCE: u32 = 16;

/// Serves until a stop is asked for; then finishes what is running, and what has connected before that.
pub async fn serve<L: Listener, H: Handler>(
    name: &'static str,
    mut listener: L,
    handler: Arc<H>,
    limits: Limits,
    tasks: Tasks,
    metrics: Arc<Metrics>,
) {
    let reception = Reception::new(name, handler, limits, tasks.clone(), metrics);
    let mut retired = false;
    let mut accepted_at_once = 0;
    loop {
        accepted_at_once += 1;
        if accepted_at_once > ACCEPTED_AT_ONCE {
            accepted_at_once = 0;
            tokio::task::yield_now().await;
        }
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
        let guest = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_the_clients(&error) => continue,
            Err(error) => {
                // Out of descriptors or memory: connections end meanwhile, and the loop goes on.
                tracing::error!(listener = name, %error, "can't accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        reception.receive(guest);
    }
}

/// What the requests of one connection have in common.
struct Conversation<H: Handler> {
    begun: AtomicBool,
    has_begun: Notify,
    /// Something has come in since the last request began or was answered.
    news: Arc<AtomicBool>,
    memory: Mutex<H::Memory>,
}

impl<H: Handler> Default for Conversation<H> {
    fn default() -> Self {
        Self {
            begun: AtomicBool::new(false),
            has_begun: Notify::new(),
            news: Arc::default(),
            memory: Mutex::default(),
        }
    }
}

/// Serves one connection; says which limit ended it, if one did.
async fn converse<S, H>(
    stream: S,
    peer: Peer,
    handler: Arc<H>,
    limits: Limits,
    tasks: Tasks,
) -> Option<&'static str>
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
            if !conversation.news.swap(false, Ordering::Relaxed) {
                // It came together with the one before: first the others have their turn.
                tokio::task::yield_now().await;
            }
            let mut answer = handler.answer(&peer, &conversation.memory, request).await;
            conversation.news.store(false, Ordering::Relaxed);
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
        .serve_connection(TokioIo::new(Patient::new(stream, Arc::clone(&shared.news))), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = tasks.stopping() => {
            // Who has connected and not been heard yet is heard once.
            if !shared.begun.load(Ordering::Relaxed) {
                tokio::select! {
                    _ended = connection.as_mut() => return None,
                    () = shared.has_begun.notified() => {}
                    () = tokio::time::sleep(FIRST_REQUEST) => {}
                }
            }
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.grace, connection).await {
                Ok(ended) => ended,
                Err(_too_slow) => return None,
            }
        }
    };
    let error = ended.err()?;
    tracing::debug!(%error, "a connection ended");
    if error.is_timeout() {
        // Idle ones end the same way.
        return shared.news.load(Ordering::Relaxed).then_some("slow_head");
    }
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::TimedOut).then_some("slow_reader")
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | NotConnected)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// Those who come, one after the other, and nobody after them.
    struct Coming(Mutex<VecDeque<DuplexStream>>);

    impl Listener for Coming {
        type Guest = DuplexStream;

        async fn next(&self) -> io::Result<DuplexStream> {
            let next = self.0.lock().unwrap().pop_front();
            match next {
                Some(stream) => Ok(stream),
                None => std::future::pending().await,
            }
        }
    }

    impl Guest for DuplexStream {
        type Stream = Self;

        fn uid(&self) -> Option<u32> {
            None
        }

        fn leave(self) -> io::Result<Self> {
            Ok(self)
        }

        fn enter(self) -> io::Result<(Self, Peer)> {
            Ok((self, Peer::Network(([127, 0, 0, 1], 1).into())))
        }
    }

    /// Remembers who was answered when.
    #[derive(Default)]
    struct Remembers(Mutex<Vec<String>>);

    impl Handler for Remembers {
        type Memory = ();
        type Body = Full<Bytes>;

        fn too_many(&self, _uid: Option<u32>) -> Option<Response<Full<Bytes>>> {
            Some(Response::new(Full::default()))
        }

        async fn answer(
            self: &Arc<Self>,
            _peer: &Peer,
            _memory: &Mutex<()>,
            request: Request<Incoming>,
        ) -> Response<Full<Bytes>> {
            self.0.lock().unwrap().push(request.uri().path().to_owned());
            Response::new(Full::default())
        }
    }

    fn limits(connections: usize) -> Limits {
        Limits {
            connections,
            connections_per_uid: connections,
            head: 16_384,
            headers: 64,
            header_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(1),
        }
    }

    /// One who comes from a network.
    struct Stranger(DuplexStream, IpAddr);

    impl Guest for Stranger {
        type Stream = DuplexStream;

        fn uid(&self) -> Option<u32> {
            None
        }

        fn network(&self) -> Option<IpAddr> {
            Some(self.1)
        }

        fn leave(self) -> io::Result<DuplexStream> {
            Ok(self.0)
        }

        fn enter(self) -> io::Result<(DuplexStream, Peer)> {
            Ok((self.0, Peer::Network((self.1, 1).into())))
        }
    }

    #[tokio::test]
    async fn one_network_does_not_take_all_places() {
        let (metrics, tasks) = (Arc::new(Metrics::new().unwrap()), Tasks::new());
        let limits = Limits { connections_per_uid: 2, ..limits(8) };
        let handler = Arc::new(Remembers::default());
        let reception = Reception::new("test", handler, limits, tasks.clone(), Arc::clone(&metrics));
        let mut held = Vec::new();
        for last in [1, 1, 1, 1, 2] {
            let (theirs, ours) = tokio::io::duplex(100);
            held.push(theirs);
            reception.receive(Stranger(ours, [203, 0, 113, last].into()));
        }
        let refused = |reason| metrics.requests_refused.with_label_values(&[reason]).get();
        assert_eq!((refused("connections_per_address"), refused("connections")), (2, 0));
        assert_eq!(metrics.connections.with_label_values(&["test"]).get(), 3, "another one gets in");
        drop(held);
        tasks.stop();
        tasks.stopped().await;
    }

    #[tokio::test]
    async fn who_sends_many_requests_at_once_lets_others_go_in_between() {
        let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let (mut many, ours) = tokio::io::duplex(100_000);
        let (mut one, ours_too) = tokio::io::duplex(100_000);
        many.write_all(request("/many").repeat(10).as_bytes()).await.unwrap();
        one.write_all(request("/one").as_bytes()).await.unwrap();
        let (handler, tasks) = (Arc::new(Remembers::default()), Tasks::new());
        let coming = Coming(Mutex::new([ours, ours_too].into()));
        let metrics = Arc::new(Metrics::new().unwrap());
        tasks.spawn(serve("test", coming, Arc::clone(&handler), limits(8), tasks.clone(), metrics));
        one.read_exact(&mut [0; 12]).await.unwrap();
        while handler.0.lock().unwrap().len() < 11 {
            tokio::task::yield_now().await;
        }
        let order = handler.0.lock().unwrap().clone();
        assert!(order.iter().position(|path| path == "/one").is_some_and(|at| at < 3), "{order:?}");
        drop((many, one));
        tasks.stop();
        tasks.stopped().await;
    }
}
