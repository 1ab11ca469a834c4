//! The commands.

use std::process::ExitCode;

use clap::Parser as _;

use crate::hardening;

mod arguments;
/// Looks into the audit log.
mod audit;
mod check;
/// Speaks HTTP over a Unix socket.
mod client;
mod config;
#[cfg(feature = "dev")]
mod dev;
mod grant;
mod key;
/// Connects a user.
mod login;
mod manual;
mod run;
mod serve;
mod setup;
mod status;
mod terminal;
mod token;

use arguments::{AuditCommand, Cli, Command, ConfigCommand, KeyCommand};

/// How a command ended; the numbers are those of `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// Not now; later it may work.
    Unavailable,
    /// A user must connect (again).
    LoginRequired,
    /// Not for this caller.
    Denied,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::LoginRequired => 75,
            Exit::Denied => 77,
        })
    }
}

/// Runs the command that the process was called with.
#[must_use]
pub fn run() -> ExitCode {
    // Every command has secrets in its hands, if only for a moment; those that keep them say so where this fails.
    let _best_effort = hardening::hide();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap prints either where it belongs.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _nobody_reads = error.print();
            return exit.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal::err(&format!("bursar: {error}"));
            return Exit::Failed.into();
        }
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Serve(file) => serve::serve(&file.config).await,
            #[cfg(feature = "dev")]
            Command::Dev(args) => dev::dev(args).await,
            Command::Token(args) => token::token(args).await.into(),
            Command::Login(args) => login::login(args).await.into(),
            Command::Grant(command) => grant::grant(command).await.into(),
            Command::Run(command) => run::run(command).await.into(),
            Command::Check(args) => check::check(args).await.into(),
            Command::Setup(command) => setup::setup(&command).into(),
            Command::Status(args) => status::status(args).await.into(),
            Command::Key(KeyCommand::Generate) => key::generate().into(),
            Command::Audit(AuditCommand::Verify(args)) => audit::verify(&args).into(),
            Command::Key(KeyCommand::Rotate { json, socket }) => {
                key::rotate(&socket.admin_socket, json).await.into()
            }
            Command::Config(ConfigCommand::Example) => config::example().into(),
            Command::Config(ConfigCommand::Schema) => config::schema().into(),
            Command::Config(ConfigCommand::Check(file)) => config::check(&file.config).into(),
            Command::Completions { shell } => manual::completions(shell).into(),
            Command::Man { command } => manual::page(&command).into(),
        }
    });
    // A name look-up that hangs in the system's resolver must not hold up the end.
    runtime.shutdown_background();
    code
}
