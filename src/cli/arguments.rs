//! The command line. Every command has an example in its help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::settings::DEFAULT_PATH;

/// Keeps users' OAuth grants and hands their access tokens to workers over a Unix socket.
#[derive(Parser)]
#[command(
    name = "bursar",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Example:\n  bursar dev"
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
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
    /// Connect a user from a terminal, by the admin socket
    #[command(
        after_help = "Examples:\n  bursar login --service snowflake --role ANALYST\n  bursar login --service snowflake --device\n  bursar login --service legacy --password-stdin --username etl@example.com < password\n\nWithout --device the browser must be on this machine: it comes back to http://127.0.0.1:8976/callback/SERVER, which must be among the app integration's sign-in redirect URIs. Exit code 75: the user must try again."
    )]
    Login(LoginArgs),
    /// List, show, import, refresh and revoke grants, by the admin socket
    #[command(subcommand, after_help = "Example:\n  bursar grant list --service snowflake")]
    Grant(GrantCommand),
    /// End a run of the workflow platform, by the admin socket
    #[command(subcommand, after_help = "Example:\n  bursar run end 7f3a9c1e")]
    Run(RunCommand),
    /// Is everything set up? Each step of it, and for what is not right what to do and where
    #[command(
        after_help = "Examples:\n  bursar check\n  bursar check --user alice@example.com --service snowflake\n\n✓ right · ✗ to be mended · ! to think about · – not to be told from here. Exit code 1 if anything must be mended."
    )]
    Check(CheckArgs),
    /// The running sidecar at a glance, by the admin socket
    #[command(after_help = "Example:\n  bursar status --watch")]
    Status(StatusArgs),
    /// Print what to enter in Okta, Snowflake or Databricks, with this configuration's own values
    #[command(subcommand, after_help = "Example:\n  bursar setup okta --config bursar.toml")]
    Setup(SetupCommand),
    /// Make the key that seals the store, and put another in its place
    #[command(
        subcommand,
        after_help = "Example:\n  (umask 077; bursar key generate > /etc/bursar/store.key)"
    )]
    Key(KeyCommand),
    /// Look into the audit log
    #[command(subcommand, after_help = "Example:\n  bursar audit verify /var/log/bursar/audit.jsonl")]
    Audit(AuditCommand),
    /// Look at a configuration file, or print what can stand in one
    #[command(subcommand, after_help = "Example:\n  bursar config check --config bursar.toml")]
    Config(ConfigCommand),
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  bursar completions bash > /usr/share/bash-completion/completions/bursar"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print a page of the manual
    #[command(after_help = "Example:\n  bursar man grant import | man -l -")]
    Man {
        /// The command that the page is about; without one, bursar itself
        command: Vec<String>,
    },
}

#[derive(Args)]
pub(super) struct ConfigFile {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "BURSAR_CONFIG", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,
}

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Make one real refresh of this user's tokens, by the running sidecar, and look at what came
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Look at this service only, and its authorization server
    #[arg(long)]
    pub(super) service: Option<String>,
    /// One JSON object: `ok`, and `steps` with `step`, `subject`, `ok` (null: not to be told), `message` and `remedy`
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct VendingSocket {
    /// The vending socket
    #[arg(long, value_name = "PATH", env = "BURSAR_SOCKET", default_value = "/run/bursar/bursar.sock")]
    pub(super) socket: PathBuf,
    /// The file with the run pass to show
    #[arg(long, value_name = "FILE", env = "BURSAR_RUN_PASS_FILE")]
    pub(super) run_pass_file: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct AdminSocket {
    /// The admin socket
    #[arg(long, value_name = "PATH", env = "BURSAR_ADMIN_SOCKET", default_value = "/run/bursar/admin.sock")]
    pub(super) admin_socket: PathBuf,
}

#[cfg(feature = "dev")]
#[derive(Args)]
pub(super) struct DevArgs {
    /// Keep sockets, store and configuration here; by default in a temporary directory that goes at the end
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// How long access tokens live
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = token_lifetime)]
    pub(super) token_lifetime: Duration,
    /// Once ready, write the paths and URLs there as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) ready_file: Option<PathBuf>,
    /// Fetch alice's Snowflake token over the socket, print its verified claims and end
    #[arg(long, conflicts_with = "server_only")]
    pub(super) once: bool,
    /// Only the development authorization server: configure, start and kill a sidecar beside it by hand
    #[arg(long)]
    pub(super) server_only: bool,
    /// Where the development authorization server listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(super) listen: std::net::SocketAddr,
}

#[derive(Args)]
pub(super) struct TokenArgs {
    /// What the token is for
    #[arg(long)]
    pub(super) service: String,
    /// Whom it speaks for; left out only for services without users
    #[arg(long)]
    pub(super) user: Option<String>,
    /// The role; without one, the service's default scopes
    #[arg(long)]
    pub(super) role: Option<String>,
    /// The life that it must have left at least
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) min_ttl: Option<Duration>,
    /// How to print it
    #[arg(long, value_enum, default_value = "token")]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) socket: VendingSocket,
}

#[derive(Args)]
pub(super) struct LoginArgs {
    /// What to connect to
    #[arg(long)]
    pub(super) service: String,
    /// A role that the user is to grant, beside the service's default scopes; may be given again
    #[arg(long)]
    pub(super) role: Vec<String>,
    /// Show a code that the user types in a browser anywhere (RFC 8628)
    #[arg(long)]
    pub(super) device: bool,
    /// Where the browser comes back to on this machine; 0 is any port, which Okta does not take
    #[arg(long, default_value_t = 8976, conflicts_with_all = ["device", "password_stdin"])]
    pub(super) port: u16,
    /// Print the address, and open no browser
    #[arg(long, conflicts_with_all = ["device", "password_stdin"])]
    pub(super) no_browser: bool,
    /// Read the password of a legacy service user from stdin, where the service's configuration takes it. RFC 9700: don't
    #[arg(long, requires = "username", conflicts_with_all = ["device", "role"])]
    pub(super) password_stdin: bool,
    /// Whose password it is
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    pub(super) username: Option<String>,
    #[command(flatten)]
    pub(super) socket: AdminSocket,
}

/// How a token is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// The token alone; with a newline only on a terminal
    Token,
    /// What the socket answers
    Json,
    /// An HTTP header
    Header,
}

#[derive(Subcommand)]
pub(super) enum GrantCommand {
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
        /// Only those that end by themselves within `notify.warn_before`
        #[arg(long)]
        ending: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// Show one grant
    #[command(after_help = "Example:\n  bursar grant show --service snowflake --user alice@example.com")]
    Show(OneGrant),
    /// Take over refresh tokens from elsewhere; one refresh proves whose each is
    #[command(
        after_help = "Examples:\n  bursar grant import --service snowflake --user alice@example.com --refresh-token-file -\n  bursar grant import --json-lines grants.jsonl\n\nA line of many: {\"service\":\"snowflake\",\"user\":\"alice@example.com\",\"refresh_token\":\"…\"}"
    )]
    Import(ImportArgs),
    /// End a grant, here at once and at its authorization server as soon as that can be reached
    #[command(after_help = "Example:\n  bursar grant revoke --service snowflake --user alice@example.com")]
    Revoke(OneGrant),
    /// Revoke and forget every grant of a user, and say what is out of reach
    #[command(after_help = "Example:\n  bursar grant erase --user alice@example.com")]
    Erase {
        /// Whom to forget
        #[arg(long)]
        user: String,
        #[command(flatten)]
        socket: AdminSocket,
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
pub(super) struct ImportArgs {
    /// What it is for
    #[arg(long, required_unless_present = "json_lines")]
    pub(super) service: Option<String>,
    /// Whose it is
    #[arg(long, required_unless_present = "json_lines")]
    pub(super) user: Option<String>,
    /// The file with the refresh token; `-` is stdin
    #[arg(long, value_name = "FILE", required_unless_present = "json_lines")]
    pub(super) refresh_token_file: Option<PathBuf>,
    /// Many at once: a file with a JSON object a line; `-` is stdin. What failed is printed, and can be tried again with
    /// the same file: importing a token twice changes nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["service", "user", "refresh_token_file"])]
    pub(super) json_lines: Option<PathBuf>,
    #[command(flatten)]
    pub(super) socket: AdminSocket,
}

#[derive(Args)]
pub(super) struct OneGrant {
    /// What it is for
    #[arg(long)]
    pub(super) service: String,
    /// Whose it is
    #[arg(long)]
    pub(super) user: String,
    #[command(flatten)]
    pub(super) socket: AdminSocket,
}

#[derive(Subcommand)]
pub(super) enum RunCommand {
    /// From now on there is no token for that run's pass
    #[command(after_help = "Example:\n  bursar run end 7f3a9c1e")]
    End {
        /// The run: its pass's `jti`
        id: String,
        #[command(flatten)]
        socket: AdminSocket,
    },
}

#[derive(Subcommand)]
pub(super) enum SetupCommand {
    /// App integration, authorization servers, scopes and policies, in the order of Okta's Admin Console
    #[command(after_help = "Example:\n  bursar setup okta --server production")]
    Okta {
        /// This authorization server only
        #[arg(long, value_name = "NAME", conflicts_with = "service")]
        server: Option<String>,
        /// The authorization server of this service only
        #[arg(long)]
        service: Option<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// The security integration, and how to check it
    #[command(after_help = "Example:\n  bursar setup snowflake --service snowflake")]
    Snowflake {
        /// The service, of kind snowflake
        #[arg(long)]
        service: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// The federation policy, and how to check it
    #[command(after_help = "Example:\n  bursar setup databricks --service databricks")]
    Databricks {
        /// The service, of kind databricks
        #[arg(long)]
        service: String,
        #[command(flatten)]
        config: ConfigFile,
    },
}

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    /// Print a new key: 32 random bytes in base64, one line
    #[command(after_help = "Example:\n  (umask 077; bursar key generate > /etc/bursar/store.key)")]
    Generate,
    /// Seal everything in the store anew with the key in `store.key_file`, while it serves, by the admin socket
    #[command(
        after_help = "Example, with the new key in store.key_file and the one before in store.old_key_files:\n  systemctl reload bursar && bursar key rotate\n\nWhat was interrupted goes on where it was: call it again. Exit code 1 if something can't be opened; it is named."
    )]
    Rotate {
        /// As the socket answers
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: AdminSocket,
    },
}

#[derive(Subcommand)]
pub(super) enum AuditCommand {
    /// Find lines that were changed, removed, put in or cut off
    #[command(
        after_help = "Examples:\n  bursar audit verify /var/log/bursar/audit.jsonl.1 /var/log/bursar/audit.jsonl\n  zcat audit.jsonl.3.gz audit.jsonl.2.gz | bursar audit verify - audit.jsonl.1 audit.jsonl\n\nThe files follow one another, the oldest first. Exit code 0: whole; 1: not, and each place is printed."
    )]
    Verify(VerifyArgs),
}

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// The files, the oldest first; `-` is stdin. Without any, the configured one
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// In place of the configuration's: the keys that the lines were written with, the oldest first
    #[arg(long, value_name = "FILE")]
    pub(super) key_file: Vec<PathBuf>,
    /// The head, which tells how many lines there must be; by default the configuration's, for its own file
    #[arg(long, value_name = "FILE")]
    pub(super) head: Option<PathBuf>,
    /// The first line must be the first one of all
    #[arg(long)]
    pub(super) from_start: bool,
    /// One JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct StatusArgs {
    /// As the socket answers; with --watch a line each time
    #[arg(long)]
    pub(super) json: bool,
    /// Again and again, until Ctrl-C, or q and Enter
    #[arg(long)]
    pub(super) watch: bool,
    /// How often
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = watch_interval, requires = "watch")]
    pub(super) interval: Duration,
    #[command(flatten)]
    pub(super) socket: AdminSocket,
}

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a configuration with every key
    #[command(after_help = "Example:\n  bursar config example > /etc/bursar/bursar.toml")]
    Example,
    /// Print the JSON Schema of a configuration
    #[command(after_help = "Example:\n  bursar config schema > bursar.schema.json")]
    Schema,
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

/// Each look costs the sidecar a look at all its grants.
fn watch_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let sane = (Duration::from_millis(500)..=Duration::from_hours(1)).contains(&interval);
    if sane { Ok(interval) } else { Err("must be from 500ms to 1h".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn look(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "{path} has no example");
        assert!(command.get_about().is_some(), "{path} does not say what it does");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path}: {} is not explained", argument.get_id());
        }
        command.get_subcommands().for_each(|command| look(command, &path));
    }

    #[test]
    fn every_command_has_an_example_and_explains_its_arguments() {
        let command = Cli::command();
        command.clone().debug_assert();
        look(&command, "");
    }
}
