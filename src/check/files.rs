//! The files that the configuration names: that they can be read, and not by everybody, was looked at when it was read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::check::Step;
use crate::guarded::{self, Holds};

pub(super) fn look(files: &BTreeMap<PathBuf, Holds>) -> Vec<Step> {
    let doubts: Vec<Step> = files
        .iter()
        .filter_map(|(file, holds)| {
            let doubt = guarded::doubt(file, *holds)?;
            let subject = file.display().to_string();
            let remedy = format!("chown root {subject}, or to the user that bursar runs as");
            Some(Step::doubtful("files", subject, doubt, remedy))
        })
        .collect();
    if !doubts.is_empty() {
        return doubts;
    }
    let secrets = files.values().filter(|holds| **holds == Holds::Secret).count();
    let message = format!("can be read, and not by everybody; files: {secrets}");
    vec![Step::good("files", "secrets", message)]
}
