//! One real refresh, and what the token that came of it says. The running sidecar makes it: a refresh token that somebody
//! else presents may cost the grant.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::check::refusal::{SERVER, dpop, policy};
use crate::check::store::Found;
use crate::check::{Ports, Sidecar, Step, Wanted, unverified};
use crate::model::{Kind, RoleName, Service, UserName, excerpt, sql_text};
use crate::settings::Settings;

/// Roles of a service that are looked at: each may be a refresh.
const MOST_ROLES: usize = 8;

/// What came of it.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) steps: Vec<Step>,
    /// The shortest life of a token that was seen, by authorization server.
    pub(super) lives: BTreeMap<String, Duration>,
}

pub(super) async fn look(
    settings: &Settings,
    services: &[Service],
    wanted: &Wanted,
    found: &Found,
    ports: &Ports,
) -> Looked {
    let mut looked = Looked::default();
    let with_users: Vec<&Service> = services.iter().filter(|service| service.has_users()).collect();
    let Some(user) = &wanted.user else {
        if !with_users.is_empty() {
            let why =
                "not tried: --user USER makes one real refresh of that user's tokens, and looks at them";
            looked.steps.push(Step::untold("refresh", "services", why));
        }
        return looked;
    };
    if !found.running {
        let message = "no sidecar answers, and a refresh token is presented by nobody else";
        let remedy = format!(
            "start it (`bursar serve`), and run the check where {} can be opened",
            settings.fixed.admin.path.display()
        );
        looked.steps.push(Step::bad("refresh", user.as_str(), message, remedy));
        return looked;
    }
    let asking = Asking { sidecar: &*ports.sidecar, settings, user, pace: ports.pace };
    let of_this_user: Vec<&Service> = match asking.services().await {
        Some(known) if wanted.service.is_none() => with_users
            .into_iter()
            .filter(|service| known.iter().any(|name| name == service.name.as_str()))
            .collect(),
        Some(_) | None => with_users,
    };
    if of_this_user.is_empty() {
        let message = "this user has never connected any of the services";
        looked.steps.push(Step::bad("refresh", user.as_str(), message, connect(settings, user)));
    }
    for (index, service) in of_this_user.into_iter().enumerate() {
        if index > 0 {
            tokio::time::sleep(ports.pace).await;
        }
        asking.look(service, &mut looked).await;
    }
    looked
}

struct Asking<'a> {
    sidecar: &'a dyn Sidecar,
    settings: &'a Settings,
    user: &'a UserName,
    pace: Duration,
}

impl Asking<'_> {
    /// The services that the user has a grant for, living or not.
    async fn services(&self) -> Option<Vec<String>> {
        let target = format!("/v1/grants?limit=1000&user={}", encode(self.user.as_str()));
        let (_, body) =
            self.ask(Method::GET, &target).await.ok().filter(|(status, _)| status.is_success())?;
        let name = |grant: &Value| grant.get("service")?.as_str().map(str::to_owned);
        Some(body.get("grants")?.as_array()?.iter().filter_map(name).collect())
    }

    async fn ask(&self, method: Method, target: &str) -> Result<(StatusCode, Value), String> {
        self.sidecar.ask(&self.settings.fixed.admin.path, method, target).await
    }

    async fn look(&self, service: &Service, looked: &mut Looked) {
        let roles = std::iter::once(None).chain(service.roles.keys().take(MOST_ROLES).map(Some));
        for role in roles {
            if role.is_some() {
                tokio::time::sleep(self.pace).await;
            }
            let query = role.map(|role| format!("?role={}", encode(role.as_str()))).unwrap_or_default();
            let (name, user) = (encode(service.name.as_str()), encode(self.user.as_str()));
            let target = format!("/v1/grants/{name}/{user}/check{query}");
            let subject = subject(service, role);
            match self.ask(Method::POST, &target).await {
                Ok((status, body)) if status.is_success() => {
                    let life = body.get("expires_in").and_then(Value::as_u64).map(Duration::from_secs);
                    if let Some(life) = life {
                        let server = service.authorization_server.clone();
                        looked
                            .lives
                            .entry(server)
                            .and_modify(|least| *least = life.min(*least))
                            .or_insert(life);
                    }
                    if role.is_none() {
                        let lives = life.map(humantime::format_duration).map(|life| format!(", for {life}"));
                        let message = format!("a token came{}", lives.unwrap_or_default());
                        looked.steps.push(Step::good("refresh", subject.clone(), message));
                    }
                    looked.steps.push(self.judge_token(service, role, &subject, &body));
                }
                Ok((_, problem)) => {
                    looked.steps.push(self.judge_problem(service, role, subject, &problem));
                    // What is wrong with the grant is wrong for every role.
                    if role.is_none() {
                        return;
                    }
                }
                Err(why) => {
                    let remedy = "read the sidecar's log";
                    looked.steps.push(Step::bad("refresh", subject, why, remedy));
                    return;
                }
            }
        }
        if service.roles.len() > MOST_ROLES {
            let message =
                format!("only the first {MOST_ROLES} of {} roles were looked at", service.roles.len());
            looked.steps.push(Step::untold("token", subject(service, None), message));
        }
    }

    fn judge_token(&self, service: &Service, role: Option<&RoleName>, subject: &str, body: &Value) -> Step {
        if body.get("verified").and_then(Value::as_bool) == Some(false)
            && let Some(step) = unverified::mismatch(service, self.user, role, subject, body)
        {
            return step;
        }
        judge(service, role, subject, body)
    }

    fn judge_problem(
        &self,
        service: &Service,
        role: Option<&RoleName>,
        subject: String,
        problem: &Value,
    ) -> Step {
        let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
        let (error, hint, detail) = (text("error"), text("hint"), text("detail"));
        match error {
            "token_invalid" => {
                let remedy = mend_token(service, hint);
                Step::bad("token", subject, excerpt(hint), remedy)
            }
            "login_required" if text("reason") == "role_not_granted" => {
                let role = role.map_or("the role", RoleName::as_str);
                let remedy = format!(
                    "the user did not consent to {role}, or no policy rule grants its scope: in Okta, {SERVER} > Scopes and > \
                     Access Policies; then {}",
                    connect(self.settings, self.user)
                );
                Step::bad("refresh", subject, detail.to_owned(), remedy)
            }
            "login_required" => {
                let message = format!("{}: {detail}", text("reason"));
                Step::bad("refresh", subject, message, connect(self.settings, self.user))
            }
            "authorization_server_refused" => {
                let said = text("authorization_server_error");
                let remedy = if said == "access_denied" { policy("refresh_token") } else { hint.to_owned() };
                Step::bad("refresh", subject, format!("the server refuses: {said}"), remedy)
            }
            "authorization_server_unavailable" | "timeout" => {
                let remedy = "see the lines of its authorization server here, and the sidecar's log";
                Step::bad("refresh", subject, detail.to_owned(), remedy)
            }
            _ => Step::bad("refresh", subject, format!("{error}: {detail}"), "read the sidecar's log"),
        }
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

pub(super) fn subject(service: &Service, role: Option<&RoleName>) -> String {
    let role = role.map(|role| format!(", role {role}")).unwrap_or_default();
    format!("services.{}{role}", service.name)
}

fn connect(settings: &Settings, user: &UserName) -> String {
    match &settings.connect {
        Some(connect) => format!("have {user} connect at {}", connect.public_url),
        None => {
            format!("have {user} connect, or import a refresh token of theirs: `bursar grant import --help`")
        }
    }
}

/// What to do about a token that does not verify, by what is wrong with it.
pub(super) fn mend_token(service: &Service, hint: &str) -> String {
    let (name, audience) = (&service.name, &service.audience);
    let has = |word: &str| hint.contains(word);
    if has("JWE") {
        format!(
            "in Okta, {SERVER} > Settings, switch access token encryption off; or services.{name}.access_token = \"opaque\""
        )
    } else if has("bearer") {
        dpop()
    } else if has("not a JWT") {
        format!(
            "Okta's organisation server (no /oauth2/… in its issuer) issues tokens that only Okta reads: use a custom \
             authorization server; of another provider: services.{name}.access_token = \"opaque\""
        )
    } else if has("audience") {
        let statement = match service.kind {
            Kind::Snowflake => {
                format!(
                    ", and in Snowflake's integration external_oauth_audience_list = ({})",
                    sql_text(audience)
                )
            }
            Kind::Databricks => ", and among the audiences of Databricks' federation policy".to_owned(),
            Kind::Netsuite | Kind::Generic => String::new(),
        };
        format!(
            "an authorization server has one audience: services.{name}.audience must be what Okta shows at {SERVER} > Settings > \
             Audience{statement}"
        )
    } else if has("no usable `") {
        format!(
            "services.{name}.user_claim = {:?} must be a claim of the access token: in Okta, {SERVER} > Claims > Add Claim (token \
             type Access Token), or user_claim = \"sub\"",
            service.user_claim
        )
    } else if has("another user") {
        "what was stored is not this user's: revoke the grant (`bursar grant revoke`), and have the user connect".to_owned()
    } else if has("scopes") {
        format!(
            "the access policy grants other scopes than were asked for: in Okta, {SERVER} > Access Policies > the rule > Scopes \
             requested, and the default scopes at {SERVER} > Scopes"
        )
    } else if has("clock") {
        "set the time: `timedatectl set-ntp true`, `chronyc tracking`".to_owned()
    } else {
        format!("compare the authorization server's section here with {SERVER} > Settings in Okta")
    }
}

/// What a token that verifies says, beside what the service's drivers need.
pub(super) fn judge(service: &Service, role: Option<&RoleName>, subject: &str, body: &Value) -> Step {
    let Some(claims) = body.get("claims").filter(|claims| claims.is_object()) else {
        return Step::untold("token", subject, "is opaque, and handed on unread");
    };
    let claim = |name: &str| claims.get(name).cloned().unwrap_or_default();
    let shown = |name: &str| {
        let claim = claim(name);
        claim.as_str().map_or_else(|| excerpt(&claim.to_string()), excerpt)
    };
    let scopes = scopes(claims);
    let user = shown(&service.user_claim);
    match service.kind {
        Kind::Snowflake if !scopes.iter().any(|scope| scope.starts_with("session:role")) => Step::bad(
            "token",
            subject,
            format!("carries no role, {scopes:?}: Snowflake refuses it"),
            format!("put session:role:PUBLIC or another role's scope into services.{}.scopes", service.name),
        ),
        Kind::Snowflake if claim("scp").is_null() => Step::doubtful(
            "token",
            subject,
            "names its scopes in `scope`, not in `scp`",
            "in Snowflake: alter security integration NAME set external_oauth_scope_mapping_attribute = 'scope'",
        ),
        Kind::Databricks if !user.contains('@') => Step::bad(
            "token",
            subject,
            format!("{} is {user:?}, and Databricks knows its users by e-mail address", service.user_claim),
            format!(
                "in Okta, {SERVER} > Claims: have sub be user.email; or name the claim that has the address as subject_claim in \
                 Databricks' federation policy, and as services.{}.user_claim",
                service.name
            ),
        ),
        Kind::Snowflake | Kind::Databricks | Kind::Netsuite | Kind::Generic => {
            let role = role.map(|role| format!(", for role {role}")).unwrap_or_default();
            let verified = if body.get("verified").and_then(Value::as_bool) == Some(false) {
                "not verified here, and handed on unread, but says"
            } else {
                "verifies"
            };
            let message = format!(
                "{verified}: aud {}, {} {user}, scopes {}{role}",
                shown("aud"),
                service.user_claim,
                scopes.join(" ")
            );
            let step = Step::good("token", subject, message);
            if service.kind == Kind::Snowflake && service.user_claim != "sub" {
                let mapping = format!(
                    "in Snowflake: alter security integration NAME set external_oauth_token_user_mapping_claim = {}",
                    sql_text(&service.user_claim)
                );
                return step.and_do(mapping);
            }
            step
        }
    }
}

/// `scp`, a list at Okta; else `scope`, a text elsewhere.
pub(super) fn scopes(claims: &Value) -> Vec<String> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    match claims.get("scp").or_else(|| claims.get("scope")) {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(text)) => words(text),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    }
}
