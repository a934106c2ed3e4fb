//! Replays the inputs of a fuzzer: each file of `fuzz/corpus/`. See docs/fuzzing.md.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod parsers;
#[path = "../../../fuzz/replay.rs"]
mod replay;

use replay::Parser;

/// Each parser of outside input of this crate, under the name of its fuzz target.
const PARSERS: [(&str, Parser); 7] = [
    ("api_auth", parsers::api_auth),
    ("jwk", parsers::jwk),
    ("origin", parsers::origin),
    ("session_token", parsers::session_token),
    ("token", parsers::token),
    ("token_of", parsers::token_of),
    ("webhook", parsers::webhook),
];

#[test]
fn every_input_keeps_the_rules() {
    replay::every_input_keeps_the_rules(&PARSERS);
}

#[test]
fn every_target_is_replayed() {
    replay::every_target_is_replayed(&PARSERS, "/auth/tests/corpus/");
}
