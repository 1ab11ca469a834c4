//! tour to be written
#![allow(missing_docs)]
pub mod clock;
pub mod entropy;
pub mod secret;
pub mod tasks;
pub mod ready;
pub mod metrics;
pub mod model;
pub mod jwt;
pub mod authorization_server;
pub mod cache;
pub mod flight;
pub mod refresh;
pub mod caller;
pub mod policy;
pub mod broker;
pub mod socket;
pub mod server;
pub mod api;
pub mod admin;
pub mod store;
