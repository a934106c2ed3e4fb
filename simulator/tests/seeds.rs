//! Some seeds, in each run of the tests. `cargo run --release -p carillon-simulator -- --seeds 10000` runs more.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::Command;

#[test]
fn the_promises_hold_and_each_seed_repeats_exactly() {
    let run =
        Command::new(env!("CARGO_BIN_EXE_simulate")).args(["--seeds", "30", "--twice"]).output().unwrap();
    let printed = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && printed.starts_with("30 seeds"), "{printed}");
}
