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
            c if acts(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("a string takes all");
                }
            }
            c => out.push(c),
        }
    }
    out.into()
}

/// Control characters, line and paragraph separators, marks that change the direction of writing (Unicode's
/// `Bidi_Control`), and others that are not seen (of its category Cf) but for the joiners that scripts and emoji need.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_shown_instead() {
        assert_eq!(plain("größer 🔔 \"x\""), "größer 🔔 \"x\"");
        assert_eq!(plain("a\n\u{1b}[31mb\u{9b}\u{7f}"), "a\\n\\u{1b}[31mb\\u{9b}\\u{7f}");
        assert_eq!(plain("\u{202e}txt.exe"), "\\u{202e}txt.exe");
        assert_eq!(plain("\u{61c}a\u{200b}\u{e0041}"), "\\u{61c}a\\u{200b}\\u{e0041}");
        assert_eq!(plain("👩\u{200d}🔧 ✔\u{fe0f}"), "👩\u{200d}🔧 ✔\u{fe0f}");
    }

    #[test]
    fn json_stays_the_same_document() {
        let json = "{\n\t\"a\":\"\u{9b}\u{7f}\u{2028}\u{e0041}\\n\"}";
        let line = plain_json(json);
        assert_eq!(line, "{  \"a\":\"\\u009b\\u007f\\u2028\\udb40\\udc41\\n\"}");
        let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(read(&line), read(json));
    }
}
