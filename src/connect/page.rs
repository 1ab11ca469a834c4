//! The pages. Their templates are compiled in; whatever is put into them is escaped.

use askama::Template;

use crate::connect::date::Date;
use crate::connect::focus::Focus;

/// What surrounds every page.
#[derive(Default)]
pub(super) struct Frame {
    pub(super) title: String,
    pub(super) style: String,
    pub(super) icon: String,
    pub(super) request_id: String,
    /// Empty where nobody's session is known: then there is no form either.
    pub(super) form_token: String,
    /// Who is signed in.
    pub(super) names: Vec<String>,
}

/// A link to where the user came from.
#[derive(Clone)]
pub(super) struct Back {
    pub(super) href: String,
    pub(super) host: String,
}

/// Each service, and how it stands.
#[derive(Template)]
#[template(path = "connect/list.html")]
pub(super) struct List {
    pub(super) frame: Frame,
    pub(super) focus: Focus,
    pub(super) back: Option<Back>,
    pub(super) sign_ins: Vec<SignIn>,
    pub(super) cards: Vec<Card>,
}

/// A way to tell who it is.
pub(super) struct SignIn {
    pub(super) action: String,
    pub(super) label: String,
}

/// One service.
pub(super) struct Card {
    pub(super) anchor: String,
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) server: String,
    pub(super) state: State,
    /// Whether a link has led here for it.
    pub(super) wanted: bool,
    pub(super) why: Option<&'static str>,
    pub(super) facts: Vec<Fact>,
    pub(super) roles: Vec<Role>,
    pub(super) action: String,
    pub(super) disconnect: Option<String>,
}

/// How a service stands, for whoever is signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connected,
    NeedsYou,
    NotConnected,
    /// It is not known who asks.
    Unknown,
}

/// Something to know about a connection: a text, a date, or both.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) text: String,
    pub(super) date: Option<Date>,
}

/// A role that can be chosen.
pub(super) struct Role {
    pub(super) name: String,
    pub(super) chosen: bool,
}

impl State {
    fn class(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::NeedsYou => "needs-you",
            Self::NotConnected | Self::Unknown => "open",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Connected => "✓",
            Self::NeedsYou => "!",
            Self::NotConnected => "–",
            Self::Unknown => "?",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Connected => "Connected",
            Self::NeedsYou => "Needs you",
            Self::NotConnected => "Not connected",
            Self::Unknown => "Sign in to see",
        }
    }

    fn button(self) -> &'static str {
        match self {
            Self::Connected | Self::NeedsYou => "Reconnect",
            Self::NotConnected | Self::Unknown => "Authenticate",
        }
    }

    /// Whether the user should do something.
    fn asks(self) -> bool {
        self != Self::Connected
    }
}

/// It worked.
#[derive(Template)]
#[template(path = "connect/connected.html")]
pub(super) struct Connected {
    pub(super) frame: Frame,
    pub(super) service: String,
    pub(super) user: String,
    pub(super) back: Option<Back>,
}

/// Is it meant?
#[derive(Template)]
#[template(path = "connect/disconnect.html")]
pub(super) struct Disconnect {
    pub(super) frame: Frame,
    pub(super) service: String,
    pub(super) user: String,
    pub(super) server: String,
    pub(super) snowflake: bool,
    pub(super) action: String,
}

/// It was.
#[derive(Template)]
#[template(path = "connect/disconnected.html")]
pub(super) struct Disconnected {
    pub(super) frame: Frame,
    pub(super) service: String,
    pub(super) server: String,
    /// The authorization server has yet to be told.
    pub(super) unfinished: bool,
}

/// A link in place of a redirect, where the browser would not follow that one from a form.
#[derive(Template)]
#[template(path = "connect/onward.html")]
pub(super) struct Onward {
    pub(super) frame: Frame,
    pub(super) href: String,
    pub(super) host: String,
}

/// It did not work.
#[derive(Template)]
#[template(path = "connect/failure.html")]
pub(super) struct Failure {
    pub(super) frame: Frame,
    /// What happened.
    pub(super) what: String,
    /// Who must do what.
    pub(super) advice: String,
    pub(super) detail: Option<String>,
    pub(super) again: Option<Box<Again>>,
}

/// The same once more.
pub(super) struct Again {
    pub(super) label: &'static str,
    pub(super) action: String,
    pub(super) focus: Focus,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_no_attribute_and_begins_no_element() {
        let evil = "\"><script>alert(1)</script>&'";
        let frame = Frame { names: vec![evil.to_owned()], form_token: evil.to_owned(), ..Frame::default() };
        let focus = Focus {
            service: Some(evil.to_owned()),
            roles: vec![evil.to_owned()],
            return_to: Some(evil.to_owned()),
        };
        let again = Again { label: "Try again", action: evil.to_owned(), focus };
        let page = Failure {
            frame,
            what: evil.to_owned(),
            advice: evil.to_owned(),
            detail: Some(evil.to_owned()),
            again: Some(Box::new(again)),
        };
        let text = page.render().unwrap();
        assert_eq!(text.matches("alert(1)").count(), 10, "{text}");
        assert!(!text.contains("<script"), "{text}");
    }
}
