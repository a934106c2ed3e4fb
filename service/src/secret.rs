//! Options that are secrets, and options that may be empty.

use std::fmt;
use std::str::FromStr;

/// Returns a text without surrounding blanks; `None` if it is empty.
pub fn filled(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// Returns the entries of a list that are not blank.
pub fn words(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().filter_map(|word| filled(word))
}

/// An option that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
