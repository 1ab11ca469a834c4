//! The development authorization server: a strict imitation of Okta's custom authorization servers, in memory.
//!
//! For `bursar dev`, tests and benches, never for production. Two authorization servers share one listener, since Okta
//! gives each one audience: [`DevServer::SNOWFLAKE`] and [`DevServer::DATABRICKS`]. Where Okta's documents leave
//! something open, it does what is hardest on a client.
//!
//! Users `alice@example.com`, `bob@example.com` and `carol@example.com` may use the one client; `mallory@example.com`
//! is known and not assigned to it. Every password is `password`. The client authenticates by `client_secret_basic` or
//! `client_secret_post`; redirect URIs are `http://127.0.0.1:*/callback/*` and those added by control. Refresh tokens,
//! codes and the client secret contain the word `sentinel`, so that a search for it finds where one has leaked to.
//!
//! # Control
//!
//! JSON calls below [`DevServer::control`]. What is not known is refused with 400 and an `error` that names what is.
//!
//! `POST /control/faults` takes an object or an array of objects, in order. An object says what to `do`:
//!
//! - To the `next` (default 1) requests at an `endpoint` (`token`; or `keys`, `introspect`, `revoke`, `discovery`,
//!   `authorize`, `device`, `activate`), if wanted only of a `grant_type` or a `server`:
//!   - without acting on them: `status` (`status`, `body`, `content_type`), `hang`, `cut_before` (the connection ends),
//!     `error` (`error`, `error_description`, `status`), `rate_limit` (429; `seconds` until the reset);
//!   - acting on them: `delay` (`seconds` before that; the request is acted upon even if the client has left),
//!     `cut_after`, `hang_after`, `garbage` (200 and JSON without its end), `truncated` (the body is shorter than its
//!     `Content-Length`), `proxy_page` (200 and HTML), `status` with `"acts": true`.
//! - To the answers of the next token requests, all else being as it should, rotation included: the access token is
//!   `wrong_issuer` (also for `discovery`), `wrong_audience`, `wrong_subject` (`user`, by default bob; in the ID token
//!   too), `wrong_client`, `wrong_scope`, `alg_none`, `hs256_public_key`, `wrong_key`, `unknown_kid`, `no_kid`, `crit`,
//!   `expired`, `not_yet_valid`, `no_exp`, `id_token`, `jwe`, `opaque`, `weak_key`; or the answer is `dpop`,
//!   `string_expires_in`, `no_refresh_token` or `same_refresh_token` (in these two nothing rotates), `less_scope` (PUBLIC
//!   is not granted), `no_id_token`; or the ID token is an `other_id_token` (another user's), `wrong_nonce`,
//!   `old_sign_in` (a day ago) or `weak_sign_in` (no `acr`).
//! - At once: `rotate_keys` (`server`), `revoke_user`, `deactivate_user`, `unassign_user`, `assign_user` (`user`;
//!   activates too), `clear` (forgets the faults that are left).
//!
//! `GET` and `POST /control/settings`: `rotation` (`rotating`, `persistent`), `leeway` (0 to 60), `token_lifetime`,
//! `refresh_token_lifetime` (or null; for logins from then on), `idle_window`, `keys_max_age`, `device_interval` (all in
//! seconds), `requests_per_minute` (per endpoint), `requests_per_second_per_user`, `grant_types`. Added to what is
//! there: `redirect_uris`, `scopes` (by server), `users`, `client_secret_add`.
//!
//! `POST /control/consents` (`user`, `server`, `scopes`) gives a `refresh_token`, as [`DevServer::consent`] does.
//! `GET /control/stats` counts, without tokens; requests count even if a fault answers them. `presented_twice` is the
//! number of refresh tokens that, while tokens rotate, were rotated or refused and came again. `POST
//! /control/reset-stats` begins anew. `GET /control/issued` lists every token handed out. `GET /control` describes all
//! this.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::secret::Secret;
use crate::tasks::Tasks;

use keys::Need;
use service::Service;
use settings::Settings;
use state::{CLIENT_ID, State};

mod access;
mod authorization_code;
mod authorize;
mod client_authentication;
mod control;
mod device;
mod device_authorization;
mod endpoints;
mod family;
mod fault;
mod forgery;
mod form;
mod http;
mod interference;
mod introspection;
mod jwt;
mod key_making;
mod keys;
mod members;
mod metadata;
mod object;
mod pages;
mod rate_limit;
mod refusal;
mod reply;
mod request;
mod revocation;
mod route;
mod rsa;
mod scopes;
mod service;
mod settings;
mod state;
mod stats;
mod token_endpoint;
mod users;
mod weak_key;

pub use key_making::KeyStock;

/// How the server begins; most of it can be changed by control later.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Of access tokens; whole seconds.
    pub token_lifetime: Duration,
    /// Whether a refresh gives a new refresh token.
    pub rotation: Rotation,
    /// How long a refresh token that was rotated away is still good.
    pub leeway: Duration,
    /// Where its keys come from; keys of its own by default.
    pub keys: KeyStock,
}

/// Okta's two kinds of refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Each refresh retires the token and gives a new one.
    Rotating,
    /// A refresh gives the same token again: Okta's default for web applications.
    Persistent,
}

/// A running server; a handle that is cheap to clone. It ends with the tasks that it was started in.
#[derive(Clone)]
pub struct DevServer {
    address: SocketAddr,
    origin: String,
    client_secret: Secret,
    service: Arc<Service>,
}

impl DevServer {
    /// The id of the authorization server for `https://dev.snowflakecomputing.com`.
    pub const SNOWFLAKE: &str = "ausdevsnowflake";
    /// The id of the authorization server for `databricks`.
    pub const DATABRICKS: &str = "ausdevdatabricks";

    /// Binds and serves; returns once it listens. Keys are made beside it, or when they are first needed.
    ///
    /// # Errors
    /// If the address can't be bound.
    pub async fn start(
        options: Options,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        tasks: &Tasks,
    ) -> io::Result<DevServer> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let mut named = address;
        if address.ip().is_unspecified() {
            named.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let origin = format!("http://{named}");
        let client_secret = Secret::new(format!("sentinel-{}", entropy.text(30)));
        let settings = Settings::new(options.rotation, options.leeway, options.token_lifetime);
        let state = State::new(entropy, origin.clone(), settings, client_secret.clone());
        let service = Arc::new(Service::new(clock, tasks.clone(), state, options.keys));
        tasks.spawn_until_stop(http::serve(listener, service.clone()));
        let ahead = service.clone();
        tasks.spawn_until_stop(async move {
            // Only to be quick when the first request comes: that one makes what is missing, and tells of failures.
            let _made_later = ahead.make_keys(Self::SNOWFLAKE, Need::Active).await;
        });
        Ok(Self { address, origin, client_secret, service })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The issuer of one authorization server, by its id.
    #[must_use]
    pub fn issuer(&self, server: &str) -> String {
        format!("{}/oauth2/{server}", self.origin)
    }

    /// The control URL, without a slash at its end.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}/control", self.origin)
    }

    /// The one client, of both authorization servers.
    #[must_use]
    pub fn client_id(&self) -> &str {
        CLIENT_ID
    }

    /// The client's first secret; control can add more.
    #[must_use]
    pub fn client_secret(&self) -> &Secret {
        &self.client_secret
    }

    /// The refresh token that a completed code flow would have given. `None` if it would have given none: an unknown
    /// server, user or scope, a user who is not assigned to the client, or no `offline_access` among the scopes.
    #[must_use]
    pub fn consent(&self, server: &str, user: &str, scopes: &[&str]) -> Option<Secret> {
        let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let now = self.service.now();
        self.service.lock().consent(server, user, &scopes, now).ok()
    }
}
