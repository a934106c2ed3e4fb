//! Replays the corpus of a fuzzer: the tests of each crate with fuzz targets include this file.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Returns whether an input was accepted. Panics where a rule is broken.
pub(crate) type Parser = fn(&[u8]) -> bool;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz")
}

/// Each file of a parser's corpus keeps the rules, and some are accepted and some refused.
pub(crate) fn every_input_keeps_the_rules(parsers: &[(&str, Parser)]) {
    let mut broken = Vec::new();
    for (name, parser) in parsers {
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

/// The targets that use the rules in this folder are the ones that are replayed.
pub(crate) fn every_target_is_replayed(parsers: &[(&str, Parser)], folder: &str) {
    let mut targets = BTreeSet::new();
    for entry in fs::read_dir(fuzz().join("fuzz_targets")).unwrap() {
        let path = entry.unwrap().path();
        if fs::read_to_string(&path).unwrap().contains(folder) {
            targets.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    assert_eq!(targets, parsers.iter().map(|(name, _)| (*name).to_owned()).collect());
}
