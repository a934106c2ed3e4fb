use clap::builder::Resettable;
use clap::{Arg, Command, Parser};

/// Parses the options of a program. An option whose variable is set and empty, as in a manifest that leaves it open, counts
/// as absent.
pub fn options<P: Parser>() -> P {
    let mut command = without_empty(P::command());
    let matches = command.get_matches_mut();
    P::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

fn without_empty(command: Command) -> Command {
    let is_empty = |arg: &Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty)
}
