//! Fields of a query or a form.

use url::form_urlencoded;

/// More than any page of ours has.
const MOST: usize = 256;

/// The fields, in order. What nobody knows is let through: other sites put their own into links.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).take(MOST).map(|(n, v)| (n.into_owned(), v.into_owned())).collect())
    }

    /// A field that may stand there once: of two, who knows which was meant by whom.
    pub(super) fn one<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
