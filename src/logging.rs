//! Logs go to stderr, one event a line; never a token, secret or request body.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::settings::Log;

/// Installs the subscriber for the whole process.
///
/// # Errors
/// If there is one already.
pub fn start(log: Log) -> Result<(), String> {
    // Chatter of the libraries below is for their authors, not for operators.
    let ours = tracing_subscriber::filter::filter_fn(move |metadata| {
        metadata.target().starts_with("bursar") || *metadata.level() <= tracing::Level::WARN
    });
    let layer = if log.json {
        fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
    } else {
        fmt::layer().with_writer(std::io::stderr).boxed()
    };
    let level = LevelFilter::from_level(log.level);
    tracing_subscriber::registry()
        .with(layer.with_filter(ours))
        .with(level)
        .try_init()
        .map_err(|error| error.to_string())
}
