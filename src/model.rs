//! The nouns that everything else speaks in.

mod grant;
mod ids;
mod scope;
mod token;

pub use grant::{EndReason, Grant, GrantState, Rotation, SameOrNew};
pub use ids::{GrantId, GrantKey, RequestId, RoleName, ServiceName, TokenKey, UserName};
pub use scope::{Scope, ScopeError};
pub use token::{Freshness, Issued, Life};
