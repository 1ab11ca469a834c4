//! `[connect]`: the page where users connect.

use std::net::SocketAddr;
use std::path::PathBuf;

use url::Url;

use crate::authorization_server::is_confidential;
use crate::guarded::{self, Holds};
use crate::settings::reader::Section;

/// The page where users connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The origin that browsers see it at.
    pub public_url: Url,
    /// The origins that users may be sent back to.
    pub return_to: Vec<Url>,
    /// What it proves itself with, unless something before it does.
    pub tls: Option<TlsFiles>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, PEM, its own certificate first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub private_key: PathBuf,
}

impl Connect {
    /// What is allowed, and likely a mistake.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        let open = self.tls.is_none() && !self.listen.ip().to_canonical().is_loopback();
        (open && self.public_url.scheme() == "https").then(|| {
            format!(
                "connect.listen is {}, and there is no certificate: whoever is between the proxy and this machine reads \
                 users' sessions; listen on loopback, or set connect.certificate_file and connect.private_key_file",
                self.listen
            )
        })
    }
}

pub(super) fn read(root: &Section<'_>) -> Option<Connect> {
    if !root.has("connect") {
        return None;
    }
    let section = root.section("connect");
    let listen = section.address("listen", SocketAddr::from(([127, 0, 0, 1], 8085)));
    if !section.has("public_url") {
        section.missing(
            "public_url",
            "is missing: the origin that browsers see the page at, such as \"https://bursar.example.com\"",
        );
    }
    let public_url = section.text("public_url").and_then(|text| origin(&section, "public_url", &text));
    let return_to = section.texts("return_to").unwrap_or_default();
    let return_to = return_to.iter().filter_map(|text| origin(&section, "return_to", text)).collect();
    let tls = tls(&section);
    if tls.is_some() && public_url.as_ref().is_some_and(|url| url.scheme() == "http") {
        section.problem("public_url", "must be https where there is a certificate");
    }
    section.finish();
    Some(Connect { listen, public_url: public_url?, return_to, tls })
}

/// Scheme, host and port, and nothing more: what is compared, and what a cookie belongs to.
fn origin(section: &Section<'_>, key: &str, text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| url.host().is_some());
    let Some(url) = url else {
        section.problem(key, format!("{text:?} is not a URL, such as \"https://bursar.example.com\""));
        return None;
    };
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !bare || !url.username().is_empty() || url.password().is_some() {
        section.problem(
            key,
            format!("{text:?} must be an origin alone: scheme, host and port, without a path or a query"),
        );
        return None;
    }
    if !is_confidential(&url) {
        section.problem(key, format!("{text:?} must be https (plain http only on loopback)"));
        return None;
    }
    Some(url)
}

fn tls(section: &Section<'_>) -> Option<TlsFiles> {
    match (section.has("certificate_file"), section.has("private_key_file")) {
        (true, true) => {
            let certificate = section.public_file("certificate_file");
            let private_key = section.file("private_key_file", None);
            for (key, file, holds) in [
                ("certificate_file", &certificate, Holds::Decisions),
                ("private_key_file", &private_key, Holds::Secret),
            ] {
                if let Err(error) = guarded::look(file, holds) {
                    section.lacking(key, error.to_string());
                }
            }
            Some(TlsFiles { certificate, private_key })
        }
        (false, false) => None,
        (has, _) => {
            let (there, missing) = if has {
                ("certificate_file", "private_key_file")
            } else {
                ("private_key_file", "certificate_file")
            };
            section.missing(missing, format!("is missing: {there} and {missing} go together"));
            None
        }
    }
}
