//! One process of a history: counts its steps, and from its last one on reaches neither store nor server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bursar::authorization_server::{
    AuthorizationServer, Exchange, Expected, Introspection, Reply, Revocation, Unverified,
};
use bursar::clock::Timestamp;
use bursar::entropy::{Entropy as _, SeededEntropy};
use bursar::jwt::{Claims, Verified};
use bursar::model::Scope;
use bursar::secret::Secret;
use bursar::store::StoreError;
use tokio::sync::Notify;

use super::DEADLINE;
use super::server::Okta;
use crate::support::store::Hook;

/// One process, up to its last step.
pub(super) struct Life {
    last_step: u64,
    steps: AtomicU64,
    is_over: AtomicBool,
    entropy: Arc<SeededEntropy>,
    requests: AtomicU64,
    most_requests: AtomicU64,
    /// Woken when it has come to its last step.
    pub(super) killed: Notify,
}

impl Life {
    pub(super) fn new(last_step: u64, entropy: Arc<SeededEntropy>) -> Arc<Self> {
        let (steps, requests, most_requests) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (is_over, killed) = (AtomicBool::new(false), Notify::new());
        Arc::new(Self { last_step, steps, is_over, entropy, requests, most_requests, killed })
    }

    /// Exchanges that were under way at the same time.
    pub(super) fn most_requests(&self) -> u64 {
        self.most_requests.load(Ordering::Relaxed)
    }

    /// Never comes back if this was the last one, or the life is over.
    async fn step(&self) {
        if self.steps.fetch_add(1, Ordering::Relaxed) + 1 == self.last_step {
            self.is_over.store(true, Ordering::Relaxed);
            self.killed.notify_one();
        }
        self.go_on_if_alive().await;
    }

    async fn go_on_if_alive(&self) {
        if self.is_over.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Hook for Arc<Life> {
    async fn before(&self, _: &'static str) -> Result<(), StoreError> {
        self.step().await;
        tokio::time::sleep(Duration::from_millis(self.entropy.below(8))).await;
        self.go_on_if_alive().await;
        Ok(())
    }

    async fn after(&self, _: &'static str) -> Result<(), StoreError> {
        self.step().await;
        Ok(())
    }
}

/// The server as one process reaches it.
pub(super) struct Reach {
    pub(super) okta: Arc<Okta>,
    pub(super) life: Arc<Life>,
}

#[async_trait]
impl AuthorizationServer for Reach {
    async fn refresh(&self, refresh_token: &Secret, scope: &Scope, deadline: Duration) -> Reply {
        self.life.step().await;
        if self.life.entropy.below(64) == 0 {
            return Exchange::NotSent("connection refused".to_owned()).into();
        }
        let under_way = self.life.requests.fetch_add(1, Ordering::Relaxed) + 1;
        self.life.most_requests.fetch_max(under_way, Ordering::Relaxed);
        let answer = self.okta.refresh(refresh_token, scope, deadline);
        self.life.step().await;
        let answer = tokio::time::timeout(deadline, answer).await;
        self.life.step().await;
        self.life.requests.fetch_sub(1, Ordering::Relaxed);
        let exchange = match answer {
            Ok(Ok(exchange)) => exchange,
            Ok(Err(_cut)) => Exchange::InDoubt("the connection was cut".to_owned()),
            Err(_late) => Exchange::InDoubt("no answer in time".to_owned()),
        };
        exchange.into()
    }

    async fn introspect(&self, refresh_token: &Secret) -> Introspection {
        self.life.step().await;
        let answer = tokio::time::timeout(DEADLINE, self.okta.introspect(refresh_token, DEADLINE)).await;
        self.life.step().await;
        match answer {
            Ok(Ok(introspection)) => introspection,
            _cut_or_late => Introspection::Failed("no answer".to_owned()),
        }
    }

    async fn client_credentials(&self, _: &Scope, _: Duration) -> Reply {
        unreachable!("all tokens here speak for users")
    }

    async fn revoke(&self, _: &Secret) -> Revocation {
        unreachable!("nobody revokes")
    }

    async fn verify(&self, _: &Secret, _: &Expected<'_>, _: Timestamp) -> Result<Verified, Unverified> {
        unreachable!("its tokens are opaque")
    }

    async fn read(&self, _: &Secret, _: &str, _: Timestamp) -> Result<Claims, Unverified> {
        unreachable!("its tokens are opaque")
    }

    fn registration(&self) -> String {
        "okta".to_owned()
    }

    async fn reload_client_secret(&self) -> bool {
        false
    }
}
