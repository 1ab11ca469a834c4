//! Whose tokens are: the ID token says who has signed in, the access token for whom it speaks, and both must be the same.

use crate::authorization_server::{AuthorizationServer, Expected, Introduced, Tokens, Unverified};
use crate::consent::{Consents, Identity, Refused};
use crate::jwt::{self, VerifyError};
use crate::model::{Scope, Service, UserName};
use crate::secret::Secret;

/// What the tokens must answer.
pub(super) struct Asked {
    /// What was asked for.
    pub(super) scope: Scope,
    /// What was sent with the browser, where one was.
    pub(super) nonce: Option<Secret>,
    /// Who it must be, if that is known.
    pub(super) expected: Option<Identity>,
}

/// What the service asks for by default and was not granted.
pub(super) fn missing(service: &Service, granted: &Scope) -> Option<String> {
    let missing = service.scopes.of_the_token().without(granted);
    (!missing.is_empty()).then(|| missing.to_string())
}

impl Consents {
    /// Who it is, and what was granted.
    pub(super) async fn prove(
        &self,
        service: &Service,
        server: &dyn AuthorizationServer,
        tokens: &Tokens,
        asked: &Asked,
    ) -> Result<(Identity, Scope), Refused> {
        if !tokens.token_type.eq_ignore_ascii_case("bearer") {
            let hint = format!(
                "its token_type is not Bearer{}",
                if tokens.token_type.eq_ignore_ascii_case("dpop") {
                    ": switch off `Require DPoP` in the app integration's General tab in Okta"
                } else {
                    ""
                }
            );
            return Err(Refused::TokenInvalid { hint });
        }
        let granted = tokens.scope.clone().unwrap_or_else(|| asked.scope.clone());
        let Some(id_token) = &tokens.id_token else {
            let hint = "no ID token came, though the scope openid was asked for".to_owned();
            return Err(Refused::TokenInvalid { hint });
        };
        let signs_in_only = asked.scope.of_the_token().is_empty();
        let introduced = Introduced {
            nonce: asked.nonce.as_ref(),
            access_token: &tokens.access_token,
            max_age: service.max_age.filter(|_| !signs_in_only),
            acr_values: service.acr_values.as_deref().filter(|_| !signs_in_only),
        };
        let identified = server.identify(id_token, &introduced, self.now()).await.map_err(unverified)?;
        let name = if service.opaque {
            let name = identified.preferred_username.as_deref().and_then(UserName::parse);
            name.ok_or_else(|| invalid("the ID token has no usable `preferred_username`"))?
        } else {
            let expected = Expected {
                audience: &service.audience,
                user_claim: &service.user_claim,
                user: None,
                scope: &granted,
            };
            let token = &tokens.access_token;
            let verified = server.verify(token, &expected, self.now()).await.map_err(unverified)?;
            // It was verified just now: what it claims is so.
            let subject = jwt::claimed_text(token, "uid").or_else(|| jwt::claimed_text(token, "sub"));
            if subject.as_deref() != Some(&identified.subject) {
                return Err(invalid("the ID token and the access token speak for different users"));
            }
            let name = verified.user().cloned();
            name.ok_or_else(|| invalid("the access token names no user"))?
        };
        let identity = Identity {
            authorization_server: service.authorization_server.clone(),
            subject: identified.subject,
            user_claim: service.named_by().to_owned(),
            name,
        };
        if let Some(expected) = &asked.expected
            && expected.subject != identity.subject
        {
            return Err(Refused::OtherUser { expected: expected.name.clone(), came: identity.name });
        }
        Ok((identity, granted))
    }
}

fn invalid(hint: &str) -> Refused {
    Refused::TokenInvalid { hint: hint.to_owned() }
}

fn unverified(why: Unverified) -> Refused {
    match why {
        Unverified::Invalid(VerifyError::SignedInTooLongAgo | VerifyError::SignedInTooWeakly(_)) => {
            Refused::SignedInTooWeakly
        }
        Unverified::Invalid(error) => Refused::TokenInvalid { hint: error.to_string() },
        Unverified::NoKeys(why) => Refused::Unavailable(why),
    }
}
