//! A user's consent, from the click to the grant: the code flow (RFC 6749 §4.1, PKCE, OpenID Connect), the device flow
//! (RFC 8628) and, where it can't be helped, the password (RFC 6749 §4.3). The connect page and the terminal both come here.
//!
//! ```text
//! begin     where the browser goes, and what is remembered of it meanwhile      → Url, Pending
//! finish    what came back is the answer to that, and from that server          (callback.rs)
//!   redeem  the code, once
//!   adopt   durable, then: whose is it?  the ID token and the access token agree (proof.rs)
//! ```
//!
//! Whose a grant is comes from verified tokens alone, never from what somebody typed or a browser says.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::authorization_server::consent::{NotAsked, Redeemed};
use crate::authorization_server::{AuthorizationServer, Exchange, Refusal, Tokens};
use crate::clock::{Clock, Timestamp};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::model::{Failure, Grant, RoleName, Scope, Service, ServiceName, UserName};
use crate::refresh::Engine;
use crate::refresh::adopt::{Consented, Proven};
use crate::secret::Secret;

/// What came back with the browser.
pub mod callback;
/// A code that is typed elsewhere.
mod device;
/// Where the browser is sent.
mod pending;
/// Whose it is.
mod proof;
/// Why nothing came of it.
mod refused;

pub use callback::Callback;
pub use device::Device;
pub use pending::Pending;
pub use refused::Refused;

/// How often a code is presented that certainly was not taken up.
const MOST_TRIES: u32 = 3;
/// Between two of those, and the longest wait that the server may ask for while a user looks on.
const BETWEEN: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Users' consents.
#[derive(Clone)]
pub struct Consents {
    engine: Engine,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
}

/// What a user is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The service that it is about.
    pub service: ServiceName,
    /// What for.
    pub purpose: Purpose,
    /// Where the browser is sent back to.
    pub redirect_uri: Url,
    /// Who it is likely to be, so that the server need not ask.
    pub login_hint: Option<UserName>,
}

/// What a user is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A grant for the service's default scopes and these roles.
    Connect(Vec<RoleName>),
    /// Only who it is.
    SignIn,
}

/// Who somebody is, by the word of one authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which.
    pub authorization_server: String,
    /// `sub` of the ID token.
    pub subject: String,
    /// The claim that the name was taken from.
    pub user_claim: String,
    /// As whom the service knows them.
    pub name: UserName,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Who it was.
    pub identity: Identity,
    /// The grant, if one was asked for.
    pub grant: Option<Grant>,
    /// What was granted.
    pub granted: Scope,
}

impl Consents {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(
        engine: Engine,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { engine, clock, entropy, metrics }
    }

    /// Where to send the browser, and what must be remembered of it until it comes back.
    ///
    /// # Errors
    /// Why it can't be sent anywhere.
    pub async fn begin(&self, ask: &Ask) -> Result<(Url, Pending), Refused> {
        let begun = self.prepare(ask).await;
        if let Err(refused) = &begun {
            self.count(&ask.service, refused.word());
        }
        begun
    }

    /// The browser has come back: what it brought is redeemed, whose it is is proven, and the grant is durable. To be called
    /// once for each consent. `expected` is who it must be, if that is known.
    ///
    /// # Errors
    /// Why nothing came of it. No grant has changed then.
    pub async fn finish(
        &self,
        pending: &Pending,
        came: &Callback,
        expected: Option<&Identity>,
    ) -> Result<Connected, Refused> {
        let finished = self.redeem_code(pending, came, expected).await;
        let signed_in = pending.purpose == Purpose::SignIn;
        if !signed_in {
            self.count(&pending.service, finished.as_ref().map_or_else(Refused::word, |_| "ok"));
        }
        if let Err(refused) = &finished {
            tracing::warn!(service = %pending.service, ?refused, "nothing came of a consent");
        }
        finished
    }

    /// A grant for the password of a legacy service user, where the configuration allows it.
    ///
    /// # Errors
    /// Why nothing came of it.
    pub async fn by_password(
        &self,
        service: &ServiceName,
        username: &str,
        password: &Secret,
    ) -> Result<Connected, Refused> {
        let connected = self.redeem_password(service, username, password).await;
        self.count(service, connected.as_ref().map_or_else(Refused::word, |_| "ok"));
        connected
    }

    async fn redeem_password(
        &self,
        service: &ServiceName,
        username: &str,
        password: &Secret,
    ) -> Result<Connected, Refused> {
        let service = self.service(service)?;
        if !service.password_grant {
            return Err(Refused::NotOffered("the service's password_grant is not true"));
        }
        tracing::warn!(
            service = %service.name,
            "a user's password is taken for a grant, which RFC 9700 section 2.4 says must not be done"
        );
        let scope = asked_scope(&service, &Purpose::Connect(Vec::new()))?;
        let server = self.server(&service)?;
        let redeemed = Redeemed::Password { username, password, scope: &scope };
        let tokens = self.redeem(&service, &*server, redeemed).await?;
        let proof = proof::Asked { scope, nonce: None, expected: None };
        self.connect(&service, server, tokens, proof).await
    }

    async fn redeem_code(
        &self,
        pending: &Pending,
        came: &Callback,
        expected: Option<&Identity>,
    ) -> Result<Connected, Refused> {
        let service = self.service(&pending.service)?;
        if service.authorization_server != pending.authorization_server {
            // The configuration has changed meanwhile.
            return Err(Refused::TooLate);
        }
        // The same one throughout: what one server has issued is shown to no other.
        let server = self.server(&service)?;
        if server.registration() != pending.registration {
            return Err(Refused::TooLate);
        }
        let authorization = server.authorization().await?;
        let code = callback::check(came, pending, &authorization, self.clock.now().wall)?;
        let (verifier, redirect_uri) = (&pending.verifier, &pending.redirect_uri);
        let redeemed = Redeemed::Code { code: &code, verifier, redirect_uri };
        let tokens = self.redeem(&service, &*server, redeemed).await?;
        let proof = proof::Asked {
            scope: asked_scope(&service, &pending.purpose)?,
            nonce: Some(pending.nonce.clone()),
            expected: expected.cloned(),
        };
        match pending.purpose {
            Purpose::Connect(_) => self.connect(&service, server, tokens, proof).await,
            Purpose::SignIn => {
                let (identity, granted) = self.prove(&service, &*server, &tokens, &proof).await?;
                Ok(Connected { identity, grant: None, granted })
            }
        }
    }

    /// Redeems a consent once; again only where it certainly was not taken up.
    async fn redeem(
        &self,
        service: &Service,
        server: &dyn AuthorizationServer,
        consent: Redeemed<'_>,
    ) -> Result<Tokens, Refused> {
        let mut tries = 0;
        loop {
            tries += 1;
            if !self.engine.admits_consent(&service.authorization_server) {
                return Err(Refused::Unavailable(
                    "too many consents in a minute, or its rate limit is used up".to_owned(),
                ));
            }
            let wait = match server.redeem(consent).await.exchange {
                Exchange::Answered(tokens) => return Ok(*tokens),
                Exchange::Refused(Refusal::InvalidGrant) => return Err(Refused::NotTaken),
                Exchange::Refused(Refusal::Configuration(why)) => return Err(why.into()),
                Exchange::InDoubt(why) => return Err(Refused::Unavailable(why)),
                Exchange::Refused(Refusal::RateLimited { retry_after }) if retry_after > LONGEST_WAIT => {
                    return Err(Refused::Unavailable("the server's rate limit is used up".to_owned()));
                }
                Exchange::Refused(Refusal::RateLimited { retry_after }) => retry_after,
                Exchange::NotSent(why) if tries >= MOST_TRIES => return Err(Refused::Unavailable(why)),
                Exchange::NotSent(_) => BETWEEN,
            };
            if tries >= MOST_TRIES {
                return Err(Refused::Unavailable("the server's rate limit is used up".to_owned()));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Durable first, then whose it is.
    async fn connect(
        &self,
        service: &Arc<Service>,
        server: Arc<dyn AuthorizationServer>,
        tokens: Tokens,
        asked: proof::Asked,
    ) -> Result<Connected, Refused> {
        let Some(refresh_token) = tokens.refresh_token.clone() else { return Err(Refused::NoRefreshToken) };
        let granted = tokens.scope.clone().unwrap_or_else(|| asked.scope.clone());
        let (sender, identity) = tokio::sync::oneshot::channel();
        let (this, of) = (self.clone(), Arc::clone(service));
        let registration = server.registration();
        let proof = async move {
            let (identity, granted) = this.prove(&of, &*server, &tokens, &asked).await?;
            if let Some(missing) = proof::missing(&of, &granted) {
                return Err(Refused::LessGranted(missing));
            }
            let proven = Proven { user: identity.name.clone(), subject: identity.subject.clone() };
            // Nobody listens any more if the caller has left; the grant is made all the same.
            let _or_nobody = sender.send(identity);
            Ok(proven)
        };
        let candidate = Consented { refresh_token, registration, granted: granted.clone() };
        let grant = self.engine.adopt(&service.name, candidate, proof).await?;
        let identity = identity.await.map_err(|_| Failure::Internal("nobody was identified".to_owned()))?;
        Ok(Connected { identity, grant: Some(grant), granted })
    }

    fn server(&self, service: &Service) -> Result<Arc<dyn AuthorizationServer>, Refused> {
        self.engine.authorization_server(&service.authorization_server).ok_or(Refused::TooLate)
    }

    fn service(&self, name: &ServiceName) -> Result<Arc<Service>, Refused> {
        let found = self.engine.service(name).filter(|service| service.has_users());
        found.ok_or(Refused::NotOffered("no service of this name has users who could connect"))
    }

    fn count(&self, service: &ServiceName, result: &str) {
        // Only names that are configured become labels.
        let known = self.engine.service(service);
        let name = known.as_ref().map_or("unknown", |service| service.name.as_str());
        self.metrics.connects.with_label_values(&[name, result]).inc();
    }

    fn now(&self) -> Timestamp {
        self.clock.now().wall
    }
}

/// What a consent is asked for: who it is and, to connect, all that the grant is to cover.
///
/// # Errors
/// If the service has no such role.
fn asked_scope(service: &Service, purpose: &Purpose) -> Result<Scope, Refused> {
    let who = Scope::from_wire("openid profile");
    let Purpose::Connect(roles) = purpose else { return Ok(who) };
    let mut scope = who;
    for role in std::iter::once(None).chain(roles.iter().map(Some)) {
        let of_role = service.scope(role).ok_or(Refused::NotOffered("the service has no such role"))?;
        scope = scope.and(&of_role);
    }
    Ok(scope)
}

impl From<NotAsked> for Refused {
    fn from(not_asked: NotAsked) -> Self {
        match not_asked {
            NotAsked::NotOffered(what) => Self::NotOffered(what),
            NotAsked::Refused(why) => why.into(),
            NotAsked::Unavailable(why) => Self::Unavailable(why),
        }
    }
}
