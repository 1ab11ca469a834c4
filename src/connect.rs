//! The page where users connect: HTML, forms and redirects, without a script.
//!
//! ```text
//! door       meant for this host; a form is from a page of ours, of this very session      (door.rs, visit.rs)
//!   visit    what the browser brought: its session, sealed; what it is given to keep       (session.rs, seal.rs, cookies.rs)
//!     list       the services, and how each stands for whoever is signed in
//!     attempt    to the authorization server and back; the consent itself is `consent`'s
//!     disconnect
//!   failure  every way in which it can go wrong, in words
//! answer     what browsers are told to refuse
//! ```
//!
//! Nothing about users is kept in memory: sessions and consents under way lie in their browsers' cookies, sealed with a key
//! that is derived from the store's. What is kept is which of them are used up, within bounds.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{COOKIE, HeaderValue, SET_COOKIE};
use hyper::http::request::Parts as Head;
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::api::answer::is_head_within;
use crate::api::body;
use crate::audit::Audit;
use crate::clock::Clock;
use crate::consent::Consents;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::model::{GrantId, GrantKey, GrantState, RequestId, RequestIds, Service};
use crate::refresh::Engine;
use crate::server::{Handler, Peer};
use crate::store::Store;
use crate::uses::Uses;

mod answer;
mod assets;
mod attempt;
mod cookies;
mod date;
mod disconnect;
mod door;
mod failure;
mod focus;
mod form;
mod list;
mod pace;
mod page;
mod refused;
/// What browsers keep, sealed.
pub mod seal;
mod session;
mod spent;
/// What the configuration says of it.
pub mod terms;
/// Its listener, with TLS where it has a certificate.
pub mod tls;
mod traces;
mod visit;

use assets::Assets;
use cookies::Jar;
use failure::Trouble;
use focus::{Focus, roles};
use form::Fields;
use pace::{Pace, Paces};
use page::Frame;
use seal::{Keys, Seals};
use spent::Spent;
use terms::Terms;
use traces::Traces;
use visit::{Visit, failure as failure_page, render};

/// A page has three files; behind one address is a whole office.
const REQUESTS: Pace = Pace { every: Duration::from_millis(50), holds: 200 };
const PROCESS_BYTES: usize = 16;
/// Each takes a request to the authorization server.
const CONSENTS: Pace = Pace { every: Duration::from_millis(500), holds: 40 };

/// Five cookies of ours, each as large as a browser takes them, and what a browser says besides.
const LARGEST_HEAD: usize = 32 * 1024;

/// What the page is made of.
pub struct Parts {
    /// On what terms.
    pub terms: Terms,
    /// Makes grants.
    pub consents: Consents,
    /// Ends them.
    pub engine: Engine,
    /// Where they are.
    pub store: Arc<dyn Store>,
    /// Who used them.
    pub uses: Arc<Uses>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where it is recorded what users do.
    pub audit: Audit,
    /// What came of consents.
    pub metrics: Arc<Metrics>,
    /// Finishes what was begun, whether or not a browser waits.
    pub tasks: crate::tasks::Tasks,
}

/// The page.
pub struct Connect {
    terms: ArcSwap<Terms>,
    consents: Consents,
    engine: Engine,
    store: Arc<dyn Store>,
    uses: Arc<Uses>,
    seals: Seals,
    asked: Paces<IpAddr>,
    begun: Paces<IpAddr>,
    /// The states of consents that have come back.
    returned: Spent,
    signed_out: Spent,
    /// What becomes of a consent that another process has begun is not known here.
    process: String,
    traces: Traces,
    assets: Assets,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    ids: RequestIds,
    tasks: crate::tasks::Tasks,
}

impl Connect {
    /// Seals with these.
    #[must_use]
    pub fn new(parts: Parts, keys: Keys) -> Self {
        Self {
            terms: ArcSwap::from_pointee(parts.terms),
            seals: Seals::new(keys),
            asked: Paces::new(REQUESTS),
            begun: Paces::new(CONSENTS),
            returned: Spent::default(),
            signed_out: Spent::default(),
            process: parts.entropy.text(PROCESS_BYTES),
            traces: Traces::new(parts.audit, parts.metrics),
            assets: Assets::new(),
            ids: RequestIds::new(&*parts.entropy),
            consents: parts.consents,
            engine: parts.engine,
            store: parts.store,
            uses: parts.uses,
            clock: parts.clock,
            entropy: parts.entropy,
            tasks: parts.tasks,
        }
    }

    /// From now on so, and sealed with these.
    pub fn replace(&self, terms: Terms, keys: Keys) {
        self.terms.store(terms.into());
        self.seals.replace(keys);
    }

    /// What surrounds a page of nobody's.
    fn bare_frame(&self, title: impl Into<String>, id: &RequestId) -> Frame {
        Frame {
            title: title.into(),
            style: self.assets.style.clone(),
            icon: self.assets.icon.clone(),
            request_id: id.as_str().to_owned(),
            ..Frame::default()
        }
    }

    fn refuse(&self, trouble: Trouble, id: &RequestId) -> Response<Full<Bytes>> {
        let said = trouble.say();
        let answer = failure_page(self.bare_frame(said.title, id), said);
        answer::finish(answer, &self.terms.load(), id)
    }

    async fn respond(
        &self,
        request: &Head,
        body: &mut Incoming,
        peer: &Peer,
        id: &RequestId,
    ) -> Response<Full<Bytes>> {
        let (terms, now) = (self.terms.load_full(), self.clock.now());
        let client = match peer {
            Peer::Network(from) => pace::client(*from, &request.headers, terms.behind_proxy),
            Peer::Local(_) => Ipv4Addr::LOCALHOST.into(),
        };
        let trouble = if !self.asked.take(client, now.boot) {
            Some(Trouble::TooMany)
        } else if !is_head_within(request, LARGEST_HEAD) {
            Some(Trouble::TooLarge)
        } else if !door::is_for(&terms.public_url, request) && !self.assets.has(request.uri.path()) {
            // What is the same for everybody is not kept from the page that says so.
            Some(Trouble::WrongHost)
        } else {
            None
        };
        if let Some(trouble) = trouble {
            let too_large = matches!(trouble, Trouble::TooLarge);
            let mut answer = self.refuse(trouble, id);
            if too_large {
                lighten(&mut answer, request, &terms);
            }
            return answer;
        }
        let mut visit = Visit::new(self, (Arc::clone(&terms), now), id.clone(), client, request);
        let result = route(&mut visit, request, body).await;
        answer::finish(visit.conclude(result), &terms, id)
    }
}

impl Handler for Connect {
    type Memory = ();
    type Body = Full<Bytes>;

    fn too_many(&self, _uid: Option<u32>) -> Option<Response<Full<Bytes>>> {
        Some(self.refuse(Trouble::TooMany, &self.ids.next()))
    }

    async fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        _memory: &Mutex<()>,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let (request, mut body) = request.into_parts();
        let id = self.ids.next();
        // What a user has consented to is kept, whether or not the browser waits.
        let (this, peer, name) = (Arc::clone(self), peer.clone(), id.clone());
        let answering = self.tasks.spawn(async move {
            let mut answer = this.respond(&request, &mut body, &peer, &name).await;
            body::dispose(&mut body, &mut answer).await;
            // The path alone: a query may hold a code.
            let path: String = request.uri.path().chars().take(128).collect();
            let (method, status) = (request.method.as_str(), answer.status().as_u16());
            let id = name.as_str();
            // Whoever floods us does not flood the log.
            if answer.status() == StatusCode::TOO_MANY_REQUESTS || path.starts_with("/assets/") {
                tracing::debug!(id, method, path, status, "a page was asked for");
            } else {
                tracing::info!(id, method, path, status, "a page was asked for");
            }
            answer
        });
        let broken = || self.refuse(Trouble::Broken("a task has died".to_owned()), &id);
        answering.await.unwrap_or_else(|_| broken())
    }
}

/// Who comes with more than is taken may have it from us: the consents under way are given up, or nothing is ever taken again.
fn lighten(answer: &mut Response<Full<Bytes>>, request: &Head, terms: &Terms) {
    let cookies = request.headers.get_all(COOKIE).iter().map(HeaderValue::len).sum::<usize>();
    // Nobody's link does that.
    if cookies < LARGEST_HEAD / 2 {
        return;
    }
    let style = terms.style();
    for name in attempt::cookies(&Jar::of(&request.headers, style), style) {
        answer.headers_mut().extend(style.remove(&name).map(|cookie| (SET_COOKIE, cookie)));
    }
}

async fn route(
    visit: &mut Visit<'_>,
    request: &Head,
    body: &mut Incoming,
) -> Result<Response<Full<Bytes>>, Trouble> {
    let path = request.uri.path();
    let parts: Vec<String> = path.split('/').skip(1).map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let query = request.uri.query().unwrap_or_default();
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    let posts = request.method == Method::POST;
    match parts.as_slice() {
        [""] if reads => list::show(visit, query).await,
        ["connected", service] if reads => connected(visit, service, query).await,
        ["disconnect", service] if reads => {
            let service = known(visit, service)?;
            disconnect::ask(visit, &service).await
        }
        // Not HEAD: a code counts once.
        ["callback", server] if request.method == Method::GET => attempt::finish(visit, server, query).await,
        ["assets", _] if reads => {
            let asset = visit.connect.assets.find(path).ok_or(Trouble::NotFound)?;
            Ok(answer::asset(asset.content_type, asset.text))
        }
        ["connect", service] if posts => {
            let fields = visit.form(request, body).await?;
            let service = known(visit, service)?;
            let focus = Focus::on(Some(&service), &fields, &visit.terms);
            let roles = roles(&service, &fields);
            attempt::begin(visit, &service, Some(roles), focus).await
        }
        ["sign-in", service] if posts => {
            let fields = visit.form(request, body).await?;
            let service = known(visit, service)?;
            let focus = Focus::of(&fields, &visit.terms);
            attempt::begin(visit, &service, None, focus).await
        }
        ["disconnect", service] if posts => {
            visit.form(request, body).await?;
            let service = known(visit, service)?;
            disconnect::end(visit, &service).await
        }
        ["sign-out"] if posts => {
            visit.form(request, body).await?;
            attempt::forget_all(visit);
            visit.end_session();
            Ok(answer::see_other("/"))
        }
        ["" | "assets"] | ["connected" | "assets", _] => Err(Trouble::Method("GET, HEAD")),
        ["callback", _] => Err(Trouble::Method("GET")),
        ["disconnect", _] => Err(Trouble::Method("GET, HEAD, POST")),
        ["connect" | "sign-in", _] | ["sign-out"] => Err(Trouble::Method("POST")),
        _ => Err(Trouble::NotFound),
    }
}

/// Where a browser is sent after it worked, so that loading the page again does no harm.
async fn connected(
    visit: &mut Visit<'_>,
    service: &str,
    query: &str,
) -> Result<Response<Full<Bytes>>, Trouble> {
    let service = known(visit, service)?;
    let focus = Focus::on(Some(&service), &Fields::parse(query.as_bytes()), &visit.terms);
    let grant = match visit.user(&service) {
        Some(user) => {
            let key = GrantKey { service: service.name.clone(), user };
            visit.connect.store.grant(&GrantId::current(key)).await?
        }
        None => None,
    };
    let Some(grant) = grant.filter(|grant| grant.state == GrantState::Active) else {
        return Ok(answer::see_other(&focus.at("/")));
    };
    let page = page::Connected {
        frame: visit.frame("Connected"),
        service: service.name.as_str().to_owned(),
        user: grant.key.user.as_str().to_owned(),
        back: focus.back(Some(service.name.as_str())),
    };
    Ok(render(StatusCode::OK, &page))
}

fn known(visit: &Visit<'_>, service: &str) -> Result<Arc<Service>, Trouble> {
    visit.terms.service(service).cloned().ok_or(Trouble::NotFound)
}

fn decode(part: &str) -> String {
    percent_decode_str(part).decode_utf8().unwrap_or_default().into_owned()
}

/// As one part of a path.
fn encode(part: &str) -> String {
    utf8_percent_encode(part, NON_ALPHANUMERIC).to_string()
}
