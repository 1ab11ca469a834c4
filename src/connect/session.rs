//! Who is signed in with a browser. It lies in a sealed cookie; nothing of it is kept here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::consent::Identity;
use crate::model::UserName;
use crate::secret::Digest;

/// However often the page is used.
pub(super) const LIFE: Duration = Duration::from_hours(12);
/// More realms than one person signs in to, and few enough for a cookie.
const MOST_PEOPLE: usize = 6;

/// One browser's session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Session {
    /// Another one after each sign-in, so that who knew it before knows nothing.
    id: String,
    /// The same from the first sign-in on, so that all of these ids end together.
    family: String,
    /// In milliseconds.
    until: i64,
    people: Vec<Person>,
}

/// Who was identified, where, and until when that counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Person {
    realm: String,
    server: String,
    subject: String,
    claim: String,
    name: String,
    until: i64,
}

impl Session {
    /// Of nobody yet.
    pub(super) fn new(id: String, now: Timestamp) -> Self {
        Self { family: id.clone(), id, until: now.plus(LIFE).millis(), people: Vec::new() }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Names all that it has been since the first sign-in, without giving it away.
    pub(super) fn family(&self) -> Digest {
        Digest::of(self.family.as_bytes())
    }

    /// Whether nobody is known.
    pub(super) fn is_anonymous(&self) -> bool {
        self.people.is_empty()
    }

    /// Without those whose time is over; `None` if that is the session's own.
    pub(super) fn at(mut self, now: Timestamp) -> Option<Self> {
        self.people.retain(|person| person.until > now.millis());
        (self.until > now.millis()).then_some(self)
    }

    /// Who is known in a realm by this claim, under the name that services there know.
    pub(super) fn user(&self, realm: &str, claim: &str) -> Option<UserName> {
        let person = self.people.iter().find(|person| person.realm == realm && person.claim == claim);
        person.and_then(|person| UserName::parse(&person.name))
    }

    /// Who is known in a realm, by whatever claim.
    pub(super) fn identity(&self, realm: &str) -> Option<Identity> {
        let person = self.people.iter().find(|person| person.realm == realm)?;
        Some(Identity {
            authorization_server: person.server.clone(),
            subject: person.subject.clone(),
            user_claim: person.claim.clone(),
            name: UserName::parse(&person.name)?,
        })
    }

    /// Everybody, each name once.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for person in &self.people {
            if !names.contains(&person.name.as_str()) {
                names.push(&person.name);
            }
        }
        names
    }

    /// And now it is known who this is. What else is known in the realm stays only if it is of the same person.
    pub(super) fn sign_in(&mut self, id: String, realm: &str, identity: &Identity, now: Timestamp) {
        if self.is_anonymous() {
            // Who knew it before must not be able to end it either.
            self.family.clone_from(&id);
        }
        self.people.retain(|person| {
            person.realm != realm
                || (person.subject == identity.subject && person.claim != identity.user_claim)
        });
        self.people.push(Person {
            realm: realm.to_owned(),
            server: identity.authorization_server.clone(),
            subject: identity.subject.clone(),
            claim: identity.user_claim.clone(),
            name: identity.name.as_str().to_owned(),
            until: now.plus(LIFE).millis(),
        });
        let surplus = self.people.len().saturating_sub(MOST_PEOPLE);
        self.people.drain(..surplus);
        (self.id, self.until) = (id, now.plus(LIFE).millis());
    }

    /// Forgets the one who has been known longest, so that the rest fits. Whether there was one.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let some = !self.people.is_empty();
        self.people.drain(..usize::from(some));
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn identity(subject: &str, claim: &str, name: &str) -> Identity {
        Identity {
            authorization_server: "one".into(),
            subject: subject.into(),
            user_claim: claim.into(),
            name: UserName::parse(name).unwrap(),
        }
    }

    fn name(session: &Session, realm: &str, claim: &str) -> Option<String> {
        session.user(realm, claim).map(|user| user.as_str().to_owned())
    }

    #[test]
    fn nobody_is_somebody_in_another_realm() {
        let mut session = Session::new("a".into(), NOW);
        session.sign_in("b".into(), "evil", &identity("00u1", "sub", "alice"), NOW);
        assert_eq!(name(&session, "evil", "sub").as_deref(), Some("alice"));
        assert_eq!(name(&session, "company", "sub"), None);
        assert!(session.identity("company").is_none());
        assert_eq!(name(&session, "evil", "email"), None, "nor by another claim");
    }

    #[test]
    fn a_sign_in_gives_the_session_another_id_and_somebody_else_takes_the_place() {
        let mut session = Session::new("a".into(), NOW);
        session.sign_in("b".into(), "r", &identity("00u1", "sub", "alice"), NOW);
        assert_eq!(session.id(), "b");
        session.sign_in("c".into(), "r", &identity("00u1", "email", "alice@example.com"), NOW);
        assert_eq!(name(&session, "r", "sub").as_deref(), Some("alice"), "the same person");
        session.sign_in("d".into(), "r", &identity("00u2", "email", "bob@example.com"), NOW);
        assert_eq!(name(&session, "r", "sub"), None, "alice is not bob");
        assert_eq!(session.names(), ["bob@example.com"]);
    }

    #[test]
    fn a_session_is_of_one_family_from_its_first_sign_in_on() {
        let mut session = Session::new("a".into(), NOW);
        let before = session.family();
        session.sign_in("b".into(), "r", &identity("00u1", "sub", "alice"), NOW);
        let family = session.family();
        assert_ne!(family, before);
        session.sign_in("c".into(), "q", &identity("00u1", "sub", "alice"), NOW);
        assert_eq!(session.family(), family);
    }

    #[test]
    fn a_sign_in_counts_for_half_a_day_whatever_else_is_done() {
        let mut session = Session::new("a".into(), NOW);
        session.sign_in("b".into(), "r", &identity("00u1", "sub", "alice"), NOW);
        let later = NOW.plus(Duration::from_hours(8));
        session.sign_in("c".into(), "q", &identity("x", "sub", "alice2"), later);
        let session = session.at(NOW.plus(Duration::from_hours(13))).unwrap();
        assert_eq!(session.names(), ["alice2"]);
        assert!(session.at(later.plus(LIFE)).is_none());
    }
}
