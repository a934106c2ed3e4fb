//! Builds the two files that a browser loads: the wasm and the script around it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use wasm_bindgen_cli_support::Bindgen;

use crate::steps::{output, run};

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "wasm";
const PACKAGE: &str = "carillon-frontend";
const LIBRARY: &str = "carillon_frontend.wasm";

/// Adds the wasm target if it is missing.
pub(crate) fn ensure_target(workspace: &Path) -> Result<()> {
    if has_target(workspace)? {
        return Ok(());
    }
    eprintln!("    the {TARGET} target is missing: adding it with rustup");
    let added = run(Command::new("rustup").args(["target", "add", TARGET]).current_dir(workspace));
    if added.is_err() || !has_target(workspace)? {
        bail!(
            "Rust's {TARGET} target is missing. With rustup from https://rustup.rs run \
             `rustup target add {TARGET}`; with your system's Rust install its package \
             (libstd-rust-dev-wasm32 on Debian, rust-std-static-{TARGET} on Fedora)"
        );
    }
    Ok(())
}

fn has_target(workspace: &Path) -> Result<bool> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace))?;
    Ok(Path::new(&sysroot).join("lib/rustlib").join(TARGET).join("lib").is_dir())
}

/// Compiles the viewer; cargo does nothing without changes.
pub(crate) fn compile(workspace: &Path, target: &Path) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--locked",
        "--package",
        PACKAGE,
        "--lib",
        "--target",
        TARGET,
        "--profile",
        PROFILE,
    ]);
    run(cargo.arg("--target-dir").arg(target).current_dir(workspace))?;
    Ok(target.join(TARGET).join(PROFILE).join(LIBRARY))
}

/// The wasm for the browser, and the module that loads it.
pub(crate) struct Bound {
    pub wasm: Vec<u8>,
    pub script: String,
}

/// Binds the compiled viewer to the browser.
pub(crate) fn bind(library: &Path) -> Result<Bound> {
    let mut bound = Bindgen::new()
        .input_path(library)
        .web(true)?
        .typescript(false)
        .remove_name_section(true)
        .remove_producers_section(true)
        .omit_default_module_path(true)
        .out_name("viewer")
        .generate_output()
        .context("wasm-bindgen does not take it")?;
    if bound.snippets().values().any(|scripts| !scripts.is_empty()) {
        bail!("a dependency brings scripts of its own, which have no place in the viewer yet");
    }
    let wasm = bound.wasm_mut().emit_wasm();
    Ok(Bound { wasm, script: bound.js().to_owned() })
}
