//! `bursar serve`

use std::path::Path;
use std::process::ExitCode;

use crate::app::{App, Ports, StartError};
use crate::cli::{Exit, config, terminal};
use crate::lifecycle::{self, Signals};
use crate::logging;
use crate::settings::Settings;
use crate::socket;

pub(super) async fn serve(path: &Path) -> ExitCode {
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
    let start = async { App::build(settings, Ports::real(), inherited).await?.start().await };
    let started = tokio::select! {
        started = start => started,
        () = signals.stop() => return ExitCode::SUCCESS,
    };
    match started {
        Ok(running) => lifecycle::run_until_signal(running, signals).await,
        Err(error) => failed(&error).into(),
    }
}

/// Says why it did not start.
pub(super) fn failed(error: &StartError) -> Exit {
    terminal::err(&format!("bursar: {error}"));
    match error {
        StartError::Failed(_) => Exit::Failed,
        StartError::InUse(_) => Exit::Unavailable,
    }
}
