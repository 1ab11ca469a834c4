//! One authorization server, step by step. What stands on a step that failed is not asked: a secret never goes to a server
//! that is not the one that is meant.

use std::sync::Arc;

use humantime::format_duration;
use url::Url;

use crate::authorization_server::client_authentication::{ClientAuthentication, Method};
use crate::authorization_server::http::HttpClient;
use crate::check::asking::Asking;
use crate::check::authorization::{Authorization, create, words};
use crate::check::client::{Client, Probe};
use crate::check::documents::{Documents, KeysFor, discover, keys};
use crate::check::refusal::APP;
use crate::check::{Ports, Step, Verdict, address, client};
use crate::model::{Service, redirect_uri};
use crate::settings::{Server, Settings};

/// Where users would come back to, where no page is configured: only to fill a form that can't succeed.
const NO_PAGE: &str = "http://127.0.0.1/callback";

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What the services need of their server.
pub(super) struct Needs<'a> {
    services: &'a [&'a Service],
    redirect_uri: Option<&'a str>,
    offers_devices: bool,
}

impl Needs<'_> {
    /// The requests that tell which grant types the client may use; the one that tells most of the client comes first.
    pub(super) fn probes(&self) -> Vec<Probe<'_>> {
        let (with_users, clients): (Vec<_>, Vec<_>) =
            self.services.iter().partition(|service| service.has_users());
        let mut probes: Vec<Probe<'_>> = clients.into_iter().map(Probe::of_client).collect();
        let password = with_users.iter().any(|service| service.password_grant);
        let wanted = [
            ("refresh_token", !with_users.is_empty() || probes.is_empty()),
            ("authorization_code", !with_users.is_empty()),
            (DEVICE_CODE, !with_users.is_empty() && self.offers_devices),
            ("password", password),
        ];
        let uri = self.redirect_uri.unwrap_or(NO_PAGE);
        let wanted = wanted.into_iter().filter(|(_, wanted)| *wanted);
        probes.extend(wanted.map(|(grant_type, _)| Probe::of_users(grant_type, uri)));
        probes
    }

    /// Whether it can do without.
    pub(super) fn is_optional(&self, grant_type: &str) -> bool {
        grant_type == DEVICE_CODE || grant_type == "authorization_code" && self.redirect_uri.is_none()
    }
}

pub(super) async fn look(
    name: &str,
    mut server: Server,
    services: &[&Service],
    has_proof: bool,
    settings: &Settings,
    ports: &Ports,
) -> Vec<Step> {
    let section = format!("authorization_servers.{name}");
    let section = section.as_str();
    let http = match HttpClient::new(server.ca_file.as_deref(), settings.proxies.clone()) {
        Ok(http) => http,
        Err(why) => {
            let remedy = format!("{section}.ca_file must be a PEM file with root certificates");
            return vec![Step::bad("discovery", section, why, remedy)];
        }
    };
    let method = format!("{:?}", server.authentication);
    let authentication = std::mem::replace(&mut server.authentication, Method::None);
    let file = server.authentication_file.clone();
    let asking = Asking {
        http,
        authentication: ClientAuthentication::new(server.client_id.clone(), authentication, file),
        deadline: server.request_timeout,
        clock: Arc::clone(&ports.clock),
        entropy: Arc::clone(&ports.entropy),
    };
    let (documents, mut steps) = discover(section, &server, &asking).await;
    if let Some(documents) = documents {
        let wanted = KeysFor::of(services);
        steps.extend(keys(section, &documents, &server.algorithms, wanted, &asking).await);
        let connect = settings.connect.as_ref();
        let redirect_uri = connect.map(|connect| redirect_uri(&connect.public_url, name));
        let needs = Needs {
            services,
            redirect_uri: redirect_uri.as_ref().map(Url::as_str),
            offers_devices: documents.offers(DEVICE_CODE),
        };
        let client = Client {
            section,
            id: &server.client_id,
            method: &method,
            file: server.authentication_file.as_deref(),
        };
        let endpoint = &documents.endpoints.token_endpoint;
        if has_proof {
            steps.extend(client::look(&client, (&server.issuer, endpoint), &needs, &asking).await);
        } else {
            let why = "not asked for, since what the client proves itself with can't be read here";
            steps.extend(["client", "grant_type"].map(|step| Step::untold(step, section, why)));
        }
        steps.extend(authorization(section, &server.client_id, &needs, &documents, &asking).await);
    } else {
        let why = "not asked for, since the server was not found";
        for step in ["keys", "client", "grant_type", "redirect_uri", "scopes"] {
            steps.push(Step::untold(step, section, why));
        }
    }
    steps.push(recovery(section, &server));
    steps.extend(address::look(section, &server.issuer, &settings.proxies).await);
    steps
}

/// Redirect URI and scopes.
async fn authorization(
    section: &str,
    client_id: &str,
    needs: &Needs<'_>,
    documents: &Documents,
    asking: &Asking,
) -> Vec<Step> {
    let with_users: Vec<&Service> =
        needs.services.iter().copied().filter(|service| service.has_users()).collect();
    if with_users.is_empty() {
        return vec![Step::untold("redirect_uri", section, "no service here has users who connect")];
    }
    let known = documents.scopes.as_deref();
    let by_hint =
        |why: &str| -> Vec<Step> { with_users.iter().map(|service| hint(service, known, why)).collect() };
    let Some(redirect_uri) = needs.redirect_uri else {
        let why = "there is no [connect], and so no page where users come back to";
        let first = Step::untold("redirect_uri", section, why);
        return std::iter::once(first).chain(by_hint("without [connect]")).collect();
    };
    let Some(endpoint) = &documents.endpoints.authorization_endpoint else {
        let remedy = "users can't connect there: name authorization_endpoint where there is no discovery";
        return vec![Step::bad("redirect_uri", section, "the server has no authorization endpoint", remedy)];
    };
    let authorization = Authorization { section, endpoint, client_id, redirect_uri };
    let mut steps = vec![authorization.redirect_uri(asking).await];
    if steps.iter().all(|step| step.verdict == Verdict::Good) {
        for service in with_users {
            steps.push(authorization.scopes(service, known, asking).await);
        }
    } else {
        steps.extend(by_hint("while the redirect URI is not accepted"));
    }
    steps
}

/// By what the metadata document lists, which at Okta is only what is marked for it.
fn hint(service: &Service, known: Option<&[String]>, why: &str) -> Step {
    let subject = format!("services.{}", service.name);
    let Some(listed) = known else {
        return Step::untold("scopes", subject, format!("can't be asked for {why}"));
    };
    let missing: Vec<String> = words(service).into_iter().filter(|word| !listed.contains(word)).collect();
    if missing.is_empty() {
        return Step::good("scopes", subject, "all are in the server's scopes_supported");
    }
    let message =
        format!("not in the server's scopes_supported, and not to be asked for {why}: {}", missing.join(" "));
    let remedy = format!("unless they are only left out of the public metadata: {}", create(&missing, known));
    Step::doubtful("scopes", subject, message, remedy)
}

/// Whether an answer that got lost can be recovered (that the times fit was looked at when the configuration was read).
fn recovery(section: &str, server: &Server) -> Step {
    let subject = format!("{section}.refresh_token_leeway");
    if server.leeway.is_zero() {
        let remedy = format!(
            "persistent refresh tokens, or a grace period of 60 s for rotated ones: in Okta, {APP} > Refresh Token; then say the \
             same here"
        );
        let message =
            "a rotated-away refresh token is dead at once: an answer that gets lost may cost the grant";
        return Step::doubtful("leeway", subject, message, remedy);
    }
    let (leeway, timeout) = (format_duration(server.leeway), format_duration(server.request_timeout));
    let message =
        format!("an answer that got lost can be had again: two requests of {timeout} each fit into {leeway}");
    Step::good("leeway", subject, message)
}
