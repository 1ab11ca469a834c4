//! `[notify]`: who is told when a grant ends.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::authorization_server::client_authentication::read_secret_file;
use crate::authorization_server::is_confidential;
use crate::settings::reader::Section;

/// A key that is shorter can be guessed.
const SHORTEST_SECRET: usize = 16;

/// Who is told when a grant ends, or will.
#[derive(Clone, Debug)]
pub struct Notify {
    /// How long before a grant ends by itself that is said.
    pub warn_before: Duration,
    /// Where it is posted, if anywhere.
    pub webhook: Option<Webhook>,
}

/// Where it is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The address.
    pub url: Url,
    /// The file with the key that signs each body.
    pub secret_file: PathBuf,
}

pub(super) fn read(root: &Section<'_>) -> Notify {
    let section = root.section("notify");
    let warn_before = section.duration("warn_before", Duration::from_hours(3 * 24));
    let url = section.text("url").and_then(|text| match Url::parse(&text) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            section.problem(
                "url",
                "must not have a name or password in it: what is posted is signed with secret_file, which the receiver checks",
            );
            None
        }
        Ok(url) if is_confidential(&url) && url.fragment().is_none() => Some(url),
        Ok(_) => {
            section.problem("url", "must be https (plain http only on loopback), without a fragment");
            None
        }
        Err(error) => {
            section.problem("url", format!("is not a URL: {error}"));
            None
        }
    });
    let secret_file = section.has("secret_file").then(|| section.file("secret_file", None));
    match secret_file.as_deref().map(read_secret_file) {
        Some(Ok(secret)) if secret.expose().len() < SHORTEST_SECRET => {
            section.lacking(
                "secret_file",
                format!("holds less than {SHORTEST_SECRET} characters: make one with `bursar key generate`"),
            );
        }
        Some(Err(error)) => section.lacking("secret_file", error),
        Some(Ok(_)) | None => {}
    }
    if section.has("url") && secret_file.is_none() {
        section.missing(
            "secret_file",
            "is missing: the key that signs what is posted to notify.url, made by `bursar key generate`",
        );
    }
    if secret_file.is_some() && !section.has("url") {
        section.missing("url", "is missing: secret_file signs what is posted there");
    }
    section.finish();
    let webhook = url.zip(secret_file).map(|(url, secret_file)| Webhook { url, secret_file });
    Notify { warn_before, webhook }
}
