//! The commands.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::settings::DEFAULT_PATH;

/// Speaks HTTP over a Unix socket.
mod client;
mod config;
#[cfg(feature = "dev")]
mod dev;
mod grant;
mod key;
mod serve;
mod terminal;
mod token;

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

/// Keeps users' OAuth grants and hands their access tokens to workers over a Unix socket.
#[derive(Parser)]
#[command(
    name = "bursar",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:\n  bursar dev"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the sidecar in the foreground
    #[command(after_help = "Example:\n  bursar serve --config /etc/bursar/bursar.toml")]
    Serve(ConfigFile),
    /// Run everything on one machine, with a development authorization server that behaves like Okta
    #[cfg(feature = "dev")]
    #[command(after_help = "Example:\n  bursar dev --token-lifetime 20s")]
    Dev(DevArgs),
    /// Print an access token
    #[command(
        after_help = "Example:\n  bursar token --service snowflake --user alice@example.com --role ANALYST"
    )]
    Token(TokenArgs),
    /// List, show, import and refresh grants, by the admin socket
    #[command(subcommand, after_help = "Example:\n  bursar grant list --service snowflake")]
    Grant(GrantCommand),
    /// Make the key that seals the store
    #[command(
        subcommand,
        after_help = "Example:\n  (umask 077; bursar key generate > /etc/bursar/store.key)"
    )]
    Key(KeyCommand),
    /// Look at a configuration file
    #[command(subcommand, after_help = "Example:\n  bursar config check --config bursar.toml")]
    Config(ConfigCommand),
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "BURSAR_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Args)]
struct VendingSocket {
    /// The vending socket
    #[arg(long, value_name = "PATH", env = "BURSAR_SOCKET", default_value = "/run/bursar/bursar.sock")]
    socket: PathBuf,
}

#[derive(Args)]
struct AdminSocket {
    /// The admin socket
    #[arg(long, value_name = "PATH", env = "BURSAR_ADMIN_SOCKET", default_value = "/run/bursar/admin.sock")]
    admin_socket: PathBuf,
}

#[cfg(feature = "dev")]
#[derive(Args)]
struct DevArgs {
    /// Keep sockets, store and configuration here; by default in a temporary directory that goes at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How long access tokens live
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = token_lifetime)]
    token_lifetime: Duration,
    /// Once ready, write the paths and URLs there as JSON
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Fetch alice's Snowflake token over the socket, print its verified claims and end
    #[arg(long, conflicts_with = "server_only")]
    once: bool,
    /// Only the development authorization server: configure, start and kill a sidecar beside it by hand
    #[arg(long)]
    server_only: bool,
    /// Where the development authorization server listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
}

#[derive(Args)]
struct TokenArgs {
    /// What the token is for
    #[arg(long)]
    service: String,
    /// Whom it speaks for
    #[arg(long)]
    user: String,
    /// The role; without one, the service's default scopes
    #[arg(long)]
    role: Option<String>,
    /// The life that it must have left at least
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    min_ttl: Option<Duration>,
    /// How to print it
    #[arg(long, value_enum, default_value = "token")]
    format: Format,
    #[command(flatten)]
    socket: VendingSocket,
}

/// How a token is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The token alone; with a newline only on a terminal
    Token,
    /// What the socket answers
    Json,
    /// An HTTP header
    Header,
}

#[derive(Subcommand)]
enum GrantCommand {
    /// List grants
    #[command(after_help = "Example:\n  bursar grant list --state revoked")]
    List {
        /// Of this service only
        #[arg(long)]
        service: Option<String>,
        /// Of this user only
        #[arg(long)]
        user: Option<String>,
        /// In this state only: active, expired, revoked or lost
        #[arg(long)]
        state: Option<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// Show one grant
    #[command(after_help = "Example:\n  bursar grant show --service snowflake --user alice@example.com")]
    Show(OneGrant),
    /// Take over a refresh token from elsewhere; one refresh proves whose it is
    #[command(
        after_help = "Example:\n  bursar grant import --service snowflake --user alice@example.com --refresh-token-file -"
    )]
    Import {
        #[command(flatten)]
        grant: OneGrant,
        /// The file with the refresh token; `-` is stdin
        #[arg(long, value_name = "FILE")]
        refresh_token_file: PathBuf,
    },
    /// Refresh now, whatever is at hand
    #[command(after_help = "Example:\n  bursar grant refresh --service snowflake --user alice@example.com")]
    Refresh {
        #[command(flatten)]
        grant: OneGrant,
        /// For this role; without one, for the service's default scopes
        #[arg(long)]
        role: Option<String>,
    },
}

#[derive(Args)]
struct OneGrant {
    /// What it is for
    #[arg(long)]
    service: String,
    /// Whose it is
    #[arg(long)]
    user: String,
    #[command(flatten)]
    socket: AdminSocket,
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Print a new key: 32 random bytes in base64, one line
    #[command(after_help = "Example:\n  (umask 077; bursar key generate > /etc/bursar/store.key)")]
    Generate,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Find every problem of a file at once
    #[command(after_help = "Example:\n  bursar config check --config bursar.toml")]
    Check(ConfigFile),
}

/// Whole seconds, as `expires_in` counts, and enough of them to be refreshed ahead.
#[cfg(feature = "dev")]
fn token_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let sane = (4..=86_400).contains(&lifetime.as_secs()) && lifetime.subsec_nanos() == 0;
    if sane { Ok(lifetime) } else { Err("must be whole seconds, from 4s to 24h".to_owned()) }
}

/// Runs the command that the process was called with.
#[must_use]
pub fn run() -> ExitCode {
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
            Command::Grant(command) => grant::grant(command).await.into(),
            Command::Key(KeyCommand::Generate) => key::generate().into(),
            Command::Config(ConfigCommand::Check(file)) => config::check(&file.config).into(),
        }
    });
    // A name look-up that hangs in the system's resolver must not hold up the end.
    runtime.shutdown_background();
    code
}
