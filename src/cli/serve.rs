//! `bursar serve`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::app::{App, Ports, StartError};
use crate::cli::{Exit, config, terminal};
use crate::guarded;
use crate::hardening::{self, Reach};
use crate::lifecycle::{self, Signals};
use crate::logging;
use crate::settings::Settings;
use crate::settings::connect::Connect;
use crate::{socket, store};

pub(super) async fn serve(path: &Path) -> ExitCode {
    let shortcomings = hardening::seclude();
    let settings = match Settings::load(path) {
        Ok(settings) => settings,
        Err(problems) => {
            config::report(path, &problems);
            return Exit::Usage.into();
        }
    };
    if let Err(error) = logging::start(settings.fixed.log) {
        terminal::err(&format!("bursar: {error}"));
        return Exit::Failed.into();
    }
    for problem in shortcomings.into_iter().chain(hardening::runs_as_root()) {
        tracing::warn!("{problem}");
    }
    let reach = match confine(path, &settings) {
        Ok(reach) => reach.map(Arc::new),
        Err(error) => return failed(&error).into(),
    };
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            terminal::err(&format!("bursar: {error}"));
            return Exit::Failed.into();
        }
    };
    let inherited = match socket::inherited() {
        Ok(inherited) => inherited,
        Err(error) => {
            terminal::err(&format!("bursar: {error}"));
            return Exit::Failed.into();
        }
    };
    let ports = Ports { reach, ..Ports::real() };
    let start = async { App::build(settings, ports, inherited).await?.start().await };
    let started = tokio::select! {
        started = start => started,
        () = signals.stop() => return ExitCode::SUCCESS,
    };
    match started {
        Ok(running) => lifecycle::run_until_signal(running, signals).await,
        Err(error) => failed(&error).into(),
    }
}

/// Leaves to the process only what this configuration needs, and says what that is worth.
fn confine(path: &Path, settings: &Settings) -> Result<Option<Reach>, StartError> {
    let fixed = &settings.fixed;
    for (file, holds) in &settings.files {
        if let Some(doubt) = guarded::doubt(file, *holds) {
            tracing::warn!(file = %file.display(), "{doubt}");
        }
    }
    if let Some(doubt) = settings.connect.as_ref().and_then(Connect::doubt) {
        tracing::warn!("{doubt}");
    }
    // What is not there can't be allowed.
    for socket in [&fixed.socket.path, &fixed.admin.path] {
        socket::make_directory(socket).map_err(StartError::Failed)?;
    }
    store::sqlite::make_directory(&fixed.database).map_err(|error| StartError::Failed(error.to_string()))?;
    // Also what comes to lie in the same directories: files are replaced by renaming.
    let read = settings.files.keys().map(PathBuf::as_path).chain([path]);
    let log = fixed.audit.as_ref().map(|audit| audit.file.as_path());
    let change = [fixed.socket.path.as_path(), &fixed.admin.path, &fixed.database].into_iter().chain(log);
    Ok(hardening::confine(read, change))
}

/// Says why it did not start.
pub(super) fn failed(error: &StartError) -> Exit {
    terminal::err(&format!("bursar: {error}"));
    match error {
        StartError::Failed(_) => Exit::Failed,
        StartError::InUse(_) => Exit::Unavailable,
    }
}
