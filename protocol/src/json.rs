//! Defines once for every input which JSON is accepted. JSON allows half of a surrogate pair, numbers that no program can
//! represent, and any depth. Parsers that differ there would accept an entry in one place and lose it in another.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};

/// Checks that every program parses a text alike (as I-JSON, RFC 7493, requires): valid JSON, no half of a surrogate pair,
/// numbers within the range of a double, and at most 128 levels, where serde_json stops.
///
/// # Errors
/// The first fault, in words.
pub fn check_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<Checked>(text).map(|_| ()).map_err(|error| error.to_string())
}

/// Parses the bytes of a request as JSON of one type, by the same rule: [`check_json`] checks all of it, including fields
/// that the type ignores.
///
/// # Errors
/// The first fault, in words.
pub fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let text = without_bom(std::str::from_utf8(bytes).map_err(|error| error.to_string())?);
    check_json(text)?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Returns a text without the byte order mark that programs on Windows write before it.
#[must_use]
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Any JSON, which is parsed completely and dropped.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Checked;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
                Ok(Checked)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Checked, A::Error> {
                while values.next_element::<Checked>()?.is_some() {}
                Ok(Checked)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Checked, A::Error> {
                while fields.next_entry::<Checked, Checked>()?.is_some() {}
                Ok(Checked)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_all_programs_parse_alike_is_accepted() {
        for text in [
            r#"{"a":[1.10,9007199254740993,-0,1e308,[],{},null,true,"\ud83d\ude00 \u0000"]}"#,
            "123456789012345678901234567890",
            &format!("{}{}", "[".repeat(126), "]".repeat(126)),
        ] {
            assert_eq!(check_json(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn json_that_programs_parse_differently_is_refused() {
        for text in [
            r#"{"data":"\ud83c"}"#,
            r#"{"\udf00":1}"#,
            "1e400",
            &"9".repeat(400),
            "NaN",
            "Infinity",
            "0x10",
            "01",
            "1.",
            "[1,]",
            "{'a':1}",
            "\"a\u{1}\"",
            "",
            "1 2",
            &format!("{}{}", "[".repeat(200), "]".repeat(200)),
        ] {
            assert!(check_json(text).is_err(), "{text}");
        }
    }
}
