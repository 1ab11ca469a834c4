//! One request over one connection, for requests that must not be sent twice behind our back.
//!
//! No pool, no redirects, no retries, and no proxy but the one that the environment names: the caller learns whether the request was certainly not sent, or whether
//! the server may have acted. A connection given up on is reset at once, so that bytes of it that are still on their way
//! are not delivered later.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONNECTION, HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::{Host, Position, Url};

/// No document that we ask for is larger.
const LARGEST_BODY: usize = 1024 * 1024;

/// Makes requests.
#[derive(Clone)]
pub struct HttpClient {
    tls: TlsConnector,
    proxies: Proxies,
}

/// Which hosts are reached through a proxy: `HTTPS_PROXY` and `NO_PROXY`, as curl reads them.
#[derive(Clone, Debug)]
pub struct Proxies(Arc<Matcher>);

impl Proxies {
    /// Everything is reached directly.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(Matcher::builder().build()))
    }

    /// From the values of the two variables; empty ones say nothing.
    ///
    /// # Errors
    /// If the proxy is not one that is spoken to by plain HTTP. Its password is not repeated.
    pub fn new(https_proxy: &str, no_proxy: &str) -> Result<Self, &'static str> {
        let scheme = https_proxy.split_once("://").map_or("http", |(scheme, _)| scheme);
        if !scheme.eq_ignore_ascii_case("http") {
            return Err("must be the URL of an HTTP proxy, such as http://proxy.example.com:3128");
        }
        let matcher = Matcher::builder().https(https_proxy.to_owned()).no(no_proxy.to_owned()).build();
        let example = Uri::from_static("https://bursar.invalid");
        if !https_proxy.is_empty() && no_proxy.trim() != "*" && matcher.intercept(&example).is_none() {
            return Err("is not a URL");
        }
        Ok(Self(Arc::new(matcher)))
    }

    /// The proxy that `url` is reached through, if any: its host and port.
    #[must_use]
    pub fn of_url(&self, url: &Url) -> Option<String> {
        Some(self.of(url)?.uri().authority()?.as_str().rsplit('@').next()?.to_owned())
    }

    fn of(&self, url: &Url) -> Option<Intercept> {
        // Plain http never leaves the machine.
        let url = (url.scheme() == "https").then(|| url.as_str().parse().ok()).flatten()?;
        self.0.intercept(&url)
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
}

/// What becomes of an answer behind its head.
#[derive(Clone, Copy)]
enum Rest {
    Read,
    Dropped,
}

/// Why there is no whole answer. The texts name what happened and never the request's content.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Not a byte of the request left.
    #[error("{0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("{0}")]
    InDoubt(String),
}

impl HttpClient {
    /// Trusts the system's root certificates, and those in `ca_file`.
    ///
    /// # Errors
    /// If there is no certificate to trust, or `ca_file` is not one.
    pub fn new(ca_file: Option<&std::path::Path>, proxies: Proxies) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let before = roots.len();
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
                let certificate = certificate.map_err(|error| failed(&error))?;
                roots.add(certificate).map_err(|error| failed(&error))?;
            }
            if roots.len() == before {
                return Err(failed(&"no certificate is in it (PEM is wanted)"));
            }
        }
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), proxies })
    }

    /// Sends `request` to `url` and reads the whole answer, within `deadline`.
    ///
    /// # Errors
    /// Whether the request may have arrived.
    pub async fn send(
        &self,
        url: &Url,
        request: Request<Full<Bytes>>,
        deadline: Duration,
    ) -> Result<Answer, SendError> {
        self.ask(url, request, deadline, Rest::Read).await
    }

    /// Sends `request` to `url` and reads no more than the head of the answer, so that no body, however large, slow or cut
    /// off, makes it none.
    ///
    /// # Errors
    /// Whether the request may have arrived.
    pub async fn status(
        &self,
        url: &Url,
        request: Request<Full<Bytes>>,
        deadline: Duration,
    ) -> Result<StatusCode, SendError> {
        Ok(self.ask(url, request, deadline, Rest::Dropped).await?.status)
    }

    async fn ask(
        &self,
        url: &Url,
        request: Request<Full<Bytes>>,
        deadline: Duration,
        rest: Rest,
    ) -> Result<Answer, SendError> {
        let started = tokio::time::Instant::now();
        let late = |what: &str| format!("{what} took longer than {}", humantime::format_duration(deadline));
        let armed = Arc::new(AtomicBool::new(true));
        let connection = tokio::time::timeout(deadline, self.connect(url, deadline, &armed))
            .await
            .map_err(|_| SendError::NotSent(late("connecting")))?
            .map_err(|error| SendError::NotSent(format!("connecting: {error}")))?;
        let left = deadline.saturating_sub(started.elapsed());
        let answer = tokio::time::timeout(left, exchange(connection, url, request, rest))
            .await
            .map_err(|_| SendError::InDoubt(late("the answer")))??;
        armed.store(false, Ordering::Release);
        Ok(answer)
    }

    async fn connect(
        &self,
        url: &Url,
        deadline: Duration,
        armed: &Arc<AtomicBool>,
    ) -> io::Result<Box<dyn Stream>> {
        let no_host = || io::Error::new(io::ErrorKind::InvalidInput, "the URL names no host");
        let port = url.port_or_known_default().ok_or_else(no_host)?;
        let proxy = self.proxies.of(url);
        let tcp = match &proxy {
            Some(proxy) => {
                let host = proxy.uri().host().ok_or_else(no_host)?.trim_matches(['[', ']']);
                TcpStream::connect((host, proxy.uri().port_u16().unwrap_or(80))).await?
            }
            None => match url.host().ok_or_else(no_host)? {
                Host::Domain(name) => TcpStream::connect((name, port)).await?,
                Host::Ipv4(address) => TcpStream::connect((address, port)).await?,
                Host::Ipv6(address) => TcpStream::connect((address, port)).await?,
            },
        };
        tcp.set_nodelay(true)?;
        SockRef::from(&tcp).set_tcp_user_timeout(Some(deadline))?;
        let tcp = ResetUnlessDone { tcp, armed: Arc::clone(armed) };
        if url.scheme() != "https" {
            return Ok(Box::new(tcp));
        }
        let host = url.host_str().ok_or_else(no_host)?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        match proxy {
            Some(proxy) => {
                let tunnel = tunnel(tcp, &format!("{host}:{port}"), proxy.basic_auth()).await?;
                Ok(Box::new(self.tls.connect(name, tunnel).await?))
            }
            None => Ok(Box::new(self.tls.connect(name, tcp).await?)),
        }
    }
}

/// Through an HTTP proxy to `authority` (RFC 9110 §9.3.6). What goes through it is TLS, which the proxy can't read.
async fn tunnel(
    tcp: ResetUnlessDone,
    authority: &str,
    credentials: Option<&HeaderValue>,
) -> io::Result<impl Stream + use<>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(tcp))
        .await
        .map_err(io::Error::other)?;
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.parse().map_err(io::Error::other)?;
    let host = HeaderValue::from_str(authority).map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, host);
    if let Some(credentials) = credentials {
        request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.clone());
    }
    let answer = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if !response.status().is_success() {
            return Err(io::Error::other(format!("the proxy answers {}", response.status())));
        }
        hyper::upgrade::on(response).await.map_err(io::Error::other)
    };
    drive(connection.with_upgrades(), answer).await.map(TokioIo::new)
}

async fn exchange(
    stream: Box<dyn Stream>,
    url: &Url,
    mut request: Request<Full<Bytes>>,
    rest: Rest,
) -> Result<Answer, SendError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| SendError::NotSent(error.to_string()))?;
    prepare(&mut request, url).map_err(SendError::NotSent)?;
    let in_doubt = |error: &dyn std::fmt::Display| SendError::InDoubt(error.to_string());
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| in_doubt(&error))?;
        let (head, body) = response.into_parts();
        let body = match rest {
            Rest::Read => {
                let body = Limited::new(body, LARGEST_BODY).collect().await;
                body.map_err(|error| in_doubt(&error))?.to_bytes()
            }
            Rest::Dropped => Bytes::new(),
        };
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    drive(connection, answer).await
}

/// Drives a connection by the same future as what waits for its answer, so that dropping it drops the socket.
async fn drive<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    let mut ended = false;
    std::future::poll_fn(|context| {
        if !ended && let Poll::Ready(_result) = connection.as_mut().poll(context) {
            // Whatever ended it, the answer's future knows as well, and says it better.
            ended = true;
        }
        answer.as_mut().poll(context)
    })
    .await
}

fn prepare(request: &mut Request<Full<Bytes>>, url: &Url) -> Result<(), String> {
    let target = &url[Position::BeforePath..Position::AfterQuery];
    *request.uri_mut() = target.parse().map_err(|_| "the URL can't be requested".to_owned())?;
    let host = &url[Position::BeforeHost..Position::AfterPort];
    let host = HeaderValue::from_str(host).map_err(|_| "the URL's host can't be sent".to_owned())?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(())
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A socket that is reset (zero linger) when dropped before its answer was whole.
struct ResetUnlessDone {
    tcp: TcpStream,
    armed: Arc<AtomicBool>,
}

impl Drop for ResetUnlessDone {
    fn drop(&mut self) {
        if self.armed.load(Ordering::Acquire) {
            // If the kernel refuses, the socket closes as any other: the worse case, but no error to act on.
            let _best_effort = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for ResetUnlessDone {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for ResetUnlessDone {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
