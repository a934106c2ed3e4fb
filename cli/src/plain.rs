use std::borrow::Cow;
use std::fmt::Write;

/// Makes untrusted text safe for one line of a terminal: characters that would move the cursor, colour the screen or change
/// the direction of writing are escaped.
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

/// Makes a JSON document safe for one line of a terminal, and keeps its meaning: control characters are between its tokens,
/// where a blank is equal, or inside a string, where an escape is equal.
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

/// Whether a character acts on a terminal: control characters, line and paragraph separators, marks that change the
/// direction of writing (Unicode's `Bidi_Control`), and other invisible ones (category Cf) except for the joiners that
/// scripts and emoji need.
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
    fn characters_that_act_on_a_terminal_are_escaped() {
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
