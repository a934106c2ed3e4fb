//! Replays the inputs of a fuzzer: each file of `fuzz/corpus/`. See docs/fuzzing.md.

mod parsers;
#[path = "../../../fuzz/replay.rs"]
mod replay;

use replay::Parser;

/// Each parser of outside input of this crate, under the name of its fuzz target.
const PARSERS: [(&str, Parser); 1] = [("twirp", parsers::twirp)];

#[test]
fn every_input_keeps_the_rules() {
    replay::every_input_keeps_the_rules(&PARSERS);
}

#[test]
fn every_target_is_replayed() {
    replay::every_target_is_replayed(&PARSERS, "/bff/tests/it/corpus/");
}
