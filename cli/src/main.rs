//! The `carillon` program: the whole product in one process, and a publisher and a reader for the terminal.

mod address;
mod banner;
#[cfg(test)]
mod configuration;
mod demo;
mod door;
mod http;
mod plain;
mod printer;
mod send;
mod socket;
mod sticky;
mod tail;
mod tls;

use std::process::ExitCode;

use carillon_service::{options, run};
use clap::{Parser, Subcommand};

/// Real-time notifications: one keyboard, many bells.
#[derive(Parser)]
#[command(name = "carillon", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a producer, three replicas and a front door in this process
    Demo(demo::Options),
    /// Sends a notification and prints its id
    Send(send::Options),
    /// Prints notifications as they come, and resumes after a lost connection
    Tail(tail::Options),
}

fn main() -> ExitCode {
    match options::<Cli>().command {
        Command::Demo(options) => run(demo::demo(options)),
        Command::Send(options) => run(send::send(options)),
        Command::Tail(options) => run(tail::tail(options)),
    }
}
