//! JSON that programs parse differently, and text that only looks like JSON: one list for every input of the service, so
//! that all inputs accept the same.

/// A JSON value, or text that looks like one.
#[derive(Clone, Debug)]
pub struct Hostile {
    /// Its name, for the message of a failure.
    pub what: &'static str,
    /// Its bytes.
    pub json: Vec<u8>,
    /// Whether all programs parse it alike, so that every input accepts it.
    pub taken: bool,
}

impl Hostile {
    /// Returns the value as a string if it is UTF-8: other bytes cannot be sent in a text frame.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.json).ok()
    }

    /// Returns its bytes between two others.
    pub fn within(&self, before: &str, after: &str) -> Vec<u8> {
        [before.as_bytes(), &self.json, after.as_bytes()].concat()
    }
}

/// The depth of a nested value that leaves room for an entry, a frame or a job's report within the limit of 127 levels.
const DEEP: usize = 120;

/// All of them.
pub fn hostile() -> Vec<Hostile> {
    let nested = |open: &str, inner: &str, close: &str, levels: usize| {
        format!("{}{inner}{}", open.repeat(levels), close.repeat(levels)).into_bytes()
    };
    let taken = [
        ("a whole emoji", r#""\ud83c\udf00""#),
        ("an emoji in UTF-8", "\"\u{1f300}\""),
        ("NUL, escaped", r#""\u0000""#),
        ("NUL in a name, escaped", r#"{"\u0000":"\u0000"}"#),
        ("every escape", r#""\"\\\/\b\f\n\r\t\u00e9""#),
        ("a line separator", "\"\u{2028}\u{feff}\""),
        ("delete, which is a character like others", "\"\u{7f}\""),
        ("the largest numbers", "[1e308,-1e308,1.7976931348623157e308]"),
        ("numbers that are almost nothing", "[1e-400,-0,0.0,-0e0]"),
        ("numbers that lose digits", "[9007199254740993,123456789012345678901234567890,1.10]"),
        ("a name that comes twice within", r#"{"a":1,"a":2}"#),
        ("blanks", " [ 1 ,\t2\r\n] "),
        ("nothing", "null"),
        ("what is empty", r#"[{},[],""]"#),
    ];
    let refused = [
        ("the first half of an emoji", r#""\ud83c""#),
        ("the second half of an emoji", r#""\udf00""#),
        ("two first halves", r#""\ud83c\ud83c""#),
        ("half of an emoji and a letter", r#""\ud83c\u0041""#),
        ("half of an emoji in a name", r#"{"\ud83c":1}"#),
        ("a number beyond a double", "1e400"),
        ("a number far below zero", "[-1e400]"),
        ("NaN of Python", r#"{"rate":NaN}"#),
        ("Infinity of Python", "Infinity"),
        ("minus Infinity of Python", "-Infinity"),
        ("nan", "nan"),
        ("hexadecimal", "0x10"),
        ("a leading zero", "01"),
        ("a point without digits", "1."),
        ("a point at the beginning", "[.5]"),
        ("a plus sign", "+1"),
        ("an exponent without digits", "1e"),
        ("a mark of byte order within", "\u{feff}1"),
        ("a blank that JSON does not have", "\u{a0}1"),
        ("a control character", "\"\u{1}\""),
        ("an end of line in a text", "\"\n\""),
        ("NUL itself", "\"\0\""),
        ("NUL behind it", "1\0"),
        ("an escape that there is not", r#""\x41""#),
        ("an escape that is cut", r#""\u00""#),
        ("a text without an end", r#""a"#),
        ("other quotation marks", "'a'"),
        ("a name without quotation marks", "{a:1}"),
        ("a name that is a number", "{1:1}"),
        ("a last comma", "[1,]"),
        ("a comma too many", "[1,,2]"),
        ("a comment", "[1/*one*/]"),
        ("no comma", "1 2"),
        ("the brackets of another", "1],[2"),
        ("brackets that do not fit", "[1}"),
        ("a bracket too few", "[[1]"),
        ("words of other languages", "True"),
        ("a word that goes on", "nulls"),
        ("no value", ""),
    ];
    let digits = "9".repeat(400);
    let others = [
        ("400 digits", digits.into_bytes(), false),
        ("as deep as every way in takes", nested("[", "", "]", DEEP), true),
        ("objects as deep", nested(r#"{"a":"#, "1", "}", DEEP), true),
        ("200 brackets", nested("[", "", "]", 200), false),
        ("1,001 brackets", nested("[", "", "]", 1_001), false),
        ("200 objects", nested(r#"{"a":"#, "1", "}", 200), false),
        ("1,001 brackets that stay open", "[".repeat(1_001).into_bytes(), false),
        ("bytes that are no UTF-8", b"\"\xff\"".to_vec(), false),
        ("half of a surrogate pair in UTF-8", b"\"\xed\xa0\x80\"".to_vec(), false),
        ("NUL in two bytes", b"\"\xc0\x80\"".to_vec(), false),
        ("beyond Unicode", b"\"\xf4\x90\x80\x80\"".to_vec(), false),
        ("a character that is cut", b"\"\xe2\x82\"".to_vec(), false),
    ];
    let texts = taken.map(|row| (row, true)).into_iter().chain(refused.map(|row| (row, false)));
    let texts = texts.map(|((what, json), taken)| Hostile { what, json: json.as_bytes().to_vec(), taken });
    texts.chain(others.map(|(what, json, taken)| Hostile { what, json, taken })).collect()
}
