//! What the authorization endpoint tells to a request with `prompt=none`, which nobody has to sign in for (OpenID Connect
//! Core §3.1.2.1): an error that comes back to the redirect URI proves that one registered; an error page that it is not.
//! Any other page, or a redirect to anywhere else, proves nothing.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use hyper::header::LOCATION;
use url::Url;

use crate::authorization_server::http::{Answer, SendError};
use crate::check::Step;
use crate::check::asking::Asking;
use crate::check::refusal::{APP, Refusal, policy};
use crate::model::{Service, excerpt};

/// Requests that look for the scopes that were refused, among those that were refused together.
const MOST_REQUESTS: usize = 8;

/// What was found among scopes that were refused together.
#[derive(Debug, PartialEq, Eq)]
enum Suspects {
    /// Exactly these, refused alone.
    Known(Vec<String>),
    /// One or more of these.
    Among(Vec<String>),
}

/// What came of an authorization request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    /// Nobody is signed in, and nothing else is wrong: the client was told so at its redirect URI.
    Fine,
    /// The client was told, at its redirect URI.
    Back(Refusal),
    /// The user was told, on a page: the redirect URI or the client is not known.
    Page(String),
    /// Nothing.
    Nothing(String),
}

/// Where users are sent, and where they come back to.
pub(super) struct Authorization<'a> {
    pub(super) section: &'a str,
    pub(super) endpoint: &'a Url,
    pub(super) client_id: &'a str,
    pub(super) redirect_uri: &'a str,
}

impl Authorization<'_> {
    /// Whether users come back.
    pub(super) async fn redirect_uri(&self, asking: &Asking) -> Step {
        self.judge_redirect_uri(&self.ask("openid", asking).await)
    }

    fn judge_redirect_uri(&self, told: &Told) -> Step {
        let (section, uri) = (self.section, self.redirect_uri);
        let bad = |message, remedy| Step::bad("redirect_uri", section, message, remedy);
        match told {
            Told::Back(refusal) if refusal.error == "unauthorized_client" => bad(
                format!("{uri} is registered, but {}", refusal.quoted()),
                format!("in Okta, {APP} > General Settings > Grant type, switch on Authorization Code"),
            ),
            Told::Back(refusal) if refusal.error == "access_denied" => {
                bad(format!("{uri} is registered, but {}", refusal.quoted()), policy("authorization_code"))
            }
            Told::Fine | Told::Back(_) => Step::good("redirect_uri", section, format!("{uri} is registered")),
            Told::Page(text) if is_about_the_client(text) => bad(
                "the authorization endpoint does not know the client".to_owned(),
                format!("{section}.client_id must be the Client ID in Okta, {APP} > Client Credentials"),
            ),
            Told::Page(_) => bad(
                format!("{uri} is not registered: the authorization endpoint answers with an error page"),
                format!(
                    "in Okta, {APP} > Login > Sign-in redirect URIs, add {uri} exactly so (it is connect.public_url, /callback/ \
                     and the server's name)"
                ),
            ),
            Told::Nothing(why) => Step::untold("redirect_uri", section, why.clone()),
        }
    }

    /// Whether the scopes of a service can be granted. Needs a redirect URI that is registered.
    pub(super) async fn scopes(&self, service: &Service, known: Option<&[String]>, asking: &Asking) -> Step {
        let subject = format!("services.{}", service.name);
        let words = words(service);
        let told = self.ask(&words.join(" "), asking).await;
        let Told::Back(refusal) = &told else {
            return match told {
                Told::Fine => Step::good("scopes", subject, format!("the server knows {}", words.join(" "))),
                Told::Page(_) => Step::untold("scopes", subject, "an error page came instead of an answer"),
                Told::Nothing(why) => Step::untold("scopes", subject, why),
                Told::Back(refusal) => Step::untold("scopes", subject, refusal.quoted()),
            };
        };
        match refusal.error.as_str() {
            "invalid_scope" => {
                let suspects: Vec<String> = words.into_iter().filter(|word| word != "openid").collect();
                match self.single_out(suspects, asking).await {
                    Suspects::Known(unknown) => {
                        let message = format!("not known there: {}", unknown.join(" "));
                        Step::bad("scopes", subject, message, create(&unknown, known))
                    }
                    Suspects::Among(suspects) => {
                        let message = format!("one of these is refused, or more: {}", suspects.join(" "));
                        let remedy = format!("for the one that is missing: {}", create(&suspects, known));
                        Step::bad("scopes", subject, format!("{message} ({})", refusal.quoted()), remedy)
                    }
                }
            }
            "access_denied" => Step::bad("scopes", subject, refusal.quoted(), policy("authorization_code")),
            _ => Step::untold("scopes", subject, refusal.quoted()),
        }
    }

    /// Halves what was refused together, until each that is refused stands alone.
    async fn single_out(&self, suspects: Vec<String>, asking: &Asking) -> Suspects {
        let mut hunt = Hunt::new(suspects);
        while let Some(part) = hunt.next() {
            let told = self.ask(&format!("openid {}", part.join(" ")), asking).await;
            match told {
                Told::Back(refusal) if refusal.error == "invalid_scope" => hunt.refused(part),
                Told::Fine => {}
                // It does not answer any more, or something else is wrong: no more is asked.
                Told::Back(_) | Told::Page(_) | Told::Nothing(_) => return hunt.among(),
            }
        }
        hunt.end()
    }

    async fn ask(&self, scope: &str, asking: &Asking) -> Told {
        let verifier = asking.entropy.text(32);
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        let mut url = self.endpoint.clone();
        url.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", self.client_id),
            ("redirect_uri", self.redirect_uri),
            ("scope", scope),
            ("state", &asking.entropy.text(16)),
            ("nonce", &asking.entropy.text(16)),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("prompt", "none"),
        ]);
        sort(&asking.get(&url).await, self.redirect_uri)
    }
}

/// A search for the scopes that are refused, in halves and with a bounded number of requests.
struct Hunt {
    all: Vec<String>,
    /// What is to be asked about.
    parts: Vec<Vec<String>>,
    unknown: Vec<String>,
    asked: usize,
}

impl Hunt {
    fn new(all: Vec<String>) -> Self {
        let mut hunt = Self { all: all.clone(), parts: Vec::new(), unknown: Vec::new(), asked: 0 };
        // That all of them are refused together is known.
        hunt.refused(all);
        hunt
    }

    fn next(&mut self) -> Option<Vec<String>> {
        if self.asked >= MOST_REQUESTS {
            return None;
        }
        let part = self.parts.pop()?;
        self.asked += 1;
        Some(part)
    }

    fn refused(&mut self, mut part: Vec<String>) {
        if part.len() > 1 {
            let half = part.split_off(part.len() / 2);
            self.parts.extend([half, part]);
        } else {
            self.unknown.extend(part);
        }
    }

    /// Where it was broken off.
    fn among(self) -> Suspects {
        Suspects::Among(self.all)
    }

    fn end(self) -> Suspects {
        // Each may be granted alone and not with the others; then the answer is about none of them.
        if self.parts.is_empty() && !self.unknown.is_empty() {
            Suspects::Known(self.unknown)
        } else if self.unknown.is_empty() {
            Suspects::Among(self.all)
        } else {
            let unasked = self.parts.into_iter().flatten();
            Suspects::Among(self.unknown.into_iter().chain(unasked).collect())
        }
    }
}

/// All that may be asked of a user for a service.
pub(super) fn words(service: &Service) -> Vec<String> {
    let mut words = vec!["openid".to_owned(), "offline_access".to_owned()];
    for scope in std::iter::once(&service.scopes).chain(service.roles.values()) {
        let of_this = scope.to_string();
        for word in of_this.split(' ').filter(|word| !word.is_empty()) {
            if !words.iter().any(|known| known == word) {
                words.push(word.to_owned());
            }
        }
    }
    words
}

/// Where scopes are created. Those that only differ in case are told.
pub(super) fn create(unknown: &[String], known: Option<&[String]>) -> String {
    let known = known.unwrap_or_default();
    let like = |word: &String| known.iter().find(|known| *known != word && known.eq_ignore_ascii_case(word));
    if let Some((word, known)) = unknown.iter().find_map(|word| Some((word, like(word)?))) {
        return format!(
            "the server has {known}, and upper and lower case count: write it so in scopes or roles here, not {word}"
        );
    }
    let mut remedy = format!(
        "in Okta, Security > API > Authorization Servers > the authorization server > Scopes > Add Scope: {}; then let the access \
         policy's rule grant it",
        unknown.join(", ")
    );
    if unknown.iter().any(|word| word == "offline_access") {
        remedy.push_str(
            "; offline_access also needs the grant type Refresh Token, without which no refresh token comes",
        );
    }
    remedy
}

/// `Invalid value for 'client_id' parameter.`, however a page writes the apostrophes; addresses in it have the word too.
fn is_about_the_client(page: &str) -> bool {
    ["'", "&#39;", "&#x27;", "&apos;"]
        .iter()
        .any(|quote| page.contains(&format!("client_id{quote} parameter")))
}

/// Whoever follows `prompt=none` shows nobody anything, so that a page says nothing of what was asked.
const NO_ANSWER: &str = ", which is no answer to a request with prompt=none: try the first sign-in by hand";

fn elsewhere(location: Option<&str>) -> Told {
    let place = location.map(|location| location.split(['?', '#']).next().unwrap_or_default());
    let place = place.map(|place| excerpt(place).replace(char::is_control, " ")).unwrap_or_default();
    Told::Nothing(format!("it redirects to {place:?} instead of the redirect URI{NO_ANSWER}"))
}

fn sort(answer: &Result<Answer, SendError>, redirect_uri: &str) -> Told {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Told::Nothing(error.to_string()),
    };
    let status = answer.status;
    if status.is_redirection() {
        let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let Some(back) = location.filter(|location| location.starts_with(redirect_uri)) else {
            // Perhaps to a page where users sign in, perhaps to one that says what is wrong.
            return elsewhere(location);
        };
        let Ok(back) = Url::parse(back) else { return Told::Nothing("an unusable redirect".to_owned()) };
        let member = |name: &str| {
            back.query_pairs().find(|(member, _)| member == name).map(|(_, value)| value.into_owned())
        };
        let error = member("error").unwrap_or_default();
        let nobody_is_signed_in =
            ["login_required", "interaction_required", "consent_required", "account_selection_required", ""];
        return if nobody_is_signed_in.contains(&error.as_str()) {
            Told::Fine
        } else {
            Told::Back(Refusal::new(&error, &member("error_description").unwrap_or_default()))
        };
    }
    match status {
        StatusCode::OK => Told::Nothing(format!("a page came (200){NO_ANSWER}")),
        StatusCode::TOO_MANY_REQUESTS => {
            Told::Nothing("asked too often (429); try again in a minute".to_owned())
        }
        status if status.is_client_error() => Told::Page(String::from_utf8_lossy(&answer.body).into_owned()),
        status => Told::Nothing(format!("the authorization endpoint answers {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hyper::HeaderMap;

    const BACK: &str = "https://b.example/callback/a";

    fn told(status: u16, location: Option<&str>, body: &'static str) -> Told {
        let headers: HeaderMap =
            location.into_iter().map(|location| (LOCATION, location.parse().unwrap())).collect();
        let status = StatusCode::from_u16(status).unwrap();
        sort(&Ok(Answer { status, headers, body: Bytes::from_static(body.as_bytes()) }), BACK)
    }

    #[test]
    fn an_error_that_comes_back_is_told_from_a_page() {
        let back = |query: &str| told(302, Some(&format!("{BACK}?{query}")), "");
        assert_eq!(back("error=login_required&state=x"), Told::Fine);
        assert_eq!(back("code=c&state=x"), Told::Fine);
        assert_eq!(back("error=invalid_scope"), Told::Back(Refusal::new("invalid_scope", "")));
        for elsewhere in
            ["https://okta.example/login", "https://okta.example/error/404?x=secret", "https://b.example/"]
        {
            let told = told(302, Some(elsewhere), "");
            assert!(matches!(&told, Told::Nothing(why) if !why.contains("secret")), "{elsewhere}: {told:?}");
        }
        assert!(matches!(told(302, None, ""), Told::Nothing(_)));
        assert!(matches!(told(200, None, "<h1>Something is wrong</h1>"), Told::Nothing(_)));
        assert_eq!(told(400, None, "'redirect_uri'"), Told::Page("'redirect_uri'".into()));
        assert!(matches!(told(429, None, ""), Told::Nothing(_)));
        assert!(matches!(told(503, None, ""), Told::Nothing(_)));
    }

    #[test]
    fn a_page_about_the_redirect_uri_is_none_about_the_client_whose_id_is_in_an_address() {
        assert!(is_about_the_client("<p>Invalid value for &#39;client_id&#39; parameter.</p>"));
        assert!(!is_about_the_client("The 'redirect_uri' parameter must be … /authorize?client_id=0oa1"));
    }

    /// What is found where `bad` are refused, and in how many requests.
    fn hunt(all: &[&str], bad: &[&str]) -> (Suspects, usize) {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (mut hunt, mut asked) = (Hunt::new(words(all)), 0);
        while let Some(part) = hunt.next() {
            asked += 1;
            if part.iter().any(|word| bad.contains(&word.as_str())) {
                hunt.refused(part);
            }
        }
        (hunt.end(), asked)
    }

    #[test]
    fn a_scope_that_is_refused_is_singled_out_in_few_requests_or_not_at_all() {
        let known = |words: &[&str]| Suspects::Known(words.iter().map(|word| (*word).to_owned()).collect());
        let all: Vec<String> = (0..16).map(|number| format!("s{number}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        for bad in &all {
            let (found, asked) = hunt(&all, &[bad]);
            assert_eq!(found, known(&[bad]));
            assert!(asked <= MOST_REQUESTS, "{asked}");
        }
        assert_eq!(hunt(&["a", "b", "c"], &["a", "c"]).0, known(&["a", "c"]));
        assert_eq!(hunt(&["a"], &["a"]), (known(&["a"]), 0), "there is no other");
        let (found, asked) = hunt(&all, &all);
        assert!(matches!(found, Suspects::Among(_)), "{found:?}");
        assert_eq!(asked, MOST_REQUESTS);
        assert!(
            matches!(hunt(&["a", "b"], &[]).0, Suspects::Among(among) if among.len() == 2),
            "only together"
        );
    }

    #[test]
    fn a_scope_that_differs_only_in_case_is_named_with_its_twin() {
        let known = ["session:role:ANALYST".to_owned()];
        assert!(create(&["session:role:analyst".into()], Some(&known)).contains("has session:role:ANALYST"));
        assert!(create(&["session:role:X".into()], Some(&known)).contains("Add Scope: session:role:X"));
    }
}
