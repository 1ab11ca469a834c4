//! The configuration is read again beside the one in use, and takes its place whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::admin::Reload;
use crate::api::{Api, Terms};
use crate::app::open::setup;
use crate::app::{Ports, policy};
use crate::metrics::Metrics;
use crate::refresh::Engine;
use crate::settings::{Fixed, Settings};

/// Reads it again, and knows whom to tell.
pub(super) struct Reloader {
    pub(super) path: Option<PathBuf>,
    pub(super) fixed: Fixed,
    pub(super) engine: Engine,
    pub(super) api: Arc<Api>,
    pub(super) ports: Ports,
    pub(super) metrics: Arc<Metrics>,
    /// One at a time.
    pub(super) turn: Mutex<()>,
}

#[async_trait]
impl Reload for Reloader {
    async fn reload(&self) -> Result<(), Vec<String>> {
        let _turn = self.turn.lock().await;
        let result = self.swap();
        let word = if result.is_ok() { "ok" } else { "refused" };
        self.metrics.reloads.with_label_values(&[word]).inc();
        match &result {
            Ok(()) => tracing::info!("the configuration was read again and is in use"),
            Err(problems) => {
                for problem in problems {
                    tracing::error!(%problem, "the configuration in use stays");
                }
            }
        }
        result
    }
}

impl Reloader {
    fn swap(&self) -> Result<(), Vec<String>> {
        let path = self.path.as_ref().ok_or_else(|| vec!["it came from no file".to_owned()])?;
        let mut settings = Settings::load(path).map_err(|problems| {
            problems.iter().map(|problem| format!("{}: {problem}", path.display())).collect::<Vec<_>>()
        })?;
        let changed = self.fixed.changed(&settings.fixed);
        if !changed.is_empty() {
            let say = |section: &&str| format!("[{section}] has changed, which takes a restart");
            return Err(changed.iter().map(say).collect());
        }
        let setup = setup(&mut settings, &self.ports, &self.metrics).map_err(|error| vec![error])?;
        let terms = Terms { policy: policy(&settings, &setup), request_timeout: settings.request_timeout };
        self.engine.replace(setup);
        self.api.terms.store(Arc::new(terms));
        Ok(())
    }
}
