//! An authorization server: its audience, scopes and access policy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cli::setup::okta::Client;
use crate::cli::setup::okta::application::redirect_uris;
use crate::cli::setup::sheet::Sheet;
use crate::cli::setup::{list, scopes, time};
use crate::model::{Kind, Service};
use crate::settings::{Server, Settings};

/// After this long without use a refresh token lapses, as Okta proposes it.
const IDLE_WINDOW: Duration = Duration::from_hours(7 * 24);

/// One of them, as it is configured.
pub(super) struct Here<'a> {
    pub(super) name: &'a str,
    pub(super) server: &'a Server,
    pub(super) id: &'a str,
}

pub(super) fn write(
    sheet: &mut Sheet,
    number: usize,
    client: &Client<'_>,
    here: &Here<'_>,
    settings: &Settings,
) {
    let services = services(client, here.name);
    sheet.heading(&format!("{number}. The authorization server {}", here.name));
    sheet.say(&format!(
        "Security > API > Authorization Servers > Add Authorization Server, or the one with the id {} (the end of its Issuer \
         URI). Okta chooses the id: if it is another one, write it into the configuration.",
        here.id
    ));
    if services.is_empty() {
        sheet.problem(&no_service(here.name));
    }
    let audiences = audiences(&services);
    sheet.field("Audience", &audiences.keys().collect::<Vec<_>>());
    sheet.field("Issuer (Settings)", &[&here.server.issuer]);
    sheet.field("Signing Key Rotation", &["Automatic"]);
    sheet.field("Access token encryption", &["none: neither bursar nor a service could read the tokens"]);
    if audiences.len() > 1 {
        too_many_audiences(sheet, here.name, &audiences);
    }
    sheet.item(
        "bursar compares the issuer letter by letter with the one in each token. With a custom domain choose one of the two \
         for good (or Dynamic) and write the same domain into the configuration.",
    );
    if here.id == "default" {
        sheet.item(
            "`default` may have no access policy at all in a new organisation, and then every request fails until one is \
             added.",
        );
    }
    netsuite(sheet, &services);
    write_scopes(sheet, &services);
    claims(sheet, &services);
    policy(sheet, client, &services, settings);
}

fn services<'a>(client: &Client<'a>, server: &str) -> Vec<&'a Service> {
    client.services.iter().copied().filter(|service| service.authorization_server == server).collect()
}

fn no_service(server: &str) -> String {
    format!("no service has authorization_server = \"{server}\", so nothing is asked of it.")
}

/// Which services want which audience.
fn audiences<'a>(services: &[&'a Service]) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut audiences: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for service in services {
        audiences.entry(&service.audience).or_default().push(service.name.as_str());
    }
    audiences
}

fn too_many_audiences(sheet: &mut Sheet, server: &str, audiences: &BTreeMap<&str, Vec<&str>>) {
    let wanted =
        audiences.iter().map(|(audience, services)| format!("{audience} for {}", services.join(", ")));
    sheet.problem(&format!(
        "one authorization server has one audience, and the services of {server} have {}: {}. Make one authorization server \
         in Okta and one [authorization_servers.*] for each; the app integration can be the same.",
        audiences.len(),
        list(wanted)
    ));
}

fn write_scopes(sheet: &mut Sheet, services: &[&Service]) {
    let scopes = scopes(services.iter().copied());
    if scopes.is_empty() {
        sheet.say("Scopes: none to add; no service here asks for one of its own.");
        return;
    }
    sheet.say("Scopes > Add Scope, one for each line, letter by letter:");
    sheet.block(&scopes);
    sheet.field("User consent", &["Implicit, or Required if each user is to approve it once"]);
    sheet.field("Metadata", &["Include in public metadata (so that `bursar check` can see it)"]);
    sheet.item("openid, profile, email and offline_access exist already; they are not added.");
    sheet.item("Case counts. Snowflake's roles are in upper case unless they were created in quotes.");
}

/// NetSuite is an authorization server of its own.
fn netsuite(sheet: &mut Sheet, services: &[&Service]) {
    for service in services.iter().filter(|service| service.kind == Kind::Netsuite) {
        sheet.problem(&format!(
            "{} is of kind netsuite, and nothing says that NetSuite takes Okta's tokens: it issues its own. Give it an \
             [authorization_servers.*] with NetSuite's endpoints, unless a gateway before it takes Okta's.",
            service.name
        ));
    }
}

/// The claims that name users and are in no access token by themselves.
fn claims(sheet: &mut Sheet, services: &[&Service]) {
    let by_themselves = ["sub", "uid", "cid"];
    let named: BTreeSet<&str> = services.iter().map(|service| service.user_claim.as_str()).collect();
    for claim in named.into_iter().filter(|claim| !by_themselves.contains(claim)) {
        sheet.say(&format!("Claims > Add Claim, for user_claim = \"{claim}\":"));
        sheet.field("Name", &[claim]);
        sheet.field("Include in token type", &["Access Token, Always"]);
        sheet.field("Value type", &["Expression, such as user.email; each user's must be their own"]);
        sheet.field("Include in", &["Any scope"]);
    }
}

fn policy(sheet: &mut Sheet, client: &Client<'_>, services: &[&Service], settings: &Settings) {
    sheet.say("Access Policies > Add Policy:");
    sheet.field("Assign to", &[format!("The following clients: the app with client id {}", client.id)]);
    let users: Vec<&Service> = services.iter().copied().filter(|service| service.has_users()).collect();
    let itself: Vec<&Service> = services.iter().copied().filter(|service| !service.has_users()).collect();
    if !users.is_empty() {
        sheet.say("Add Rule, for users:");
        let mut types = vec!["Authorization Code", "Device Authorization, if the app has it"];
        if users.iter().any(|service| service.password_grant) {
            types.push("Resource Owner Password (see the warning above)");
        }
        types.push("Refresh Token, where the list has it");
        sheet.field("Grant type is", &types);
        sheet.field("User is", &["Any user assigned to the app"]);
        let mut wanted = scopes(users.iter().copied());
        wanted.push("OIDC default scopes".to_owned());
        sheet.field("Scopes requested", &wanted);
        sheet.field("Access token lifetime", &["1 hour, or what your rules say (5 minutes to 24 hours)"]);
        sheet.field("Refresh token lifetime", &["Unlimited, or what your rules say"]);
        sheet.field("will expire if not used", &["every 7 days"]);
        lifetimes(sheet, settings);
    }
    if !itself.is_empty() {
        sheet.say("Add Rule, for the client itself:");
        sheet.field("Grant type is", &["Client Credentials"]);
        sheet.field("User is", &["No user"]);
        sheet.field("Scopes requested", &scopes(itself.iter().copied()));
        sheet.field("Access token lifetime", &["1 hour, or what your rules say"]);
    }
    for service in users {
        if service.acr_values.is_some() || service.max_age.is_some() {
            let acr = service.acr_values.iter().map(|acr| format!("acr_values = \"{acr}\""));
            let age = service.max_age.iter().map(|age| format!("max_age = \"{}\"", time(*age)));
            sheet.item(&format!(
                "services.{} asks for {} when a user connects: the app's authentication policy (Sign On) must be able to \
                 meet that.",
                service.name,
                list(acr.chain(age))
            ));
        }
    }
}

fn lifetimes(sheet: &mut Sheet, settings: &Settings) {
    sheet.item(
        "A rule is chosen by client, user, grant type and the scopes of one request; bursar asks for one role's scopes at a \
         time. All scopes of one service belong into one rule.",
    );
    sheet.item(
        "A refresh token's lifetime starts when the user connects, and rotation does not extend it: when it ends, the user \
         connects again. A short access token costs requests; a long one outlives a consent that was taken back.",
    );
    sheet.item(&match settings.life.keep_alive {
        Some(keep_alive) if keep_alive < IDLE_WINDOW => format!(
            "bursar uses each grant at least every {} (refresh.keep_alive): the time without use must be longer than that.",
            time(keep_alive)
        ),
        Some(keep_alive) => format!(
            "bursar uses a grant only every {} (refresh.keep_alive): make the time without use longer than that, or \
             keep_alive shorter than 7 days.",
            time(keep_alive)
        ),
        None => "refresh.keep_alive is \"never\": a grant that nobody needs for this long is lost, and its user connects \
                 again."
            .to_owned(),
    });
}

/// Okta's own authorization server is no use here.
pub(super) fn organisation(sheet: &mut Sheet, number: usize, name: &str, server: &Server) {
    sheet.heading(&format!("{number}. The authorization server {name}"));
    sheet.problem(&format!(
        "{} is the organisation's own authorization server. Its access tokens are for Okta alone: their audience can't be \
         chosen, and no service takes them. Add one under Security > API > Authorization Servers and configure its id: \
         authorization_server_id in place of issuer.",
        server.issuer
    ));
}

/// What to register where it is not Okta.
pub(super) fn elsewhere(
    sheet: &mut Sheet,
    number: usize,
    client: &Client<'_>,
    name: &str,
    settings: &Settings,
) {
    let services = services(client, name);
    sheet.heading(&format!("{number}. The authorization server {name}, which is not Okta's"));
    sheet.say(&format!(
        "{} is not of the form https://DOMAIN/oauth2/ID, so where things are is in its own documents. The client {} needs \
         there:",
        client.domain, client.id
    ));
    if services.is_empty() {
        sheet.problem(&no_service(name));
    }
    if client.has_users() {
        let uris = redirect_uris(&[name], settings);
        sheet.field("Redirect URIs", &uris);
    }
    let mut types = Vec::new();
    if client.has_users() {
        types.extend(["authorization_code", "refresh_token", "device_code, for `bursar login --device`"]);
    }
    if client.speaks_for_itself() {
        types.push("client_credentials");
    }
    if !client.with_passwords().is_empty() {
        types.push("password, against RFC 9700 (section 2.4): it MUST NOT be used");
    }
    sheet.field("Grant types", &types);
    let audiences = audiences(&services);
    sheet.field("Audience of access tokens", &audiences.keys().collect::<Vec<_>>());
    let mut wanted = scopes(services.iter().copied());
    if client.has_users() {
        wanted.extend(["openid", "offline_access"].map(str::to_owned));
    }
    sheet.field("Scopes", &wanted);
    sheet.field("PKCE", &["S256"]);
    sheet.item(
        "If it rotates refresh tokens: authorization_servers.*.refresh_token_leeway is how long one that was rotated away \
         still works there, \"0s\" if it does not.",
    );
}
