//! Asks one authorization server, and gives its raw answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request};
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use crate::authorization_server::client_authentication::ClientAuthentication;
use crate::authorization_server::http::{Answer, HttpClient, SendError};
use crate::clock::Clock;
use crate::entropy::Entropy;

/// One server, each request within its deadline and never sent twice.
pub(super) struct Asking {
    pub(super) http: HttpClient,
    pub(super) authentication: ClientAuthentication,
    pub(super) deadline: Duration,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
}

impl Asking {
    /// A document.
    pub(super) async fn get(&self, url: &Url) -> Result<Answer, SendError> {
        let mut request = Request::new(Full::default());
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json, text/html"));
        self.http.send(url, request, self.deadline).await
    }

    /// A form, with what proves who we are.
    pub(super) async fn post(&self, url: &Url, form: &[(&str, &str)]) -> Result<Answer, SendError> {
        let proof = self.authentication.prove(url, self.clock.now().wall, &*self.entropy);
        let proof = proof.ok_or_else(|| {
            SendError::NotSent("the client's secret or key can't be used to prove who we are".to_owned())
        })?;
        let parameters = proof.parameters.iter().map(|(name, value)| (*name, value.expose()));
        let body = Serializer::new(String::new()).extend_pairs(form).extend_pairs(parameters).finish();
        let mut request = Request::new(Full::new(Bytes::from_owner(Zeroizing::new(body.into_bytes()))));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        if let Some(authorization) = proof.authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.http.send(url, request, self.deadline).await
    }
}
