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
use crate::model::excerpt;
use crate::settings::Server;

/// How far a clock may be off.
const SKEW: Duration = Duration::from_mins(1);

/// What its documents say.
pub(super) struct Documents {
    pub(super) endpoints: Endpoints,
    /// Where it says so.
    pub(super) grant_types: Option<Vec<String>>,
    pub(super) scopes: Option<Vec<String>>,
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
        let documents = Documents { endpoints: configured.clone(), grant_types: None, scopes: None };
        return (Some(documents), vec![step]);
    }
    let Ok(url) = Url::parse(issuer) else {
        return (None, vec![Step::bad("discovery", section, "the issuer is no URL", "mend issuer")]);
    };
    let (mut found, mut places, mut clock) = (None, Vec::new(), None);
    let (mut wrong, mut missing) = (None, None);
    for location in locations(&url) {
        let answer = match asking.get(&location).await {
            Ok(answer) => answer,
            Err(error) => {
                let what = format!("{location}: {error}");
                let remedy = unreachable(section, url.host_str().unwrap_or_default(), &what);
                wrong.get_or_insert((what, remedy));
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
            Err(Wrongly(why)) => {
                wrong.get_or_insert(why);
            }
        }
    }
    // One place is enough, but where there is a document it must be right.
    let (found, step) = match (wrong.or(missing.filter(|_| found.is_none())), found) {
        (None, Some(documents)) => {
            let message =
                format!("names itself {issuer:?}, to the last character, at {}", places.join(" and "));
            (Some(documents), Step::good("discovery", section, message))
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
    Ok(Documents { endpoints, grant_types, scopes })
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

/// Fetches the keys that its tokens are verified with.
pub(super) async fn keys(
    section: &str,
    url: Option<&Url>,
    algorithms: &[SigningAlgorithm],
    asking: &Asking,
) -> Step {
    let Some(url) = url else {
        return Step::bad(
            "keys",
            section,
            "the server publishes no keys (jwks_uri)",
            "without keys no token can be verified: access_token = \"opaque\" for its services hands them on unread",
        );
    };
    match asking.get(url).await {
        Ok(answer) => judge_keys(section, url, answer.status, &answer.body, algorithms),
        Err(error) => {
            let what = format!("{url}: {error}");
            let remedy = unreachable(section, url.host_str().unwrap_or_default(), &what);
            Step::bad("keys", section, what, remedy)
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
