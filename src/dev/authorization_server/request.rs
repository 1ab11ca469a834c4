//! A request as the endpoints see it: read whole, no connection attached.

use hyper::Method;

use crate::clock::Moment;

use super::form::Form;
use super::refusal::Refusal;

#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) content_type: String,
    pub(super) authorization: Option<String>,
    pub(super) body: Vec<u8>,
    pub(super) now: Moment,
}

impl Request {
    /// The form in the body, where nothing may come by the query: secrets don't belong in a URL (RFC 6749 2.3.1).
    pub(super) fn form(&self) -> Result<Form, Refusal> {
        if !self.query.is_empty() {
            return Err(Refusal::invalid_request("Parameters belong into the body of the request."));
        }
        let media_type = self.content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal::invalid_request("The body must be application/x-www-form-urlencoded."));
        }
        Form::parse(&self.body).map_err(|repeated| {
            Refusal::InvalidRequest(format!("The parameter '{}' is included more than once.", repeated.0))
        })
    }
}
