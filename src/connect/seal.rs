//! What a browser keeps for us, sealed: it can neither read nor change it, nor pass one cookie off for another.
//!
//! The keys are derived from the store's, so that there is no other file to keep, and every sidecar of a store opens what
//! another one sealed.

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::store::keyring::Keyring;

const NONCE: usize = 12;
const COOKIES: &[u8] = b"bursar connect page cookies";
const FORMS: &[u8] = b"bursar connect page forms";
/// A browser takes 4096 bytes for a cookie, name and attributes included.
const LARGEST: usize = 3800;

/// Keys derived from the store's, the newest first.
pub struct Keys(Vec<Key>);

/// Seals and opens; the newest key seals, the older ones still open.
pub(super) struct Seals(ArcSwap<Keys>);

struct Key {
    cookies: RandomizedNonceKey,
    forms: hmac::Key,
}

impl Seals {
    pub(super) fn new(keys: Keys) -> Self {
        Self(ArcSwap::from_pointee(keys))
    }

    /// From now on with these.
    pub(super) fn replace(&self, keys: Keys) {
        self.0.store(keys.into());
    }

    /// `None` where it does not fit into a cookie, or there is no key that works.
    pub(super) fn seal(&self, name: &str, value: &impl Serialize) -> Option<String> {
        let mut inside = Zeroizing::new(serde_json::to_vec(value).ok()?);
        let keys = self.0.load();
        let key = &keys.0.first()?.cookies;
        let nonce = key.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut *inside).ok()?;
        let sealed = [&nonce.as_ref()[..], &inside[..]].concat();
        Some(URL_SAFE_NO_PAD.encode(sealed)).filter(|text| text.len() <= LARGEST)
    }

    /// What was sealed under this very name.
    pub(super) fn open<T: DeserializeOwned>(&self, name: &str, sealed: &str) -> Option<T> {
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, inside) = sealed.split_first_chunk::<NONCE>()?;
        let open = |key: &Key| {
            let mut inside = Zeroizing::new(inside.to_vec());
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let plain = key.cookies.open_in_place(nonce, Aad::from(name.as_bytes()), &mut inside).ok()?;
            serde_json::from_slice(plain).ok()
        };
        self.0.load().0.iter().find_map(open)
    }

    /// What the forms of a session's pages carry, and those of no other's.
    pub(super) fn form_token(&self, session: &str) -> String {
        let keys = self.0.load();
        let tag = keys.0.first().map(|key| hmac::sign(&key.forms, session.as_bytes()));
        tag.map(|tag| URL_SAFE_NO_PAD.encode(tag)).unwrap_or_default()
    }

    pub(super) fn is_form_token(&self, session: &str, token: &str) -> bool {
        let Ok(tag) = URL_SAFE_NO_PAD.decode(token) else { return false };
        self.0.load().0.iter().any(|key| hmac::verify(&key.forms, session.as_bytes(), &tag).is_ok())
    }
}

impl Keys {
    /// Derived from these.
    #[must_use]
    pub fn of(keyring: &Keyring) -> Self {
        let derived = keyring.derive(COOKIES).into_iter().zip(keyring.derive(FORMS));
        let keys = derived.filter_map(|(cookies, forms)| {
            let cookies = RandomizedNonceKey::new(&AES_256_GCM, &*cookies).ok()?;
            Some(Key { cookies, forms: hmac::Key::new(hmac::HMAC_SHA256, &*forms) })
        });
        Self(keys.collect())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;
    use crate::store::seal::{Sealer, generate_key};

    pub(crate) fn seals() -> Seals {
        Seals::new(Keys::of(&Sealer::from_text(&generate_key(&SystemEntropy)).unwrap().into()))
    }

    #[test]
    fn what_was_changed_moved_or_sealed_elsewhere_does_not_open() {
        let (ours, other) = (seals(), seals());
        let sealed = ours.seal("session", &"alice").unwrap();
        assert_eq!(ours.open::<String>("session", &sealed).as_deref(), Some("alice"));
        assert_eq!(other.open::<String>("session", &sealed), None, "another key");
        assert_eq!(ours.open::<String>("consent", &sealed), None, "under another name");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last letter of base64 may hold bits that count for nothing, and are refused or do not matter.
            let opened = ours.open::<String>("session", &changed);
            assert!(opened.is_none(), "letter {at}");
        }
        for short in ["", "A", "AAAAAAAAAAAAAAAA", "no base64!"] {
            assert_eq!(ours.open::<String>("session", short), None);
        }
        assert_eq!(ours.seal("session", &"x".repeat(4000)), None, "no browser would keep it");
    }

    #[test]
    fn a_form_belongs_to_one_session() {
        let (ours, other) = (seals(), seals());
        let token = ours.form_token("one");
        assert!(ours.is_form_token("one", &token));
        assert!(!ours.is_form_token("two", &token) && !other.is_form_token("one", &token));
        assert!(!ours.is_form_token("one", "") && !ours.is_form_token("one", &token[..20]));
    }
}
