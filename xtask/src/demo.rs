use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::steps::{run, step};
use crate::viewer;

/// Builds everything for the demo and replaces this process by it, so that Ctrl-C reaches only the demo.
pub(crate) fn run_demo(workspace: &Path, target: &Path, arguments: &[OsString]) -> Result<()> {
    let viewer = viewer::build(workspace, target)?;
    step("Compile the demo", || {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--locked", "--package", "carillon-cli", "--bin", "carillon"]);
        run(cargo.arg("--target-dir").arg(target).current_dir(workspace))
    })?;
    let program = target.join("debug").join(format!("carillon{}", std::env::consts::EXE_SUFFIX));
    eprintln!("==> Run the demo");
    become_program(Command::new(&program).arg("demo").arg("--static-dir").arg(viewer).args(arguments))
        .with_context(|| format!("could not run {}", program.display()))
}

#[cfg(unix)]
fn become_program(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    Err(command.exec().into())
}

#[cfg(not(unix))]
fn become_program(command: &mut Command) -> Result<()> {
    run(command)
}
