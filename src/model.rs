//! The nouns that everything else speaks in.

mod entitlement;
mod excerpt;
mod failure;
mod grant;
mod ids;
mod last_use;
mod login_url;
mod scope;
mod service;
mod sql_text;
mod token;

pub use entitlement::Entitlement;
pub use excerpt::excerpt;
pub use failure::{Failure, Reference};
pub use grant::{Coverage, EndReason, Expiry, Grant, GrantState, Rotation, SameOrNew};
pub use ids::{
    GrantId, GrantKey, RequestId, RequestIds, RoleName, RunId, ServiceName, TokenKey, TokenMark, UserName,
};
pub use last_use::{Asker, LastUse};
pub use login_url::{LOOPBACK, LoginUrl, redirect_uri};
pub use scope::{Scope, ScopeError};
pub use service::{Kind, Service, SpeaksFor};
pub use sql_text::sql_text;
pub use token::{Freshness, Issued, Life};
