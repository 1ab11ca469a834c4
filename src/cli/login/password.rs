//! The password of a legacy service user: from stdin to the sidecar, and nowhere else.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use hyper::Method;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::arguments::LoginArgs;
use crate::cli::client::{self, Refused};
use crate::cli::login::failed;
use crate::cli::{Exit, terminal};

/// No password is longer.
const LONGEST: u64 = 4096;
const WARNING: &str = "warning: RFC 9700 section 2.4 forbids this: a password that is handed to a client is a password that \
                       can be stolen there, and no second factor stands behind it.\n\
                       Have the user sign in with `bursar login` or `bursar login --device`, and set password_grant = false.";

pub(super) async fn login(args: &LoginArgs, username: &str) -> Result<Value, Refused> {
    terminal::err(WARNING);
    let password = read().await?;
    let body = json!({ "service": args.service, "username": username, "password": password.as_str() });
    client::ask(&args.socket.admin_socket, Method::POST, "/v1/password-grants", Some(body)).await
}

/// The first line of stdin, without its end.
async fn read() -> Result<Zeroizing<String>, Refused> {
    let quiet = std::io::stdin().is_terminal().then(|| {
        terminal::ask("Password: ");
        Quiet::begin()
    });
    // A terminal that does not echo must not be left behind.
    let read = tokio::select! {
        read = tokio::task::spawn_blocking(read_line) => Some(read),
        _interrupted = tokio::signal::ctrl_c() => None,
    };
    drop(quiet);
    let read = read.ok_or_else(|| failed("interrupted", Exit::Failed))?;
    let line = read.map_err(std::io::Error::other).and_then(|read| read);
    let line = line.map_err(|error| failed(&format!("stdin: {error}"), Exit::Usage))?;
    let password = Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned());
    if password.is_empty() {
        return Err(failed("there is no password on stdin", Exit::Usage));
    }
    Ok(password)
}

fn read_line() -> std::io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().lock().take(LONGEST).read_line(&mut line)?;
    Ok(line)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Quiet(Option<Termios>);

impl Quiet {
    fn begin() -> Self {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(mut quiet) = before.clone() {
            quiet.local_flags.remove(LocalFlags::ECHO);
            // What was typed ahead was shown already, and is not the password.
            let _it_shows = tcsetattr(&stdin, SetArg::TCSAFLUSH, &quiet);
        }
        Self(before)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _gone = tcsetattr(std::io::stdin(), SetArg::TCSANOW, before);
            terminal::err("");
        }
    }
}
