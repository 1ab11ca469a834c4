//! The app integration: what the client may do, where users come back to, and how it proves who it is.

use std::collections::BTreeMap;

use url::Url;

use crate::authorization_server::client_authentication::Method;
use crate::authorization_server::signing_key::SigningKey;
use crate::cli::setup::okta::Client;
use crate::cli::setup::quote::shell_word;
use crate::cli::setup::sheet::Sheet;
use crate::cli::setup::{list, time};
use crate::model::{LOOPBACK, redirect_uri};
use crate::settings::{Server, Settings};

/// As long as Okta's grace period can be.
const LONGEST_LEEWAY: &str = "60s";

pub(super) fn write(sheet: &mut Sheet, number: usize, client: &Client<'_>, settings: &Settings) {
    sheet.heading(&format!(
        "{number}. The app integration with client id {}, at {}",
        client.id, client.domain
    ));
    sheet.say(&format!(
        "Applications > Applications > Create App Integration, or the one that is there already. It serves {}. Okta chooses \
         the client id: if it is another one, write it into the configuration.",
        list(client.servers.iter().map(|(name, _)| format!("[authorization_servers.{name}]")))
    ));
    let has_users = client.has_users();
    if has_users {
        sheet.field("Sign-in method", &["OIDC - OpenID Connect"]);
        sheet.field("Application type", &["Web Application"]);
    } else {
        sheet.field("Sign-in method", &["API Services"]);
    }
    sheet.field("Grant type", &grant_types(client));
    if has_users {
        let names: Vec<&str> = client.servers.iter().map(|(name, _)| *name).collect();
        sheet.field("Sign-in redirect URIs", &redirect_uris(&names, settings));
        sheet.field("Sign-out redirect URIs", &["none"]);
        sheet.field("Controlled access", &["Limit access to selected groups: those who may connect"]);
    }
    why_these(sheet, client);
    sheet.say("Then on the app's General tab:");
    authentication(sheet, client);
    if has_users {
        sheet.field("PKCE", &["Require PKCE as additional verification (bursar always sends it)"]);
    }
    sheet.field(
        "DPoP",
        &["off: drivers send plain bearer tokens, and a token bound to a key is no use to them"],
    );
    if has_users {
        sheet.field(
            "Refresh token behavior",
            &["Use persistent token", "or Rotate token after every use, with a grace period of 60 seconds"],
        );
        refresh_tokens(sheet, client);
    }
    keys(sheet, client);
}

fn grant_types(client: &Client<'_>) -> Vec<String> {
    let mut types = Vec::new();
    if client.has_users() {
        types.extend(["Authorization Code", "Refresh Token"].map(str::to_owned));
        types.push("Device Authorization, if anybody is to use `bursar login --device`".to_owned());
    }
    if client.speaks_for_itself() {
        types.push("Client Credentials".to_owned());
    }
    if !client.with_passwords().is_empty() {
        types.push("Resource Owner Password (see the warning)".to_owned());
    }
    types
}

/// The page's, and those of a sign-in from a terminal.
pub(super) fn redirect_uris(servers: &[&str], settings: &Settings) -> Vec<String> {
    let page = settings.connect.iter().map(|connect| connect.public_url.clone());
    page.chain(Url::parse(LOOPBACK))
        .flat_map(|origin| servers.iter().map(move |name| redirect_uri(&origin, name).into()))
        .collect()
}

fn why_these(sheet: &mut Sheet, client: &Client<'_>) {
    let names = |themselves: bool| {
        list(
            client
                .services
                .iter()
                .filter(|service| service.has_users() != themselves)
                .map(|s| s.name.as_str()),
        )
    };
    if client.has_users() {
        sheet.item(&format!(
            "Redirect URIs are compared letter by letter. Each authorization server has its own, so that an answer of one \
             is never taken for another's. The one at {LOOPBACK} is for `bursar login` in a terminal; leave it out if \
             nobody is to use that."
        ));
    }
    if client.speaks_for_itself() {
        sheet.item(&format!("Client Credentials is for services without users: {}.", names(true)));
    } else {
        sheet.item("Client Credentials stays off: no service here has grant = \"client_credentials\".");
    }
    let passwords = client.with_passwords();
    if passwords.is_empty() {
        if client.has_users() {
            sheet.item("Resource Owner Password stays off: it gives away passwords and knows no MFA.");
        }
        return;
    }
    sheet.say(&format!(
        "WARNING: Resource Owner Password is asked for by password_grant = true of {}. RFC 9700 (section 2.4) says that it \
         MUST NOT be used: a password passes through other hands than Okta's, and there is no MFA. Keep it for a service \
         user that can do no better, and move that one to Client Credentials or a device sign-in.",
        list(passwords)
    ));
}

fn authentication(sheet: &mut Sheet, client: &Client<'_>) {
    let mut ways: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, server) in &client.servers {
        let way = match (&server.authentication, &server.authentication_file) {
            (Method::SecretBasic(_) | Method::SecretPost(_), _) => {
                "Client secret; bursar reads it from client_secret_file or client_secret_env"
            }
            (Method::PrivateKeyJwt(_), _) | (Method::None, Some(_)) => {
                "Public key / Private key; bursar reads the private half from private_key_file, and private_key_id is its \
                 id at Okta"
            }
            (Method::None, None) => "None (client_authentication = \"none\")",
        };
        ways.entry(way).or_default().push(name);
    }
    sheet.field("Client authentication", &ways.keys().collect::<Vec<_>>());
    if ways.len() > 1 {
        let groups = ways.values().map(|names| names.join(" and "));
        sheet.problem(&format!(
            "an app integration proves who it is in one way, and these have the same client id with different ones: {}. \
             Configure the same for all of them, or register another app integration.",
            list(groups)
        ));
    }
}

fn refresh_tokens(sheet: &mut Sheet, client: &Client<'_>) {
    sheet.item(
        "Persistent is Okta's own choice for web applications, and nothing is lost with an answer that is lost on the way. \
         If your rules ask for rotation, give it the longest grace period: it is the time in which bursar may present a \
         token again whose answer never came. With 0 such an answer costs the user their consent.",
    );
    for (name, server) in &client.servers {
        let leeway = time(server.leeway);
        let key = format!("authorization_servers.{name}.refresh_token_leeway");
        sheet.item(&if server.leeway.is_zero() {
            format!(
                "{key} is {leeway}: right for rotation without a grace period. With persistent tokens or a grace period \
                 write \"{LONGEST_LEEWAY}\"."
            )
        } else {
            format!(
                "{key} is {leeway}. With rotation it must be the same as the grace period, so \"{LONGEST_LEEWAY}\" for the \
                 longest: if it is longer, a token is presented too late, which ends the consent."
            )
        });
    }
}

/// What is better than a secret, where there is one, and what to paste, where there is a key.
fn keys(sheet: &mut Sheet, client: &Client<'_>) {
    let is_secret = |server: &Server| match &server.authentication {
        Method::SecretBasic(_) | Method::SecretPost(_) => true,
        Method::PrivateKeyJwt(_) | Method::None => false,
    };
    for (name, server) in &client.servers {
        if let Some(key) = server.authentication_file.as_deref().filter(|_| !is_secret(server)) {
            if let Method::PrivateKeyJwt(pair) = &server.authentication {
                sheet.say(&format!(
                    "The public half for {name}, as a JWK, for Public key / Private key > Add key:"
                ));
                sheet.block(&[public_half(pair)]);
            } else {
                sheet.item(&format!(
                    "{} can't be read here. For Public key / Private key > Add key Okta wants the public half as a JWK: run \
                     `bursar setup okta --server {name}` where the key is, as who may read it, and it stands here.",
                    shell_word(&key.display().to_string())
                ));
            }
        }
    }
    if client.servers.iter().any(|(_, server)| is_secret(server)) {
        sheet.say(
            "Better than a secret is a key of bursar's own (private_key_jwt): it never leaves the machine, and Okta has only \
             its public half. Make one:",
        );
        sheet.block(&[
            "(umask 077; openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out okta.pem)",
        ]);
        sheet.say(
            "Then name it by private_key_file in place of client_secret_file, and run this again: it prints the public half as \
             Okta wants it (a JWK). Okta's id for it goes into private_key_id.",
        );
        sheet.say("With a secret: two may be active at once, so that it is replaced without a gap.");
    }
}

/// Okta chooses the key's id, unless the configuration names one.
fn public_half(pair: &SigningKey) -> String {
    let mut key = pair.public_jwk();
    if let Some(members) = key.as_object_mut() {
        members.retain(|_, value| !value.is_null());
        members.insert("use".to_owned(), "sig".into());
    }
    key.to_string()
}
