//! bursar keeps users' OAuth grants and hands their access tokens to workers over a Unix socket.
//!
//! The modules below stand in the order in which a request meets them:
//!
//! ```text
//! socket            a listener, bound so that nobody can connect too early
//!   server          one task per connection, inside its limits
//!     caller        who is at the other end, by the kernel's word           → Caller
//!       api         method and path to handler; every failure to an answer; the same question again is not decided anew
//!         policy    may they?                                               → Permit
//!           broker  how stale is the token at hand?
//!             cache     fresh: answer.  due: answer, and go on behind:
//!             flight    one per token, outlives whoever asked
//!               refresh            one exchange per grant at a time
//!                 store            lease and write-ahead
//!                 authorization_server   one POST, three outcomes
//!                 store            the new refresh token is durable, before anything is verified
//!                 jwt              what came is what was asked for          → Verified
//!               cache              only now may anyone have it
//! ```
//!
//! Most refreshes need nobody to ask: `refresh::schedule` knows when each token in use is due, and `refresh::budget` how
//! many requests a minute may see.
//!
//! What holds throughout:
//!
//! - A new refresh token is on disk before anyone can see the access token that came with it.
//! - A grant that was revoked here is over at once, and no exchange under way brings it back; its server is told until it
//!   has answered.
//! - At most one exchange per grant is in flight; a caller who leaves changes nothing.
//! - An answer that never came is *in doubt*, not a failure: its refresh token is presented again only inside the server's
//!   leeway, or after asking.
//! - No answer, log line, metric or error contains a token or secret, and no request becomes a metric's label.
//! - No clock that jumps, and no machine that slept, makes an expired token look alive.
//! - Every queue, map, body, wait and retry has a bound.
//!
//! A check returns a value that only the check can make ([`caller::Caller`], [`policy::Permit`], [`jwt::Verified`]), and
//! later steps take that value as an argument. `tests/it/architecture.rs` keeps who may import whom.

/// The Unix sockets.
pub mod socket;

/// Accepts connections, serves HTTP/1.1.
pub mod server;

/// Who is at the other end.
pub mod caller;

/// Passes of the workflow platform's runs.
pub mod run_pass;

/// Which passes and runs there are.
pub mod runs;

/// What workers may ask.
pub mod api;

/// Who may have what.
pub mod policy;

/// From a permit to a token.
pub mod broker;

/// Tokens that may be handed out.
pub mod cache;

/// Work that outlives whoever asked for it.
pub mod flight;

/// Who used which grant last.
pub mod uses;

/// Keeps grants alive.
pub mod refresh;

/// What is asked of an authorization server.
pub mod authorization_server;

/// What outlives the process.
pub mod store;

/// Who is told that a grant has ended, or will.
pub mod notify;

/// Believes a token or not.
pub mod jwt;

/// Users' consents.
pub mod consent;

/// What administrators may ask.
pub mod admin;

/// Where users connect.
pub mod connect;

/// The nouns.
pub mod model;

/// Time as an argument.
pub mod clock;

/// Randomness as an argument.
pub mod entropy;

/// Secrets that can't be printed.
pub mod secret;

/// Files that others must not get at.
pub mod guarded;

/// What the process does to itself.
pub mod hardening;

/// Every metric.
pub mod metrics;

/// Tasks that have an owner.
pub mod tasks;

/// What was done, in lines that can't be changed unseen.
pub mod audit;

/// What is being waited for.
pub mod ready;

/// Where tests have the process die.
mod fail_point;

/// The configuration.
pub mod settings;

/// The composition root.
pub mod app;

/// Signals and the order of stopping.
pub mod lifecycle;

/// Logs.
pub mod logging;

/// Is everything set up?
pub mod check;

/// The commands.
pub mod cli;

/// What fuzzing calls.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

/// The development set-up.
#[cfg(feature = "dev")]
pub mod dev;
