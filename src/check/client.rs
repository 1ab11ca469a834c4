//! What the token endpoint tells of the client and its grant types, by requests that can't succeed: a server looks at the
//! client first, then at the grant type, and only then at what is presented. A client that is refused is refused once.

use std::path::Path;

use hyper::StatusCode;
use serde_json::Value;
use url::Url;

use crate::authorization_server::http::{Answer, SendError};
use crate::check::asking::Asking;
use crate::check::refusal::{APP, Refusal, SERVER, dpop, policy};
use crate::check::server::Needs;
use crate::check::{Step, Verdict, unverified};
use crate::clock::Timestamp;
use crate::model::Service;

/// What nobody was ever given; no server takes it for anything.
const NOTHING: &str = "bursar-check-presents-nothing-that-was-ever-issued";

/// What an answer means for the client and the grant type that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// The client is known and may use it.
    Accepted,
    /// The client is known and may not use it.
    Off(Refusal),
    /// The client is not known, or not believed.
    Client(Refusal),
    /// It must use `DPoP`.
    Dpop(Refusal),
    /// The client is known; no policy rule matches.
    Policy(Refusal),
    /// The client is known; these scopes are not granted.
    Scope(Refusal),
    /// The request is not one that it takes; of the client nothing.
    Request(String),
    /// Neither that the client is known nor that it is not.
    Unclear(String),
    /// Nothing for now.
    Later(String),
    /// Nothing.
    Nothing(String),
}

/// How the client proves who it is.
pub(super) struct Client<'a> {
    pub(super) section: &'a str,
    pub(super) id: &'a str,
    pub(super) method: &'a str,
    pub(super) file: Option<&'a Path>,
}

/// One request, which succeeds only where it is for the client itself.
pub(super) struct Probe<'a> {
    grant_type: &'static str,
    /// Whose own token it asks for.
    service: Option<&'a Service>,
    form: Vec<(&'static str, String)>,
}

impl<'a> Probe<'a> {
    /// Asks for a token of the client's own.
    pub(super) fn of_client(service: &'a Service) -> Self {
        let grant_type = "client_credentials";
        let form = vec![("grant_type", grant_type.to_owned()), ("scope", service.scopes.to_string())];
        Self { grant_type, service: Some(service), form }
    }

    /// Presents what was never issued.
    pub(super) fn of_users(grant_type: &'static str, redirect_uri: &str) -> Self {
        let nothing = || NOTHING.to_owned();
        let mut form = vec![("grant_type", grant_type.to_owned())];
        match grant_type {
            "refresh_token" => form.push(("refresh_token", nothing())),
            "authorization_code" => form.extend([
                ("code", nothing()),
                ("redirect_uri", redirect_uri.to_owned()),
                ("code_verifier", nothing()),
            ]),
            "password" => form.extend([
                ("username", "nobody@bursar.invalid".to_owned()),
                ("password", nothing()),
                ("scope", "openid".to_owned()),
            ]),
            _ => form.push(("device_code", nothing())),
        }
        Self { grant_type, service: None, form }
    }

    /// What it is about, in the configuration.
    fn subject(&self, section: &str) -> String {
        self.service.map_or_else(|| section.to_owned(), |service| format!("services.{}", service.name))
    }
}

pub(super) async fn look(
    client: &Client<'_>,
    (issuer, endpoint): (&str, &Url),
    needs: &Needs<'_>,
    asking: &Asking,
) -> Vec<Step> {
    let section = client.section;
    let (mut steps, probes) = (Vec::new(), needs.probes());
    // What is said of the client until a request tells more.
    let mut open: Option<Step> = None;
    let mut is_accepted = false;
    for probe in &probes {
        let form: Vec<(&str, &str)> =
            probe.form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = asking.post(endpoint, &form).await;
        let told = sort(probe.grant_type, &answer);
        if !is_accepted {
            let step = judge_client(client, &told);
            is_accepted = step.verdict == Verdict::Good;
            if matches!(told, Told::Request(_)) {
                open.get_or_insert(step);
            } else if is_accepted {
                open = None;
                steps.insert(0, step);
            } else {
                let why = "not asked for, since the client is not accepted";
                let untold = probes.iter().map(|probe| untold(section, probe, why));
                return std::iter::once(step).chain(untold).collect();
            }
        }
        steps.push(judge_grant_type(section, probe, &told, needs.is_optional(probe.grant_type)));
        if let (Told::Accepted, Some(service), Ok(answer)) = (&told, probe.service, &answer) {
            steps.push(unverified::of_the_client(service, issuer, &answer.body));
        }
    }
    open.into_iter().chain(steps).collect()
}

fn untold(section: &str, probe: &Probe<'_>, why: &str) -> Step {
    Step::untold("grant_type", probe.subject(section), format!("{}: {why}", probe.grant_type))
}

/// Some say so of a wrong secret (Keycloak: 401, `Invalid client or Invalid client credentials`), who say it of a grant type
/// that is off with a 400.
fn is_about_the_client(status: StatusCode, refusal: &Refusal) -> bool {
    let text = refusal.text.to_ascii_lowercase();
    let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
    let wrong = ["invalid", "incorrect", "wrong", "bad"].iter().any(|word| text.contains(word));
    let named = ["client credential", "client secret", "client_secret", "credentials", "invalid client"];
    refused || wrong && named.iter().any(|word| text.contains(word))
}

/// Okta's two texts for a policy that does not match, and for a user who is not assigned; Auth0 says `access_denied` of a
/// wrong secret too.
fn is_of_a_policy(refusal: &Refusal) -> bool {
    let text = refusal.text.to_ascii_lowercase();
    text.contains("policy evaluation failed") || text.contains("not assigned to the client")
}

fn has_token(body: &[u8]) -> bool {
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    let token = answer.as_ref().and_then(|answer| answer.get("access_token")).and_then(Value::as_str);
    token.is_some_and(|token| !token.is_empty())
}

fn sort(grant_type: &str, answer: &Result<Answer, SendError>) -> Told {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Told::Nothing(error.to_string()),
    };
    match Refusal::of(&answer.body) {
        None if answer.status == StatusCode::OK => {
            if grant_type == "client_credentials" && has_token(&answer.body) {
                Told::Accepted
            } else {
                Told::Unclear("200, and no token, to a request for one".to_owned())
            }
        }
        None => Told::Nothing(format!("the token endpoint answers {} without an OAuth error", answer.status)),
        Some(refusal) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
            Told::Later(format!("asked too often: {}", refusal.quoted()))
        }
        Some(refusal) if answer.status.is_server_error() => Told::Nothing(refusal.quoted()),
        Some(refusal) => match refusal.error.as_str() {
            "invalid_grant" | "authorization_pending" | "expired_token" | "slow_down" => Told::Accepted,
            "invalid_client" => Told::Client(refusal),
            "unauthorized_client" if is_about_the_client(answer.status, &refusal) => Told::Client(refusal),
            "unauthorized_client" | "unsupported_grant_type" => Told::Off(refusal),
            "use_dpop_nonce" | "invalid_dpop_proof" => Told::Dpop(refusal),
            "access_denied" if is_of_a_policy(&refusal) => Told::Policy(refusal),
            "invalid_scope" => Told::Scope(refusal),
            // Before or after it looked at the client: there is no telling.
            "invalid_request" if answer.status == StatusCode::BAD_REQUEST => Told::Request(refusal.quoted()),
            "access_denied" | "invalid_request" => Told::Unclear(refusal.quoted()),
            _ => Told::Nothing(refusal.quoted()),
        },
    }
}

fn judge_client(client: &Client<'_>, told: &Told) -> Step {
    let section = client.section;
    match told {
        Told::Accepted | Told::Off(_) | Told::Policy(_) | Told::Scope(_) => {
            let message = format!("{} is accepted, by {}", client.id, client.method);
            Step::good("client", section, message)
        }
        Told::Client(refusal) => {
            Step::bad("client", section, format!("refused: {}", refusal.quoted()), refused(client, refusal))
        }
        Told::Dpop(refusal) => Step::bad("client", section, refusal.quoted(), dpop()),
        Told::Request(why) | Told::Unclear(why) => {
            let message = format!("whether it is accepted can't be told from the answer: {why}");
            Step::untold("client", section, message)
        }
        Told::Later(why) => Step::untold("client", section, why.clone()).and_do("try again in a minute"),
        Told::Nothing(why) => {
            let remedy = "try again in a minute; where it stays so: network zones (Security > Networks in Okta) and proxies can \
                          keep the token endpoint from answering";
            Step::bad("client", section, why.clone(), remedy)
        }
    }
}

/// What to do about `invalid_client`, by Okta's texts.
fn refused(client: &Client<'_>, refusal: &Refusal) -> String {
    let (section, text) = (client.section, refusal.text.to_ascii_lowercase());
    let changed = |file: &Path| {
        let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
        let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let since = since.and_then(|since| i64::try_from(since.as_secs()).ok()).map(Timestamp::from_secs);
        since.map(|since| format!(" (last changed {since})")).unwrap_or_default()
    };
    let file = client.file.map(|file| format!("{}{}", file.display(), changed(file)));
    let file = file.unwrap_or_else(|| "the environment's variable".to_owned());
    if text.contains("client_id") {
        return format!(
            "there is no such client: {section}.client_id must be the Client ID in Okta, {APP} > Client Credentials, and the app \
             must be active"
        );
    }
    if client.method == "private_key_jwt" {
        return format!(
            "the public half of {file} must be among the public keys in Okta, {APP} > Client Credentials, with Client \
             authentication `Public key / Private key`; this machine's clock must be right"
        );
    }
    if text.contains("no client credentials") || client.method == "none" {
        return format!(
            "the server wants the client to prove itself otherwise: {section}.client_authentication must fit Client \
             authentication in Okta, {APP} > Client Credentials"
        );
    }
    format!(
        "put the client secret that is active in Okta, {APP} > Client Credentials > Client Secrets, into {file}: what it holds \
         is not, or no longer, one of this client's"
    )
}

fn judge_grant_type(section: &str, probe: &Probe<'_>, told: &Told, is_optional: bool) -> Step {
    let (grant_type, subject) = (probe.grant_type, probe.subject(section));
    match told {
        Told::Accepted => Step::good("grant_type", subject, format!("{grant_type}: the client may use it")),
        Told::Off(refusal) => {
            let name = match grant_type {
                "refresh_token" => "Refresh Token",
                "authorization_code" => "Authorization Code",
                "client_credentials" => "Client Credentials",
                "password" => "Resource Owner Password",
                _ => "Device Authorization",
            };
            let message = format!("{grant_type}: {}", refusal.quoted());
            let remedy = format!("in Okta, {APP} > General Settings > Grant type, switch on {name}");
            if is_optional {
                let only = if grant_type == "authorization_code" {
                    "without [connect] needed only for `bursar login`, in a browser on the same machine"
                } else {
                    "needed only for `bursar login --device`"
                };
                return Step::doubtful("grant_type", subject, message, format!("{remedy} ({only})"));
            }
            Step::bad("grant_type", subject, message, remedy)
        }
        Told::Policy(refusal) => Step::bad(
            "grant_type",
            section,
            format!("{grant_type}: {}", refusal.quoted()),
            policy(grant_type),
        ),
        Told::Scope(refusal) => {
            let scopes = probe.service.map(|service| service.scopes.to_string()).unwrap_or_default();
            let remedy = format!(
                "in Okta, {SERVER} > Scopes, there must be {scopes}, exactly so; and the policy's rule for grant type {grant_type} \
                 must grant them"
            );
            Step::bad("scopes", subject, format!("{grant_type}: {}", refusal.quoted()), remedy)
        }
        Told::Client(refusal) | Told::Dpop(refusal) => untold(section, probe, &refusal.quoted()),
        Told::Request(why) | Told::Unclear(why) | Told::Later(why) | Told::Nothing(why) => {
            untold(section, probe, why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn told_of(grant_type: &str, status: u16, body: &'static str) -> Told {
        let status = StatusCode::from_u16(status).unwrap();
        let (headers, body) = (hyper::HeaderMap::new(), Bytes::from_static(body.as_bytes()));
        sort(grant_type, &Ok(Answer { status, headers, body }))
    }

    fn told(status: u16, body: &'static str) -> Told {
        told_of("refresh_token", status, body)
    }

    #[test]
    fn a_refused_grant_is_an_accepted_client() {
        assert_eq!(told(400, r#"{"error":"invalid_grant"}"#), Told::Accepted);
        assert!(matches!(told(401, r#"{"errorCode":"invalid_client","errorSummary":"x"}"#), Told::Client(_)));
        assert!(matches!(told(429, r#"{"errorCode":"E0000047"}"#), Told::Later(_)));
        assert!(matches!(told(503, r#"{"error":"invalid_client"}"#), Told::Nothing(_)), "its own trouble");
        assert!(matches!(told(403, "<html>"), Told::Nothing(_)));
    }

    #[test]
    fn success_is_believed_only_where_there_can_be_one() {
        let token = r#"{"access_token":"x"}"#;
        assert_eq!(told_of("client_credentials", 200, token), Told::Accepted);
        assert!(matches!(told(200, token), Told::Unclear(_)), "for a token that was never issued");
        for body in ["<html>sign in</html>", "{}", r#"{"access_token":""}"#, r#"{"access_token":7}"#] {
            assert!(matches!(told_of("client_credentials", 200, body), Told::Unclear(_)), "{body}");
        }
    }

    #[test]
    fn a_wrong_secret_is_no_accepted_client_whatever_a_server_calls_it() {
        let keycloak = r#"{"error":"unauthorized_client",
            "error_description":"Invalid client or Invalid client credentials"}"#;
        assert!(matches!(told(401, keycloak), Told::Client(_)));
        assert!(matches!(told(400, keycloak), Told::Client(_)));
        let off = r#"{"error":"unauthorized_client","error_description":
            "The client is not authorized to use the provided grant type. Configured grant types: [client_credentials]."}"#;
        assert!(matches!(told(400, off), Told::Off(_)));
        assert!(matches!(told(400, r#"{"error":"unauthorized_client"}"#), Told::Off(_)));
        let auth0 = r#"{"error":"access_denied","error_description":"Unauthorized"}"#;
        assert!(matches!(told(401, auth0), Told::Unclear(_)));
        for okta in [
            r#"{"error":"access_denied","error_description":"Policy evaluation failed for this request"}"#,
            r#"{"error":"access_denied","error_description":"User is not assigned to the client application."}"#,
        ] {
            assert!(matches!(told(400, okta), Told::Policy(_)), "{okta}");
        }
    }

    #[test]
    fn a_request_that_is_not_taken_says_nothing_of_the_client() {
        let client = Client { section: "a", id: "0oa", method: "none", file: None };
        let told =
            told(400, r#"{"error":"invalid_request","error_description":"refresh_token is malformed"}"#);
        assert!(matches!(told, Told::Request(_)));
        assert_eq!(judge_client(&client, &told).verdict, Verdict::Untold);
    }

    #[test]
    fn each_text_of_okta_for_invalid_client_has_its_own_remedy() {
        let client =
            |method| Client { section: "a", id: "0oa", method, file: Some(Path::new("/no/such/file")) };
        let says = |text| Refusal::new("invalid_client", text);
        let wrong_secret = says("The client secret supplied for a confidential client is invalid.");
        assert!(refused(&client("client_secret_basic"), &wrong_secret).contains("Client Secrets"));
        assert!(refused(&client("client_secret_basic"), &wrong_secret).contains("/no/such/file"));
        let unknown = says("Invalid value for 'client_id' parameter.");
        assert!(refused(&client("client_secret_basic"), &unknown).contains("a.client_id"));
        let none = says("No client credentials found.");
        assert!(refused(&client("none"), &none).contains("client_authentication"));
        let assertion = says("The client_assertion signature is invalid.");
        assert!(refused(&client("private_key_jwt"), &assertion).contains("public keys"));
    }
}
