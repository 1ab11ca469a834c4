//! Where tests have the process die. In a debug build `BURSAR_FAIL_POINT=leased` kills it, as `kill -9` would, when it has
//! taken a lease, and `leased:3` when it has done so for the third time. In a release build nothing of this is left.
//!
//! The steps are those of design 2: `leased`, `before_exchange`, `answered`, `committed`, `verified`, `published`; `resealed`, when
//! some of the store's rows have been sealed with another key; and of a consent `consented`, when its refresh token is on
//! disk, and `adopted`, when it is the grant.

/// The process has come to this step.
#[cfg(debug_assertions)]
pub(crate) fn reached(step: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{Signal, kill};

    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static TIMES: AtomicU32 = AtomicU32::new(0);
    let Some((wanted, nth)) = WANTED.get_or_init(wanted) else { return };
    if wanted == step && TIMES.fetch_add(1, Ordering::Relaxed) + 1 == *nth {
        let _dead = kill(nix::unistd::Pid::this(), Signal::SIGKILL);
    }
}

#[cfg(debug_assertions)]
#[expect(
    clippy::disallowed_methods,
    reason = "no setting: it is there for tests alone, and not in a release build"
)]
fn wanted() -> Option<(String, u32)> {
    let text = std::env::var("BURSAR_FAIL_POINT").ok()?;
    let (step, nth) = text.split_once(':').unwrap_or((&text, "1"));
    Some((step.to_owned(), nth.parse().ok()?))
}

/// The process has come to this step.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn reached(_step: &str) {}
