//! `bursar completions`, `bursar man`

use clap::{Command, CommandFactory as _};

use crate::cli::arguments::Cli;
use crate::cli::{Exit, terminal};

pub(super) fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bursar", &mut script);
    terminal::out(&String::from_utf8_lossy(&script));
    Exit::Done
}

/// The page of one command, named by its words: `grant import` is bursar-grant-import(1).
pub(super) fn page(words: &[String]) -> Exit {
    let mut root = Cli::command();
    // Gives each command its whole name.
    root.build();
    let mut command: &Command = &root;
    for word in words {
        match command.find_subcommand(word) {
            Some(found) => command = found,
            None => {
                terminal::err(&format!("bursar: there is no command {}", words.join(" ")));
                return Exit::Usage;
            }
        }
    }
    let page = clap_mangen::Man::new(command.clone())
        .source(concat!("bursar ", env!("CARGO_PKG_VERSION")))
        .manual("bursar's manual");
    let mut text = Vec::new();
    if let Err(error) = page.render(&mut text) {
        terminal::err(&format!("bursar: {error}"));
        return Exit::Failed;
    }
    terminal::out(&String::from_utf8_lossy(&text));
    Exit::Done
}
