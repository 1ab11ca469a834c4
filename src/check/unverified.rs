//! Tokens that nobody here verifies: what can be read of them is compared.

use serde_json::Value;

use crate::check::refusal::dpop;
use crate::check::token::{mend_token, scopes, subject};
use crate::check::{Step, Verdict};
use crate::jwt::{self, VerifyError};
use crate::model::{RoleName, Scope, Service, UserName, excerpt};
use crate::secret::Secret;

/// What a token that nobody here verifies says that the service will not take, as far as it can be read.
pub(super) fn mismatch(
    service: &Service,
    user: &UserName,
    role: Option<&RoleName>,
    subject: &str,
    body: &Value,
) -> Option<Step> {
    let claims = body.get("claims").filter(|claims| claims.is_object())?;
    let audiences = match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => vec![one.as_str()],
        _ => Vec::new(),
    };
    let judged = |verdict, message: String, kind: &str| {
        let message = format!("not verified here, and {message}");
        Step { verdict, ..Step::bad("token", subject, message, mend_token(service, kind)) }
    };
    // What names another audience is refused; the rest may be meant, for it was said that nobody reads it here.
    let doubtful = |message, kind| Some(judged(Verdict::Doubtful, message, kind));
    if audiences.is_empty() {
        return doubtful("it names no audience".to_owned(), "audience");
    }
    if !audiences.contains(&service.audience.as_str()) {
        let message = format!("its audience is {:?}", excerpt(&audiences.join(" ")));
        return Some(judged(Verdict::Bad, message, "audience"));
    }
    let claim = &service.user_claim;
    match claims.get(claim).and_then(Value::as_str) {
        None => return doubtful(format!("it has no usable `{claim}`"), "no usable `"),
        Some(named) if UserName::parse(named).as_ref() != Some(user) => {
            return doubtful(format!("its {claim} is {:?}, not {user}", excerpt(named)), "another user");
        }
        Some(_) => {}
    }
    let (scopes, wanted) = (scopes(claims), role.and_then(|role| service.roles.get(role)));
    let wanted = wanted.map(Scope::to_string).unwrap_or_default();
    let missing: Vec<&str> =
        wanted.split_whitespace().filter(|word| !scopes.iter().any(|scope| scope == word)).collect();
    if missing.is_empty() {
        None
    } else {
        doubtful(format!("it has no scope {}", missing.join(" ")), "scopes")
    }
}

/// A token of the client's own, as it came: there is no user, and no sidecar is needed. Its signature is not looked at.
pub(super) fn of_the_client(service: &Service, issuer: &str, body: &[u8]) -> Step {
    let subject = subject(service, None);
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if !text("token_type").eq_ignore_ascii_case("bearer") {
        let message = format!("token_type is {:?}, not Bearer", excerpt(&text("token_type")));
        return Step::bad("token", subject, message, dpop());
    }
    if service.opaque {
        return Step::untold("token", subject, "is opaque, and handed on unread");
    }
    let wrong = match jwt::shown(&Secret::new(text("access_token"))) {
        Err(error) => error,
        Ok((_, claims)) => {
            let audiences = claims.texts("aud").unwrap_or_default();
            let named = claims.text("iss").unwrap_or_default();
            if named != issuer {
                let message = format!("names its issuer {:?}, not {issuer:?}", excerpt(named));
                return Step::bad("token", subject, message, mend_token(service, "issuer"));
            }
            if audiences.contains(&service.audience.as_str()) {
                let message =
                    format!("not verified here, but is for {}, by the client itself", audiences.join(" "));
                return Step::good("token", subject, message);
            }
            VerifyError::Audience(excerpt(&audiences.join(" ")))
        }
    };
    Step::bad("token", subject, wrong.to_string(), mend_token(service, &wrong.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::token::judge;
    use crate::model::{Kind, ServiceName, SpeaksFor};
    use serde_json::json;

    fn service(kind: Kind) -> Service {
        let role = (RoleName::parse("ANALYST").unwrap(), Scope::from_wire("session:role:ANALYST"));
        Service {
            name: ServiceName::parse("s").unwrap(),
            speaks_for: SpeaksFor::Users,
            authorization_server: "a".into(),
            audience: "https://s.example".into(),
            scopes: Scope::from_wire("session:role:PUBLIC"),
            roles: [role].into(),
            user_claim: "sub".into(),
            opaque: true,
            kind,
            acr_values: None,
            max_age: None,
            password_grant: false,
        }
    }

    #[test]
    fn a_token_that_nobody_verified_is_compared_and_never_said_to_verify() {
        let (service, user) = (service(Kind::Generic), UserName::parse("alice@example.com").unwrap());
        let role = RoleName::parse("ANALYST");
        let good = json!({ "aud": ["https://s.example"], "sub": "alice@example.com",
            "scp": ["session:role:ANALYST"] });
        let judge_with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            let body = json!({ "verified": false, "claims": claims });
            let step = mismatch(&service, &user, role.as_ref(), "x", &body);
            step.unwrap_or_else(|| judge(&service, role.as_ref(), "x", &body))
        };
        let step = judge_with("aud", json!("https://s.example"));
        assert_eq!(step.verdict, Verdict::Good);
        assert!(step.message.starts_with("not verified here"), "{step:?}");
        for (name, value, verdict) in [
            ("aud", json!("https://other.example"), Verdict::Bad),
            ("aud", json!(null), Verdict::Doubtful),
            ("sub", json!("bob@example.com"), Verdict::Doubtful),
            ("sub", json!(null), Verdict::Doubtful),
            ("scp", json!(["session:role:PUBLIC"]), Verdict::Doubtful),
        ] {
            let step = judge_with(name, value.clone());
            assert_eq!(step.verdict, verdict, "{name} {value}: {step:?}");
            assert!(step.message.starts_with("not verified here"), "{step:?}");
        }
        let opaque = json!({ "verified": false, "claims": null });
        assert_eq!(mismatch(&service, &user, None, "x", &opaque), None);
        assert_eq!(judge(&service, None, "x", &opaque).verdict, Verdict::Untold);
    }
}
