//! The page's listener: plain, or TLS with a certificate that is read again when it changes.
//!
//! The handshake is a matter of the connection's own task and begins when it first reads, so that whoever dawdles keeps
//! nobody else from being accepted.

use std::future::Future as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::connect::pace;
use crate::guarded::{self, Holds};
use crate::server::{Guest, Listener, Peer};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The chain, PEM, its own certificate first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub private_key: PathBuf,
}

/// What the page proves itself with, if not something before it does.
#[derive(Clone, Default)]
pub struct Certificate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    config: ArcSwapOption<ServerConfig>,
    /// Where it came from, and what told those files from any others.
    files: Mutex<Option<(Files, Stamp)>>,
}

type Stamp = [Option<(u64, i64, i64, u64)>; 2];

/// What was read of them, to be taken into use.
pub struct Reading(Option<(Files, Stamp, Arc<ServerConfig>)>);

impl Reading {
    /// Reads these files; none where there are none.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of(files: Option<Files>) -> Result<Self, String> {
        let Some(files) = files else { return Ok(Self(None)) };
        let stamp = stamp(&files);
        let config = read(&files)?;
        Ok(Self(Some((files, stamp, config))))
    }
}

impl Certificate {
    /// From now on this one.
    pub fn replace(&self, reading: Reading) {
        let mut known = self.0.files.lock().unwrap_or_else(PoisonError::into_inner);
        let (files, config) = match reading.0 {
            Some((files, stamp, config)) => (Some((files, stamp)), Some(config)),
            None => (None, None),
        };
        *known = files;
        self.0.config.store(config);
    }

    /// Reads it again whenever the files change, for good.
    pub async fn look_after(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let this = self.clone();
            // Files are looked at.
            let _done = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Reads it again if the files have changed. Where they are not as they should be, what there is stays in use.
    fn look(&self) {
        let mut known = self.0.files.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((files, before)) = known.as_mut() else { return };
        let now = stamp(files);
        if now == *before {
            return;
        }
        *before = now;
        match read(files) {
            Ok(config) => {
                self.0.config.store(Some(config));
                tracing::info!("the connect page's certificate was read again");
            }
            Err(error) => tracing::error!(%error, "the connect page's certificate in use stays"),
        }
    }
}

fn stamp(files: &Files) -> Stamp {
    let of = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    };
    [of(&files.certificate), of(&files.private_key)]
}

fn read(files: &Files) -> Result<Arc<ServerConfig>, String> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| Err(format!("{}: {error}", path.display()));
    let (certificate, private_key) = (files.certificate.as_path(), files.private_key.as_path());
    let text = match guarded::read(certificate, Holds::Decisions) {
        Ok(text) => text,
        Err(error) => return failed(certificate, &error),
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => return failed(certificate, &"there is no certificate in it: PEM is wanted"),
        Err(error) => return failed(certificate, &error),
    };
    let text = match guarded::read(private_key, Holds::Secret) {
        Ok(text) => text,
        Err(error) => return failed(private_key, &error),
    };
    // The library's own words may quote what they could not read.
    let Ok(key) = PrivateKeyDer::from_pem_slice(text.as_bytes()) else {
        return failed(private_key, &"there is no private key in it: PEM is wanted, and no passphrase");
    };
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    match config {
        Ok(Ok(mut config)) => {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Ok(Arc::new(config))
        }
        Ok(Err(error)) | Err(error) => {
            failed(private_key, &format!("it does not go with {}: {error}", certificate.display()))
        }
    }
}

/// Accepts browsers.
pub struct Door {
    listener: TcpListener,
    certificate: Certificate,
}

impl Door {
    /// Those who come to `listener`.
    #[must_use]
    pub fn new(listener: TcpListener, certificate: Certificate) -> Self {
        Self { listener, certificate }
    }
}

impl Listener for Door {
    type Guest = Browser;

    async fn next(&self) -> io::Result<Browser> {
        let (stream, from) = self.listener.accept().await?;
        let config = self.certificate.0.config.load_full();
        Ok(Browser { stream, from, tls: config.map(TlsAcceptor::from) })
    }
}

/// One who has connected.
pub struct Browser {
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl Browser {
    fn open(self) -> Stream {
        match self.tls {
            None => Stream::Plain(self.stream),
            Some(tls) => {
                let deadline = Box::pin(tokio::time::sleep(HANDSHAKE));
                Stream::Handshake(Box::new(tls.accept(self.stream)), deadline)
            }
        }
    }
}

impl Guest for Browser {
    type Stream = Stream;

    fn uid(&self) -> Option<u32> {
        None
    }

    /// What comes from this machine is a proxy, and stands for many.
    fn network(&self) -> Option<IpAddr> {
        pace::stranger(self.from)
    }

    fn leave(self) -> io::Result<Stream> {
        Ok(self.open())
    }

    fn enter(self) -> io::Result<(Stream, Peer)> {
        let from = self.from;
        Ok((self.open(), Peer::Network(from)))
    }
}

/// A connection, whose handshake may still be under way.
pub enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// Not yet; until then.
    Handshake(Box<Accept<TcpStream>>, Pin<Box<Sleep>>),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// The handshake came to nothing; whoever asks again is told so, for it must not be taken up again.
    Broken,
}

impl Stream {
    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Handshake(accept, deadline) = self else { return Poll::Ready(Ok(())) };
        match Pin::new(&mut **accept).poll(context) {
            Poll::Ready(Ok(stream)) => {
                *self = Self::Tls(Box::new(stream));
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                *self = Self::Broken;
                Poll::Ready(Err(error))
            }
            Poll::Pending => match deadline.as_mut().poll(context) {
                Poll::Ready(()) => {
                    *self = Self::Broken;
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    /// What is spoken to, once the handshake is over.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Spoken>>> {
        match self.poll_handshake(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        match self {
            Self::Plain(stream) => Poll::Ready(Ok(Pin::new(stream))),
            Self::Tls(stream) => Poll::Ready(Ok(Pin::new(&mut **stream))),
            Self::Handshake(..) => Poll::Pending,
            Self::Broken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

/// Either kind of connection.
trait Spoken: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Spoken for S {}

macro_rules! ready {
    ($poll:expr) => {
        match $poll {
            Poll::Ready(Ok(stream)) => stream,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(context)).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(context)).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(context)).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
            // Nothing was said.
            Self::Handshake(..) | Self::Broken => Poll::Ready(Ok(())),
        }
    }
}
