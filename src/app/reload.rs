//! The configuration is read again beside the one in use, and takes its place whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::admin::Reload;
use crate::api::{Api, Terms};
use crate::app::open::{notify_terms, read_keys, setup};
use crate::app::page::{self, PageHandle};
use crate::app::{Ports, terms};
use crate::audit::{self, Audit};
use crate::caller::Look;
use crate::metrics::Metrics;
use crate::notify::{self, Notifier};
use crate::refresh::Engine;
use crate::refresh::setup::Setup;
use crate::settings::{Fixed, Problem, Settings};
use crate::store::keyring::Keyring;
use crate::store::keys::Keys;

/// Reads it again, and knows whom to tell.
pub(super) struct Reloader {
    pub(super) path: Option<PathBuf>,
    pub(super) fixed: Fixed,
    pub(super) keys: Arc<dyn Keys>,
    pub(super) engine: Engine,
    pub(super) notifier: Notifier,
    pub(super) api: Arc<Api>,
    pub(super) look: Look,
    pub(super) page: Option<PageHandle>,
    pub(super) ports: Ports,
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit: Audit,
    /// One at a time.
    pub(super) turn: Mutex<()>,
}

#[async_trait]
impl Reload for Reloader {
    async fn reload(&self) -> Result<(), Vec<String>> {
        let _turn = self.turn.lock().await;
        // Whatever the configuration says: logrotate asks this way.
        self.audit.reopen();
        let result = self.swap().await;
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
    async fn swap(&self) -> Result<(), Vec<String>> {
        let path = self.path.clone().ok_or_else(|| vec!["it came from no file".to_owned()])?;
        let (ports, metrics) = (self.ports.clone(), Arc::clone(&self.metrics));
        let (fixed, api) = (self.fixed.clone(), Arc::clone(&self.api));
        // Files, users and groups are looked up: requests go on meanwhile.
        let read = tokio::task::spawn_blocking(move || read(&path, &fixed, &ports, &metrics, &api)).await;
        let Read { keyring, setup, terms, notify, audit, page } =
            read.map_err(|error| vec![error.to_string()])??;
        // First, for this may be refused as well.
        self.keys.take(keyring).await.map_err(|error| vec![format!("[store] {error}")])?;
        self.engine.replace(setup);
        if let (Some(page), Some(configured)) = (&self.page, page) {
            page.replace(configured);
        }
        self.notifier.replace(notify).await;
        self.audit.set(audit);
        self.look.closely(self.audit.is_on() || terms.policy.looks_closely());
        self.api.replace(terms);
        Ok(())
    }
}

/// What was read, to be taken into use together.
struct Read {
    keyring: Keyring,
    setup: Setup,
    terms: Terms,
    notify: notify::Terms,
    audit: audit::Terms,
    page: Option<page::Configured>,
}

fn read(
    path: &Path,
    fixed: &Fixed,
    ports: &Ports,
    metrics: &Arc<Metrics>,
    api: &Api,
) -> Result<Read, Vec<String>> {
    if let Some(reach) = &ports.reach {
        let files = Settings::files_named_by(path);
        let beyond: Vec<String> = files.keys().filter_map(|file| reach.beyond(file)).collect();
        if !beyond.is_empty() {
            return Err(beyond);
        }
    }
    let say = |problem: &Problem| format!("{}: {problem}", path.display());
    let mut settings =
        Settings::load(path).map_err(|problems| problems.iter().map(say).collect::<Vec<_>>())?;
    let changed = fixed.changed(&settings.fixed);
    if !changed.is_empty() {
        let say = |section: &&str| format!("[{section}] has changed, which takes a restart");
        return Err(changed.iter().map(say).collect());
    }
    let keyring = read_keys(&settings.keys)?;
    let page = page::read(&settings, &keyring).map_err(|error| vec![error])?;
    let setup = setup(&mut settings, ports, metrics).map_err(|error| vec![error])?;
    let in_use = api.terms.load_full();
    let terms = terms(&settings, &setup, ports, (&api.ended, &api.tasks, in_use.passes.keys()))
        .map_err(|error| vec![error])?;
    let notify = notify_terms(&settings).map_err(|error| vec![error])?;
    Ok(Read { keyring, setup, terms, notify, audit: settings.audit, page })
}
