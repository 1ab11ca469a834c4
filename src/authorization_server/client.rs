//! The client of one real authorization server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::sync::Mutex;
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::authorization_server::client_authentication::ClientAuthentication;
use crate::authorization_server::discovery::{self, Metadata};
use crate::authorization_server::http::{Answer, HttpClient, SendError};
use crate::authorization_server::keys::{Keys, Want};
use crate::authorization_server::{
    AuthorizationServer, Exchange, Expected, Introspection, Refusal, Unverified, answer,
};
use crate::clock::{Clock, Moment, Timestamp};
use crate::jwt::keys::{KeySet, NoKey};
use crate::jwt::{self, Verified, VerifyError};
use crate::metrics::Metrics;
use crate::model::Scope;
use crate::secret::Secret;

/// Between two looks for metadata that could not be had.
const DISCOVERY_COOLDOWN: Duration = Duration::from_secs(1);

/// What it is told.
pub struct Config {
    /// Its name in the configuration, and in metrics.
    pub name: String,
    /// Byte for byte as it names itself.
    pub issuer: String,
    /// For everything but refreshes, which bring their own deadline.
    pub request_timeout: Duration,
}

/// The adapter.
pub struct Client {
    config: Config,
    issuer: Url,
    http: HttpClient,
    authentication: ClientAuthentication,
    keys: Keys,
    // Held while fetching: one look at a time, and whoever waited finds the result.
    metadata: Mutex<Looked>,
    fetching_keys: Mutex<()>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Looked {
    found: Option<Arc<Metadata>>,
    failed: Option<(Moment, String)>,
}

impl Client {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// If the issuer is no URL.
    pub fn new(
        config: Config,
        http: HttpClient,
        authentication: ClientAuthentication,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, url::ParseError> {
        let issuer = Url::parse(&config.issuer)?;
        let (keys, metadata, fetching_keys) = (Keys::default(), Mutex::default(), Mutex::default());
        Ok(Self { config, issuer, http, authentication, keys, metadata, fetching_keys, clock, metrics })
    }

    /// The metadata document, asked for when first needed.
    async fn metadata(&self) -> Result<Arc<Metadata>, String> {
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
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                looked.found = Some(Arc::clone(&metadata));
                Ok(metadata)
            }
            Err(why) => {
                tracing::warn!(authorization_server = self.config.name, %why, "discovery failed");
                looked.failed = Some((now, why.clone()));
                Err(why)
            }
        }
    }

    async fn discover(&self) -> Result<Metadata, String> {
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
    async fn keys_for(&self, want: Want) -> Result<Arc<KeySet>, String> {
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
        let url = self.metadata().await?.jwks_uri.clone();
        let answer = self.get(&url).await.map_err(|error| format!("{url}: {error}"))?;
        if answer.status != StatusCode::OK {
            return Err(format!("{url} answers {}", answer.status));
        }
        let set = KeySet::parse(&answer.body).map_err(|error| format!("{url}: {error}"))?;
        tracing::debug!(authorization_server = self.config.name, usable = set.usable(), "keys fetched");
        self.keys.replace(set, &answer.headers, &self.clock.now());
        Ok(())
    }

    async fn get(&self, url: &Url) -> Result<Answer, SendError> {
        let mut request = Request::new(Full::default());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.http.send(url, request, self.config.request_timeout).await
    }

    async fn post(&self, url: &Url, form: &[(&str, &str)], deadline: Duration) -> Result<Answer, SendError> {
        let authorization = self
            .authentication
            .header()
            .ok_or_else(|| SendError::NotSent("the client secret can't be sent in a header".to_owned()))?;
        // Wiped when the request is dropped.
        let form = Zeroizing::new(Serializer::new(String::new()).extend_pairs(form).finish().into_bytes());
        let mut request = Request::new(Full::new(Bytes::from_owner(form)));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.http.send(url, request, deadline).await
    }

    /// Says what support will ask for, and keeps the gauges; never anything of a body but its error's words.
    fn note(&self, answer: &Answer, refresh_token: &Secret) {
        let name = self.config.name.as_str();
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(remaining) = header("x-rate-limit-remaining").and_then(|text| text.parse().ok()) {
            self.metrics.rate_limit_remaining.with_label_values(&[name]).set(remaining);
        }
        if answer.status != StatusCode::OK {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let text = |member: &str| {
                let text = body.get(member).and_then(serde_json::Value::as_str);
                // Some servers repeat what they were sent.
                text.filter(|text| text.len() <= 500 && !text.contains(refresh_token.expose()))
            };
            tracing::warn!(
                authorization_server = name,
                status = answer.status.as_u16(),
                error = answer::error_code(&answer.body),
                error_id = text("errorId"),
                description = text("error_description"),
                okta_request_id = header("x-okta-request-id"),
                "refused by the authorization server"
            );
        }
    }
}

#[async_trait]
impl AuthorizationServer for Client {
    async fn refresh(&self, refresh_token: &Secret, scope: &Scope, deadline: Duration) -> Exchange {
        let name = self.config.name.as_str();
        // All within the deadline, which the leeway was counted with: finding the endpoint comes out of it too.
        let asked = tokio::time::Instant::now();
        let metadata = match tokio::time::timeout(deadline / 2, self.metadata()).await {
            Ok(Ok(metadata)) => metadata,
            result => {
                self.metrics.authorization_server_up.with_label_values(&[name]).set(0);
                self.metrics.refreshes.with_label_values(&[name, "not_sent"]).inc();
                let why = result.map(Result::err).ok().flatten();
                return Exchange::NotSent(why.unwrap_or_else(|| "discovery took too long".to_owned()));
            }
        };
        let deadline = deadline.saturating_sub(asked.elapsed());
        let scope = scope.to_string();
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
            ("scope", scope.as_str()),
        ];
        let started = self.clock.now();
        let exchange = match self.post(&metadata.token_endpoint, &form, deadline).await {
            Ok(answer) => {
                self.note(&answer, refresh_token);
                answer::sort(&answer)
            }
            Err(SendError::NotSent(why)) => Exchange::NotSent(why),
            Err(SendError::InDoubt(why)) => Exchange::InDoubt(why),
        };
        let took = self.clock.now().since(&started).unwrap_or_default();
        self.metrics.refresh_duration.with_label_values(&[name]).observe(took.as_secs_f64());
        self.metrics.refreshes.with_label_values(&[name, word(&exchange)]).inc();
        let up = matches!(exchange, Exchange::Answered(_) | Exchange::Refused(_));
        self.metrics.authorization_server_up.with_label_values(&[name]).set(i64::from(up));
        exchange
    }

    async fn introspect(&self, refresh_token: &Secret) -> Introspection {
        let metadata = match self.metadata().await {
            Ok(metadata) => metadata,
            Err(why) => return Introspection::Failed(why),
        };
        let Some(endpoint) = &metadata.introspection_endpoint else { return Introspection::NotOffered };
        let form = [("token", refresh_token.expose()), ("token_type_hint", "refresh_token")];
        let answer = match self.post(endpoint, &form, self.config.request_timeout).await {
            Ok(answer) => answer,
            Err(error) => return Introspection::Failed(error.to_string()),
        };
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match (answer.status, body.get("active").and_then(serde_json::Value::as_bool)) {
            (StatusCode::OK, Some(true)) => Introspection::Active,
            (StatusCode::OK, Some(false)) => Introspection::Inactive,
            (status, _) => {
                self.note(&answer, refresh_token);
                Introspection::Failed(format!("introspection answers {status}"))
            }
        }
    }

    async fn verify(
        &self,
        token: &Secret,
        expected: &Expected<'_>,
        now: Timestamp,
    ) -> Result<Verified, Unverified> {
        let expectation = expected.at(&self.config.issuer, self.authentication.client_id());
        let keys = self.keys_for(Want::Usual).await.map_err(Unverified::NoKeys)?;
        let mut result = jwt::verify(token, &keys, &expectation, now);
        if matches!(result, Err(VerifyError::Key(NoKey::Unknown))) {
            let newer = self.keys_for(Want::Unknown).await.map_err(Unverified::NoKeys)?;
            if Arc::ptr_eq(&keys, &newer) {
                // Not asked again, or in vain: a key of theirs may well be newer than what we have.
                return Err(Unverified::NoKeys(
                    "the token's key is not among those that were fetched last".to_owned(),
                ));
            }
            result = jwt::verify(token, &newer, &expectation, now);
        }
        let word = if result.is_ok() { "ok" } else { "invalid" };
        self.metrics.jwt_verifications.with_label_values(&[self.config.name.as_str(), word]).inc();
        result.map_err(Unverified::Invalid)
    }

    fn registration(&self) -> String {
        format!("{} at {}", self.authentication.client_id(), self.config.issuer)
    }

    async fn reload_client_secret(&self) -> bool {
        self.authentication.reload()
    }
}

/// The metric's word for how a refresh ended.
fn word(exchange: &Exchange) -> &'static str {
    match exchange {
        Exchange::Answered(_) => "ok",
        Exchange::NotSent(_) => "not_sent",
        Exchange::InDoubt(_) => "in_doubt",
        Exchange::Refused(Refusal::InvalidGrant) => "invalid_grant",
        Exchange::Refused(Refusal::RateLimited { .. }) => "rate_limited",
        Exchange::Refused(Refusal::Configuration(_)) => "refused",
    }
}
