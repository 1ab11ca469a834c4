//! `GET /v1/token/events`: the token now and after each refresh, `login_required` when there is none any more, and a comment
//! every 15 seconds. Nothing piles up for who reads slowly: what is missed is missed, and the newest token comes next.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::api::error::Problem;
use crate::api::query::Query;
use crate::api::{Api, Terms, audited, token};
use crate::broker::{Held, Wanted};
use crate::caller::Caller;
use crate::model::{Failure, RequestId};
use crate::policy::{Denied, Permit, Shown, TokenRequest};
use crate::runs::{self, Bearer};

pub(super) const PATH: &str = "/v1/token/events";
const BEAT: Duration = Duration::from_secs(15);
const COMMENT: Bytes = Bytes::from_static(b":\n\n");
/// How long an event waits for its reader to have taken the one before.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a stream's answer consists of: whatever its task has to say.
pub struct Events(mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

pub(super) async fn open(
    api: &Arc<Api>,
    caller: &Caller,
    request: &Parts,
    id: &RequestId,
) -> Result<Response<Events>, Problem> {
    let query = Query::parse(request.uri.query(), &["service", "user", "role"])?;
    let asked = token::asked(&query)?;
    let terms = api.terms.load_full();
    let bearer = runs::bearer(&request.headers);
    token::permit_by_rule(api, &terms, caller, &asked, &bearer)?;
    let shown = api.shown(&terms, caller, &bearer).await;
    let permit = token::permit(api, &terms, caller, asked.clone(), &shown)?;
    let place = api.load.streams.take(caller.uid(), terms.event_streams).ok_or_else(|| {
        api.metrics.requests_refused.with_label_values(&["event_streams"]).inc();
        Problem::too_many_requests("too many event streams")
    })?;
    // One event on its way: who does not take it gets no further ones.
    let (events, receiver) = mpsc::channel(1);
    let (api, caller) = (Arc::clone(api), caller.clone());
    let stream = Stream { api, caller, asked, bearer, id: id.clone(), events };
    let tasks = stream.api.tasks.clone();
    tasks.clone().spawn(async move {
        tokio::select! {
            () = stream.run(permit, terms, shown) => {}
            () = tasks.stopping() => {}
        }
        drop(place);
    });
    let mut answer = Response::new(Events(receiver));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Ok(answer)
}

/// One stream at work.
struct Stream {
    api: Arc<Api>,
    caller: Caller,
    asked: TokenRequest,
    bearer: Bearer,
    id: RequestId,
    events: mpsc::Sender<Bytes>,
}

/// What was said last, so that nothing is said twice.
#[derive(PartialEq)]
enum Said {
    Nothing,
    Token(i64),
    LoginRequired(Failure),
}

impl Stream {
    async fn run(&self, permit: Permit, mut terms: Arc<Terms>, mut shown: Shown) {
        let (broker, key) = (&self.api.broker, permit.key());
        // Before the first look, so that nothing happens in between.
        let (mut changes, mut runs) = (broker.changes(key), self.api.ended.changes());
        let mut news_of_terms = self.api.news.subscribe();
        let (mut said, mut look) = (Said::Nothing, true);
        let mut beat = tokio::time::interval_at(Instant::now() + BEAT, BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let others = !Arc::ptr_eq(&terms, &self.api.terms.load());
            // A pass is judged anew each time: its key may have been taken out.
            if others || !matches!(self.bearer, Ok(None)) {
                terms = self.api.terms.load_full();
                let judged = self.api.shown(&terms, &self.caller, &self.bearer).await;
                match terms.policy.permit(&self.caller, self.asked.clone(), &judged) {
                    Ok(_) => shown = judged,
                    // What was believed holds while nobody can tell.
                    Err(Denied::PassUnknown) if terms.passes.still_shown(&shown).is_ok() => {}
                    Err(_) => return,
                }
            }
            if look {
                let wanted = Wanted::default();
                // Streams are counted themselves.
                let room = || Some(());
                let mut vend = std::pin::pin!(broker.vend(&permit, &wanted, terms.request_timeout, room));
                let vended = loop {
                    tokio::select! {
                        vended = vend.as_mut() => break vended,
                        _ = beat.tick() => if !self.send(COMMENT).await { return },
                    }
                };
                let is_recorded = match &vended {
                    Ok((held, _)) if said != Said::Token(held.token.version) => {
                        self.record(&permit, held, &terms).await
                    }
                    Ok(_) | Err(_) => true,
                };
                if !Arc::ptr_eq(&terms, &self.api.terms.load()) {
                    // Another configuration has come meanwhile: first whether it still allows this.
                    continue;
                }
                if runs.has_changed().unwrap_or(false) {
                    runs.mark_unchanged();
                    continue;
                }
                let event = match vended {
                    // Not handed out without its line; looked at again with the next beat.
                    Ok(_) if !is_recorded => (Said::Nothing, Bytes::new()),
                    Ok((held, now)) => {
                        look = false;
                        broker.note_use(&permit, &held.token, &self.caller, &now);
                        let news = Said::Token(held.token.version);
                        (news, event("token", &held.token.json(&now)))
                    }
                    Err(failure @ Failure::LoginRequired { .. }) => {
                        look = false;
                        let problem = terms.problem(failure.clone(), key).json(&self.id);
                        (Said::LoginRequired(failure), event("login_required", problem.as_bytes()))
                    }
                    // Nothing to be said yet; looked at again with the next beat.
                    Err(_) => (Said::Nothing, Bytes::new()),
                };
                if event.0 != Said::Nothing && event.0 != said {
                    if !self.send(event.1).await {
                        return;
                    }
                    said = event.0;
                }
            }
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    look = true;
                }
                _ = beat.tick() => {
                    // Who listens uses the token. Where there is none to be had, only a change is worth a look.
                    look |= !broker.touch(&permit, &self.caller) && !matches!(said, Said::LoginRequired(_));
                    if !self.send(COMMENT).await {
                        return;
                    }
                }
                _ended = runs.changed() => {}
                _others = news_of_terms.changed() => {}
                () = self.events.closed() => return,
            }
        }
    }

    /// Whether the token may be sent as far as the audit log is concerned.
    async fn record(&self, permit: &Permit, held: &Held, terms: &Terms) -> bool {
        if !self.api.audit.is_on() {
            return true;
        }
        let endings = self.api.broker.endings();
        let vend = audited::vend(&self.caller, &self.id, permit, held);
        let written = self.api.audit.vend(vend, terms.request_timeout).await.is_ok();
        // It may have ended while its line was waited for.
        written && (!self.api.audit.waits() || self.api.broker.still_has(permit.key(), endings))
    }

    /// Whether the reader took it.
    async fn send(&self, event: Bytes) -> bool {
        let sent = tokio::time::timeout(PATIENCE, self.events.send(event)).await;
        if sent.is_err() {
            self.api.metrics.requests_refused.with_label_values(&["slow_reader"]).inc();
        }
        matches!(sent, Ok(Ok(())))
    }
}

/// JSON has no line breaks of its own.
fn event(name: &str, json: &[u8]) -> Bytes {
    [b"event: ", name.as_bytes(), b"\ndata: ", json, b"\n\n"].concat().into()
}
