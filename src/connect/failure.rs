//! Why a page is not what was asked for: what happened, who must act, and what to do.

use std::time::Duration;

use hyper::StatusCode;

use crate::connect::focus::Focus;
use crate::connect::page::Again;
use crate::connect::refused;
use crate::consent::Refused;
use crate::model::Failure;
use crate::store::StoreError;

/// What went wrong.
pub(super) enum Trouble {
    /// There is no such page.
    NotFound,
    /// There is one, for other methods.
    Method(&'static str),
    /// Another host was asked for.
    WrongHost,
    /// A form came from elsewhere, or from before somebody signed in.
    StrangeForm,
    /// A form can't be read.
    BadForm,
    TooLarge,
    TooMany,
    /// It is not known whose connection is meant.
    SignInFirst(Box<Again>),
    NeverConnected,
    /// The store, or we.
    Broken(String),
    Refused(Box<Refused>, Option<Box<Again>>),
}

/// How it is said.
pub(super) struct Said {
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) what: String,
    pub(super) advice: String,
    /// For whoever administrates the server.
    pub(super) detail: Option<String>,
    pub(super) again: Option<Box<Again>>,
    pub(super) retry_after: Option<Duration>,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Refused(Box::new(Refused::Failed(failure)), None)
    }
}

impl Trouble {
    /// For the log.
    pub(super) fn cause(&self) -> Option<String> {
        match self {
            Self::Broken(why) => Some(why.clone()),
            // Else `consent` has said it already.
            Self::Refused(refused, _) => {
                if let Refused::Failed(failure) = &**refused {
                    Some(format!("{failure:?}"))
                } else {
                    None
                }
            }
            Self::NotFound
            | Self::Method(_)
            | Self::WrongHost
            | Self::StrangeForm
            | Self::BadForm
            | Self::TooLarge
            | Self::TooMany
            | Self::SignInFirst(_)
            | Self::NeverConnected => None,
        }
    }

    pub(super) fn say(self) -> Said {
        match self {
            Self::NotFound => said(
                StatusCode::NOT_FOUND,
                "Nothing is here",
                "There is no such page, or the service in its address is not offered here.",
                "Please start from the list of your connections.",
            ),
            Self::Method(_) => said(
                StatusCode::METHOD_NOT_ALLOWED,
                "That can't be done here",
                "This address does not take what your browser has sent.",
                "Please start from the list of your connections.",
            ),
            Self::WrongHost => said(
                StatusCode::MISDIRECTED_REQUEST,
                "This page has another address",
                "You came here by a name that this page does not answer to.",
                "Please use the address that your company gave you. An administrator: the request's Host must be that \
                 of connect.public_url, also behind a proxy.",
            ),
            Self::StrangeForm => said(
                StatusCode::FORBIDDEN,
                "That page was out of date",
                "The button you pressed belongs to a page from before you signed in or out, or to another site. \
                 Nothing was done.",
                "Please go to your connections and press it there.",
            ),
            Self::BadForm => said(
                StatusCode::BAD_REQUEST,
                "That could not be understood",
                "What your browser sent was incomplete. Nothing was done.",
                "Please go to your connections and try it there.",
            ),
            Self::TooLarge => said(
                StatusCode::PAYLOAD_TOO_LARGE,
                "That was too much",
                "What your browser sent was larger than anything that is needed here. Nothing was done.",
                "Please go to your connections and try it there.",
            ),
            Self::TooMany => Said {
                retry_after: Some(Duration::from_secs(10)),
                ..said(
                    StatusCode::TOO_MANY_REQUESTS,
                    "A little slower, please",
                    "Too many requests came from your network just now. Nothing was done.",
                    "Please wait for some seconds and try again.",
                )
            },
            Self::SignInFirst(again) => Said {
                again: Some(again),
                ..said(
                    StatusCode::FORBIDDEN,
                    "Please sign in first",
                    "It is not known whose connection this is about. You may have been signed out meanwhile.",
                    "Sign in, and you can go on.",
                )
            },
            Self::NeverConnected => said(
                StatusCode::NOT_FOUND,
                "There is nothing to disconnect",
                "You are not connected to this service.",
                "There is nothing for you to do.",
            ),
            Self::Broken(_) => said(
                StatusCode::SERVICE_UNAVAILABLE,
                "Something is wrong on our side",
                "Your request could not be dealt with.",
                "Please try again in a few minutes. If it stays like this, tell your administrator the request number \
                 below.",
            ),
            Self::Refused(refused, again) => {
                let again = again.filter(|_| !matches!(*refused, Refused::NotOffered(_)));
                Said { again, ..refused::say(*refused) }
            }
        }
    }
}

pub(super) fn said(
    status: StatusCode,
    title: &'static str,
    what: impl Into<String>,
    advice: impl Into<String>,
) -> Said {
    let (what, advice) = (what.into(), advice.into());
    Said { status, title, what, advice, detail: None, again: None, retry_after: None }
}

/// The same consent once more.
pub(super) fn connect_again(focus: &Focus) -> Option<Box<Again>> {
    let service = focus.service.as_deref()?;
    let action = format!("/connect/{}", crate::connect::encode(service));
    Some(Box::new(Again { label: "Try again", action, focus: focus.clone() }))
}
