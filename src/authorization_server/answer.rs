//! Sorts a token endpoint's answer exactly as design 1.3 and 2 say. Pure: status, headers and body in, meaning out.

use std::time::Duration;

use headers::{Date, HeaderMapExt as _};
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::authorization_server::http::Answer;
use crate::authorization_server::{Exchange, Misconfiguration, Refusal, Tokens};
use crate::model::{Reference, Scope};
use crate::secret::Secret;

/// Where `expires_in` is left out (RFC 6749 only recommends it): the shortest life that Okta can be set to.
const UNSAID_LIFE: Duration = Duration::from_mins(5);
/// No life longer than this is believed.
const LONGEST_LIFE: Duration = Duration::from_hours(24 * 366);
/// What to wait where a 429 names no end of its window: one window.
const UNSAID_WINDOW: Duration = Duration::from_mins(1);
/// A reset further away than this is not believed.
const LONGEST_WINDOW: Duration = Duration::from_mins(5);

/// What the answer to a refresh means.
pub(crate) fn sort(answer: &Answer) -> Exchange {
    match answer.status {
        StatusCode::OK => tokens(&answer.body).map_or_else(
            || Exchange::InDoubt("a 200 that is not a token response".to_owned()),
            |tokens| Exchange::Answered(Box::new(tokens)),
        ),
        StatusCode::TOO_MANY_REQUESTS => {
            Exchange::Refused(Refusal::RateLimited { retry_after: window(&answer.headers) })
        }
        status if status.is_client_error() => match error_code(&answer.body) {
            Some(code) if code == "invalid_grant" => Exchange::Refused(Refusal::InvalidGrant),
            Some(code) => {
                let said = description(&answer.body);
                Exchange::Refused(Refusal::Configuration(misconfiguration(&code, &said)))
            }
            None => Exchange::InDoubt(format!("{status} without an OAuth error: a proxy's page?")),
        },
        status => Exchange::InDoubt(format!("{status}")),
    }
}

/// The server's word for what is wrong: `error`, or `errorCode` in Okta's own shape. Only sane words are taken, since
/// this one goes into answers and logs.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let word = body.get("error").or_else(|| body.get("errorCode"))?.as_str()?;
    let sane = (1..=64).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    sane.then(|| word.to_owned())
}

/// What Okta calls the request and the error, as far as it is sane: both go into the audit log.
pub(super) fn reference(answer: &Answer) -> Reference {
    let sane = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        ((1..=100).contains(&text.len()) && text.bytes().all(plain)).then(|| text.to_owned())
    };
    let header = answer.headers.get("x-okta-request-id").and_then(|value| value.to_str().ok());
    // A token response has none, and is not looked through for one.
    let body: Option<Value> =
        (answer.status != StatusCode::OK).then(|| serde_json::from_slice(&answer.body).ok()).flatten();
    let error_id = body.as_ref().and_then(|body| body.get("errorId")).and_then(Value::as_str);
    Reference { okta_request_id: header.and_then(sane), error_id: error_id.and_then(sane) }
}

/// The server's sentence, to look into; it is not repeated.
pub(super) fn description(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = body.get("error_description").or_else(|| body.get("errorSummary")).and_then(Value::as_str);
    said.unwrap_or_default().to_owned()
}

/// What an error code means for whoever has to mend it, with what else was said (facts A6).
#[must_use]
pub fn misconfiguration(code: &str, description: &str) -> Misconfiguration {
    let hint = match code {
        "access_denied" if description.contains("not assigned") => {
            "the user is not assigned to the app integration: see its Assignments tab in Okta"
        }
        "access_denied" if description.contains("Policy evaluation") => {
            "no access policy rule matches this client, user, grant type and these scopes: see Security > API > the \
             authorization server > Access Policies in Okta"
        }
        "invalid_client" => {
            "the authorization server does not accept the client: compare client_id and client secret with the app \
             integration's General tab in Okta"
        }
        "unauthorized_client" => {
            "the client may not use this grant type: under Grant type in the app integration's General tab in Okta, \
             switch on Refresh Token (Client Credentials for a service without users)"
        }
        "invalid_scope" => {
            "the authorization server does not grant these scopes: compare the service's scopes and roles with \
             Security > API > the authorization server > Scopes in Okta, and with what the user consented to"
        }
        "access_denied" => {
            "no access policy rule allows it, or the user is not assigned to the app integration: see Security > API \
             > the authorization server > Access Policies, and the app's Assignments, in Okta"
        }
        "use_dpop_nonce" | "invalid_dpop_proof" => {
            "the client demands DPoP, which no data driver speaks: switch off `Require DPoP` in the app \
             integration's General tab in Okta"
        }
        _ => "see the authorization server's system log for the reason",
    };
    Misconfiguration { error: code.to_owned(), hint }
}

fn tokens(body: &[u8]) -> Option<Tokens> {
    #[derive(Deserialize)]
    struct Response {
        access_token: String,
        token_type: String,
        expires_in: Option<Value>,
        refresh_token: Option<String>,
        scope: Option<String>,
        id_token: Option<String>,
    }
    // RFC 6749 §5.1: an object. A list would be taken by the order of the members.
    if !body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let response: Response = serde_json::from_slice(body).ok()?;
    if response.access_token.is_empty() {
        return None;
    }
    let expires_in = match response.expires_in {
        None => UNSAID_LIFE,
        Some(Value::Number(number)) => Duration::try_from_secs_f64(number.as_f64()?).ok()?,
        // Some servers write a number as text.
        Some(Value::String(text)) => Duration::from_secs(text.parse().ok()?),
        Some(_) => return None,
    };
    Some(Tokens {
        access_token: Secret::new(response.access_token),
        token_type: response.token_type,
        expires_in: expires_in.min(LONGEST_LIFE),
        refresh_token: response.refresh_token.filter(|token| !token.is_empty()).map(Secret::new),
        scope: response.scope.map(|scope| Scope::from_wire(&scope)),
        id_token: response.id_token.filter(|token| !token.is_empty()).map(Secret::new),
    })
}

/// When another request is worth making, if the server says so: RFC 7009 §2.2.1, or the end of its rate limit's window.
pub(crate) fn retry_after(answer: &Answer) -> Option<Duration> {
    if answer.status == StatusCode::TOO_MANY_REQUESTS {
        return Some(window(&answer.headers));
    }
    let seconds = answer.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WINDOW))
}

/// What the answer says of the rate limit: requests in a window, how many are left, how long it goes on. With Okta a limit of
/// 0 speaks of requests at the same time, and its reset says nothing.
pub(crate) fn rate_limit(headers: &HeaderMap) -> Option<(u32, u32, Duration)> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u32>().ok();
    let limit = number("x-rate-limit-limit").filter(|limit| *limit > 0)?;
    headers.get("x-rate-limit-reset")?;
    Some((limit, number("x-rate-limit-remaining")?, window(headers)))
}

/// Until the rate limit's window ends: Okta says when by its own clock, so its own `Date` is taken off, not ours.
fn window(headers: &HeaderMap) -> Duration {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let date = headers.typed_get::<Date>().and_then(|date| {
        std::time::SystemTime::from(date)
            .duration_since(std::time::UNIX_EPOCH)
            .ok()
            .map(|since| since.as_secs())
    });
    let by_okta = number("x-rate-limit-reset").zip(date).map(|(reset, date)| reset.saturating_sub(date));
    let seconds = by_okta.or_else(|| number("retry-after"));
    seconds.map_or(UNSAID_WINDOW, |seconds| Duration::from_secs(seconds.max(1)).min(LONGEST_WINDOW))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Exchange {
        sort(&Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect(),
            body: body.to_owned().into(),
        })
    }

    fn tokens_of(body: &str) -> Tokens {
        let exchange = answer(200, &[], body);
        let Exchange::Answered(tokens) = exchange else { panic!("{exchange:?}") };
        *tokens
    }

    #[test]
    fn a_whole_answer_is_taken_with_and_without_a_refresh_token() {
        let whole = tokens_of(
            r#"{"access_token":"a","token_type":"Bearer","expires_in":3600,"refresh_token":"r","scope":"b a","x":1}"#,
        );
        assert_eq!(whole.expires_in, Duration::from_hours(1));
        assert_eq!(whole.refresh_token, Some(Secret::new("r".into())));
        assert_eq!(whole.scope, Some(Scope::from_wire("a b")));
        let bare =
            tokens_of(r#"{"access_token":"a","token_type":"Bearer","expires_in":"60","refresh_token":""}"#);
        assert_eq!((bare.refresh_token, bare.expires_in), (None, Duration::from_mins(1)));
        assert_eq!(tokens_of(r#"{"access_token":"a","token_type":"Bearer"}"#).expires_in, UNSAID_LIFE);
    }

    #[test]
    fn whatever_is_not_a_whole_answer_is_in_doubt() {
        let token = r#"{"access_token":"a","token_type":"Bearer","expires_in":60}"#;
        for (status, body) in [
            (200, ""),
            (200, "<html>"),
            (200, r#"{"access_token":"a","token_ty"#),
            (200, r#"{"token_type":"Bearer"}"#),
            (200, r#"{"access_token":"","token_type":"Bearer"}"#),
            (200, r#"{"access_token":"a","token_type":"Bearer","expires_in":-1}"#),
            (200, r#"{"error":"invalid_grant"}"#),
            (201, token),
            (204, ""),
            (302, ""),
            (400, ""),
            (400, "invalid_grant"),
            (403, "<html>blocked</html>"),
            (404, r#"{"error":17}"#),
            (400, r#"{"error":"invalid grant\n"}"#),
            (500, r#"{"error":"invalid_grant"}"#),
            (502, ""),
            (503, r#"{"errorCode":"E0000009"}"#),
        ] {
            assert!(matches!(answer(status, &[], body), Exchange::InDoubt(_)), "{status} {body}");
        }
    }

    #[test]
    fn refusals_are_sorted_by_who_must_act_in_both_shapes() {
        for (status, body) in [(400, r#"{"error":"invalid_grant"}"#), (401, r#"{"error":"invalid_grant"}"#)] {
            assert!(matches!(answer(status, &[], body), Exchange::Refused(Refusal::InvalidGrant)));
        }
        for (body, client) in [
            (r#"{"error":"invalid_client"}"#, true),
            (
                r#"{"errorCode":"invalid_client","errorSummary":"Invalid value for 'client_id' parameter."}"#,
                true,
            ),
            (r#"{"error":"unauthorized_client"}"#, true),
            (r#"{"error":"invalid_scope"}"#, false),
            (r#"{"error":"access_denied"}"#, false),
            (r#"{"error":"something_new"}"#, false),
        ] {
            let exchange = answer(400, &[], body);
            let Exchange::Refused(Refusal::Configuration(found)) = exchange else {
                panic!("{body}: {exchange:?}")
            };
            assert_eq!(found.concerns_client(), client);
        }
    }

    #[test]
    fn a_rate_limit_ends_by_the_servers_own_clock() {
        let wait = |headers: &[(&'static str, &'static str)]| {
            let exchange = answer(429, headers, "{}");
            let Exchange::Refused(Refusal::RateLimited { retry_after }) = exchange else {
                panic!("{exchange:?}")
            };
            retry_after.as_secs()
        };
        let date = ("date", "Mon, 23 Nov 2026 13:00:00 GMT");
        assert_eq!(wait(&[date, ("x-rate-limit-reset", "1795438837")]), 37);
        assert_eq!(wait(&[date, ("x-rate-limit-reset", "1795438000")]), 1, "already over");
        assert_eq!(wait(&[date, ("x-rate-limit-reset", "9999999999")]), 300, "absurd");
        assert_eq!(wait(&[("x-rate-limit-reset", "1795438837")]), 60, "no Date to take off");
        assert_eq!(wait(&[("retry-after", "7")]), 7);
        assert_eq!(wait(&[]), 60);
    }
}
