//! The documents that a server publishes about itself: its metadata and its keys.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{Request, StatusCode};
use url::Url;

use crate::authorization_server::client::Client;
use crate::authorization_server::discovery::{self, Endpoints};
use crate::authorization_server::http::{Answer, SendError};
use crate::authorization_server::keys::Want;
use crate::clock::Moment;
use crate::jwt::keys::KeySet;

/// Between two looks for metadata that could not be had.
const DISCOVERY_COOLDOWN: Duration = Duration::from_secs(1);

/// The metadata, as far as it has been looked for.
#[derive(Default)]
pub(super) struct Looked {
    found: Option<Arc<Endpoints>>,
    failed: Option<(Moment, String)>,
}

impl Client {
    /// Where the server is asked: as configured, else by its metadata document, asked for when first needed.
    pub(super) async fn endpoints(&self) -> Result<Arc<Endpoints>, String> {
        if let Some(configured) = &self.config.endpoints {
            return Ok(Arc::clone(configured));
        }
        let mut looked = self.metadata.lock().await;
        if let Some(found) = &looked.found {
            return Ok(Arc::clone(found));
        }
        let now = self.clock.now();
        if let Some((at, why)) = &looked.failed
            && now.since(at).is_some_and(|age| age < DISCOVERY_COOLDOWN)
        {
            return Err(why.clone());
        }
        match self.discover().await {
            Ok(endpoints) => {
                let endpoints = Arc::new(endpoints);
                looked.found = Some(Arc::clone(&endpoints));
                Ok(endpoints)
            }
            Err(why) => {
                tracing::warn!(authorization_server = self.config.name, %why, "discovery failed");
                looked.failed = Some((now, why.clone()));
                Err(why)
            }
        }
    }

    async fn discover(&self) -> Result<Endpoints, String> {
        let mut why = String::new();
        for url in discovery::locations(&self.issuer) {
            match self.get(&url).await {
                Ok(answer) if answer.status == StatusCode::OK => {
                    return discovery::parse(&self.config.issuer, &answer.body);
                }
                Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
                    why = format!("{url} does not exist: is the authorization server's id right?");
                }
                Ok(answer) => return Err(format!("{url} answers {}", answer.status)),
                Err(error) => return Err(format!("{url}: {error}")),
            }
        }
        Err(why)
    }

    /// The set in use; fetches a newer one first if there is a reason to.
    pub(super) async fn keys_for(&self, want: Want) -> Result<Arc<KeySet>, String> {
        let mut why = "not fetched yet".to_owned();
        if self.keys.wants_fetch(want, &self.clock.now()) {
            // Known keys stay usable while somebody fetches; who has nothing to go by waits for that, and looks again.
            let known = want == Want::Usual && self.keys.current().is_some();
            let turn = if known {
                self.fetching_keys.try_lock().ok()
            } else {
                Some(self.fetching_keys.lock().await)
            };
            if turn.is_some() && self.keys.wants_fetch(want, &self.clock.now()) {
                let result = self.fetch_keys().await;
                self.keys.fetched(want, &self.clock.now());
                let word = if result.is_ok() { "ok" } else { "failed" };
                self.metrics.jwks_fetches.with_label_values(&[self.config.name.as_str(), word]).inc();
                if let Err(error) = result {
                    tracing::warn!(authorization_server = self.config.name, why = %error, "keys not fetched");
                    why = error;
                }
            }
        }
        self.keys.current().ok_or(why)
    }

    async fn fetch_keys(&self) -> Result<(), String> {
        let url =
            self.endpoints().await?.jwks_uri.clone().ok_or("the server publishes no keys (jwks_uri)")?;
        let answer = self.get(&url).await.map_err(|error| format!("{url}: {error}"))?;
        if answer.status != StatusCode::OK {
            return Err(format!("{url} answers {}", answer.status));
        }
        let set = KeySet::parse(&answer.body, &self.config.algorithms)
            .map_err(|error| format!("{url}: {error}"))?;
        tracing::debug!(authorization_server = self.config.name, usable = set.usable(), "keys fetched");
        self.keys.replace(set, &answer.headers, &self.clock.now());
        Ok(())
    }

    async fn get(&self, url: &Url) -> Result<Answer, SendError> {
        let mut request = Request::new(Full::default());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.http.send(url, request, self.config.request_timeout).await
    }
}
