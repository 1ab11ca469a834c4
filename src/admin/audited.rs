//! What the admin socket records: everything that is not only looking, whatever came of it.

use hyper::Method;
use hyper::http::request::Parts;

use crate::admin::decode;
use crate::api::error::Problem;
use crate::audit::{Event, Kind};
use crate::caller::Caller;
use crate::consent::{Connected, Refused};
use crate::model::{RequestId, ServiceName, UserName};

/// Who asked, and what is found out about a consent on the way: a path names none of it.
#[derive(Clone)]
pub(super) struct Errand {
    pub(super) caller: Caller,
    pub(super) id: RequestId,
    pub(super) service: Option<ServiceName>,
    pub(super) user: Option<UserName>,
    /// How the user was asked.
    pub(super) way: Option<&'static str>,
    /// What came of it.
    pub(super) word: Option<&'static str>,
}

impl Errand {
    pub(super) fn new(caller: Caller, id: RequestId) -> Self {
        Self { caller, id, service: None, user: None, way: None, word: None }
    }

    pub(super) fn note(&mut self, connected: &Result<Connected, Refused>) {
        self.word = Some(connected.as_ref().map_or_else(Refused::word, |_| "ok"));
        self.user = match connected {
            Ok(connected) => Some(connected.identity.name.clone()),
            Err(Refused::OtherUser { came, .. }) => Some(came.clone()),
            Err(_) => None,
        };
    }

    pub(super) fn refused(&mut self, refused: Refused) -> Problem {
        self.word = Some(refused.word());
        refused.into()
    }

    /// `event`, with all that is known.
    pub(super) fn onto(&self, event: Event) -> Event {
        let event = event.by(&self.caller, &self.id).naming(self.service.clone(), self.user.clone());
        match self.way {
            Some(way) => event.detail(way),
            None => event,
        }
    }
}

/// What an administrator asked for, and how it ended; nothing if it was only to look.
pub(super) fn event<T>(errand: &Errand, request: &Parts, result: &Result<T, Problem>) -> Option<Event> {
    if matches!(request.method, Method::GET | Method::HEAD) {
        return None;
    }
    let Errand { caller, id, .. } = errand;
    let word = result.as_ref().map_or_else(Problem::error, |_| "ok");
    let new = |kind| Event::new(kind, word).by(caller, id);
    let service = |part: &str| ServiceName::parse(&decode(part));
    let user = |part: &str| UserName::parse(&decode(part));
    let parts: Vec<&str> = request.uri.path().split('/').skip(1).collect();
    Some(match (&request.method, parts.as_slice()) {
        (&Method::PUT, ["v1", "grants", of, whose]) => new(Kind::Connect).naming(service(of), user(whose)),
        (&Method::DELETE, ["v1", "grants", of, whose]) => new(Kind::Revoke).naming(service(of), user(whose)),
        (&Method::POST, ["v1", "grants", of, whose, what @ ("refresh" | "check")]) => {
            new(Kind::Admin).naming(service(of), user(whose)).detail(*what)
        }
        (&Method::POST, ["v1", "authorizations", _] | ["v1", "password-grants"]) => {
            errand.onto(Event::new(Kind::Connect, errand.word.unwrap_or(word)))
        }
        // What comes of it is recorded when it has.
        (&Method::POST, ["v1", what @ ("authorizations" | "device-authorizations")]) => {
            let begun = Event::new(Kind::Admin, errand.word.unwrap_or(word));
            errand.onto(begun).detail(format!("POST /v1/{what}"))
        }
        (&Method::DELETE, ["v1", "users", whose]) => {
            new(Kind::Admin).naming(None, user(whose)).detail("erase")
        }
        (&Method::DELETE, ["v1", "runs", run]) => new(Kind::RunEnd).in_run(Some(decode(run))),
        // The same word as for a signal.
        (&Method::POST, ["v1", "reload"]) => {
            Event::new(Kind::Reload, if result.is_ok() { "ok" } else { "refused" }).by(caller, id)
        }
        (&Method::POST, ["v1", "keys", "rotate"]) => new(Kind::KeyRotation),
        // Whatever else there is, and what there is not. Only words: something secret may stand in the wrong place.
        (method, ["v1", what, ..]) if is_word(what) => {
            new(Kind::Admin).detail(format!("{method} /v1/{what}"))
        }
        (method, _) => new(Kind::Admin).detail(method.as_str()),
    })
}

fn is_word(part: &str) -> bool {
    part.len() <= 32 && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}
