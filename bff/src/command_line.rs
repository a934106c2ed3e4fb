//! What the program `bff` takes: the options of a replica, and its subcommands.

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::dead::DeadOptions;
use crate::rotate::RotateOptions;

/// Races for notifications and brings them to WebSocket and SSE readers.
#[derive(Parser)]
#[command(name = "bff", version)]
pub struct CommandLine {
    /// What to do instead of running a replica.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of the replica.
    #[command(flatten)]
    pub config: Config,
}

/// What the program does instead of running a replica.
#[derive(Subcommand)]
pub enum Command {
    /// Checks that the replica on --admin-listen is ready, for container health checks
    Check,
    /// Ends all sessions, and seals later ones with a new key
    RotateSessionKey(RotateOptions),
    /// Lists entries that could not be read or delivered, and puts single ones back or drops them
    Dead(DeadOptions),
}
