//! Fuzz targets: whatever comes from outside, fed to what reads it. Compiled for tests and for fuzzing alone.
//!
//! Each target takes any bytes, says whether they were accepted, and panics where a promise is broken: not only "does not
//! crash", but that what was accepted is what it was taken for. `fuzz/` makes each a libFuzzer program, `tests/fuzz/run`
//! builds and runs them with stable Rust, and `cargo test` replays what lies in `fuzz/corpus`, so an input that once broke
//! something is put there.
//!
//! A new target is a function here, a line in [`TARGETS`], a file in `fuzz/fuzz_targets` with its `[[bin]]`, and a corpus
//! with something accepted and something refused.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::must_use_candidate,
    reason = "a target fails by panicking, and libFuzzer asks for nothing else"
)]

mod client_authentication;
mod configuration;
mod discovery;
mod jwks;
mod jwt;
mod query;
mod run_pass;
mod token_response;

pub use client_authentication::client_authentication;
pub use configuration::configuration;
pub use discovery::discovery;
pub use jwks::jwks;
pub use jwt::jwt;
pub use query::query;
pub use run_pass::run_pass;
pub use token_response::token_response;

/// Takes any input; whether it was accepted.
pub type Target = fn(&[u8]) -> bool;

/// Each target, with the name of its corpus and program.
pub const TARGETS: [(&str, Target); 8] = [
    ("client_authentication", client_authentication),
    ("configuration", configuration),
    ("discovery", discovery),
    ("jwks", jwks),
    ("jwt", jwt),
    ("query", query),
    ("run_pass", run_pass),
    ("token_response", token_response),
];

/// No text about what was wrong is longer, whatever it is about: logs and answers are not to be filled from outside.
const LONGEST_COMPLAINT: usize = 4096;

#[cfg(test)]
mod tests;
