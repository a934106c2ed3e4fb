use std::borrow::Cow;
use std::fmt::Write;

/// Text from elsewhere, fit for one line of a terminal: what would move the cursor, colour the screen
/// or turn the writing around is written as an escape.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.into()
}

/// A JSON document on one line, fit for a terminal and still the same document: control characters
/// stand between its tokens, where a blank does as well, or inside a string, where an escape does.
pub(crate) fn plain_json(json: &str) -> Cow<'_, str> {
    if !json.contains(acts) {
        return json.into();
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\t' | '\n' | '\r' => out.push(' '),
            // All that act stand in the Basic Multilingual Plane: four digits do.
            c if acts(c) => write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes all"),
            c => out.push(c),
        }
    }
    out.into()
}

/// Control characters, line and paragraph separators, and marks that change the direction of writing.
fn acts(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown_instead() {
        assert_eq!(plain("größer 🔔 \"x\""), "größer 🔔 \"x\"");
        assert_eq!(plain("a\n\u{1b}[31mb\u{9b}\u{7f}"), "a\\n\\u{1b}[31mb\\u{9b}\\u{7f}");
        assert_eq!(plain("\u{202e}txt.exe"), "\\u{202e}txt.exe");
    }

    #[test]
    fn json_stays_the_same_document() {
        let json = "{\n\t\"a\":\"\u{9b}\u{7f}\u{2028}\\n\"}";
        let line = plain_json(json);
        assert_eq!(line, "{  \"a\":\"\\u009b\\u007f\\u2028\\n\"}");
        let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(read(&line), read(json));
    }
}
