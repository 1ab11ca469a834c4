//! `[run_passes]`

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::authorization_server::is_confidential;
use crate::run_pass::Expectation;
use crate::runs::keys;
use crate::settings::reader::Section;

/// Which run passes are believed.
#[derive(Clone, Debug)]
pub struct RunPasses {
    /// What they must say.
    pub expected: Expectation,
    /// Where the keys are.
    pub keys: KeySource,
}

/// Where the keys of run passes are.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At an address.
    Url(Url),
}

pub(super) fn read(root: &Section<'_>) -> Option<RunPasses> {
    if !root.has("run_passes") {
        return None;
    }
    let section = root.section("run_passes");
    let expected = Expectation {
        issuer: section.required_text("issuer"),
        audience: section.required_text("audience"),
        max_lifetime: section.positive_duration("max_lifetime", Duration::from_hours(24)),
    };
    let keys = match (section.has("jwks_file"), section.has("jwks_url")) {
        (true, false) => Some(file(&section)),
        (false, true) => url(&section),
        (false, false) => {
            section.missing(
                "jwks_file",
                "is missing: where the workflow platform's public keys are; or jwks_url",
            );
            None
        }
        (true, true) => {
            section.problem("jwks_url", "either this or jwks_file, not both");
            None
        }
    };
    section.finish();
    Some(RunPasses { expected, keys: keys? })
}

fn file(section: &Section<'_>) -> KeySource {
    let path = section.public_file("jwks_file");
    if let Err(problem) = keys::read(&path) {
        section.lacking("jwks_file", problem);
    }
    KeySource::File(path)
}

fn url(section: &Section<'_>) -> Option<KeySource> {
    let text = section.text("jwks_url")?;
    match Url::parse(&text) {
        Ok(url) if is_confidential(&url) && url.fragment().is_none() => Some(KeySource::Url(url)),
        Ok(_) => {
            section.problem("jwks_url", "must be https (plain http only on loopback), without a fragment");
            None
        }
        Err(error) => {
            section.problem("jwks_url", format!("is not a URL: {error}"));
            None
        }
    }
}
