//! What an authorization server shows to everybody: its metadata document, its keys, and the time.

use std::time::Duration;

use headers::{Date, HeaderMapExt as _};
use hyper::{HeaderMap, StatusCode};
use serde_json::Value;
use url::Url;

use crate::authorization_server::http::Answer;
use crate::authorization_server::{Endpoints, is_confidential, locations};
use crate::check::Step;
use crate::check::asking::Asking;
use crate::check::refusal::{SERVER, unreachable};
use crate::clock::Timestamp;
use crate::jwt::SigningAlgorithm;
use crate::jwt::keys::KeySet;
use crate::model::{Service, excerpt};
use crate::settings::Server;

/// How far a clock may be off.
const SKEW: Duration = Duration::from_mins(1);

/// What its documents say.
pub(super) struct Documents {
    pub(super) endpoints: Endpoints,
    /// Where it says so.
    pub(super) grant_types: Option<Vec<String>>,
    pub(super) scopes: Option<Vec<String>>,
    /// Whether the clock was judged by what came with them.
    pub(super) tells_time: bool,
}

impl Documents {
    /// Whether it says that it has this grant type.
    pub(super) fn offers(&self, grant_type: &str) -> bool {
        self.grant_types.iter().flatten().any(|offered| offered == grant_type)
    }
}

/// A problem, and what to do about it.
type Wrong = (String, String);

/// Looks for the metadata document in both places.
pub(super) async fn discover(
    section: &str,
    server: &Server,
    asking: &Asking,
) -> (Option<Documents>, Vec<Step>) {
    let issuer = &server.issuer;
    if let Some(configured) = &server.endpoints {
        let step = Step::untold("discovery", section, "the endpoints are configured, and not looked for");
        let documents =
            Documents { endpoints: configured.clone(), grant_types: None, scopes: None, tells_time: false };
        return (Some(documents), vec![step]);
    }
    let Ok(url) = Url::parse(issuer) else {
        return (None, vec![Step::bad("discovery", section, "the issuer is no URL", "mend issuer")]);
    };
    let (mut found, mut places, mut clock) = (None::<Documents>, Vec::new(), None);
    let (mut wrong, mut missing, mut second) = (None, None, None);
    for location in locations(&url) {
        let answer = match asking.get(&location).await {
            Ok(answer) => answer,
            Err(error) => {
                let what = format!("{location}: {error}");
                let remedy = unreachable(section, url.host_str().unwrap_or_default(), &what);
                let slot = if found.is_some() { &mut second } else { &mut wrong };
                slot.get_or_insert((what, remedy));
                // Nobody answers at the other place of the same host either.
                break;
            }
        };
        clock = clock.or_else(|| judge_clock(section, &answer.headers, asking.clock.now().wall));
        match judge_document(section, issuer, &location, &answer) {
            Ok(documents) => {
                places.push(location.path().to_owned());
                found.get_or_insert(documents);
            }
            Err(NotFound(why)) => {
                missing.get_or_insert(why);
            }
            // The first that is there is the one that is used, as by the sidecar.
            Err(Wrongly((message, remedy))) if found.is_some() => {
                second.get_or_insert((format!("at {}: {message}", location.path()), remedy));
            }
            Err(Wrongly(why)) => {
                wrong.get_or_insert(why);
            }
        }
    }
    let (found, step) = match (wrong.or(missing.filter(|_| found.is_none())), found) {
        (None, Some(documents)) => {
            let message =
                format!("names itself {issuer:?}, to the last character, at {}", places.join(" and "));
            let step = match second {
                None => Step::good("discovery", section, message),
                Some((why, remedy)) => {
                    let message = format!("{message}, which is used; the other place is wrong: {why}");
                    Step::doubtful("discovery", section, message, remedy)
                }
            };
            (Some(Documents { tells_time: clock.is_some(), ..documents }), step)
        }
        (Some((message, remedy)), _) => (None, Step::bad("discovery", section, message, remedy)),
        (None, None) => (None, Step::untold("discovery", section, "there is no place to look")),
    };
    (found, std::iter::once(step).chain(clock).collect())
}

use Unusable::{NotFound, Wrongly};

/// Why an answer is no document of this issuer's.
enum Unusable {
    NotFound(Wrong),
    Wrongly(Wrong),
}

fn judge_document(
    section: &str,
    issuer: &str,
    location: &Url,
    answer: &Answer,
) -> Result<Documents, Unusable> {
    let wrongly = |message: String, remedy: String| Wrongly((message, remedy));
    if answer.status == StatusCode::NOT_FOUND {
        let remedy = format!(
            "{section}.authorization_server_id is the part after /oauth2/ of the Issuer URI in Okta, {SERVER} > Settings \
             (an authorization server that is not active does not answer either)"
        );
        return Err(NotFound((format!("{location} does not exist (404)"), remedy)));
    }
    let later = || {
        "the server's own trouble, or a proxy's page: try again, and see https://status.okta.com".to_owned()
    };
    if answer.status != StatusCode::OK {
        return Err(wrongly(format!("{location} answers {}", answer.status), later()));
    }
    let document: Value = serde_json::from_slice(&answer.body)
        .map_err(|_| wrongly(format!("{location} is no JSON document"), later()))?;
    let named = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
    if named != issuer {
        return Err(Wrongly(judge_issuer(section, issuer, named)));
    }
    let list = |name: &str| {
        let list = document.get(name)?.as_array()?;
        Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    };
    let (grant_types, scopes) = (list("grant_types_supported"), list("scopes_supported"));
    let endpoints: Endpoints = serde_json::from_value(document)
        .map_err(|_| wrongly(format!("{location} names no usable token_endpoint"), later()))?;
    if let Some((name, url)) = endpoints.named().find(|(_, url)| !is_confidential(url)) {
        let message = format!("its {name} is {}: not https", excerpt(url.as_str()));
        return Err(wrongly(message, "secrets are not sent there: the server must offer https".to_owned()));
    }
    Ok(Documents { endpoints, grant_types, scopes, tells_time: false })
}

/// Two issuers that should be one (RFC 8414 §3.3).
fn judge_issuer(section: &str, configured: &str, named: &str) -> Wrong {
    let named = excerpt(named);
    let message = format!("names itself {named:?}, but {configured:?} is configured");
    let remedy = if configured.trim_end_matches('/') == named.trim_end_matches('/') {
        format!("only the slash at the end differs, and it counts: {section}.issuer = {named:?}")
    } else if configured.eq_ignore_ascii_case(&named) {
        format!("only upper and lower case differ, and they count: {section}.issuer = {named:?}")
    } else {
        format!(
            "in Okta, {SERVER} > Settings > Issuer chooses between the organisation's URL and a custom one; configure the host \
             that it shows ({section}.okta_domain or issuer), and call the server by no other"
        )
    };
    (message, remedy)
}

fn judge_clock(section: &str, headers: &HeaderMap, now: Timestamp) -> Option<Step> {
    let date: std::time::SystemTime = headers.typed_get::<Date>()?.into();
    let date = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    let theirs = Timestamp::from_secs(i64::try_from(date.as_secs()).ok()?);
    let off = if now > theirs { theirs.until(now) } else { now.until(theirs) };
    let seconds = off.as_secs();
    Some(if off <= SKEW {
        Step::good("clock", section, format!("within {} s of the server's", seconds + 1))
    } else {
        let which = if now > theirs { "ahead of" } else { "behind" };
        let message = format!("this machine's clock is {seconds} s {which} the server's ({theirs})");
        Step::bad("clock", section, message, "set the time: `timedatectl set-ntp true`, `chronyc tracking`")
    })
}

/// Who needs the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeysFor {
    /// Access tokens are verified with them.
    AccessTokens,
    /// Access tokens are handed on unread, but users connect, and their ID tokens are verified.
    IdTokens,
    /// Nothing is verified.
    Nothing,
}

impl KeysFor {
    pub(super) fn of(services: &[&Service]) -> Self {
        if services.is_empty() || services.iter().any(|service| !service.opaque) {
            Self::AccessTokens
        } else if services.iter().any(|service| service.has_users()) {
            Self::IdTokens
        } else {
            Self::Nothing
        }
    }
}

/// Fetches the keys that its tokens are verified with, and looks at the clock by the way, unless that was done.
pub(super) async fn keys(
    section: &str,
    documents: &Documents,
    algorithms: &[SigningAlgorithm],
    wanted: KeysFor,
    asking: &Asking,
) -> Vec<Step> {
    let Some(url) = documents.endpoints.jwks_uri.as_ref() else {
        let keys = no_keys(section, wanted);
        return std::iter::once(keys).chain(no_clock(section, documents)).collect();
    };
    match asking.get(url).await {
        Ok(answer) => {
            let keys = judge_keys(section, url, answer.status, &answer.body, algorithms);
            let clock = if documents.tells_time {
                None
            } else {
                judge_clock(section, &answer.headers, asking.clock.now().wall)
                    .or_else(|| no_clock(section, documents))
            };
            std::iter::once(keys).chain(clock).collect()
        }
        Err(error) => {
            let what = format!("{url}: {error}");
            let remedy = unreachable(section, url.host_str().unwrap_or_default(), &what);
            let keys = Step::bad("keys", section, what, remedy);
            std::iter::once(keys).chain(no_clock(section, documents)).collect()
        }
    }
}

fn no_clock(section: &str, documents: &Documents) -> Option<Step> {
    let why = "no answer of the server's had its time (Date)";
    (!documents.tells_time).then(|| Step::untold("clock", section, why))
}

fn no_keys(section: &str, wanted: KeysFor) -> Step {
    let message = "the server publishes no keys (jwks_uri)";
    match wanted {
        KeysFor::AccessTokens => Step::bad(
            "keys",
            section,
            message,
            "without keys no token can be verified: access_token = \"opaque\" for its services hands them on unread, and \
             where users connect their ID tokens need keys all the same: name jwks_uri",
        ),
        KeysFor::IdTokens => Step::bad(
            "keys",
            section,
            format!("{message}, and who connects is known by an ID token, which is verified with them"),
            format!(
                "name {section}.jwks_uri, with token_endpoint and the others; or use a server that publishes keys"
            ),
        ),
        KeysFor::Nothing => {
            Step::untold("keys", section, format!("{message}, and no service here needs any: all are opaque"))
        }
    }
}

fn judge_keys(
    section: &str,
    url: &Url,
    status: StatusCode,
    body: &[u8],
    algorithms: &[SigningAlgorithm],
) -> Step {
    if status != StatusCode::OK {
        let remedy =
            format!("tokens can't be verified without it: jwks_uri must answer 200; try {url} in a browser");
        return Step::bad("keys", section, format!("{url} answers {status}"), remedy);
    }
    match KeySet::parse(body, algorithms) {
        Ok(keys) => Step::good("keys", section, format!("{} usable keys at {url}", keys.usable())),
        Err(why) => {
            let names: Vec<&str> = algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
            let remedy = format!(
                "{section}.signing_algorithms is {names:?}: name what the server signs with; in Okta, which signs with RS256, \
                 {SERVER} > Settings > Signing Key Rotation makes new keys"
            );
            Step::bad("keys", section, format!("{url}: {why}"), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_server_without_keys_is_wrong_only_where_something_is_verified() {
        for (wanted, verdict) in [
            (KeysFor::AccessTokens, Verdict::Bad),
            (KeysFor::IdTokens, Verdict::Bad),
            (KeysFor::Nothing, Verdict::Untold),
        ] {
            assert_eq!(no_keys("a", wanted).verdict, verdict, "{wanted:?}");
        }
        let opaque = no_keys("a", KeysFor::IdTokens).remedy.unwrap_or_default();
        assert!(!opaque.contains("opaque"), "it is already: {opaque}");
    }
}
