//! The one integration binary: the real program, the strict development authorization server, faults on purpose.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests fail by panicking, say what they skip, and stand outside the rules for what runs in production"
)]

mod adopting;
mod architecture;
mod audit;
mod callers;
mod check;
mod client_credentials;
mod clocks;
mod commands;
mod connect;
mod connect_tls;
mod consents;
mod crash;
mod crash_points;
mod dev_server;
mod documents;
mod engine;
mod events;
mod faults;
mod forged;
mod http_client;
mod identity;
mod import;
mod inherited;
mod interface;
mod keys;
mod kills;
mod lifecycle;
mod limits;
mod notices;
mod notify;
mod passes;
mod process;
mod refusals;
mod reload;
mod resealing;
mod revoke;
mod rotation;
mod secrecy;
mod soak;
mod store_contract;
mod support;
mod tampering;
mod upkeep;
mod uses;
mod vending;
mod watching;
