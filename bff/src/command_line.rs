//! The command line of the program `bff`: the options of a replica, and its subcommands.

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::upkeep::dead::DeadOptions;
use crate::upkeep::rotate::RotateOptions;

/// Claims notifications and delivers them to WebSocket and SSE readers.
#[derive(Parser)]
#[command(name = "bff", version)]
pub struct CommandLine {
    /// The subcommand, instead of running a replica.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of the replica.
    #[command(flatten)]
    pub config: Config,
}

/// The subcommands of the program.
#[derive(Subcommand)]
pub enum Command {
    /// Checks that the replica on --admin-listen is ready, for container health checks
    Check,
    /// Ends all sessions, and seals later ones with a new key
    RotateSessionKey(RotateOptions),
    /// Lists entries that could not be read or delivered, and puts single ones back or drops them
    Dead(DeadOptions),
}
