use std::fmt;
use std::net::SocketAddr;

use anstyle::{AnsiColor, Style};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const LINK: Style = AnsiColor::Cyan.on_default().underline();

/// The text that the demo prints when it is ready.
pub(crate) struct Banner {
    /// The front door.
    pub(crate) door: SocketAddr,
    /// Name and port of each replica.
    pub(crate) replicas: Vec<(String, SocketAddr)>,
    pub(crate) admin: SocketAddr,
    /// The engine that stores notifications.
    pub(crate) engine: String,
    /// Whether the door serves a viewer.
    pub(crate) viewer: bool,
    /// The command of this program.
    pub(crate) program: String,
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { door, replicas, admin, engine, viewer, program } = self;
        writeln!(f, "\n  {BOLD}Carillon{BOLD:#} {DIM}one keyboard, many bells{DIM:#}\n")?;
        if *viewer {
            writeln!(f, "  {BOLD}open{BOLD:#}      {LINK}http://{door}{LINK:#}, best in two windows\n")?;
        } else {
            writeln!(
                f,
                "  {BOLD}door{BOLD:#}      http://{door} without a viewer: `cargo demo` builds it\n"
            )?;
        }
        for (name, listen) in replicas {
            writeln!(f, "  {name:9} http://{listen}")?;
        }
        writeln!(f, "  {:9} http://{admin}/ready and /metrics", "admin")?;
        writeln!(f, "  {:9} {engine}\n", "engine")?;
        let at = if door.to_string() == "127.0.0.1:8080" {
            String::new()
        } else {
            format!(" --url http://{door}")
        };
        writeln!(f, "  {BOLD}try{BOLD:#}       {program} send{at} --severity success \"hello\"")?;
        writeln!(f, "            {program} tail{at}")?;
        writeln!(f, "            curl -N http://{door}/sse")?;
        writeln!(f, "\n  {DIM}Ctrl-C stops it{DIM:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(door: &str, viewer: bool) -> String {
        let banner = Banner {
            door: door.parse().unwrap(),
            replicas: vec![("bff-1".to_owned(), "127.0.0.1:8081".parse().unwrap())],
            admin: "127.0.0.1:9081".parse().unwrap(),
            engine: "in memory".to_owned(),
            viewer,
            program: "carillon".to_owned(),
        };
        anstream::adapter::strip_str(&banner.to_string()).to_string()
    }

    #[test]
    fn names_the_addresses_and_commands_to_try() {
        let text = text_of("127.0.0.1:8080", true);
        for line in [
            "open      http://127.0.0.1:8080,",
            "bff-1     http://127.0.0.1:8081\n",
            "engine    in memory\n",
            "carillon send --severity success \"hello\"\n",
            "curl -N http://127.0.0.1:8080/sse\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn shows_what_differs_from_the_defaults() {
        let text = text_of("127.0.0.1:9999", false);
        assert!(text.contains("without a viewer: `cargo demo` builds it"), "{text}");
        assert!(text.contains("carillon tail --url http://127.0.0.1:9999\n"), "{text}");
    }
}
