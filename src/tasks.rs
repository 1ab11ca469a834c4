//! Every long-lived thing runs under one handle: tracked, told to stop, and waited for. The only `tokio::spawn`.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Spawns tasks and ends them: `stopping` asks them to finish, `stopped` waits until they have.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    vital_ended: Arc<Notify>,
}

impl Tasks {
    /// A handle with nothing running.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` to its end, whoever started it; `stopped` waits for it.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        tokio::spawn(self.tracker.track_future(work))
    }

    /// Runs `work` until it ends or a stop is asked for, whichever comes first: for loops that hold nothing half-done.
    pub fn spawn_until_stop(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Runs `work`, without which the process is useless: if it ends or panics before a stop is asked for,
    /// `vital_ended` wakes.
    pub fn spawn_vital(&self, work: impl Future<Output = ()> + Send + 'static) {
        let (stop, vital_ended) = (self.stop.clone(), self.vital_ended.clone());
        let work = self.spawn(work);
        self.spawn(async move {
            let _finished_or_panicked = work.await;
            if !stop.is_cancelled() {
                vital_ended.notify_one();
            }
        });
    }

    /// Resolves when a vital task ended by itself.
    pub async fn vital_ended(&self) {
        self.vital_ended.notified().await;
    }

    /// Asks everything to finish.
    pub fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
    }

    /// Resolves once a stop has been asked for.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether a stop has been asked for.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves once a stop was asked for and every task has ended.
    pub async fn stopped(&self) {
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_waits_for_what_is_running() {
        let tasks = Tasks::new();
        let (done, mut is_done) = tokio::sync::oneshot::channel();
        tasks.spawn(async move {
            tokio::task::yield_now().await;
            let _receiver_lives = done.send(());
        });
        tasks.stop();
        tasks.stopped().await;
        assert!(is_done.try_recv().is_ok());
    }

    #[tokio::test]
    async fn a_vital_task_that_ends_is_noticed() {
        let tasks = Tasks::new();
        tasks.spawn_vital(async {});
        tasks.vital_ended().await;
    }
}
