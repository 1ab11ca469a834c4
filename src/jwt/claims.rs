//! What a token says: JSON objects, read so that nobody can say two things at once.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::clock::Timestamp;
use crate::jwt::VerifyError;

/// What a genuine token says.
#[derive(Debug)]
pub struct Claims(pub(super) Object);

impl Claims {
    /// Whether there is such a claim.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some()
    }

    /// A claim that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.text(name)
    }

    /// A claim that is a text or a list of texts.
    #[must_use]
    pub fn texts(&self, name: &str) -> Option<Vec<&str>> {
        self.0.texts(name)
    }

    /// A claim that is a time.
    #[must_use]
    pub fn time(&self, name: &str) -> Option<Timestamp> {
        self.0.time(name)
    }

    /// All of them.
    #[must_use]
    pub fn into_members(self) -> serde_json::Map<String, Value> {
        self.0.0.into_iter().collect()
    }
}

/// A JSON object none of whose members stands twice.
#[derive(Debug)]
pub(super) struct Object(Vec<(String, Value)>);

impl Object {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// A text, or a list of texts.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        match self.get(name)? {
            Value::String(text) => Some(vec![text]),
            Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        }
    }

    /// `NumericDate` (RFC 7519 §2): seconds, which may have a fraction.
    pub(super) fn time(&self, name: &str) -> Option<Timestamp> {
        let number = self.get(name)?.as_number()?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates, and an absurd time stays absurd"
        )]
        number.as_i64().or_else(|| number.as_f64().map(|secs| secs.floor() as i64)).map(Timestamp::from_secs)
    }
}

pub(super) fn object(part: &str) -> Result<Object, VerifyError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| VerifyError::NotAJwt)?;
    serde_json::from_slice(&bytes).map_err(|_| VerifyError::NotAJwt)
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
                let mut object = Object(Vec::new());
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if object.get(&name).is_some() {
                        return Err(A::Error::custom("a member stands twice"));
                    }
                    object.0.push((name, value));
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Members)
    }
}
