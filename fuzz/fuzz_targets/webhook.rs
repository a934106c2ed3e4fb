#![no_main]

#[path = "../../auth/tests/corpus/parsers.rs"]
#[allow(dead_code, reason = "each target needs one of them")]
mod parsers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    parsers::webhook(data);
});
