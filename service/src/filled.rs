//! Options that may be empty.

/// Returns a text without surrounding blanks; `None` if it is empty.
pub fn filled(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// Returns the entries of a list that are not blank.
pub fn words(list: &[String]) -> impl Iterator<Item = &str> {
    list.iter().filter_map(|word| filled(word))
}
