//! `bursar config …`

use std::path::Path;

use crate::cli::{Exit, terminal};
use crate::settings::{Problem, Settings, keys};

/// A file with every key; the one that is shipped.
const EXAMPLE: &str = include_str!("../../deploy/bursar.example.toml");

pub(super) fn example() -> Exit {
    terminal::out(EXAMPLE);
    Exit::Done
}

pub(super) fn schema() -> Exit {
    terminal::out(&format!("{:#}\n", keys::schema()));
    Exit::Done
}

pub(super) fn check(path: &Path) -> Exit {
    match Settings::load(path) {
        Ok(_) => {
            terminal::out(&format!("{}: ok\n", path.display()));
            Exit::Done
        }
        Err(problems) => {
            report(path, &problems);
            Exit::Usage
        }
    }
}

/// Every problem on a line of its own.
pub(super) fn report(path: &Path, problems: &[Problem]) {
    for problem in problems {
        terminal::err(&format!("{}: {problem}", path.display()));
    }
}
