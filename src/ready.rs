//! Ready means that every reason not to be ready has been let go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The named reasons that are held at the moment.
#[derive(Clone, Default)]
pub struct Ready(Arc<Mutex<BTreeMap<&'static str, usize>>>);

/// One reason; dropping it lets it go.
pub struct Latch {
    ready: Ready,
    name: &'static str,
}

impl Ready {
    /// Holds readiness back until the latch is dropped. The same name may be held several times.
    #[must_use]
    pub fn hold(&self, name: &'static str) -> Latch {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Latch { ready: self.clone(), name }
    }

    /// What is being waited for; empty when ready.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        let mut held = self.ready.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                held.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_waits_for_the_last_holder() {
        let ready = Ready::default();
        let first = ready.hold("store");
        let second = ready.hold("store");
        drop(first);
        assert_eq!(ready.waiting_for(), ["store"]);
        drop(second);
        assert!(ready.waiting_for().is_empty());
    }
}
