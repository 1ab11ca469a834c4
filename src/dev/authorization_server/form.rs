//! Parameters of a request, each at most once (RFC 6749 3.1 and 3.2).

use std::collections::BTreeMap;

/// Decoded parameters. One without a value counts as left out, as RFC 6749 wants.
#[derive(Debug, Default)]
pub(super) struct Form(BTreeMap<String, String>);

/// A parameter came twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated(pub(super) String);

impl Form {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Repeated> {
        let mut form = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            let name = name.into_owned();
            if form.contains_key(&name) {
                return Err(Repeated(name));
            }
            form.insert(name, value.into_owned());
        }
        form.retain(|_, value| !value.is_empty());
        Ok(Self(form))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_comes_twice_is_named() {
        assert_eq!(Form::parse(b"a=1&b=2&a=1").unwrap_err(), Repeated("a".into()));
        assert_eq!(Form::parse(b"a=&a=1").unwrap_err(), Repeated("a".into()));
    }

    #[test]
    fn a_parameter_without_a_value_is_left_out() {
        let form = Form::parse(b"scope=&state=x%20y+z").unwrap();
        assert_eq!((form.get("scope"), form.get("state")), (None, Some("x y z")));
    }
}
