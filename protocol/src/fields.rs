//! Reads and writes small JSON objects field by field; [`crate::http`] explains what for.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// A parsed JSON object.
pub struct Fields(BTreeMap<String, Box<RawValue>>);

impl Fields {
    /// Parses an object; `None` for any other text.
    pub fn read(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().map(Self)
    }

    /// Returns a field's JSON.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|raw| raw.get())
    }

    fn value<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?).ok()
    }

    /// Returns a string; `None` when the field is absent or has another type.
    pub fn text(&self, name: &str) -> Option<String> {
        self.value(name)
    }

    /// Returns a whole number from 0.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.value(name)
    }

    /// A whole number from 0 to 100; an absent one is 0, and a larger one 100.
    #[must_use]
    pub fn percent(&self, name: &str) -> u8 {
        u8::try_from(self.number(name).unwrap_or_default()).unwrap_or(100)
    }

    /// A field's own JSON, to be kept; `None` when the field is absent or null.
    #[must_use]
    pub fn json(&self, name: &str) -> Option<Box<RawValue>> {
        self.0.get(name).filter(|raw| raw.get() != "null").cloned()
    }

    /// Whether the field is `true`.
    pub fn is_true(&self, name: &str) -> bool {
        self.raw(name) == Some("true")
    }

    /// Returns an object.
    pub fn object(&self, name: &str) -> Option<Self> {
        Self::read(self.raw(name)?)
    }

    /// Returns the objects of an array, without its other values.
    pub fn objects(&self, name: &str) -> Vec<Self> {
        let all: Vec<Box<RawValue>> = self.value(name).unwrap_or_default();
        all.iter().filter_map(|raw| Self::read(raw.get())).collect()
    }
}

/// Writes an object of fields with their own JSON; those without a value are left out.
#[must_use]
pub fn object(fields: &[(&str, Option<String>)]) -> String {
    let mut json = String::from("{");
    for (name, value) in fields {
        if let Some(value) = value {
            json.push_str(if json.len() > 1 { ",\"" } else { "\"" });
            json.push_str(name);
            json.push_str("\":");
            json.push_str(value);
        }
    }
    json.push('}');
    json
}

/// Writes a string.
pub fn quoted(text: &str) -> String {
    to_json(text)
}

/// Writes a body. One that cannot be written would be empty; no type of [`crate::http`] is like that.
#[must_use]
pub fn to_json(body: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let json = object(&[("a", Some(quoted("\"é\n"))), ("b", None), ("c", Some(quoted("")))]);
        assert_eq!(json, r#"{"a":"\"é\n","c":""}"#);
        let fields = Fields::read(&json).unwrap();
        assert_eq!(
            (fields.text("a"), fields.text("b"), fields.text("c")),
            (Some("\"é\n".into()), None, Some(String::new()))
        );
    }

    #[test]
    fn a_field_of_another_type_is_absent() {
        let json = r#"{"n":7,"t":"7","b":true,"o":{"n":1},"l":[{"n":2},3,{"n":4}],"nothing":null}"#;
        let fields = Fields::read(json).unwrap();
        assert_eq!(
            (fields.number("n"), fields.number("t"), fields.text("n"), fields.text("nothing")),
            (Some(7), None, None, None)
        );
        assert!(fields.is_true("b") && !fields.is_true("n"));
        assert_eq!(fields.object("o").and_then(|o| o.number("n")), Some(1));
        let list: Vec<_> = fields.objects("l").iter().map(|one| one.number("n")).collect();
        assert_eq!(list, [Some(2), Some(4)]);
        assert!(Fields::read("[]").is_none() && Fields::read("").is_none() && fields.object("n").is_none());
    }
}
