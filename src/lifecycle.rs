//! From "run this" to an exit code: signals, the order of stopping, and the second signal that forces.

use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::Running;

/// What ends a process.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on; before this, signals end the process at once.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs until a signal, or until something vital ends by itself; then stops cleanly, unless a second signal comes.
pub async fn run_until_signal(running: Running, mut signals: Signals) -> ExitCode {
    let (tasks, mut code) = (running.tasks().clone(), ExitCode::SUCCESS);
    tokio::select! {
        () = signals.next() => tracing::info!("stopping; a second signal forces"),
        () = tasks.vital_ended() => {
            tracing::error!("a vital part ended by itself; stopping");
            code = ExitCode::FAILURE;
        }
    }
    tokio::select! {
        () = running.stop() => {}
        () = signals.next() => {
            tracing::warn!("forced to stop; what was under way is found out at the next start");
            running.force().await;
            code = ExitCode::FAILURE;
        }
    }
    code
}
