//! Reads and writes the small JSON objects of the page's own requests, field by field: a parser made by `derive` for each of
//! them would be a tenth of the code that a visitor has to download.

use std::collections::BTreeMap;

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

/// Writes an object of strings, without those that are `None`.
pub fn object(texts: &[(&str, Option<&str>)]) -> String {
    let fields: Vec<_> = texts
        .iter()
        .filter_map(|(name, text)| Some(format!("{}:{}", quoted(name), quoted((*text)?))))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// Writes a string.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_object_is_read() {
        let json = object(&[("a", Some("\"é\n")), ("b", None), ("c", Some(""))]);
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
