//! The last use of the tokens under one key: a slot that is written with each of them, and allocates only when the caller is
//! another one.

use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::model::{Asker, LastUse};

/// Where it is kept until it is saved.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    last: Option<LastUse>,
    /// Somebody knows that there is something to be saved.
    is_known: bool,
}

impl Slot {
    /// Somebody is handed a token. Whether that is to be made known, since nobody knows of anything to be saved here.
    pub(super) fn note(&self, asker: &Asker<'_>, at: Timestamp) -> bool {
        let mut noted = self.lock();
        match &mut noted.last {
            Some(last) if last.was_by(asker) => last.at = at,
            last => *last = Some(LastUse::new(asker, at)),
        }
        !std::mem::replace(&mut noted.is_known, true)
    }

    pub(super) fn get(&self) -> Option<LastUse> {
        self.lock().last.clone()
    }

    /// What was got has been saved. Whether there is nothing newer.
    pub(super) fn saved(&self, saved: &LastUse) -> bool {
        let mut noted = self.lock();
        noted.is_known = noted.last.as_ref().is_some_and(|last| last.at >= saved.at && last != saved);
        !noted.is_known
    }

    pub(super) fn forget(&self) {
        *self.lock() = Noted::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_made_known_once_until_it_is_saved_and_a_newer_one_is_not_taken_for_saved() {
        let (slot, at) = (Slot::default(), Timestamp::from_secs);
        let asker = |uid| Asker { uid, unit: Some("airflow.service"), run: None };
        assert_eq!(slot.get(), None);
        assert!(slot.note(&asker(1), at(1)));
        assert!(!slot.note(&asker(1), at(2)));
        let saved = slot.get().unwrap();
        assert_eq!(saved, LastUse::new(&asker(1), at(2)));
        assert!(!slot.note(&asker(2), at(2)), "another caller in the same moment");
        assert!(!slot.saved(&saved));
        assert!(slot.saved(&slot.get().unwrap()));
        assert!(slot.note(&asker(2), at(3)), "known anew");
        slot.forget();
        assert_eq!(slot.get(), None);
        assert!(slot.note(&asker(2), at(4)));
    }
}
