//! Reads and writes the small JSON objects of the page's own calls, field by field: a reader made by
//! `derive` for each of them would be a tenth of the code that a visitor has to fetch.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// A JSON object that was read.
pub struct Fields(BTreeMap<String, Box<RawValue>>);

impl Fields {
    /// Reads an object; `None` when the text is none.
    #[must_use]
    pub fn read(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().map(Self)
    }

    /// A field's own JSON.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|raw| raw.get())
    }

    fn value<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?).ok()
    }

    /// A text; `None` when the field is absent or something else.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.value(name)
    }

    /// A whole number from 0.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.value(name)
    }

    /// Whether the field is `true`.
    #[must_use]
    pub fn is_true(&self, name: &str) -> bool {
        self.raw(name) == Some("true")
    }

    /// An object.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<Self> {
        Self::read(self.raw(name)?)
    }

    /// The objects of an array; what in it is no object is left out.
    #[must_use]
    pub fn objects(&self, name: &str) -> Vec<Self> {
        let all: Vec<Box<RawValue>> = self.value(name).unwrap_or_default();
        all.iter().filter_map(|raw| Self::read(raw.get())).collect()
    }
}

/// Writes an object of texts; those without a value are left out.
#[must_use]
pub fn object(texts: &[(&str, Option<&str>)]) -> String {
    let fields: Vec<_> = texts
        .iter()
        .filter_map(|(name, text)| Some(format!("{}:{}", quoted(name), quoted((*text)?))))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// Writes a text.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let json = object(&[("a", Some("\"é\n")), ("b", None), ("c", Some(""))]);
        assert_eq!(json, r#"{"a":"\"é\n","c":""}"#);
        let fields = Fields::read(&json).unwrap();
        assert_eq!(
            (fields.text("a"), fields.text("b"), fields.text("c")),
            (Some("\"é\n".into()), None, Some(String::new()))
        );
    }

    #[test]
    fn what_is_of_another_type_is_absent() {
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
