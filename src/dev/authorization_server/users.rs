//! The people who can log in.

use crate::secret::Secret;

/// All have the same password: this is a development server.
pub(super) const PASSWORD: &str = "password";

/// One person in the directory.
#[derive(Clone, Debug)]
pub(super) struct User {
    /// What they log in with; e-mail-like.
    pub(super) login: String,
    /// Okta's id of the user, the `uid` claim.
    pub(super) uid: String,
    /// Assigned to the client application.
    pub(super) assigned: bool,
    /// Not deactivated.
    pub(super) active: bool,
}

impl User {
    pub(super) fn new(login: &str) -> Self {
        let digits = Secret::new(login.to_owned()).digest().to_string();
        let uid = format!("00u{}", digits.get(..17).unwrap_or(&digits));
        Self { login: login.to_owned(), uid, assigned: true, active: true }
    }

    /// The directory at the start.
    pub(super) fn initial() -> Vec<Self> {
        let mut users: Vec<Self> =
            ["alice@example.com", "bob@example.com", "carol@example.com"].map(Self::new).to_vec();
        users.push(Self { assigned: false, ..Self::new("mallory@example.com") });
        users
    }

    /// A display name: the part before the @, with a capital.
    pub(super) fn name(&self) -> String {
        let local = self.login.split('@').next().unwrap_or_default();
        let mut letters = local.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    }
}
