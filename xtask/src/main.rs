//! The workspace's own tasks: `cargo xtask viewer` and `cargo demo`.

mod demo;
mod steps;
mod viewer;
mod wasm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Tasks of the Carillon workspace.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Options {
    /// Where cargo puts what it builds [default: target in the workspace]
    #[arg(long, env = "CARGO_TARGET_DIR")]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the viewer into target/viewer
    Viewer,
    /// Build the viewer and the demo, and run it; further arguments are the demo's
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let target = workspace.join(options.target_dir.unwrap_or_else(|| "target".into()));
    match options.task {
        Task::Viewer => viewer::build(workspace, &target).map(drop),
        Task::Demo { arguments } => demo::run_demo(workspace, &target, &arguments),
    }
}
