//! Asks a real server for a user's consent, and redeems it.

use hyper::StatusCode;

use crate::authorization_server::answer;
use crate::authorization_server::client::Client;
use crate::authorization_server::consent::{
    Authorization, DeviceAuthorization, NotAsked, Redeemed, device_authorization,
};
use crate::authorization_server::discovery::Endpoints;
use crate::authorization_server::issuer::Issuer;
use crate::authorization_server::keys::Want;
use crate::authorization_server::{Exchange, Refusal, Reply};
use crate::model::Scope;

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

impl Client {
    pub(super) async fn where_to_consent(&self) -> Result<Authorization, NotAsked> {
        let endpoints = self.endpoints().await.map_err(NotAsked::Unavailable)?;
        let endpoint = endpoints.authorization_endpoint.clone();
        let endpoint = endpoint.ok_or(NotAsked::NotOffered("an authorization endpoint"))?;
        self.keys_of_id_tokens(&endpoints).await?;
        Ok(Authorization {
            endpoint,
            issuer: self.config.issuer.clone(),
            client_id: self.authentication.client_id().to_owned(),
            asks_each_time: Issuer::of(&self.config.issuer) == Issuer::Other,
            names_itself: endpoints.authorization_response_iss_parameter_supported,
        })
    }

    pub(super) async fn ask_for_a_device_code(&self, scope: &Scope) -> Result<DeviceAuthorization, NotAsked> {
        let endpoints = self.endpoints().await.map_err(NotAsked::Unavailable)?;
        let endpoint = endpoints.device_authorization_endpoint.as_ref();
        let endpoint = endpoint.ok_or(NotAsked::NotOffered("device authorization"))?;
        self.keys_of_id_tokens(&endpoints).await?;
        let scope = scope.to_string();
        // Whoever is not a confidential client names itself in the form; the others may (RFC 8628 §3.1).
        let form = [("client_id", self.authentication.client_id()), ("scope", scope.as_str())];
        let form = if self.authentication.names_itself() { &form[1..] } else { &form[..] };
        let answer = self.post_again_if_refused(endpoint, form, self.config.request_timeout).await;
        let answer = answer.map_err(|error| NotAsked::Unavailable(error.to_string()))?;
        if answer.status == StatusCode::OK {
            let read = device_authorization(&answer.body);
            return read.ok_or_else(|| NotAsked::Unavailable("not a device authorization".to_owned()));
        }
        self.note(&answer, None, false);
        Err(match answer::sort(&answer) {
            Exchange::Refused(Refusal::Configuration(why)) => NotAsked::Refused(why),
            Exchange::Refused(Refusal::InvalidGrant) => {
                NotAsked::Refused(answer::misconfiguration("invalid_grant", ""))
            }
            Exchange::Refused(Refusal::RateLimited { .. }) => {
                NotAsked::Unavailable("its rate limit is used up".to_owned())
            }
            Exchange::NotSent(why) | Exchange::InDoubt(why) => NotAsked::Unavailable(why),
            Exchange::Answered(_) => NotAsked::Unavailable("tokens in place of a code".to_owned()),
        })
    }

    /// Whose a grant is, ID tokens tell, and only its keys tell whether to believe them: to be had before anybody is asked.
    async fn keys_of_id_tokens(&self, endpoints: &Endpoints) -> Result<(), NotAsked> {
        if endpoints.jwks_uri.is_none() {
            return Err(NotAsked::NotOffered("keys that its ID tokens could be verified with (jwks_uri)"));
        }
        self.keys_for(Want::Usual).await.map_err(NotAsked::Unavailable)?;
        Ok(())
    }

    pub(super) async fn redeem_once(&self, consent: Redeemed<'_>) -> Reply {
        let deadline = self.config.request_timeout;
        match consent {
            Redeemed::Code { code, verifier, redirect_uri } => {
                let form = [
                    ("grant_type", "authorization_code"),
                    ("code", code.expose()),
                    ("code_verifier", verifier.expose()),
                    ("redirect_uri", redirect_uri.as_str()),
                ];
                self.ask_for_tokens(&form, Some(code), deadline).await
            }
            Redeemed::DeviceCode(code) => {
                let form = [("grant_type", DEVICE_CODE), ("device_code", code.expose())];
                self.ask_for_tokens(&form, Some(code), deadline).await
            }
            Redeemed::Password { username, password, scope } => {
                let scope = scope.to_string();
                let form = [
                    ("grant_type", "password"),
                    ("username", username),
                    ("password", password.expose()),
                    ("scope", scope.as_str()),
                ];
                self.ask_for_tokens(&form, Some(password), deadline).await
            }
        }
    }
}
