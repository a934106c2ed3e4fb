use std::time::Duration;

/// Parses a duration of an option: `1s`, `250ms`, `2m`. Fit for clap's `value_parser`.
///
/// # Errors
/// When the text is not a duration or is zero; the message shows how to write one.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let how = "write it like 1s, 250ms or 2m";
    match humantime::parse_duration(text.trim()) {
        Ok(Duration::ZERO) => Err(format!("a duration of zero is not allowed: {how}")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!("'{text}' is not a duration: {how}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_number_with_its_unit() {
        for (text, ms) in
            [("1s", 1_000), ("250ms", 250), ("2m", 120_000), ("1s 500ms", 1_500), (" 3s ", 3_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn shows_how_to_write_one() {
        for text in ["", "1", "s", "-1s", "1 parsec", "soon", "1.5.s"] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains("write it like 1s, 250ms or 2m"), "{text}: {error}");
        }
        assert!(parse_duration("0s").expect_err("zero").contains("zero"));
        assert!(parse_duration("0").is_err());
    }
}
