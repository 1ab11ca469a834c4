//! Which client is calling: `client_secret_basic` or `client_secret_post`, exactly one of them (RFC 6749 2.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::secret::Secret;

use super::form::Form;
use super::refusal::Refusal;
use super::state::CLIENT_ID;

/// `Ok` for the one client there is, with any of its secrets.
pub(super) fn authenticate(
    authorization: Option<&str>,
    form: &Form,
    secrets: &[Secret],
) -> Result<(), Refusal> {
    let (client_id, secret) = credentials(authorization, form)?;
    if client_id != CLIENT_ID {
        return Err(Refusal::UnknownClient);
    }
    if secrets.contains(&secret) { Ok(()) } else { Err(Refusal::WrongSecret) }
}

fn credentials(authorization: Option<&str>, form: &Form) -> Result<(String, Secret), Refusal> {
    let in_form = form.get("client_secret");
    let asserts = form.get("client_assertion").is_some() || form.get("client_assertion_type").is_some();
    let methods = [authorization.is_some(), in_form.is_some(), asserts];
    if methods.into_iter().filter(|used| *used).count() > 1 {
        return Err(Refusal::invalid_request(
            "Cannot supply multiple client credentials. Use one of the following: credentials in the Authorization \
             header, credentials in the post body, or a client_assertion in the post body.",
        ));
    }
    if let Some(header) = authorization {
        let (client_id, secret) = basic(header).ok_or_else(|| {
            Refusal::invalid_request("The Authorization header is no well-formed Basic header.")
        })?;
        if form.get("client_id").is_some_and(|other| other != client_id) {
            return Err(Refusal::invalid_request(
                "The 'client_id' differs from the one in the Authorization header.",
            ));
        }
        return Ok((client_id, secret));
    }
    match (form.get("client_id"), in_form) {
        (Some(client_id), Some(secret)) => Ok((client_id.to_owned(), Secret::new(secret.to_owned()))),
        (Some(client_id), None) if client_id != CLIENT_ID => Err(Refusal::UnknownClient),
        (_, _) => Err(Refusal::NoCredentials),
    }
}

/// RFC 6749 2.3.1: both halves are form-urlencoded before RFC 7617 puts them together.
fn basic(header: &str) -> Option<(String, Secret)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (client_id, secret) = text.split_once(':')?;
    Some((form_decoded(client_id)?, Secret::new(form_decoded(secret)?)))
}

/// `None` for what a form can't contain unencoded.
fn form_decoded(text: &str) -> Option<String> {
    if text.contains(['=', '&']) {
        return None;
    }
    let pair = format!("value={text}");
    let (_, value) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
    Some(value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Vec<Secret> {
        vec![Secret::new("s+/ %&=".into()), Secret::new("second".into())]
    }

    fn with(authorization: Option<&str>, form: &str) -> Result<(), Refusal> {
        authenticate(authorization, &Form::parse(form.as_bytes()).unwrap(), &secrets())
    }

    fn header(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[test]
    fn both_methods_and_both_secrets_will_do() {
        assert_eq!(with(Some(&header("0oadevbursar:s%2B%2F+%25%26%3D")), ""), Ok(()));
        assert_eq!(with(Some(&header("0oadevbursar:second")), "client_id=0oadevbursar"), Ok(()));
        assert_eq!(with(None, "client_id=0oadevbursar&client_secret=second"), Ok(()));
    }

    #[test]
    fn a_secret_that_was_not_form_encoded_does_not_pass() {
        assert!(with(Some(&header("0oadevbursar:s+/ %&=")), "").is_err());
    }

    #[test]
    fn two_methods_at_once_are_malformed() {
        let both = with(Some(&header("0oadevbursar:second")), "client_secret=second");
        assert!(matches!(both, Err(Refusal::InvalidRequest(_))));
        let other = with(Some(&header("0oadevbursar:second")), "client_id=other");
        assert!(matches!(other, Err(Refusal::InvalidRequest(_))));
        assert!(matches!(with(Some("Basic !"), ""), Err(Refusal::InvalidRequest(_))));
        assert!(matches!(with(Some("Bearer x"), ""), Err(Refusal::InvalidRequest(_))));
    }

    #[test]
    fn each_failure_has_its_own_answer() {
        assert_eq!(with(None, ""), Err(Refusal::NoCredentials));
        assert_eq!(with(None, "client_id=0oadevbursar"), Err(Refusal::NoCredentials));
        assert_eq!(with(None, "client_id=0oaother"), Err(Refusal::UnknownClient));
        assert_eq!(with(None, "client_id=0oaother&client_secret=second"), Err(Refusal::UnknownClient));
        assert_eq!(with(Some(&header("0oadevbursar:wrong")), ""), Err(Refusal::WrongSecret));
    }
}
