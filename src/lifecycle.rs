//! From "run this" to an exit code: signals, what the service manager is told, the order of stopping, and the second signal
//! that forces.

use std::process::ExitCode;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::Running;

/// What a process is told from outside.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from now on; before this, signals end the process at once.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next one that asks for an end.
    pub async fn stop(&mut self) {
        loop {
            if self.next().await == Asked::Stop {
                return;
            }
        }
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Stop,
    Reload,
}

/// Runs until a signal, or until something vital ends by itself; then stops cleanly, unless a second signal comes.
pub async fn run_until_signal(running: Running, mut signals: Signals) -> ExitCode {
    let (tasks, mut code) = (running.tasks().clone(), ExitCode::SUCCESS);
    tell(NotifyState::Ready);
    // Fed by the same runtime that serves: it starves when that hangs.
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Reload => running.reload().await,
                Asked::Stop => {
                    tracing::info!("stopping; a second signal forces");
                    break;
                }
            },
            () = tasks.vital_ended() => {
                tracing::error!("a vital part ended by itself; stopping");
                code = ExitCode::FAILURE;
                break;
            }
            () = tokio::time::sleep(watchdog.unwrap_or(Duration::MAX)), if watchdog.is_some() => {
                tell(NotifyState::Watchdog);
            }
        }
    }
    tell(NotifyState::Stopping);
    tokio::select! {
        () = running.stop() => {}
        () = signals.stop() => {
            tracing::warn!("forced to stop; what was under way is found out at the next start");
            running.force().await;
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Tells the service manager, where there is one (`NOTIFY_SOCKET`).
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}
