//! Values as Go's decoder takes them: keys in any case, null for "not there".

use std::fmt;

use serde_json::{Map, Value};

/// Why a text is not what it should be: where in it, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    path: String,
    why: String,
}

impl JsonError {
    pub(super) fn new(path: &str, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into() }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.why)
        } else {
            write!(f, "{}: {}", self.path, self.why)
        }
    }
}

impl std::error::Error for JsonError {}

/// The whole text as one object.
pub(super) fn object(text: &[u8], what: &str) -> Result<Map<String, Value>, JsonError> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(JsonError::new("", format!("{what} is an object"))),
        Err(e) => Err(JsonError::new("", e.to_string())),
    }
}

/// The fields of an object, with the way to it for errors.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(map: &'a Map<String, Value>, path: String) -> Self {
        Self { map, path }
    }

    /// The value of a key in any case. Of several the last one that is not null holds, as where each is decoded in its turn.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        let same = self.map.iter().filter(|(k, v)| k.eq_ignore_ascii_case(key) && !v.is_null());
        same.map(|(_, value)| value).next_back()
    }

    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn wrong(&self, key: &str, why: &str) -> JsonError {
        JsonError::new(&self.at(key), why)
    }

    pub(super) fn text(&self, key: &str) -> Result<String, JsonError> {
        match self.get(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(self.wrong(key, "a text was expected")),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, JsonError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(key, "true or false was expected")),
        }
    }

    pub(super) fn integer(&self, key: &str) -> Result<i64, JsonError> {
        match self.get(key) {
            None => Ok(0),
            Some(value) => {
                value.as_i64().ok_or_else(|| self.wrong(key, "a whole number was expected"))
            }
        }
    }

    pub(super) fn list(&self, key: &str) -> Result<&'a [Value], JsonError> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(self.wrong(key, "a list was expected")),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, JsonError> {
        let text = |value: &Value| {
            // Go decodes null into an empty text.
            if value.is_null() { Some(String::new()) } else { value.as_str().map(str::to_owned) }
        };
        let list = self.list(key)?;
        list.iter()
            .map(|v| text(v).ok_or_else(|| self.wrong(key, "a list of texts was expected")))
            .collect()
    }
}
