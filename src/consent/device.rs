//! A user who consents elsewhere, by a code that they type there (RFC 8628). The terminal that shows the code sees nothing
//! else: what the server is asked with, and the tokens that come of it, stay here.

use std::time::Duration;

use crate::authorization_server::consent::{DeviceAuthorization, Redeemed};
use crate::authorization_server::{Exchange, Misconfiguration, Refusal, misconfiguration};
use crate::clock::{Moment, Timestamp};
use crate::consent::{Connected, Consents, Purpose, Refused, asked_scope, proof};
use crate::model::{RoleName, ServiceName};
use crate::tasks::Tasks;

/// What `slow_down` adds to the interval, for good (RFC 8628 §3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// However often there was no answer, this long at most until the next question: a user may be waiting.
const LONGEST_INTERVAL: Duration = Duration::from_mins(1);

/// A device that waits for its user.
#[derive(Clone, Debug)]
pub struct Device {
    /// What it is about.
    pub service: ServiceName,
    /// What the user is shown, and when that ends.
    pub authorization: DeviceAuthorization,
    /// From then on it is too late.
    pub until: Timestamp,
    purpose: Purpose,
    /// Issuer and client: nobody else may see the device code.
    registration: String,
    began: Moment,
}

impl Consents {
    /// Asks for a code that the user of `service` may type elsewhere, for its default scopes and these roles.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn begin_device(&self, service: &ServiceName, roles: Vec<RoleName>) -> Result<Device, Refused> {
        let begun = self.ask_for_device(service, Purpose::Connect(roles)).await;
        if let Err(refused) = &begun {
            self.count(service, refused.word());
        }
        begun
    }

    /// Asks until the user has decided, or it is too late, or the process stops. To be called once for each device.
    ///
    /// # Errors
    /// Why nothing came of it. No grant has changed then.
    pub async fn finish_device(&self, device: &Device, tasks: &Tasks) -> Result<Connected, Refused> {
        let finished = self.poll(device, tasks).await;
        self.count(&device.service, finished.as_ref().map_or_else(Refused::word, |_| "ok"));
        if let Err(refused) = &finished {
            tracing::warn!(service = %device.service, ?refused, "nothing came of a device's consent");
        }
        finished
    }

    async fn ask_for_device(&self, service: &ServiceName, purpose: Purpose) -> Result<Device, Refused> {
        let service = self.service(service)?;
        let scope = asked_scope(&service, &purpose)?;
        let server = self.server(&service)?;
        let began = self.clock.now();
        let authorization = server.device_authorization(&scope).await?;
        let until = began.wall.plus(authorization.expires_in);
        let (service, registration) = (service.name.clone(), server.registration());
        Ok(Device { service, authorization, until, purpose, registration, began })
    }

    async fn poll(&self, device: &Device, tasks: &Tasks) -> Result<Connected, Refused> {
        let code = &device.authorization.device_code;
        let mut interval = device.authorization.interval;
        let mut wait = interval;
        loop {
            // Only here: an answer that is under way brings a refresh token, which must not be lost.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = tasks.stopping() => return Err(Refused::Unavailable("the process is stopping".to_owned())),
            }
            wait = interval;
            if self.is_over(device) {
                return Err(Refused::TooLate);
            }
            let service = self.service(&device.service)?;
            let server = self.server(&service)?;
            if server.registration() != device.registration {
                // The configuration has changed meanwhile.
                return Err(Refused::TooLate);
            }
            if !self.engine.counts_question(&service.authorization_server) {
                continue;
            }
            match server.redeem(Redeemed::DeviceCode(code)).await.exchange {
                Exchange::Answered(tokens) => {
                    let scope = asked_scope(&service, &device.purpose)?;
                    let asked = proof::Asked { scope, nonce: None, expected: None };
                    return self.connect(&service, server, *tokens, asked).await;
                }
                Exchange::Refused(Refusal::Configuration(why)) => match why.error.as_str() {
                    "authorization_pending" => {}
                    "slow_down" => {
                        interval += SLOWER;
                        wait = interval;
                    }
                    _ => return Err(refused(why)),
                },
                Exchange::Refused(Refusal::InvalidGrant) => return Err(Refused::NotTaken),
                Exchange::Refused(Refusal::RateLimited { retry_after }) => wait = interval.max(retry_after),
                Exchange::NotSent(why) | Exchange::InDoubt(why) => {
                    tracing::warn!(service = %device.service, %why, "a device's question has no answer");
                    interval = (interval * 2).min(LONGEST_INTERVAL.max(interval));
                    wait = interval;
                }
            }
        }
    }

    /// By the time that has passed, whatever was done to the clock.
    fn is_over(&self, device: &Device) -> bool {
        let age = self.clock.now().since(&device.began);
        age.is_none_or(|age| age >= device.authorization.expires_in)
    }
}

/// What the user says, and what a policy does, are the same error; the server's sentence tells them apart.
fn refused(why: Misconfiguration) -> Refused {
    let by_the_user = why.error == "access_denied" && why.hint == misconfiguration("access_denied", "").hint;
    if by_the_user { Refused::Cancelled } else { why.into() }
}
