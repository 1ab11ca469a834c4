//! `[authorization_servers.*]`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::authorization_server::client_authentication::{Method, read_secret_file};
use crate::authorization_server::http::Proxies;
use crate::authorization_server::signing_key::SigningKey;
use crate::authorization_server::{Endpoints, is_confidential};
use crate::guarded::{self, Holds};
use crate::jwt::SigningAlgorithm;
use crate::secret::Secret;
use crate::settings::Server;
use crate::settings::reader::Section;

/// Okta's leeway goes from nothing to a minute.
const LONGEST_LEEWAY: Duration = Duration::from_mins(1);

/// Asking more often would be most of what the server has to do.
const SHORTEST_LIVENESS: Duration = Duration::from_secs(10);

pub(super) fn read(root: &Section<'_>, lease: Duration) -> BTreeMap<String, Server> {
    let sections = root.sections("authorization_servers");
    if sections.is_empty() {
        root.missing("authorization_servers", "at least one is needed: [authorization_servers.production]");
    }
    sections.into_iter().map(|(name, section)| (name, server(&section, lease))).collect()
}

fn server(section: &Section<'_>, lease: Duration) -> Server {
    let issuer = issuer(section);
    let issuer_url = Url::parse(&issuer).ok().filter(|_| !section.has("issuer"));
    let okta_domain = issuer_url.and_then(|url| url.host_str().map(str::to_owned));
    let client_id = section.required_text("client_id");
    let (authentication, authentication_file) = client_authentication(section);
    let endpoints = endpoints(section);
    let algorithms = algorithms(section);
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
    let ca_file = section.has("ca_file").then(|| section.public_file("ca_file"));
    if let Some(Err(error)) = ca_file.as_deref().map(|path| guarded::look(path, Holds::Decisions)) {
        section.lacking("ca_file", error.to_string());
    }
    let requests_per_minute = section.number("requests_per_minute", 600, 1..=1_000_000);
    let liveness = section.duration_or_never("liveness", None);
    if liveness.is_some_and(|liveness| liveness < SHORTEST_LIVENESS) {
        section.problem("liveness", "must be at least 10s, or \"never\"");
    }
    section.finish();
    Server {
        okta_domain,
        issuer,
        client_id,
        authentication,
        authentication_file,
        endpoints,
        algorithms,
        ca_file,
        leeway,
        request_timeout,
        requests_per_minute,
        liveness,
    }
}

/// `HTTPS_PROXY` and `NO_PROXY`, in either case.
pub(super) fn proxies(root: &Section<'_>) -> Proxies {
    #[expect(
        clippy::disallowed_methods,
        reason = "the conventional variables of everything that speaks HTTP"
    )]
    let read = |name: &str| {
        std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase())).unwrap_or_default()
    };
    let proxies = Proxies::new(&read("HTTPS_PROXY"), &read("NO_PROXY"));
    proxies.unwrap_or_else(|why| {
        root.lacking("", format!("the environment's HTTPS_PROXY {why}"));
        Proxies::none()
    })
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

/// How we prove who we are, and the file that it was read from.
fn client_authentication(section: &Section<'_>) -> (Method, Option<PathBuf>) {
    let methods = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];
    let said = section.choice("client_authentication", &methods);
    let [key, file, env] = ["private_key_file", "client_secret_file", "client_secret_env"];
    let unused = |keys: &[&str], method: &str| {
        for key in keys.iter().filter(|key| section.has(key)) {
            section.problem(key, format!("is not used with client_authentication = \"{method}\""));
        }
    };
    let (key_id, has_key) = (section.text("private_key_id"), section.has(key));
    if key_id.is_some() && !has_key {
        section.problem("private_key_id", "names the key in private_key_file, which is missing");
    }
    match said {
        Some("none") => {
            unused(&[key, file, env], "none");
            (Method::None, None)
        }
        Some("private_key_jwt") | None if has_key || said.is_some() => {
            unused(&[file, env], "private_key_jwt");
            if !has_key {
                section
                    .missing(key, "is missing: the PEM file of the key whose public half the server knows");
                return (Method::None, None);
            }
            let path = section.file(key, None);
            match SigningKey::from_file(&path, key_id) {
                Ok(signing_key) => (Method::PrivateKeyJwt(signing_key), Some(path)),
                Err(error) => {
                    section.lacking(key, error);
                    (Method::None, Some(path))
                }
            }
        }
        method => {
            unused(&[key], method.unwrap_or("client_secret_basic"));
            let (secret, path) = client_secret(section);
            let post = method == Some("client_secret_post");
            (if post { Method::SecretPost(secret) } else { Method::SecretBasic(secret) }, path)
        }
    }
}

/// Where the server is asked, if it does not say so itself.
fn endpoints(section: &Section<'_>) -> Option<Endpoints> {
    let url = |key: &'static str| {
        let text = section.text(key)?;
        match Url::parse(&text) {
            Ok(url) if is_confidential(&url) && url.fragment().is_none() => return Some(url),
            Ok(_) => section.problem(key, "must be https (plain http only on loopback), without a fragment"),
            Err(_) => section.problem(key, "must be a URL"),
        }
        None
    };
    let token_endpoint = url("token_endpoint");
    let optional = ["jwks_uri", "authorization_endpoint", "introspection_endpoint", "revocation_endpoint"]
        .map(|key| (key, url(key)));
    let Some(token_endpoint) = token_endpoint else {
        for (key, _) in optional.iter().filter(|(key, _)| section.has(key)) {
            section.problem(
                key,
                "endpoints are named where there is no discovery, and then token_endpoint is needed too",
            );
        }
        return None;
    };
    let [jwks_uri, authorization_endpoint, introspection_endpoint, revocation_endpoint] =
        optional.map(|(_, url)| url);
    Some(Endpoints {
        token_endpoint,
        jwks_uri,
        authorization_endpoint,
        introspection_endpoint,
        revocation_endpoint,
        device_authorization_endpoint: None,
        authorization_response_iss_parameter_supported: false,
    })
}

fn algorithms(section: &Section<'_>) -> Vec<SigningAlgorithm> {
    let Some(names) = section.texts("signing_algorithms") else { return vec![SigningAlgorithm::Rs256] };
    let known = SigningAlgorithm::ALL.map(SigningAlgorithm::as_str).join(", ");
    if names.is_empty() {
        section.problem("signing_algorithms", format!("must name at least one of {known}"));
    }
    let read = |name: &String| {
        let found = SigningAlgorithm::parse(name);
        if found.is_none() {
            section.problem("signing_algorithms", format!("{name:?} is not one of {known}"));
        }
        found
    };
    names.iter().filter_map(read).collect()
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
                    section.lacking("client_secret_file", error);
                    (nothing, None)
                }
            }
        }
        (None, Some(name)) => {
            #[expect(clippy::disallowed_methods, reason = "the configuration names this variable")]
            let value = std::env::var(&name).ok().filter(|value| !value.is_empty());
            if value.is_none() {
                section.lacking("client_secret_env", format!("the environment has no {name}"));
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
