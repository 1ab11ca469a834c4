//! `/v1/authorize`: a GET shows the login form, a POST to the same address logs in (`username`, `password`) or cancels
//! (`action=cancel`). There are no sessions, so that each connection of a user takes a login.

use hyper::{Method, StatusCode};
use url::Url;

use super::authorization_code::AuthorizationCode;
use super::form::Form;
use super::pages;
use super::refusal::{NOT_ASSIGNED, SCOPE_UNKNOWN};
use super::reply::Reply;
use super::request::Request;
use super::scopes;
use super::state::{CLIENT_ID, State};
use super::users::PASSWORD;

/// What one password can show; anything stronger can't be met here.
const REACHABLE_ACRS: [&str; 3] =
    ["urn:okta:loa:1fa:any", "urn:okta:loa:1fa:pwd", "urn:okta:loa:2fa:any:ifpossible"];

/// An authorization request that is in order.
struct Ask {
    redirect_uri: Url,
    /// As it was written, which the token request must repeat.
    redirect_text: String,
    state: String,
    scopes: Vec<String>,
    code_challenge: String,
    nonce: Option<String>,
    acr: Option<String>,
    login_hint: String,
}

/// Where a problem is told.
enum Problem {
    /// To the user: the client is not known to be the one that asked.
    Page(String),
    /// To the client.
    Callback { redirect_uri: Box<Url>, state: Option<String>, error: &'static str, description: String },
}

pub(super) fn answer(state: &mut State, server: &str, request: &Request) -> Reply {
    let issuer = state.issuer(server);
    let ask = match check(state, server, &request.query) {
        Ok(ask) => ask,
        Err(Problem::Page(text)) => return Reply::html(StatusCode::BAD_REQUEST, pages::problem(&text)),
        Err(Problem::Callback { redirect_uri, state, error, description }) => {
            return refused(*redirect_uri, state.as_deref(), &issuer, error, &description);
        }
    };
    if request.method != Method::POST {
        return Reply::html(StatusCode::OK, pages::login(&ask.login_hint, &ask.scopes, None));
    }
    let Ok(form) = Form::parse(&request.body) else {
        return Reply::html(StatusCode::BAD_REQUEST, pages::problem("A field came twice."));
    };
    if form.get("action") == Some("cancel") {
        let description = "The resource owner denied the request.";
        return refused(ask.redirect_uri, Some(&ask.state), &issuer, "access_denied", description);
    }
    let user = form.get("username").unwrap_or_default();
    let is_right =
        form.get("password") == Some(PASSWORD) && state.users.get(user).is_some_and(|user| user.active);
    if !is_right {
        let page = pages::login(user, &ask.scopes, Some("Unable to sign in."));
        return Reply::html(StatusCode::UNAUTHORIZED, page);
    }
    if !state.may_use_the_client(user) {
        return refused(ask.redirect_uri, Some(&ask.state), &issuer, "access_denied", NOT_ASSIGNED);
    }
    grant(state, server, request, ask, user)
}

fn grant(state: &mut State, server: &str, request: &Request, ask: Ask, user: &str) -> Reply {
    let code = state.new_secret("code");
    let record = AuthorizationCode {
        server: server.to_owned(),
        user: user.to_owned(),
        scopes: ask.scopes,
        redirect_uri: ask.redirect_text,
        code_challenge: ask.code_challenge,
        nonce: ask.nonce,
        acr: ask.acr,
        at: request.now,
        redeemed: None,
    };
    state.codes.retain(|_, code| !code.may_be_forgotten(&request.now));
    state.codes.insert(code.digest(), record);
    let parameters = [("code", code.expose()), ("state", &ask.state), ("iss", &state.issuer(server))];
    callback(ask.redirect_uri, &parameters)
}

fn check(state: &State, server: &str, query: &str) -> Result<Ask, Problem> {
    let form = Form::parse(query.as_bytes()).map_err(|repeated| {
        Problem::Page(format!("The parameter '{}' is included more than once.", repeated.0))
    })?;
    if form.get("client_id") != Some(CLIENT_ID) {
        return Err(Problem::Page("Invalid value for 'client_id' parameter.".into()));
    }
    let redirect_text = form.get("redirect_uri").unwrap_or_default();
    let redirect_uri =
        Url::parse(redirect_text).ok().filter(|_| is_registered(state, redirect_text)).ok_or_else(|| {
            Problem::Page(
                "The 'redirect_uri' parameter must be a Login redirect URI in the client app settings."
                    .into(),
            )
        })?;
    let callback_problem = |error, description: &str| Problem::Callback {
        redirect_uri: Box::new(redirect_uri.clone()),
        state: form.get("state").map(str::to_owned),
        error,
        description: description.to_owned(),
    };
    let invalid = |description: &str| callback_problem("invalid_request", description);
    let asked_state = form
        .get("state")
        .ok_or_else(|| invalid("The authentication request has an invalid 'state' parameter."))?;
    match form.get("response_type") {
        Some("code") => {}
        Some(_) => return Err(callback_problem("unsupported_response_type", "Only 'code' is supported.")),
        None => return Err(invalid("The parameter 'response_type' is missing.")),
    }
    if form.get("response_mode").is_some_and(|mode| mode != "query") {
        return Err(invalid("Only the response mode 'query' is supported."));
    }
    if form.get("request").is_some() || form.get("request_uri").is_some() {
        return Err(callback_problem("request_not_supported", "Request objects are not supported."));
    }
    let code_challenge = code_challenge(&form).map_err(invalid)?;
    let known = |scope: &String| state.servers.get(server).is_some_and(|server| server.knows_scope(scope));
    let scopes = form.get("scope").and_then(scopes::parse).filter(|scopes| scopes.iter().all(known));
    let scopes = scopes.ok_or_else(|| callback_problem("invalid_scope", SCOPE_UNKNOWN))?;
    check_prompt(form.get("prompt")).map_err(|(error, description)| callback_problem(error, description))?;
    let acr = reachable_acr(form.get("acr_values")).map_err(|()| {
        callback_problem("unmet_authentication_requirements", "The requested acr_values can't be met.")
    })?;
    if form.get("max_age").is_some_and(|max_age| max_age.parse::<u32>().is_err()) {
        return Err(invalid("The 'max_age' parameter must be a number of seconds."));
    }
    Ok(Ask {
        redirect_text: redirect_text.to_owned(),
        state: asked_state.to_owned(),
        scopes,
        code_challenge,
        nonce: form.get("nonce").map(str::to_owned),
        acr,
        login_hint: form.get("login_hint").unwrap_or_default().to_owned(),
        redirect_uri: redirect_uri.clone(),
    })
}

/// RFC 7636, S256 only, and never without.
fn code_challenge(form: &Form) -> Result<String, &'static str> {
    let challenge = form.get("code_challenge").ok_or("PKCE code challenge is required.")?;
    if form.get("code_challenge_method") != Some("S256") {
        return Err("The 'code_challenge_method' must be 'S256'.");
    }
    let is_hash = challenge.len() == 43
        && challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_hash { Ok(challenge.to_owned()) } else { Err("The 'code_challenge' is no SHA-256 in base64url.") }
}

/// OpenID Connect Core 3.1.2.1; nobody is ever logged in beforehand.
fn check_prompt(prompt: Option<&str>) -> Result<(), (&'static str, &'static str)> {
    let prompts: Vec<&str> = prompt.map(|text| text.split(' ').collect()).unwrap_or_default();
    if prompts == ["none"] {
        return Err(("login_required", "The client specified not to prompt, but the user is not logged in."));
    }
    let known = prompts.iter().all(|prompt| ["login", "consent", "select_account"].contains(prompt));
    if known { Ok(()) } else { Err(("invalid_request", "The 'prompt' parameter is invalid.")) }
}

/// The first of the wanted classes that a password reaches; `Ok(None)` if none is wanted.
fn reachable_acr(wanted: Option<&str>) -> Result<Option<String>, ()> {
    let Some(wanted) = wanted else { return Ok(None) };
    wanted.split(' ').find(|acr| REACHABLE_ACRS.contains(acr)).map(|acr| Some(acr.to_owned())).ok_or(())
}

/// Character by character as registered (RFC 9700 2.1), or below `/callback/` on any port of the loopback address.
fn is_registered(state: &State, text: &str) -> bool {
    if state.settings.redirect_uris.contains(text) {
        return true;
    }
    let Ok(url) = Url::parse(text) else { return false };
    // Compared with its normal form, so that no dots or escapes lead out of the path.
    url.as_str() == text
        && text.starts_with("http://127.0.0.1:")
        && url.port().is_some()
        && url.path().starts_with("/callback/")
        && url.query().is_none()
        && url.fragment().is_none()
}

fn refused(redirect_uri: Url, state: Option<&str>, issuer: &str, error: &str, description: &str) -> Reply {
    let mut parameters = vec![("error", error), ("error_description", description), ("iss", issuer)];
    parameters.extend(state.map(|state| ("state", state)));
    callback(redirect_uri, &parameters)
}

fn callback(mut redirect_uri: Url, parameters: &[(&str, &str)]) -> Reply {
    redirect_uri.query_pairs_mut().extend_pairs(parameters);
    Reply::redirect(redirect_uri.into())
}
