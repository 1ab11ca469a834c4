//! `bursar key …`

use crate::cli::{Exit, terminal};
use crate::entropy::SystemEntropy;
use crate::store::seal::generate_key;

pub(super) fn generate() -> Exit {
    terminal::out(&format!("{}\n", generate_key(&SystemEntropy).expose()));
    Exit::Done
}
