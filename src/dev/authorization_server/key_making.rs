//! Makes keys where and when they are needed: never under the lock, never on the thread that answers.

use std::fmt;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::error::Unspecified;

use super::keys::Need;
use super::rsa::SigningKey;
use super::service::Service;

/// Keys that are made once, for servers that share them: making one takes longer than most of what is tested with it.
#[derive(Clone, Default)]
pub struct KeyStock(Arc<Mutex<Vec<SigningKey>>>);

impl KeyStock {
    /// The one of this number, made if nobody has wanted it before.
    fn key(&self, number: usize) -> Result<SigningKey, Unspecified> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(key) = made.get(number) {
                return Ok(key.clone());
            }
            made.push(SigningKey::generate()?);
        }
    }
}

impl fmt::Debug for KeyStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyStock(..)")
    }
}

impl Service {
    /// Makes the keys that are missing, on a thread where that keeps nobody waiting.
    pub(super) async fn make_keys(&self, server: &str, need: Need) -> io::Result<()> {
        if !self.lacks_keys(server, need) {
            return Ok(());
        }
        let _only_one = self.making_keys.lock().await;
        while self.lacks_keys(server, need) {
            let key = self.make_key().await?;
            if let Some(server) = self.lock().servers.get_mut(server) {
                server.keys.fill(key);
            }
        }
        Ok(())
    }

    /// The key that is published nowhere, where a fault wants it.
    pub(super) async fn make_stray_key(&self) -> io::Result<()> {
        let _only_one = self.making_keys.lock().await;
        let wanted = {
            let state = self.lock();
            state.stray_key.is_none() && state.faults.want_a_stray_key()
        };
        if wanted {
            let key = self.make_key().await?;
            self.lock().stray_key = Some(key);
        }
        Ok(())
    }

    async fn make_key(&self) -> io::Result<SigningKey> {
        let (stock, number) = (self.stock.clone(), self.keys_taken.fetch_add(1, Ordering::Relaxed));
        let made = tokio::task::spawn_blocking(move || stock.key(number)).await.map_err(io::Error::other)?;
        made.map_err(|_unspecified| io::Error::other("an RSA key could not be made"))
    }

    fn lacks_keys(&self, server: &str, need: Need) -> bool {
        self.lock().servers.get(server).is_some_and(|server| server.keys.lacks(need))
    }
}
