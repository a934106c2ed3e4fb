//! The tables of docs/configuration.md, generated from the options of all programs.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::Cli;

/// The generated part of the page is between these lines; all other lines are written by hand.
const BEGIN: &str = "<!-- made from the options of ";
const END: &str = "<!-- made until here -->";

#[test]
fn the_configuration_page_has_every_option_as_the_programs_have_it() {
    let page = page();
    let made = regenerated(&page);
    if page != made {
        std::fs::write(root().join("target/configuration.md"), &made).unwrap();
        let other = page.lines().zip(made.lines()).find(|(page, made)| page != made);
        panic!(
            "docs/configuration.md differs from the options of the programs, first at {other:#?}\n\
             Look at the difference, then: cp target/configuration.md docs/configuration.md"
        );
    }
}

#[test]
fn every_program_and_subcommand_is_on_the_page_and_every_option_has_a_help_text() {
    let page = page();
    for program in programs() {
        let name = program.get_name();
        let has_options = shown(&program).next().is_some();
        let parts = has_options.then_some((name.to_owned(), &program));
        let subcommands = program.get_subcommands().map(|part| (format!("{name} {}", part.get_name()), part));
        for (name, command) in parts.into_iter().chain(subcommands) {
            assert!(
                page.contains(&format!("{BEGIN}{name} -->\n")),
                "docs/configuration.md has no place for {name}"
            );
            assert!(command.get_about().is_some(), "{name}");
            for arg in shown(command) {
                assert!(!help(arg).is_empty(), "{name}: {}", arg.get_id());
            }
        }
    }
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/configuration.md")).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn programs() -> [Command; 3] {
    [
        carillon_bff::command_line::CommandLine::command(),
        carillon_producer::Options::command(),
        Cli::command(),
    ]
}

/// Returns the page with its tables generated again.
fn regenerated(page: &str) -> String {
    let mut made = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        made.push_str(line);
        made.push('\n');
        let Some(name) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        lines.by_ref().find(|line| *line == END).expect("each begin has an end");
        let mut path = name.split(' ');
        let first = path.next();
        let program = programs().into_iter().find(|program| Some(program.get_name()) == first);
        let mut command = program.expect("a program of ours");
        for part in path {
            command = command.find_subcommand(part).expect("a subcommand of ours").clone();
        }
        write!(made, "\n{}\n{END}\n", tables(&command)).unwrap();
    }
    made
}

/// Returns what the command does, then a table for each group of its options.
fn tables(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = format!("{about}.\n");
    let mut headings = Vec::new();
    for arg in shown(command) {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            write!(text, "\n### {heading}\n").unwrap();
        }
        text.push_str("\n| option | variable | default | |\n| --- | --- | --- | --- |\n");
        for arg in shown(command).filter(|arg| arg.get_help_heading() == heading) {
            text.push_str(&row(arg));
        }
    }
    text
}

fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str()))
}

fn row(arg: &Arg) -> String {
    let name = match arg.get_long() {
        Some(long) => format!("`--{long}`"),
        None => format!("`{}`", arg.get_id().as_str().to_uppercase()),
    };
    let variable =
        arg.get_env().map(|variable| format!("`{}`", variable.to_str().unwrap())).unwrap_or_default();
    let help = help(arg);
    // If the default is not a single value, the help text names it at its end.
    let (help, named) = match help.strip_suffix(']').and_then(|help| help.rsplit_once(" [default: ")) {
        Some((help, named)) => (help, Some(named)),
        None => (help.as_str(), None),
    };
    let help = with_links(help) + &values(arg);
    let row = format!("| {name} | {variable} | {} | {} |\n", default(arg, named), help.replace('|', "\\|"));
    row.replace("|  |", "| |").replace("|  |", "| |")
}

fn default(arg: &Arg, named: Option<&str>) -> String {
    if let Some(named) = named {
        let is_one_value = !named.contains(' ') && named.contains(|one: char| one.is_ascii_digit());
        return if is_one_value { format!("`{named}`") } else { named.to_owned() };
    }
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return "off".to_owned();
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
    match defaults.join(",") {
        none if none.is_empty() => none,
        defaults => format!("`{defaults}`"),
    }
}

fn help(arg: &Arg) -> String {
    arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default()
}

/// Returns the values of an option with a few allowed ones, each with its help text.
fn values(arg: &Arg) -> String {
    let explained = arg.get_possible_values().into_iter().filter(|value| value.get_help().is_some());
    explained.map(|value| format!(". `{}`: {}", value.get_name(), value.get_help().unwrap())).collect()
}

/// Makes links of the pages of docs/ that a text names.
fn with_links(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.strip_prefix("docs/") {
        Some(path) => format!("[{path}]({path})"),
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}
