//! Reads again what a fuzzer has read: each file of `fuzz/corpus/`. See docs/fuzzing.md.

mod parsers;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Whether an input was accepted. Panics where a rule is broken.
type Parser = fn(&[u8]) -> bool;

/// Each parser of outside input of this crate, under the name of its fuzz target.
const PARSERS: [(&str, Parser); 8] = [
    ("api_auth", parsers::api_auth),
    ("jwk", parsers::jwk),
    ("origin", parsers::origin),
    ("session_token", parsers::session_token),
    ("twirp", parsers::twirp),
    ("token", parsers::token),
    ("token_of", parsers::token_of),
    ("webhook", parsers::webhook),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz")
}

#[test]
fn every_input_keeps_the_rules() {
    let mut broken = Vec::new();
    for (name, parser) in PARSERS {
        let (mut accepted, mut refused) = (0, 0);
        for entry in fs::read_dir(fuzz().join("corpus").join(name)).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::read(&path).unwrap();
            match catch_unwind(|| parser(&data)) {
                Ok(true) => accepted += 1,
                Ok(false) => refused += 1,
                Err(_) => broken.push(path),
            }
        }
        assert!(accepted > 0 && refused > 0, "{name}: {accepted} inputs accepted and {refused} refused");
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_target_is_replayed() {
    let mut targets = BTreeSet::new();
    for entry in fs::read_dir(fuzz().join("fuzz_targets")).unwrap() {
        let path = entry.unwrap().path();
        if fs::read_to_string(&path).unwrap().contains("/bff/tests/it/corpus/") {
            targets.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    assert_eq!(targets, PARSERS.map(|(name, _)| name.to_owned()).into());
}
