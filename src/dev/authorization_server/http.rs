//! Bytes: connections, bodies and headers. Decides nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use headers::HeaderMapExt as _;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::reply::{Delivery, Reply};
use super::request::Request;
use super::service::{Answered, Service};

const MAX_CONNECTIONS: usize = 4096;
const MAX_BODY: usize = 1 << 20;
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// After `accept` failed, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until stopped; no failure of one connection ends it.
pub(super) async fn serve(listener: TcpListener, service: Arc<Service>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, service.clone());
                service.tasks.spawn_until_stop(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "development authorization server: a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, service: Arc<Service>) {
    // Without it small answers wait for acknowledgements; that it failed only costs time.
    let _slower = stream.set_nodelay(true);
    let exchange = service_fn(move |request| exchange(request, service.clone()));
    let ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), exchange)
        .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "development authorization server: a connection ended early");
    }
}

/// An error ends the connection without an answer.
async fn exchange(request: hyper::Request<Incoming>, service: Arc<Service>) -> io::Result<Response<Payload>> {
    let (head, body) = request.into_parts();
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let Ok(Ok(body)) = collected else {
        return response(&service, Reply::empty(StatusCode::PAYLOAD_TOO_LARGE).with("connection", "close"));
    };
    let header =
        |name| head.headers.get(name).map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()));
    let request = Request {
        content_type: header(CONTENT_TYPE).unwrap_or_default().into_owned(),
        authorization: header(AUTHORIZATION).map(std::borrow::Cow::into_owned),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        method: head.method,
        body: body.to_bytes().to_vec(),
        now: service.now(),
    };
    let Answered { reply, under_way } = service.answer(request).await;
    match reply.delivery {
        Delivery::Whole | Delivery::Truncated => response(&service, reply),
        Delivery::Cut => Err(io::Error::other("ordered by a test")),
        Delivery::Never => {
            // Nothing more will happen here: a client that gives up and asks again has one request under way.
            drop(under_way);
            std::future::pending().await
        }
    }
}

fn response(service: &Service, reply: Reply) -> io::Result<Response<Payload>> {
    let is_cut = reply.delivery == Delivery::Truncated;
    let length = reply.body.len();
    let mut response = Response::new(Payload { data: Some(reply.body.into()), is_cut, is_sent: false });
    *response.status_mut() = reply.status;
    for (name, value) in reply.headers {
        let value = HeaderValue::from_str(&value).map_err(io::Error::other)?;
        response.headers_mut().append(HeaderName::from_static(name), value);
    }
    if is_cut {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length + 1));
    }
    // By the server's clock rather than hyper's: clients reckon `X-Rate-Limit-Reset` from it.
    let seconds = u64::try_from(service.now().wall.secs()).unwrap_or(0);
    response.headers_mut().typed_insert(headers::Date::from(UNIX_EPOCH + Duration::from_secs(seconds)));
    Ok(response)
}

/// A body in one piece that can break off after it.
struct Payload {
    data: Option<Bytes>,
    is_cut: bool,
    /// Whether hyper has had the occasion to send what it holds, which it drops when a body fails at once.
    is_sent: bool,
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if !self.is_cut {
            return Poll::Ready(None);
        }
        if !self.is_sent {
            self.is_sent = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::Error::other("ordered by a test"))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.as_ref().is_none_or(Bytes::is_empty) && !self.is_cut
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_cut {
            SizeHint::default()
        } else {
            SizeHint::with_exact(self.data.as_ref().map_or(0, Bytes::len) as u64)
        }
    }
}
