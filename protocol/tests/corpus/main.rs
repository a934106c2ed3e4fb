//! Replays the inputs of a fuzzer: each file of `fuzz/corpus/`. See docs/fuzzing.md.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod parsers;
#[path = "../../../fuzz/replay.rs"]
mod replay;

use replay::Parser;

/// Each parser of outside input of this crate, under the name of its fuzz target.
const PARSERS: [(&str, Parser); 8] = [
    ("audience", parsers::audience),
    ("client", parsers::client),
    ("client_message", parsers::client_message),
    ("cursor", parsers::cursor),
    ("entry", parsers::entry),
    ("notification", parsers::notification),
    ("server_message", parsers::server_message),
    ("timestamp", parsers::timestamp),
];

#[test]
fn every_input_keeps_the_rules() {
    replay::every_input_keeps_the_rules(&PARSERS);
}

#[test]
fn every_target_is_replayed() {
    replay::every_target_is_replayed(&PARSERS, "/protocol/tests/corpus/");
}
