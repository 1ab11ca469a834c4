//! `[authorization_servers.*]`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::authorization_server::client_authentication::read_secret_file;
use crate::authorization_server::is_confidential;
use crate::secret::Secret;
use crate::settings::Server;
use crate::settings::reader::Section;

/// Okta's leeway goes from nothing to a minute.
const LONGEST_LEEWAY: Duration = Duration::from_mins(1);

pub(super) fn read(root: &Section<'_>, lease: Duration) -> BTreeMap<String, Server> {
    let sections = root.sections("authorization_servers");
    if sections.is_empty() {
        root.missing("authorization_servers", "at least one is needed: [authorization_servers.production]");
    }
    sections.into_iter().map(|(name, section)| (name, server(&section, lease))).collect()
}

fn server(section: &Section<'_>, lease: Duration) -> Server {
    let issuer = issuer(section);
    let client_id = section.required_text("client_id");
    let (client_secret, client_secret_file) = client_secret(section);
    let leeway = section.duration("refresh_token_leeway", Duration::from_secs(30));
    if leeway > LONGEST_LEEWAY {
        section.problem("refresh_token_leeway", "is at most 60s at Okta");
    }
    let request_timeout = section.positive_duration("request_timeout", Duration::from_secs(5));
    // Between taking the lease and sending lies at least a write to disk.
    if request_timeout * 6 / 5 > lease {
        section.problem("request_timeout", "must be shorter than refresh.lease, by a fifth of it at least");
    }
    if !leeway.is_zero() && request_timeout * 2 + lease >= leeway {
        section.problem(
            "request_timeout",
            "twice this and refresh.lease must be less than refresh_token_leeway, else an answer that got lost can't be \
             recovered in time: shorten request_timeout or refresh.lease, or lengthen the leeway (in Okta and here)",
        );
    }
    section.choice("client_authentication", &["client_secret_basic"]);
    let ca_file = section.text("ca_file").map(PathBuf::from);
    section.finish();
    Server { issuer, client_id, client_secret, client_secret_file, ca_file, leeway, request_timeout }
}

/// Of the two ways to name a server, exactly one.
fn issuer(section: &Section<'_>) -> String {
    if section.has("issuer") {
        for key in ["okta_domain", "authorization_server_id"] {
            if section.has(key) {
                section.problem(key, "either this or issuer, not both");
            }
        }
        let issuer = section.text("issuer").unwrap_or_default();
        match Url::parse(&issuer) {
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                section.problem("issuer", "must not have a query or a fragment");
            }
            Ok(url) if is_confidential(&url) => {}
            Ok(_) => section.problem("issuer", "must be https (plain http only on loopback)"),
            Err(_) if issuer.is_empty() => {}
            Err(_) => section.problem("issuer", "must be a URL, such as \"https://id.example.com\""),
        }
        return issuer;
    }
    let (domain, id) =
        (section.required_text("okta_domain"), section.required_text("authorization_server_id"));
    let is_name =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !is_name(&domain) {
        section.problem("okta_domain", "must be the bare domain, such as \"company.okta.com\"");
    }
    if domain.contains("-admin.okta") {
        section.problem("okta_domain", "is the admin console's; the domain is the one without `-admin`");
    }
    if !is_name(&id) {
        section.problem(
            "authorization_server_id",
            "must be the part of the issuer after /oauth2/, such as \"aus8x7abc123def\"",
        );
    }
    format!("https://{domain}/oauth2/{id}")
}

fn client_secret(section: &Section<'_>) -> (Secret, Option<PathBuf>) {
    let nothing = Secret::new(String::new());
    match (section.text("client_secret_file"), section.text("client_secret_env")) {
        (Some(_), Some(_)) => {
            section.problem("client_secret_env", "either this or client_secret_file, not both");
            (nothing, None)
        }
        (Some(_), None) => {
            let path = section.file("client_secret_file", None);
            match read_secret_file(&path) {
                Ok(secret) => (secret, Some(path)),
                Err(error) => {
                    section.problem("client_secret_file", error);
                    (nothing, None)
                }
            }
        }
        (None, Some(name)) => {
            #[expect(clippy::disallowed_methods, reason = "the configuration names this variable")]
            let value = std::env::var(&name).ok().filter(|value| !value.is_empty());
            if value.is_none() {
                section.problem("client_secret_env", format!("the environment has no {name}"));
            }
            (value.map_or(nothing, Secret::new), None)
        }
        (None, None) => {
            section.missing(
                "client_secret_file",
                "is missing: the client's secret is read from a file, or from client_secret_env",
            );
            (nothing, None)
        }
    }
}
