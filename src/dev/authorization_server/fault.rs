//! What a test can order to go wrong, as values read from the control URL's JSON.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;

use super::members::Members;
use super::route::Endpoint;

/// One way in which an answer goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    Status { status: StatusCode, body: String, content_type: String, acts: bool },
    Delay(Duration),
    Hang,
    CutBefore,
    CutAfter,
    HangAfter,
    Garbage,
    Truncated,
    ProxyPage,
    Error { status: StatusCode, error: String, description: String },
    RateLimit(Duration),
    Forge(Forgery),
    Alter(Alteration),
}

/// The access token is not what it should be; all else is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Forgery {
    WrongIssuer,
    WrongAudience,
    WrongSubject(String),
    WrongClient,
    WrongScope,
    AlgNone,
    Hs256PublicKey,
    WrongKey,
    UnknownKid,
    NoKid,
    Crit,
    Expired,
    NotYetValid,
    NoExp,
    IdToken,
    Jwe,
    Opaque,
    WeakKey,
}

/// The answer around the access token is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alteration {
    Dpop,
    NoRefreshToken,
    SameRefreshToken,
    StringExpiresIn,
    LessScope,
    NoIdToken,
    OtherIdToken,
    WrongNonce,
    OldSignIn,
    WeakSignIn,
}

/// A fault for the next requests that fit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    next: u32,
    endpoint: Endpoint,
    grant_type: Option<String>,
    server: Option<String>,
    fault: Fault,
}

/// The ordered faults, oldest first.
#[derive(Default)]
pub(super) struct Faults(Vec<Order>);

impl Faults {
    pub(super) fn add(&mut self, order: Order) {
        self.0.push(order);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault for this request, used up by one.
    pub(super) fn take(
        &mut self,
        endpoint: Endpoint,
        server: &str,
        grant_type: Option<&str>,
    ) -> Option<Fault> {
        let order = self.0.iter_mut().find(|order| {
            order.endpoint == endpoint
                && order.server.as_deref().is_none_or(|wanted| wanted == server)
                && order.grant_type.as_deref().is_none_or(|wanted| grant_type == Some(wanted))
        })?;
        order.next -= 1;
        let fault = order.fault.clone();
        self.0.retain(|order| order.next > 0);
        Some(fault)
    }

    /// Whether a token will have to be signed by a key that belongs to no server.
    pub(super) fn want_a_stray_key(&self) -> bool {
        self.0.iter().any(|order| order.fault == Fault::Forge(Forgery::WrongKey))
    }
}

impl Order {
    pub(super) fn server(&self) -> Option<&str> {
        self.server.as_deref()
    }

    pub(super) fn asks_for_the_weak_key(&self) -> bool {
        self.fault == Fault::Forge(Forgery::WeakKey)
    }
}

/// One object of `POST /control/faults`.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Order(Order),
    /// Of one authorization server, or of all.
    RotateKeys(Option<String>),
    RevokeUser(String),
    DeactivateUser(String),
    AssignUser(String),
    UnassignUser(String),
    /// No fault is on order any more.
    Clear,
}

impl Command {
    /// The error says what is allowed.
    pub(super) fn read(body: Value) -> Result<Self, String> {
        let mut members = Members::of(body)?;
        let kind = members.text("do")?.ok_or_else(|| format!("do: one of {}", kinds()))?;
        let command = match kind.as_str() {
            "clear" => Self::Clear,
            "rotate_keys" => Self::RotateKeys(members.text("server")?),
            "revoke_user" => Self::RevokeUser(user(&mut members)?),
            "deactivate_user" => Self::DeactivateUser(user(&mut members)?),
            "assign_user" => Self::AssignUser(user(&mut members)?),
            "unassign_user" => Self::UnassignUser(user(&mut members)?),
            _ => Self::Order(read_order(&kind, &mut members)?),
        };
        members.finish()?;
        Ok(command)
    }
}

const IMMEDIATE: &str = "rotate_keys, revoke_user, deactivate_user, assign_user, unassign_user, clear";
const PLAIN: &str = "status, delay, hang, cut_before, cut_after, hang_after, garbage, truncated, proxy_page, error, rate_limit";

/// The faults that need nothing said about them, by name.
static TOKEN_FAULTS: [(&str, Fault); 28] = [
    ("wrong_issuer", Fault::Forge(Forgery::WrongIssuer)),
    ("wrong_audience", Fault::Forge(Forgery::WrongAudience)),
    ("wrong_subject", Fault::Forge(Forgery::WrongSubject(String::new()))),
    ("wrong_client", Fault::Forge(Forgery::WrongClient)),
    ("wrong_scope", Fault::Forge(Forgery::WrongScope)),
    ("alg_none", Fault::Forge(Forgery::AlgNone)),
    ("hs256_public_key", Fault::Forge(Forgery::Hs256PublicKey)),
    ("wrong_key", Fault::Forge(Forgery::WrongKey)),
    ("unknown_kid", Fault::Forge(Forgery::UnknownKid)),
    ("no_kid", Fault::Forge(Forgery::NoKid)),
    ("crit", Fault::Forge(Forgery::Crit)),
    ("expired", Fault::Forge(Forgery::Expired)),
    ("not_yet_valid", Fault::Forge(Forgery::NotYetValid)),
    ("no_exp", Fault::Forge(Forgery::NoExp)),
    ("id_token", Fault::Forge(Forgery::IdToken)),
    ("jwe", Fault::Forge(Forgery::Jwe)),
    ("opaque", Fault::Forge(Forgery::Opaque)),
    ("weak_key", Fault::Forge(Forgery::WeakKey)),
    ("dpop", Fault::Alter(Alteration::Dpop)),
    ("no_refresh_token", Fault::Alter(Alteration::NoRefreshToken)),
    ("same_refresh_token", Fault::Alter(Alteration::SameRefreshToken)),
    ("string_expires_in", Fault::Alter(Alteration::StringExpiresIn)),
    ("less_scope", Fault::Alter(Alteration::LessScope)),
    ("no_id_token", Fault::Alter(Alteration::NoIdToken)),
    ("other_id_token", Fault::Alter(Alteration::OtherIdToken)),
    ("wrong_nonce", Fault::Alter(Alteration::WrongNonce)),
    ("old_sign_in", Fault::Alter(Alteration::OldSignIn)),
    ("weak_sign_in", Fault::Alter(Alteration::WeakSignIn)),
];

/// Every word that `do` can be.
pub(super) fn kinds() -> String {
    let of_tokens: Vec<&str> = TOKEN_FAULTS.iter().map(|(name, _)| *name).collect();
    format!("{PLAIN}, {}, {IMMEDIATE}", of_tokens.join(", "))
}

fn read_order(kind: &str, members: &mut Members) -> Result<Order, String> {
    let next = members.count("next")?.unwrap_or(1);
    if next == 0 {
        return Err("next: at least 1".into());
    }
    let endpoint = match members.text("endpoint")? {
        None => Endpoint::Token,
        Some(name) => Endpoint::named(&name)
            .ok_or_else(|| format!("endpoint: one of {}", Endpoint::ALL.map(Endpoint::name).join(", ")))?,
    };
    let (grant_type, server) = (members.text("grant_type")?, members.text("server")?);
    let fault = read_fault(kind, members)?;
    let changes_tokens = matches!(fault, Fault::Forge(_) | Fault::Alter(_));
    let is_metadata = endpoint == Endpoint::Discovery && fault == Fault::Forge(Forgery::WrongIssuer);
    if changes_tokens && endpoint != Endpoint::Token && !is_metadata {
        return Err(format!("{kind}: only for the token endpoint"));
    }
    Ok(Order { next, endpoint, grant_type, server, fault })
}

fn read_fault(kind: &str, members: &mut Members) -> Result<Fault, String> {
    if let Some((_, fault)) = TOKEN_FAULTS.iter().find(|(name, _)| *name == kind) {
        let mut fault = fault.clone();
        if let Fault::Forge(Forgery::WrongSubject(user)) = &mut fault {
            *user = members.text("user")?.unwrap_or_else(|| "bob@example.com".to_owned());
        }
        return Ok(fault);
    }
    Ok(match kind {
        "status" => Fault::Status {
            status: status(members)?.ok_or("status: an HTTP status is wanted")?,
            body: members.text("body")?.unwrap_or_default(),
            content_type: members.text("content_type")?.unwrap_or_else(|| "text/plain".to_owned()),
            acts: members.flag("acts")?.unwrap_or(false),
        },
        "delay" => Fault::Delay(members.seconds("seconds")?.ok_or("seconds: how long to delay")?),
        "hang" => Fault::Hang,
        "cut_before" => Fault::CutBefore,
        "cut_after" => Fault::CutAfter,
        "hang_after" => Fault::HangAfter,
        "garbage" => Fault::Garbage,
        "truncated" => Fault::Truncated,
        "proxy_page" => Fault::ProxyPage,
        "error" => {
            let error = members.text("error")?.ok_or("error: an OAuth error code is wanted")?;
            let usual =
                if error == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            let description =
                members.text("error_description")?.unwrap_or_else(|| "Ordered by a test.".to_owned());
            Fault::Error { status: status(members)?.unwrap_or(usual), error, description }
        }
        "rate_limit" => Fault::RateLimit(members.seconds("seconds")?.unwrap_or(Duration::from_mins(1))),
        _ => return Err(format!("do: `{kind}` is not known; one of {}", kinds())),
    })
}

fn status(members: &mut Members) -> Result<Option<StatusCode>, String> {
    let Some(number) = members.count("status")? else { return Ok(None) };
    let code = u16::try_from(number).ok().filter(|code| (200..600).contains(code));
    code.and_then(|code| StatusCode::from_u16(code).ok())
        .map(Some)
        .ok_or_else(|| "status: 200 to 599".to_owned())
}

fn user(members: &mut Members) -> Result<String, String> {
    members.text("user")?.ok_or_else(|| "user: whose login is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order(body: Value) -> Order {
        let Command::Order(order) = Command::read(body).unwrap() else { panic!("not for later requests") };
        order
    }

    #[test]
    fn an_order_is_used_up_by_the_requests_that_fit() {
        let mut faults = Faults::default();
        faults.add(order(json!({ "do": "hang", "next": 2, "grant_type": "refresh_token", "server": "a" })));
        assert_eq!(faults.take(Endpoint::Token, "a", Some("password")), None);
        assert_eq!(faults.take(Endpoint::Token, "b", Some("refresh_token")), None);
        assert_eq!(faults.take(Endpoint::Keys, "a", None), None);
        assert_eq!(faults.take(Endpoint::Token, "a", Some("refresh_token")), Some(Fault::Hang));
        assert_eq!(faults.take(Endpoint::Token, "a", Some("refresh_token")), Some(Fault::Hang));
        assert_eq!(faults.take(Endpoint::Token, "a", Some("refresh_token")), None);
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let problem = |body| Command::read(body).unwrap_err();
        assert!(problem(json!({ "do": "explode" })).contains("cut_before"));
        assert!(problem(json!({})).contains("rotate_keys"));
        assert!(problem(json!({ "do": "hang", "seconds": 3 })).contains("allowed: do, next, endpoint"));
        assert!(problem(json!({ "do": "hang", "endpoint": "userinfo" })).contains("introspect"));
        assert!(problem(json!({ "do": "delay" })).contains("seconds"));
        assert!(problem(json!({ "do": "status", "status": 99 })).contains("200"));
        assert!(problem(json!({ "do": "jwe", "endpoint": "keys" })).contains("token endpoint"));
        assert!(problem(json!({ "do": "hang", "next": 0 })).contains("at least 1"));
    }

    #[test]
    fn defaults_are_filled_in() {
        let Fault::Error { status, .. } = order(json!({ "do": "error", "error": "invalid_client" })).fault
        else {
            panic!("an error was ordered")
        };
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let wrong = order(json!({ "do": "wrong_subject" })).fault;
        assert_eq!(wrong, Fault::Forge(Forgery::WrongSubject("bob@example.com".into())));
    }
}
