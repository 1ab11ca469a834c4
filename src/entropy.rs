//! Randomness as an argument.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Where random bytes come from.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// A number between 0 and `below - 1`; 0 if `below` is 0. Good for jitter; the bias of the remainder is far below
    /// what jitter can show.
    fn below(&self, below: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(below).unwrap_or(0)
    }

    /// `bytes` random bytes as base64url text.
    fn text(&self, bytes: usize) -> String {
        let mut buffer = vec![0; bytes];
        self.fill(&mut buffer);
        URL_SAFE_NO_PAD.encode(buffer)
    }
}

/// The operating system's source.
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "the one place that draws")]
    fn fill(&self, bytes: &mut [u8]) {
        if aws_lc_rs::rand::fill(bytes).is_err() {
            // Without randomness no nonce is safe: nothing that this process could still do would be.
            std::process::abort();
        }
    }
}

/// A source that gives the same numbers for the same seed (xorshift64*); for simulations and tests, never for secrets.
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// Starts from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in bytes.chunks_mut(8) {
            *state ^= *state >> 12;
            *state ^= *state << 25;
            *state ^= *state >> 27;
            let number = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(number) {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_one_differs() {
        let draw = |seed| SeededEntropy::new(seed).text(16);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn a_draw_stays_below_its_bound() {
        let entropy = SeededEntropy::new(7);
        assert!((0..1000).all(|_| entropy.below(10) < 10));
        assert_eq!(entropy.below(0), 0);
    }
}
