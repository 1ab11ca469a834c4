use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::authorization_server::http::Answer;
use crate::authorization_server::{Exchange, Refusal, Tokens, rate_limit, retry_after, sort};
use crate::fuzz::LONGEST_COMPLAINT;

/// No wait that a server asks for is longer.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// A token endpoint's answer: the status in a line, headers in lines, an empty line, the body. Whether it was a whole token
/// response.
pub fn token_response(input: &[u8]) -> bool {
    let Some(answer) = read(input) else { return false };
    let exchange = sort(&answer);
    let waits = [
        retry_after(&answer),
        rate_limit(&answer.headers).map(|(_, _, wait)| wait),
        if let Exchange::Refused(Refusal::RateLimited { retry_after }) = &exchange {
            Some(*retry_after)
        } else {
            None
        },
    ];
    assert!(waits.into_iter().flatten().all(|wait| wait <= LONGEST_WAIT));
    assert!(format!("{exchange:?}").len() <= LONGEST_COMPLAINT + answer.body.len());
    match exchange {
        Exchange::Answered(tokens) => {
            assert_eq!(answer.status, StatusCode::OK);
            assert_is_as_said(&tokens, &answer.body);
            assert_survives(&tokens);
            true
        }
        Exchange::Refused(refusal) => {
            assert!(answer.status.is_client_error());
            assert_is_a_word(&refusal, &answer);
            false
        }
        // Nothing of the body, which may be a token response cut off.
        Exchange::InDoubt(why) => {
            assert!(why.len() < 100);
            false
        }
        Exchange::NotSent(_) => panic!("it was answered"),
    }
}

fn read(input: &[u8]) -> Option<Answer> {
    let at = input.windows(2).position(|two| two == b"\n\n")?;
    let (head, body) = (std::str::from_utf8(input.get(..at)?).ok()?, input.get(at + 2..)?);
    let mut lines = head.lines();
    let status = StatusCode::from_bytes(lines.next()?.as_bytes()).ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
    };
    let headers: HeaderMap = lines.filter_map(header).collect();
    Some(Answer { status, headers, body: body.to_vec().into() })
}

fn assert_is_as_said(tokens: &Tokens, body: &[u8]) {
    // What nobody looks at may be no UTF-8 or no number: a new refresh token is not thrown away for that.
    let Ok(said) = serde_json::from_str::<Value>(&String::from_utf8_lossy(body)) else { return };
    assert!(!tokens.access_token.is_empty());
    assert_eq!(said["access_token"], tokens.access_token.expose());
    assert_eq!(said["token_type"], tokens.token_type.as_str());
    match &tokens.refresh_token {
        Some(token) => assert!(!token.is_empty() && said["refresh_token"] == token.expose()),
        None => assert!(said["refresh_token"].as_str().unwrap_or_default().is_empty()),
    }
    assert!(tokens.expires_in <= Duration::from_hours(24 * 366));
}

/// Written down again, it is read as the same.
fn assert_survives(tokens: &Tokens) {
    let body = json!({
        "access_token": tokens.access_token.expose(),
        "token_type": tokens.token_type,
        "expires_in": tokens.expires_in.as_secs_f64(),
        "refresh_token": tokens.refresh_token.as_ref().map(crate::secret::Secret::expose),
        "scope": tokens.scope.as_ref().map(ToString::to_string),
    });
    let answer = Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: body.to_string().into() };
    let Exchange::Answered(again) = sort(&answer) else { panic!("{body} is refused") };
    assert_eq!(again.access_token, tokens.access_token);
    assert_eq!((&again.refresh_token, &again.scope), (&tokens.refresh_token, &tokens.scope));
    assert!(again.expires_in.abs_diff(tokens.expires_in) < Duration::from_micros(1));
}

/// A grant is not ended by anything but the word for it, and no word is more than that.
fn assert_is_a_word(refusal: &Refusal, answer: &Answer) {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let said = said.get("error").or_else(|| said.get("errorCode")).and_then(Value::as_str);
    match refusal {
        Refusal::InvalidGrant => assert_eq!(said, Some("invalid_grant")),
        Refusal::Configuration(wrong) => {
            assert_eq!(said, Some(wrong.error.as_str()));
            assert!(wrong.error != "invalid_grant" && wrong.error.len() <= 64);
            assert!(wrong.error.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        }
        Refusal::RateLimited { retry_after } => {
            assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
            assert!(!retry_after.is_zero());
        }
    }
}
