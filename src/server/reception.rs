//! Lets clients in, or sends them away: the more of them are sent away, the less is done for each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, Full};
use hyper::Response;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::server::places::Places;
use crate::server::seats::{Seats, Who};
use crate::server::{Guest, Handler, Limits, converse};
use crate::tasks::Tasks;

/// Clients who are being told at the same time that they are too many, and how long that may take each way.
const MOST_TURNED_AWAY: usize = 256;
const MOST_TURNED_AWAY_PER_UID: usize = 32;
const TURNED_AWAY: Duration = Duration::from_millis(500);

/// Who lets clients in, or sends them away.
pub(super) struct Reception<H: Handler> {
    handler: Arc<H>,
    limits: Limits,
    seats: Seats,
    turning_away: Arc<Semaphore>,
    turned_away: Places,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

impl<H: Handler> Reception<H> {
    pub(super) fn new(
        name: &'static str,
        handler: Arc<H>,
        limits: Limits,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            seats: Seats::new(limits, name, &metrics),
            turning_away: Arc::new(Semaphore::new(MOST_TURNED_AWAY)),
            turned_away: Places::default(),
            handler,
            limits,
            tasks,
            metrics,
        }
    }

    /// Serves one who has come, or does not.
    pub(super) fn receive<G: Guest + 'static>(&self, guest: G) {
        let (handler, uid) = (&self.handler, guest.uid());
        let who = match (uid, guest.network()) {
            (Some(uid), _) => Who::Uid(uid),
            (None, Some(network)) => Who::Network(network),
            (None, None) => Who::Anybody,
        };
        let seat = self.seats.take(who);
        let seat = seat.and_then(|seat| handler.admits(uid).then_some(seat).ok_or("requests_per_second"));
        match seat {
            Ok(seat) => {
                let Ok((stream, peer)) = guest.enter() else { return };
                let (handler, limits) = (Arc::clone(handler), self.limits);
                let (tasks, metrics) = (self.tasks.clone(), Arc::clone(&self.metrics));
                self.tasks.spawn(async move {
                    if let Some(reason) = converse(stream, peer, handler, limits, tasks).await {
                        metrics.requests_refused.with_label_values(&[reason]).inc();
                    }
                    drop(seat);
                });
            }
            Err(reason) => {
                self.metrics.requests_refused.with_label_values(&[reason]).inc();
                self.refuse(guest);
            }
        }
    }

    /// Says so to one who is one too many, unless there are too many of those.
    fn refuse<G: Guest + 'static>(&self, guest: G) {
        let uid = guest.uid();
        let place = self.turned_away.take(uid.unwrap_or_default(), MOST_TURNED_AWAY_PER_UID);
        let Some(place) = place else { return };
        let Ok(room) = Arc::clone(&self.turning_away).try_acquire_owned() else { return };
        let Some(answer) = self.handler.too_many(uid) else { return };
        let Ok(stream) = guest.leave() else { return };
        self.tasks.spawn(async move {
            turn_away(stream, answer).await;
            drop((room, place));
        });
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
