//! The client of one real authorization server.

use std::sync::{Arc, PoisonError};
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
use crate::authorization_server::consent::{Authorization, DeviceAuthorization, NotAsked, Redeemed};
use crate::authorization_server::discovery::Endpoints;
use crate::authorization_server::http::{Answer, HttpClient, SendError};
use crate::authorization_server::issuer::Issuer;
use crate::authorization_server::keys::{Keys, Want};
use crate::authorization_server::{
    AuthorizationServer, Exchange, Expected, Introduced, Introspection, RateLimit, Refusal, Reply,
    Revocation, Unverified, answer, registration,
};
use crate::clock::{Clock, Timestamp};
use crate::entropy::Entropy;
use crate::jwt::keys::{KeySet, NoKey};
use crate::jwt::{self, Claims, Identified, SigningAlgorithm, Verified, VerifyError};
use crate::metrics::Metrics;
use crate::model::Scope;
use crate::secret::Secret;

mod consents;
mod documents;

use documents::Looked;

/// What it is told.
pub struct Config {
    /// Its name in the configuration, and in metrics.
    pub name: String,
    /// Byte for byte as it names itself.
    pub issuer: String,
    /// Where it is asked, if not where its metadata document says.
    pub endpoints: Option<Arc<Endpoints>>,
    /// What its tokens may be signed with.
    pub algorithms: Vec<SigningAlgorithm>,
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
    rate_limit: std::sync::Mutex<Option<RateLimit>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
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
        entropy: Arc<dyn Entropy>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, url::ParseError> {
        let issuer = Url::parse(&config.issuer)?;
        let (keys, metadata, fetching_keys) = (Keys::default(), Mutex::default(), Mutex::default());
        Ok(Self {
            config,
            issuer,
            http,
            authentication,
            keys,
            metadata,
            fetching_keys,
            rate_limit: std::sync::Mutex::default(),
            clock,
            entropy,
            metrics,
        })
    }

    async fn post(&self, url: &Url, form: &[(&str, &str)], deadline: Duration) -> Result<Answer, SendError> {
        let proof =
            self.authentication.prove(url, self.clock.now().wall, &*self.entropy).ok_or_else(|| {
                SendError::NotSent("the client's secret or key can't be used to prove who we are".to_owned())
            })?;
        let parameters = proof.parameters.iter().map(|(name, value)| (*name, value.expose()));
        // Wiped when the request is dropped.
        let body = Serializer::new(String::new()).extend_pairs(form).extend_pairs(parameters).finish();
        let body = Zeroizing::new(body.into_bytes());
        let mut request = Request::new(Full::new(Bytes::from_owner(body)));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        if let Some(authorization) = proof.authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.http.send(url, request, deadline).await
    }

    /// For requests that do no harm when they come twice: if the client is refused, its secret or key may have been changed.
    async fn post_again_if_refused(
        &self,
        url: &Url,
        form: &[(&str, &str)],
        deadline: Duration,
    ) -> Result<Answer, SendError> {
        let answer = self.post(url, form, deadline).await?;
        let refused = answer.status.is_client_error()
            && answer::error_code(&answer.body).is_some_and(|error| error == "invalid_client");
        if refused && self.authentication.reload() {
            tracing::info!(authorization_server = self.config.name, "the client's secret or key has changed");
            return self.post(url, form, deadline).await;
        }
        Ok(answer)
    }

    /// A refresh, or what is like one, and what the metrics say of it.
    async fn refreshed(&self, form: &[(&str, &str)], secret: Option<&Secret>, deadline: Duration) -> Reply {
        let started = self.clock.now();
        let reply = self.ask_for_tokens(form, secret, deadline).await;
        let (name, took) = (self.config.name.as_str(), self.clock.now().since(&started).unwrap_or_default());
        self.metrics.refresh_duration.with_label_values(&[name]).observe(took.as_secs_f64());
        self.metrics.refreshes.with_label_values(&[name, word(&reply.exchange)]).inc();
        reply
    }

    /// One request to the token endpoint. `secret` is what must not be repeated in the log.
    async fn ask_for_tokens(
        &self,
        form: &[(&str, &str)],
        secret: Option<&Secret>,
        deadline: Duration,
    ) -> Reply {
        let name = self.config.name.as_str();
        // All within the deadline, which the leeway was counted with: finding the endpoint comes out of it too.
        let asked = tokio::time::Instant::now();
        let endpoints = match tokio::time::timeout(deadline / 2, self.endpoints()).await {
            Ok(Ok(endpoints)) => endpoints,
            result => {
                self.metrics.authorization_server_up.with_label_values(&[name]).set(0);
                let why = result.map(Result::err).ok().flatten();
                return Exchange::NotSent(why.unwrap_or_else(|| "discovery took too long".to_owned())).into();
            }
        };
        let deadline = deadline.saturating_sub(asked.elapsed());
        let reply: Reply = match self.post(&endpoints.token_endpoint, form, deadline).await {
            Ok(answer) => {
                self.note(&answer, secret, true);
                Reply { exchange: answer::sort(&answer), reference: answer::reference(&answer) }
            }
            Err(SendError::NotSent(why)) => Exchange::NotSent(why).into(),
            Err(SendError::InDoubt(why)) => Exchange::InDoubt(why).into(),
        };
        let up = matches!(reply.exchange, Exchange::Answered(_) | Exchange::Refused(_));
        self.metrics.authorization_server_up.with_label_values(&[name]).set(i64::from(up));
        reply
    }

    async fn ask_to_revoke(&self, refresh_token: &Secret) -> Revocation {
        let failed = |why: String| Revocation::Failed { why, retry_after: None };
        let endpoints = match self.endpoints().await {
            Ok(endpoints) => endpoints,
            Err(why) => return failed(why),
        };
        let Some(endpoint) = &endpoints.revocation_endpoint else { return Revocation::NotOffered };
        let form = [("token", refresh_token.expose()), ("token_type_hint", "refresh_token")];
        match self.post_again_if_refused(endpoint, &form, self.config.request_timeout).await {
            // Also for a token that is unknown there or over: RFC 7009 §2.2.
            Ok(answer) if answer.status == StatusCode::OK => Revocation::Done,
            Ok(answer) => {
                self.note(&answer, Some(refresh_token), false);
                let why = answer::error_code(&answer.body).unwrap_or_else(|| answer.status.to_string());
                Revocation::Failed { why, retry_after: answer::retry_after(&answer) }
            }
            Err(error) => failed(error.to_string()),
        }
    }

    /// Says what support will ask for, and keeps what is said of the token endpoint's rate limit (each endpoint has its own); never anything of a body but its error's words.
    fn note(&self, answer: &Answer, secret: Option<&Secret>, of_tokens: bool) {
        let name = self.config.name.as_str();
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        if let Some((limit, remaining, wait)) = answer::rate_limit(&answer.headers).filter(|_| of_tokens) {
            self.metrics.rate_limit_remaining.with_label_values(&[name]).set(i64::from(remaining));
            let resets_at = self.clock.now().boot + wait;
            *self.rate_limit.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(RateLimit { limit, remaining, resets_at });
        }
        if answer.status != StatusCode::OK {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let text = |member: &str| {
                let text = body.get(member).and_then(serde_json::Value::as_str);
                // Some servers repeat what they were sent.
                text.filter(|text| {
                    text.len() <= 500 && secret.is_none_or(|secret| !text.contains(secret.expose()))
                })
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

impl Client {
    /// What comes of looking at a token that the server has just sent, with its keys; newer ones are fetched for a key that
    /// is not among them.
    async fn judged<T: Send>(
        &self,
        judge: impl Fn(&KeySet) -> Result<T, VerifyError> + Send + Sync,
    ) -> Result<Result<T, VerifyError>, Unverified> {
        let keys = self.keys_for(Want::Usual).await.map_err(Unverified::NoKeys)?;
        let result = judge(&keys);
        if !matches!(result, Err(VerifyError::Key(NoKey::Unknown))) {
            return Ok(result);
        }
        let newer = self.keys_for(Want::Unknown).await.map_err(Unverified::NoKeys)?;
        if Arc::ptr_eq(&keys, &newer) {
            // Not asked again, or in vain: a key of theirs may well be newer than what we have.
            return Err(Unverified::NoKeys(
                "the token's key is not among those that were fetched last".to_owned(),
            ));
        }
        Ok(judge(&newer))
    }
}

#[async_trait]
impl AuthorizationServer for Client {
    async fn refresh(&self, refresh_token: &Secret, scope: &Scope, deadline: Duration) -> Reply {
        let scope = scope.to_string();
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
            ("scope", scope.as_str()),
        ];
        self.refreshed(&form, Some(refresh_token), deadline).await
    }

    async fn client_credentials(&self, scope: &Scope, deadline: Duration) -> Reply {
        let scope = scope.to_string();
        let form = [("grant_type", "client_credentials"), ("scope", scope.as_str())];
        // None: the server's default (RFC 6749 §3.3); an empty one would be malformed.
        let form = if scope.is_empty() { &form[..1] } else { &form[..] };
        self.refreshed(form, None, deadline).await
    }

    async fn authorization(&self) -> Result<Authorization, NotAsked> {
        self.where_to_consent().await
    }

    async fn device_authorization(&self, scope: &Scope) -> Result<DeviceAuthorization, NotAsked> {
        self.ask_for_a_device_code(scope).await
    }

    async fn redeem(&self, consent: Redeemed<'_>) -> Reply {
        self.redeem_once(consent).await
    }

    async fn identify(
        &self,
        token: &Secret,
        expected: &Introduced<'_>,
        now: Timestamp,
    ) -> Result<Identified, Unverified> {
        let expectation = expected.at(&self.config.issuer, self.authentication.client_id());
        let result = self.judged(|keys| jwt::identify(token, keys, &expectation, now)).await?;
        result.map_err(Unverified::Invalid)
    }

    async fn revoke(&self, refresh_token: &Secret) -> Revocation {
        let revocation = self.ask_to_revoke(refresh_token).await;
        let word = match &revocation {
            Revocation::Done => "ok",
            Revocation::NotOffered => "not_offered",
            Revocation::Failed { .. } => "failed",
        };
        self.metrics.revocations.with_label_values(&[self.config.name.as_str(), word]).inc();
        revocation
    }

    async fn introspect(&self, refresh_token: &Secret) -> Introspection {
        let endpoints = match self.endpoints().await {
            Ok(endpoints) => endpoints,
            Err(why) => return Introspection::Failed(why),
        };
        let Some(endpoint) = &endpoints.introspection_endpoint else { return Introspection::NotOffered };
        let form = [("token", refresh_token.expose()), ("token_type_hint", "refresh_token")];
        let answer = match self.post_again_if_refused(endpoint, &form, self.config.request_timeout).await {
            Ok(answer) => answer,
            Err(error) => return Introspection::Failed(error.to_string()),
        };
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match (answer.status, body.get("active").and_then(serde_json::Value::as_bool)) {
            (StatusCode::OK, Some(true)) => Introspection::Active {
                expires_at: body.get("exp").and_then(serde_json::Value::as_i64).map(Timestamp::from_secs),
                scope: body
                    .get("scope")
                    .and_then(serde_json::Value::as_str)
                    .map(Scope::from_wire)
                    // What is only about the login says nothing of what tokens may do.
                    .filter(|scope| !scope.of_the_token().is_empty()),
            },
            (StatusCode::OK, Some(false)) => Introspection::Inactive,
            (status, _) => {
                self.note(&answer, Some(refresh_token), false);
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
        let result = self.judged(|keys| jwt::verify(token, keys, &expectation, now)).await?;
        let word = if result.is_ok() { "ok" } else { "invalid" };
        self.metrics.jwt_verifications.with_label_values(&[self.config.name.as_str(), word]).inc();
        result.map_err(Unverified::Invalid)
    }

    async fn read(&self, token: &Secret, audience: &str, now: Timestamp) -> Result<Claims, Unverified> {
        let keys = self.keys_for(Want::Usual).await.map_err(Unverified::NoKeys)?;
        let mut result = jwt::introspect(token, &keys, &self.config.issuer, audience, now);
        if matches!(result, Err(VerifyError::Key(NoKey::Unknown))) {
            // Anybody can invent a key's name: one fetch per cooldown, and what it does not find does not exist.
            let newer = self.keys_for(Want::Unknown).await.map_err(Unverified::NoKeys)?;
            result = jwt::introspect(token, &newer, &self.config.issuer, audience, now);
        }
        result.map_err(Unverified::Invalid)
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        *self.rate_limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn revokes_alone(&self) -> bool {
        Issuer::of(&self.config.issuer) != Issuer::Other
    }

    fn registration(&self) -> String {
        registration(self.authentication.client_id(), &self.config.issuer)
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
