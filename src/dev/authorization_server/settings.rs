//! What the control URL can change about the server's behaviour.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::Rotation;
use super::members::Members;

/// The grant types as their URIs or names, in the order in which Okta lists them.
pub(super) const GRANT_TYPES: [&str; 5] = [
    "authorization_code",
    "refresh_token",
    "client_credentials",
    "password",
    "urn:ietf:params:oauth:grant-type:device_code",
];

/// Okta lets no one choose a longer leeway.
const MAX_LEEWAY: Duration = Duration::from_mins(1);

/// Okta's defaults where `Options` says nothing.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) rotation: Rotation,
    pub(super) leeway: Duration,
    pub(super) token_lifetime: Duration,
    /// From the login on, whatever is refreshed; `None` is without end.
    pub(super) refresh_token_lifetime: Option<Duration>,
    pub(super) idle_window: Duration,
    pub(super) requests_per_minute: u32,
    pub(super) requests_per_second_per_user: u32,
    pub(super) grant_types: Vec<String>,
    pub(super) redirect_uris: BTreeSet<String>,
    pub(super) keys_max_age: Duration,
    pub(super) device_interval: Duration,
}

impl Settings {
    pub(super) fn new(rotation: Rotation, leeway: Duration, token_lifetime: Duration) -> Self {
        Self {
            rotation,
            leeway,
            token_lifetime,
            refresh_token_lifetime: None,
            idle_window: Duration::from_hours(7 * 24),
            requests_per_minute: 2000,
            requests_per_second_per_user: 4,
            grant_types: GRANT_TYPES.map(str::to_owned).to_vec(),
            redirect_uris: BTreeSet::new(),
            keys_max_age: Duration::from_hours(24),
            device_interval: Duration::from_secs(5),
        }
    }

    pub(super) fn describe(&self) -> Value {
        json!({
            "rotation": match self.rotation { Rotation::Rotating => "rotating", Rotation::Persistent => "persistent" },
            "leeway": self.leeway.as_secs_f64(),
            "token_lifetime": self.token_lifetime.as_secs_f64(),
            "refresh_token_lifetime": self.refresh_token_lifetime.map(|lifetime| lifetime.as_secs_f64()),
            "idle_window": self.idle_window.as_secs_f64(),
            "requests_per_minute": self.requests_per_minute,
            "requests_per_second_per_user": self.requests_per_second_per_user,
            "grant_types": self.grant_types,
            "redirect_uris": self.redirect_uris,
            "keys_max_age": self.keys_max_age.as_secs_f64(),
            "device_interval": self.device_interval.as_secs_f64(),
        })
    }
}

/// A change that was read whole; applying it can't fail halfway.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) settings: Settings,
    /// By authorization server.
    pub(super) scopes: BTreeMap<String, Vec<String>>,
    pub(super) users: Vec<String>,
    pub(super) client_secret: Option<String>,
}

impl Change {
    /// Reads a partial object on top of `settings`; the error says what is allowed.
    pub(super) fn read(settings: &Settings, body: Value) -> Result<Self, String> {
        let mut members = Members::of(body)?;
        let mut settings = settings.clone();
        if let Some(rotation) = members.text("rotation")? {
            settings.rotation = match rotation.as_str() {
                "rotating" => Rotation::Rotating,
                "persistent" => Rotation::Persistent,
                _ => return Err("rotation: `rotating` or `persistent`".into()),
            };
        }
        if let Some(leeway) = members.seconds("leeway")? {
            if leeway > MAX_LEEWAY {
                return Err("leeway: 0 to 60 seconds, as at Okta".into());
            }
            settings.leeway = leeway;
        }
        set(&mut settings.token_lifetime, members.seconds("token_lifetime")?);
        if members.is_null("refresh_token_lifetime") {
            settings.refresh_token_lifetime = None;
        } else if let Some(lifetime) = members.seconds("refresh_token_lifetime")? {
            settings.refresh_token_lifetime = Some(lifetime);
        }
        set(&mut settings.idle_window, members.seconds("idle_window")?);
        set(&mut settings.requests_per_minute, members.count("requests_per_minute")?);
        set(&mut settings.requests_per_second_per_user, members.count("requests_per_second_per_user")?);
        if let Some(grant_types) = members.texts("grant_types")? {
            if let Some(unknown) = grant_types.iter().find(|name| !GRANT_TYPES.contains(&name.as_str())) {
                return Err(format!("grant_types: `{unknown}` is none of {}", GRANT_TYPES.join(", ")));
            }
            settings.grant_types = grant_types;
        }
        settings.redirect_uris.extend(members.texts("redirect_uris")?.unwrap_or_default());
        set(&mut settings.keys_max_age, members.seconds("keys_max_age")?);
        set(&mut settings.device_interval, members.seconds("device_interval")?);
        let scopes = members.texts_by_name("scopes")?.unwrap_or_default();
        let users = members.texts("users")?.unwrap_or_default();
        let client_secret = members.text("client_secret_add")?;
        members.finish()?;
        Ok(Self { settings, scopes, users, client_secret })
    }
}

fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(from) = from {
        *to = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new(Rotation::Rotating, Duration::from_secs(30), Duration::from_hours(1))
    }

    #[test]
    fn a_partial_change_leaves_the_rest() {
        let change = Change::read(&settings(), json!({ "leeway": 0, "refresh_token_lifetime": 90 })).unwrap();
        assert_eq!(change.settings.leeway, Duration::ZERO);
        assert_eq!(change.settings.refresh_token_lifetime, Some(Duration::from_secs(90)));
        assert_eq!(change.settings.idle_window, Duration::from_hours(168));
    }

    #[test]
    fn null_makes_refresh_tokens_live_without_end() {
        let mut with_end = settings();
        with_end.refresh_token_lifetime = Some(Duration::from_secs(1));
        let change = Change::read(&with_end, json!({ "refresh_token_lifetime": null })).unwrap();
        assert_eq!(change.settings.refresh_token_lifetime, None);
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_list_of_settings() {
        let problem = Change::read(&settings(), json!({ "leway": 0 })).unwrap_err();
        assert!(problem.contains("`leway`") && problem.contains("leeway"), "{problem}");
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for body in [
            json!({ "leeway": 61 }),
            json!({ "rotation": "yes" }),
            json!({ "grant_types": ["implicit"] }),
            json!([]),
        ] {
            assert!(Change::read(&settings(), body.clone()).is_err(), "{body}");
        }
    }
}
