//! The keys of one authorization server: ACTIVE signs, NEXT is published ahead, EXPIRED is published a while longer.

use serde_json::{Value, json};

use super::rsa::SigningKey;
use super::weak_key;

/// Keys are made outside the lock and only when somebody needs them; until then a place is empty.
#[derive(Default)]
pub(super) struct Keys {
    active: Option<SigningKey>,
    next: Option<SigningKey>,
    expired: Option<SigningKey>,
    /// Published only once a fault has asked for it: an ordinary key set has no weak key.
    pub(super) publishes_weak_key: bool,
}

/// How many of the keys an answer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// To sign with.
    Active,
    /// To publish, or to rotate.
    ActiveAndNext,
}

impl Keys {
    pub(super) fn lacks(&self, need: Need) -> bool {
        match need {
            Need::Active => self.active.is_none(),
            Need::ActiveAndNext => self.active.is_none() || self.next.is_none(),
        }
    }

    /// Puts a new key where one is missing.
    pub(super) fn fill(&mut self, key: SigningKey) {
        if self.active.is_none() {
            self.active = Some(key);
        } else if self.next.is_none() {
            self.next = Some(key);
        }
    }

    /// NEXT becomes ACTIVE, ACTIVE becomes EXPIRED. `false`, and nothing done, if there is no NEXT yet.
    pub(super) fn rotate(&mut self) -> bool {
        let Some(next) = self.next.take() else { return false };
        self.expired = self.active.replace(next);
        true
    }

    pub(super) fn active(&self) -> Option<&SigningKey> {
        self.active.as_ref()
    }

    /// The JWK set. The order carries no meaning; the active key is not the first, so that no client gets used to it.
    pub(super) fn published(&self) -> Value {
        let mut keys: Vec<Value> = [&self.next, &self.active, &self.expired]
            .into_iter()
            .flatten()
            .filter_map(SigningKey::jwk)
            .collect();
        if self.publishes_weak_key {
            keys.push(weak_key::jwk());
        }
        json!({ "keys": keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(keys: &Keys) -> usize {
        keys.published()["keys"].as_array().unwrap().len()
    }

    #[test]
    fn a_rotation_promotes_next_and_publishes_the_old_key_until_the_next_rotation() {
        let mut keys = Keys::default();
        assert!(keys.lacks(Need::Active));
        keys.fill(SigningKey::generate().unwrap());
        assert!(!keys.lacks(Need::Active) && keys.lacks(Need::ActiveAndNext));
        assert!(!keys.rotate(), "there is no NEXT");
        keys.fill(SigningKey::generate().unwrap());
        let first = keys.active().unwrap().kid().to_owned();
        assert_eq!(published(&keys), 2);
        assert!(keys.rotate());
        assert_ne!(keys.active().unwrap().kid(), first);
        assert!(keys.published().to_string().contains(&first));
        keys.fill(SigningKey::generate().unwrap());
        assert_eq!(published(&keys), 3);
        assert!(keys.rotate());
        assert!(!keys.published().to_string().contains(&first));
    }
}
