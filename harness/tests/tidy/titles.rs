//! The titles of problems are API: a few conventional words that stay the same, and not a sentence about this request.

use std::collections::BTreeSet;

use crate::{none, sources};

const TITLE_MAX_WORDS: usize = 6;
/// Proper names, with which a title may begin.
const PROPER_NAMES: [&str; 4] = ["API", "CPU", "Redis", "WebSocket"];
/// Words that begin a sentence.
const OF_SENTENCES: [&str; 8] = ["a", "an", "no", "nobody", "the", "these", "this", "you"];
/// The title of a 401 that carries `error="invalid_token"`; `Refusal::token` alone gives it.
const INVALID_TOKEN: &str = "invalid token";

/// The titles that one file gives as literals.
fn titles(text: &str) -> Vec<&str> {
    let constructors = ["new", "fields", "unavailable", "too_many", "elsewhere"];
    let names = constructors.map(|name| format!("Refusal::{name}("));
    let names = names.into_iter().chain(["ProblemResponse::new(".to_owned()]);
    let calls = names.flat_map(|name| text.split(&name).skip(1).collect::<Vec<_>>());
    // The title stands before the first other literal; before it there may be the status.
    let first = calls.filter_map(|rest| {
        let (before, rest) = rest.split_once('"')?;
        let before = before.trim();
        let is_title =
            before.is_empty() || (before.starts_with("StatusCode::") && before.matches(',').count() == 1);
        is_title.then(|| rest.split('"').next()).flatten()
    });
    first.collect()
}

fn fault(title: &str) -> Option<&'static str> {
    let words: Vec<_> = title.split(' ').collect();
    let first = words[0];
    let is_lower = first.starts_with(|first: char| first.is_ascii_lowercase());
    match () {
        () if words.len() > TITLE_MAX_WORDS => Some("it has too many words"),
        () if !is_lower && !PROPER_NAMES.contains(&first) => Some("it begins with a small letter"),
        () if OF_SENTENCES.contains(&first) => Some("it is a sentence"),
        () if title.contains(['?', '.', ':', '\'']) => Some("it has no punctuation"),
        () => None,
    }
}

#[test]
fn titles_of_problems_are_short_and_conventional() {
    let mut faults = BTreeSet::new();
    let mut found = 0;
    for source in sources().iter().filter(|source| source.path.contains("/src/")) {
        for title in titles(&source.text) {
            found += 1;
            if let Some(fault) = fault(title) {
                faults.insert(format!("{}: '{title}': {fault}", source.path));
            }
            if title == INVALID_TOKEN {
                faults.insert(format!("{}: '{title}' is the title of `Refusal::token` alone", source.path));
            }
        }
    }
    assert!(found > 50, "the titles are found: {found}");
    none(&faults);
}

#[test]
fn sentences_are_not_titles() {
    for title in ["this is no job", "whose job is it?", "the list is full", "Sign in", "a b c d e f g"] {
        assert!(fault(title).is_some(), "{title}");
    }
    for title in ["authentication required", "API key required", "WebSocket upgrade required"] {
        assert_eq!(fault(title), None, "{title}");
    }
}
