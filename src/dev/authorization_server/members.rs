//! Reads a JSON object member by member and refuses what nobody asked for, naming what could have been there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

/// An object on its way to being understood.
pub(super) struct Members {
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Members {
    pub(super) fn of(body: Value) -> Result<Self, String> {
        match body {
            Value::Object(left) => Ok(Self { left, known: Vec::new() }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err("a JSON object is wanted here".into())
            }
        }
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, String> {
        self.read(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, String> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(super) fn count(&mut self, name: &'static str) -> Result<Option<u32>, String> {
        self.read(name, "a whole number", |value| {
            value.as_u64().and_then(|number| u32::try_from(number).ok())
        })
    }

    /// Seconds, fractions allowed.
    pub(super) fn seconds(&mut self, name: &'static str) -> Result<Option<Duration>, String> {
        self.read(name, "a number of seconds", |value| {
            value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        })
    }

    pub(super) fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, String> {
        self.read(name, "a list of strings", texts)
    }

    pub(super) fn texts_by_name(
        &mut self,
        name: &'static str,
    ) -> Result<Option<BTreeMap<String, Vec<String>>>, String> {
        self.read(name, "an object of lists of strings", |value| {
            value.as_object()?.iter().map(|(name, list)| Some((name.clone(), texts(list)?))).collect()
        })
    }

    /// Takes the member away if it is there and null.
    pub(super) fn is_null(&mut self, name: &'static str) -> bool {
        let is_null = self.left.get(name).is_some_and(Value::is_null);
        if is_null {
            self.known.push(name);
            self.left.remove(name);
        }
        is_null
    }

    /// The error names a member that nobody asked for, and all that were asked for.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                Err(format!("`{unknown}` is not known here; allowed: {}", self.known.join(", ")))
            }
        }
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        self.known.push(name);
        match self.left.remove(name) {
            None => Ok(None),
            Some(value) => read(&value).map(Some).ok_or_else(|| format!("{name}: {wanted} is wanted")),
        }
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}
