//! Every metric there is: name, help, labels, buckets. A label's values come from the configuration or from a closed
//! list in the code, never from a request.

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// From a memory lookup to a caller's whole wait.
const REQUEST_BUCKETS: [f64; 10] = [0.000_1, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0];
/// From a loopback server to the deadline of an exchange, retries included.
const REFRESH_BUCKETS: [f64; 9] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];
/// From a cached page to a disk in trouble.
const STORE_BUCKETS: [f64; 8] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.25, 1.0];

/// The handles.
#[expect(missing_docs, reason = "each field's help text is beside its name below")]
pub struct Metrics {
    registry: Registry,
    pub token_requests: IntCounterVec,
    pub token_request_duration: HistogramVec,
    pub refreshes: IntCounterVec,
    pub refresh_duration: HistogramVec,
    pub grants: IntGaugeVec,
    pub access_tokens_cached: IntGauge,
    pub authorization_server_up: IntGaugeVec,
    pub rate_limit_remaining: IntGaugeVec,
    pub jwks_fetches: IntCounterVec,
    pub jwt_verifications: IntCounterVec,
    pub store_operations: IntCounterVec,
    pub store_operation_duration: HistogramVec,
    pub connections: IntGaugeVec,
    pub requests_refused: IntCounterVec,
}

impl Metrics {
    /// All of them, registered once.
    ///
    /// # Errors
    /// If two had the same name or one a bad one: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let metrics = Self {
            token_requests: counters(
                "bursar_token_requests_total",
                "Requests for a token, by how they ended (an unknown service is `unknown`)",
                &["service", "result"],
            )?,
            token_request_duration: histograms(
                "bursar_token_request_duration_seconds",
                "How long callers waited for a token, by where it came from",
                &["source"],
                &REQUEST_BUCKETS,
            )?,
            refreshes: counters(
                "bursar_refreshes_total",
                "Exchanges of a refresh token, by answer",
                &["authorization_server", "result"],
            )?,
            refresh_duration: histograms(
                "bursar_refresh_duration_seconds",
                "How long an exchange took, from the request to its whole answer",
                &["authorization_server"],
                &REFRESH_BUCKETS,
            )?,
            grants: gauges(
                "bursar_grants",
                "Grants by state: active, or why they ended",
                &["service", "state"],
            )?,
            access_tokens_cached: IntGauge::new("bursar_access_tokens_cached", "Access tokens in memory")?,
            authorization_server_up: gauges(
                "bursar_authorization_server_up",
                "Whether the last request to it was answered",
                &["authorization_server"],
            )?,
            rate_limit_remaining: gauges(
                "bursar_authorization_server_rate_limit_remaining",
                "Token requests that the server would still take in this window, by its last answer",
                &["authorization_server"],
            )?,
            jwks_fetches: counters(
                "bursar_jwks_fetches_total",
                "Fetches of the key set, by result",
                &["authorization_server", "result"],
            )?,
            jwt_verifications: counters(
                "bursar_jwt_verifications_total",
                "Access tokens verified, by result",
                &["authorization_server", "result"],
            )?,
            store_operations: counters(
                "bursar_store_operations_total",
                "Operations on the store, by result",
                &["operation", "result"],
            )?,
            store_operation_duration: histograms(
                "bursar_store_operation_duration_seconds",
                "How long operations on the store took",
                &["operation"],
                &STORE_BUCKETS,
            )?,
            connections: gauges("bursar_connections", "Open connections", &["listener"])?,
            requests_refused: counters(
                "bursar_requests_refused_total",
                "Connections and requests refused because a limit was reached or they were malformed",
                &["reason"],
            )?,
            registry,
        };
        let build = gauges("bursar_build_info", "1, labelled with the version", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let all: [Box<dyn Collector>; 15] = [
            Box::new(metrics.token_requests.clone()),
            Box::new(metrics.token_request_duration.clone()),
            Box::new(metrics.refreshes.clone()),
            Box::new(metrics.refresh_duration.clone()),
            Box::new(metrics.grants.clone()),
            Box::new(metrics.access_tokens_cached.clone()),
            Box::new(metrics.authorization_server_up.clone()),
            Box::new(metrics.rate_limit_remaining.clone()),
            Box::new(metrics.jwks_fetches.clone()),
            Box::new(metrics.jwt_verifications.clone()),
            Box::new(metrics.store_operations.clone()),
            Box::new(metrics.store_operation_duration.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.requests_refused.clone()),
            Box::new(build),
        ];
        for collector in all {
            metrics.registry.register(collector)?;
        }
        metrics.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// The exposition in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics can't be written");
        }
        text
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

fn histograms(
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
}
