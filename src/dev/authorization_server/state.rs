//! Everything the server knows, behind one lock that is never held across a wait.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::Moment;
use crate::entropy::Entropy;
use crate::secret::{Digest, Secret};

use super::access::AccessTokens;
use super::authorization_code::AuthorizationCode;
use super::device::Devices;
use super::family::{Families, FamilyId, Login, Verdict};
use super::fault::Faults;
use super::keys::Keys;
use super::rate_limit::RateLimits;
use super::rsa::SigningKey;
use super::scopes::{self, OPENID_SCOPES};
use super::settings::{Change, Settings};
use super::stats::Stats;
use super::users::User;
use super::{DevServer, Rotation};

/// The only client.
pub(super) const CLIENT_ID: &str = "0oadevbursar";

/// How many tokens `GET /control/issued` remembers; a long run forgets the oldest.
const MAX_ISSUED: usize = 200_000;

pub(super) struct State {
    pub(super) entropy: Arc<dyn Entropy>,
    /// `http://127.0.0.1:PORT`
    pub(super) origin: String,
    pub(super) settings: Settings,
    pub(super) servers: BTreeMap<String, Server>,
    pub(super) users: BTreeMap<String, User>,
    /// Any of them will do: Okta lets two overlap while they are changed.
    pub(super) client_secrets: Vec<Secret>,
    pub(super) families: Families,
    pub(super) access_tokens: AccessTokens,
    pub(super) codes: HashMap<Digest, AuthorizationCode>,
    pub(super) devices: Devices,
    pub(super) limits: RateLimits,
    pub(super) faults: Faults,
    pub(super) stats: Stats,
    pub(super) issued: VecDeque<(&'static str, String)>,
    /// Signs what a verifier must refuse; published nowhere.
    pub(super) stray_key: Option<SigningKey>,
}

/// One custom authorization server: Okta gives each one audience.
pub(super) struct Server {
    pub(super) audience: &'static str,
    /// The created ones; the OpenID scopes go without saying.
    pub(super) scopes: Vec<String>,
    pub(super) keys: Keys,
}

impl Server {
    pub(super) fn knows_scope(&self, scope: &str) -> bool {
        OPENID_SCOPES.contains(&scope) || scopes::has(&self.scopes, scope)
    }
}

impl State {
    pub(super) fn new(
        entropy: Arc<dyn Entropy>,
        origin: String,
        settings: Settings,
        client_secret: Secret,
    ) -> Self {
        let server = |audience, scopes: &[&str]| Server {
            audience,
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            keys: Keys::default(),
        };
        let roles =
            ["session:role:PUBLIC", "session:role:ANALYST", "session:role:DATA_ENGINEER", "session:role-any"];
        let servers = [
            (DevServer::SNOWFLAKE.to_owned(), server("https://dev.snowflakecomputing.com", &roles)),
            (DevServer::DATABRICKS.to_owned(), server("databricks", &["all-apis", "sql"])),
        ];
        Self {
            entropy,
            origin,
            settings,
            servers: servers.into(),
            users: User::initial().into_iter().map(|user| (user.login.clone(), user)).collect(),
            client_secrets: vec![client_secret],
            families: Families::default(),
            access_tokens: AccessTokens::default(),
            codes: HashMap::new(),
            devices: Devices::default(),
            limits: RateLimits::default(),
            faults: Faults::default(),
            stats: Stats::default(),
            issued: VecDeque::new(),
            stray_key: None,
        }
    }

    pub(super) fn issuer(&self, server: &str) -> String {
        format!("{}/oauth2/{server}", self.origin)
    }

    /// Makes a secret that a search for `sentinel` finds wherever it leaks to.
    pub(super) fn new_secret(&self, kind: &str) -> Secret {
        Secret::new(format!("{kind}-sentinel-{}", self.entropy.text(24)))
    }

    pub(super) fn remember(&mut self, kind: &'static str, token: &str) {
        if self.issued.len() >= MAX_ISSUED {
            self.issued.pop_front();
        }
        self.issued.push_back((kind, token.to_owned()));
    }

    pub(super) fn is_rotating(&self) -> bool {
        self.settings.rotation == Rotation::Rotating
    }

    /// Assigned to the client and not deactivated.
    pub(super) fn may_use_the_client(&self, user: &str) -> bool {
        self.users.get(user).is_some_and(|user| user.active && user.assigned)
    }

    /// Begins a family for a user who has just authenticated and agreed.
    pub(super) fn log_in(
        &mut self,
        server: &str,
        user: &str,
        scopes: Vec<String>,
        acr: Option<String>,
        now: Moment,
    ) -> FamilyId {
        self.families.open(Login {
            server: server.to_owned(),
            user: user.to_owned(),
            scopes,
            at: now,
            acr,
            expires: self.settings.refresh_token_lifetime.map(|lifetime| now.wall.plus(lifetime)),
        })
    }

    /// A new newest refresh token for the family.
    pub(super) fn new_refresh_token(&mut self, family: FamilyId, now: Moment) -> Secret {
        let token = self.new_secret("rt");
        self.remember("refresh_token", token.expose());
        self.families.add_token(family, token.clone(), now);
        token
    }

    pub(super) fn judge(&self, server: &str, token: &Secret, now: &Moment) -> Verdict {
        self.families.judge(server, token, now, self.settings.leeway, self.settings.idle_window)
    }

    /// Ends a family and every access token since its login.
    pub(super) fn revoke_family(&mut self, family: FamilyId, reason: &'static str) {
        self.access_tokens.revoke_family(family);
        if let Some(login) = self.families.end(family) {
            self.stats.family_revoked(&login.user, &login.server, reason);
        }
    }

    pub(super) fn revoke_user(&mut self, user: &str, reason: &'static str) {
        for family in self.families.of_user(user) {
            self.revoke_family(family, reason);
        }
    }

    /// The refresh token that a completed code flow would have given; `Err` says what would have kept it from that.
    pub(super) fn consent(
        &mut self,
        server: &str,
        user: &str,
        scopes: &[String],
        now: Moment,
    ) -> Result<Secret, String> {
        let Some(known) = self.servers.get(server) else {
            return Err(format!("server: one of {}", keys(&self.servers)));
        };
        if let Some(unknown) = scopes.iter().find(|scope| !known.knows_scope(scope)) {
            return Err(format!("scopes: `{unknown}` is none of {}", known.scopes.join(", ")));
        }
        if !scopes::has(scopes, "offline_access") {
            return Err("scopes: without `offline_access` there is no refresh token".into());
        }
        if !self.may_use_the_client(user) {
            return Err(format!("user: an assigned one of {}", keys(&self.users)));
        }
        let family = self.log_in(server, user, scopes.to_vec(), None, now);
        Ok(self.new_refresh_token(family, now))
    }

    /// Applies a change of settings, or says what is wrong with it and changes nothing.
    pub(super) fn apply(&mut self, change: Change) -> Result<(), String> {
        if change.scopes.keys().any(|server| !self.servers.contains_key(server)) {
            return Err(format!("scopes: by server, one of {}", keys(&self.servers)));
        }
        for (id, added) in change.scopes {
            if let Some(server) = self.servers.get_mut(&id) {
                let unknown: Vec<String> =
                    added.into_iter().filter(|scope| !server.knows_scope(scope)).collect();
                server.scopes.extend(unknown);
            }
        }
        for login in change.users {
            self.users.entry(login).or_insert_with_key(|login| User::new(login));
        }
        self.client_secrets.extend(change.client_secret.map(Secret::new));
        self.settings = change.settings;
        Ok(())
    }

    pub(super) fn describe(&self) -> Value {
        let mut settings = self.settings.describe();
        if let Some(members) = settings.as_object_mut() {
            let scopes: BTreeMap<&str, &[String]> =
                self.servers.iter().map(|(id, server)| (id.as_str(), server.scopes.as_slice())).collect();
            members.insert("scopes".into(), json!(scopes));
            members.insert("users".into(), json!(self.users.keys().collect::<Vec<_>>()));
        }
        settings
    }
}

fn keys<T>(map: &BTreeMap<String, T>) -> String {
    map.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}
