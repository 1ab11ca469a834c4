//! Every metric there is, in one list: name, help, labels, buckets. A label's values come from the configuration or from a
//! closed list in the code, never from a request.

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// From a memory lookup to a caller's whole wait.
const REQUEST_BUCKETS: &[f64] = &[0.000_1, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0];
/// From a loopback server to the deadline of an exchange, retries included.
const REFRESH_BUCKETS: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];
/// From a cached page to a disk in trouble.
const STORE_BUCKETS: &[f64] = &[0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.25, 1.0];
/// From at once to an outage of an hour.
const LATENESS_BUCKETS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
/// What has no buckets.
const PLAIN: &[f64] = &[];

/// What the list says of one metric.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// Its name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it is about.
    pub help: &'static str,
    /// The labels that each of its samples has.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($field:ident: $type:ident = $name:literal $labels:tt $buckets:ident $help:literal;)+) => {
        /// The handles.
        #[expect(missing_docs, reason = "each field's help text is beside its name in the list")]
        pub struct Metrics {
            registry: Registry,
            $(pub $field: $type,)+
        }

        /// The list.
        pub const LIST: &[Listed] = &[
            $(Listed { name: $name, kind: <$type as Metric>::KIND, help: $help, labels: &$labels },)+
        ];

        impl Metrics {
            /// All of them, registered once.
            ///
            /// # Errors
            /// If two had the same name or one a bad one: a mistake in this file.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(
                    let $field = $type::make($name, $help, &$labels, $buckets)?;
                    registry.register(Box::new($field.clone()))?;
                )+
                registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
                let metrics = Self { registry, $($field,)+ };
                metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
                Ok(metrics)
            }
        }
    };
}

metrics! {
    token_requests: IntCounterVec = "bursar_token_requests_total" ["service", "result"] PLAIN
        "Requests for a token, by how they ended (an unknown service is `unknown`)";
    token_request_duration: HistogramVec = "bursar_token_request_duration_seconds" ["source"] REQUEST_BUCKETS
        "How long callers waited for a token, by where it came from";
    refreshes: IntCounterVec = "bursar_refreshes_total" ["authorization_server", "result"] PLAIN
        "Requests to the token endpoint, by answer";
    refresh_duration: HistogramVec = "bursar_refresh_duration_seconds" ["authorization_server"] REFRESH_BUCKETS
        "How long an exchange took, from the request to its whole answer";
    refresh_lateness: Histogram = "bursar_refresh_lateness_seconds" [] LATENESS_BUCKETS
        "How long after they were due tokens in use were refreshed";
    refresh_budget_used: GaugeVec = "bursar_refresh_budget_used_ratio" ["authorization_server"] PLAIN
        "Requests of the last minute as a share of requests_per_minute";
    grant_expiry: IntGaugeVec = "bursar_grant_expiry_timestamp_seconds" ["service"] PLAIN
        "When the first living grant ends by itself, of those that are known to";
    grants: IntGaugeVec = "bursar_grants" ["service", "state"] PLAIN
        "Grants by state: active, or why they ended";
    access_tokens_cached: IntGauge = "bursar_access_tokens_cached" [] PLAIN
        "Access tokens in memory";
    authorization_server_up: IntGaugeVec = "bursar_authorization_server_up" ["authorization_server"] PLAIN
        "Whether the last request to it was answered";
    rate_limit_remaining: IntGaugeVec =
        "bursar_authorization_server_rate_limit_remaining" ["authorization_server"] PLAIN
        "Token requests that the server would still take in this window, by its last answer";
    jwks_fetches: IntCounterVec = "bursar_jwks_fetches_total" ["authorization_server", "result"] PLAIN
        "Fetches of the key set, by result";
    jwt_verifications: IntCounterVec = "bursar_jwt_verifications_total" ["authorization_server", "result"] PLAIN
        "Access tokens verified, by result";
    revocations: IntCounterVec = "bursar_revocations_total" ["authorization_server", "result"] PLAIN
        "Requests to revoke a refresh token, by result";
    notifications: IntCounterVec = "bursar_notifications_total" ["event", "result"] PLAIN
        "Notices that a grant has ended or will end, by what became of them";
    store_operations: IntCounterVec = "bursar_store_operations_total" ["operation", "result"] PLAIN
        "Operations on the store, by result";
    store_operation_duration: HistogramVec = "bursar_store_operation_duration_seconds" ["operation"] STORE_BUCKETS
        "How long operations on the store took";
    connections: IntGaugeVec = "bursar_connections" ["listener"] PLAIN
        "Open connections";
    requests_refused: IntCounterVec = "bursar_requests_refused_total" ["reason"] PLAIN
        "Connections and requests refused because a limit was reached or they were malformed";
    connects: IntCounterVec = "bursar_connects_total" ["service", "result"] PLAIN
        "Users' consents, by what came of them";
    reloads: IntCounterVec = "bursar_reloads_total" ["result"] PLAIN
        "Configurations read again, by result";
    audit_events: IntCounterVec = "bursar_audit_events_total" ["result"] PLAIN
        "Lines of the audit log written, events lost, and tokens refused because their line could not be written";
    build_info: IntGaugeVec = "bursar_build_info" ["version"] PLAIN
        "1, labelled with the version";
}

impl Metrics {
    /// How many grants each service has in each state, in place of what was said before. What is gone becomes 0 and does
    /// not vanish, so that no scrape sees a gap.
    pub fn count_grants(&self, counts: impl Iterator<Item = (String, String, i64)>) {
        let mut gone: std::collections::BTreeSet<(String, String)> = self
            .grants
            .collect()
            .iter()
            .flat_map(prometheus::proto::MetricFamily::get_metric)
            .filter_map(|metric| {
                let value = |name| {
                    let label = metric.get_label().iter().find(|label| label.name() == name)?;
                    Some(label.value().to_owned())
                };
                Some((value("service")?, value("state")?))
            })
            .collect();
        for (service, state, count) in counts {
            self.grants.with_label_values(&[&service, &state]).set(count);
            gone.remove(&(service, state));
        }
        for (service, state) in gone {
            self.grants.with_label_values(&[&service, &state]).set(0);
        }
    }

    /// When the first living grant of each service ends, in place of what was said before.
    pub fn grants_end(&self, ends: impl Iterator<Item = (String, i64)>) {
        self.grant_expiry.reset();
        for (service, end) in ends {
            self.grant_expiry.with_label_values(&[&service]).set(end);
        }
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

/// Makes one metric of its kind.
trait Metric: Sized {
    const KIND: &'static str;
    fn make(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error>;
}

impl Metric for IntCounterVec {
    const KIND: &'static str = "counter";
    fn make(name: &str, help: &str, labels: &[&str], _: &[f64]) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Metric for IntGaugeVec {
    const KIND: &'static str = "gauge";
    fn make(name: &str, help: &str, labels: &[&str], _: &[f64]) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Metric for IntGauge {
    const KIND: &'static str = "gauge";
    fn make(name: &str, help: &str, _: &[&str], _: &[f64]) -> Result<Self, prometheus::Error> {
        Self::new(name, help)
    }
}

impl Metric for GaugeVec {
    const KIND: &'static str = "gauge";
    fn make(name: &str, help: &str, labels: &[&str], _: &[f64]) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Metric for Histogram {
    const KIND: &'static str = "histogram";
    fn make(name: &str, help: &str, _: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error> {
        Self::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
    }
}

impl Metric for HistogramVec {
    const KIND: &'static str = "histogram";
    fn make(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<Self, prometheus::Error> {
        Self::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_counted_as_none() {
        let metrics = Metrics::new().unwrap();
        let count = |state: &str, count| ("s".to_owned(), state.to_owned(), count);
        metrics.count_grants([count("active", 2)].into_iter());
        metrics.count_grants([count("revoked", 1)].into_iter());
        let of = |state| metrics.grants.with_label_values(&["s", state]).get();
        assert_eq!((of("active"), of("revoked")), (0, 1));
    }
}
