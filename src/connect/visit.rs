//! One request of a browser: what it brought, and what it is given to keep.

use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SET_COOKIE};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use crate::api::body;
use crate::clock::Moment;
use crate::connect::Connect;
use crate::connect::answer;
use crate::connect::cookies::Jar;
use crate::connect::door;
use crate::connect::failure::{Said, Trouble};
use crate::connect::form::Fields;
use crate::connect::page::{Failure, Frame};
use crate::connect::session::{LIFE, Session};
use crate::connect::terms::Terms;
use crate::model::{RequestId, Service, UserName};

const SESSION: &str = "session";
const SESSION_ID_BYTES: usize = 16;

/// What is known while one request is dealt with.
pub(super) struct Visit<'a> {
    pub(super) connect: &'a Connect,
    pub(super) terms: Arc<Terms>,
    pub(super) now: Moment,
    pub(super) id: RequestId,
    pub(super) client: IpAddr,
    pub(super) jar: Jar,
    pub(super) session: Session,
    /// Whether the browser has the session as it is.
    has_session: bool,
    cookies: Vec<HeaderValue>,
}

impl<'a> Visit<'a> {
    pub(super) fn new(
        connect: &'a Connect,
        (terms, now): (Arc<Terms>, Moment),
        id: RequestId,
        client: IpAddr,
        request: &Parts,
    ) -> Self {
        let style = terms.style();
        let jar = Jar::of(&request.headers, style);
        let open = |sealed| connect.seals.open::<Session>(SESSION, sealed)?.at(now.wall);
        let known = jar
            .values(style, SESSION)
            .find_map(open)
            .filter(|session| !connect.signed_out.is_spent(session.family()));
        let has_session = known.is_some();
        let session = known.unwrap_or_else(|| Session::new(connect.entropy.text(SESSION_ID_BYTES), now.wall));
        Self { connect, terms, now, id, client, jar, session, has_session, cookies: Vec::new() }
    }

    /// Who is signed in, as far as this service is concerned.
    pub(super) fn user(&self, service: &Service) -> Option<UserName> {
        self.session.user(self.terms.realm(service)?, service.named_by())
    }

    /// A form that a page of this very session has sent.
    pub(super) async fn form(&self, request: &Parts, body: &mut Incoming) -> Result<Fields, Trouble> {
        if !door::is_from(&self.terms.origin(), &request.headers) {
            return Err(Trouble::StrangeForm);
        }
        let kind = request.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/x-www-form-urlencoded") {
            return Err(Trouble::BadForm);
        }
        let read = body::read(body).await;
        let read = read.map_err(|problem| match problem.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Trouble::TooLarge,
            _ => Trouble::BadForm,
        })?;
        let fields = Fields::parse(&read);
        let token = fields.one("csrf").unwrap_or_default();
        if self.has_session && self.connect.seals.is_form_token(self.session.id(), token) {
            Ok(fields)
        } else {
            Err(Trouble::StrangeForm)
        }
    }

    /// What surrounds a page; the browser has a session from then on, without which no form counts.
    pub(super) fn frame(&mut self, title: impl Into<String>) -> Frame {
        self.keep_session();
        Frame {
            form_token: self.connect.seals.form_token(self.session.id()),
            names: self.session.names().into_iter().map(str::to_owned).collect(),
            ..self.connect.bare_frame(title, &self.id)
        }
    }

    /// To be called with what has become of the session.
    pub(super) fn session_has_changed(&mut self) {
        self.has_session = false;
    }

    pub(super) fn new_session_id(&self) -> String {
        self.connect.entropy.text(SESSION_ID_BYTES)
    }

    fn keep_session(&mut self) {
        if self.has_session {
            return;
        }
        self.has_session = true;
        loop {
            if let Some(sealed) = self.connect.seals.seal(SESSION, &self.session) {
                self.set_cookie(SESSION, &sealed, LIFE);
                return;
            }
            // Too large for a browser.
            if !self.session.forget_oldest() {
                return;
            }
        }
    }

    pub(super) fn set_cookie(&mut self, name: &str, value: &str, life: std::time::Duration) {
        self.cookies.extend(self.terms.style().set(name, value, life));
    }

    pub(super) fn remove_cookie(&mut self, name: &str) {
        self.cookies.extend(self.terms.style().remove(name));
    }

    /// Everything that was to change is forgotten with the session.
    pub(super) fn end_session(&mut self) {
        // Nobody needs to be signed out of a session that nobody has signed in to.
        if !self.session.is_anonymous() {
            // None of the family's cookies was given later than now.
            let until = self.now.wall.plus(LIFE);
            let signed_out = &self.connect.signed_out;
            if signed_out.spend_anyway(self.session.family(), until, self.now.wall) {
                tracing::warn!(
                    "so many have signed out that the first of them are forgotten: a copy of their cookies counts again \
                     until its end"
                );
            }
        }
        self.remove_cookie(SESSION);
        self.session = Session::new(self.new_session_id(), self.now.wall);
        // Nobody is given a new one together with the end of the old one.
        self.has_session = true;
    }

    /// The answer, with what the browser is to keep.
    pub(super) fn conclude(
        mut self,
        result: Result<Response<Full<Bytes>>, Trouble>,
    ) -> Response<Full<Bytes>> {
        let mut answer = result.unwrap_or_else(|trouble| {
            let allowed = if let Trouble::Method(allowed) = trouble { Some(allowed) } else { None };
            if let Some(cause) = trouble.cause() {
                tracing::error!(id = self.id.as_str(), cause, "failed");
            }
            let said = trouble.say();
            // Nobody is given a session for having missed a page: it might take the place of another.
            let frame = if self.has_session || said.again.is_some() {
                self.frame(said.title)
            } else {
                self.connect.bare_frame(said.title, &self.id)
            };
            let mut answer = failure(frame, said);
            if let Some(allowed) = allowed {
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            }
            answer
        });
        if answer.status().is_redirection() {
            self.keep_session();
        }
        for cookie in self.cookies {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
        answer
    }
}

/// A page of trouble.
pub(super) fn failure(frame: Frame, said: Said) -> Response<Full<Bytes>> {
    let Said { status, what, advice, detail, again, retry_after, .. } = said;
    let mut answer = render(status, &Failure { frame, what, advice, detail, again });
    if let Some(wait) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    answer
}

pub(super) fn render(status: StatusCode, page: &impl Template) -> Response<Full<Bytes>> {
    match page.render() {
        Ok(text) => answer::html(status, text),
        Err(error) => {
            // A template that is compiled in fails at most where its fields do.
            tracing::error!(%error, "a page could not be written");
            answer::html(StatusCode::INTERNAL_SERVER_ERROR, String::new())
        }
    }
}
