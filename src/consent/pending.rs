//! A browser that was sent away, until it comes back.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::consent::{Ask, Consents, Purpose, Refused, asked_scope};
use crate::model::{RoleName, ServiceName};
use crate::secret::Secret;

/// How long a user may take to sign in.
const PATIENCE: Duration = Duration::from_mins(10);
/// Of `state`, `nonce` and verifier each: 43 characters (RFC 7636 §4.1).
const RANDOM_BYTES: usize = 32;

/// What is remembered of a browser that was sent away. Only who can show that it is the same browser may finish it.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Where it was sent.
    pub authorization_server: String,
    /// What for.
    pub service: ServiceName,
    /// To connect, or only to tell who it is.
    pub purpose: Purpose,
    /// Where it is sent back to.
    pub redirect_uri: Url,
    /// What comes back with it.
    pub state: Secret,
    /// From then on it is too late.
    pub until: Timestamp,
    /// Issuer and client: nobody else may see the code.
    pub(super) registration: String,
    pub(super) nonce: Secret,
    pub(super) verifier: Secret,
}

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    server: &'a str,
    registration: &'a str,
    service: &'a str,
    /// None to sign in.
    roles: Option<Vec<String>>,
    redirect_uri: &'a str,
    state: &'a str,
    nonce: &'a str,
    verifier: &'a str,
    until: i64,
}

impl Pending {
    /// To be kept sealed.
    #[must_use]
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        let roles = match &self.purpose {
            Purpose::Connect(roles) => Some(roles.iter().map(|role| role.as_str().to_owned()).collect()),
            Purpose::SignIn => None,
        };
        let written = Written {
            server: &self.authorization_server,
            registration: &self.registration,
            service: self.service.as_str(),
            roles,
            redirect_uri: self.redirect_uri.as_str(),
            state: self.state.expose(),
            nonce: self.nonce.expose(),
            verifier: self.verifier.expose(),
            until: self.until.millis(),
        };
        Zeroizing::new(serde_json::to_vec(&written).unwrap_or_default())
    }

    /// Reads what was written, and nobody could change since.
    #[must_use]
    pub fn read(written: &[u8]) -> Option<Self> {
        let Written { server, registration, service, roles, redirect_uri, state, nonce, verifier, until } =
            serde_json::from_slice(written).ok()?;
        let role = |name: String| RoleName::parse(&name);
        let purpose = match roles {
            Some(roles) => Purpose::Connect(roles.into_iter().map(role).collect::<Option<_>>()?),
            None => Purpose::SignIn,
        };
        let secret = |text: &str| Secret::new(text.to_owned());
        Some(Self {
            authorization_server: server.to_owned(),
            service: ServiceName::parse(service)?,
            purpose,
            redirect_uri: Url::parse(redirect_uri).ok()?,
            state: secret(state),
            until: Timestamp::from_millis(until),
            registration: registration.to_owned(),
            nonce: secret(nonce),
            verifier: secret(verifier),
        })
    }
}

impl Consents {
    pub(super) async fn prepare(&self, ask: &Ask) -> Result<(Url, Pending), Refused> {
        let service = self.service(&ask.service)?;
        let scope = asked_scope(&service, &ask.purpose)?;
        let server = self.server(&service)?;
        let authorization = server.authorization().await?;
        let random = || Secret::new(self.entropy.text(RANDOM_BYTES));
        let pending = Pending {
            authorization_server: service.authorization_server.clone(),
            service: service.name.clone(),
            purpose: ask.purpose.clone(),
            redirect_uri: ask.redirect_uri.clone(),
            state: random(),
            until: self.now().plus(PATIENCE),
            registration: server.registration(),
            nonce: random(),
            verifier: random(),
        };
        let challenge =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pending.verifier.expose().as_bytes());
        let mut url = authorization.endpoint;
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &authorization.client_id)
            .append_pair("redirect_uri", pending.redirect_uri.as_str())
            .append_pair("scope", &scope.to_string())
            .append_pair("state", pending.state.expose())
            .append_pair("nonce", pending.nonce.expose())
            .append_pair("code_challenge", &URL_SAFE_NO_PAD.encode(challenge))
            .append_pair("code_challenge_method", "S256");
        if ask.purpose != Purpose::SignIn && authorization.asks_each_time {
            query.append_pair("prompt", "consent");
        }
        if let Some(name) = &ask.login_hint {
            query.append_pair("login_hint", name.as_str());
        }
        if let (Purpose::Connect(_), Some(classes)) = (&ask.purpose, &service.acr_values) {
            query.append_pair("acr_values", classes);
        }
        if let (Purpose::Connect(_), Some(age)) = (&ask.purpose, service.max_age) {
            query.append_pair("max_age", &age.as_secs().to_string());
        }
        drop(query);
        Ok((url, pending))
    }
}
