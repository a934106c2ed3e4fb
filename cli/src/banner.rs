use std::fmt;
use std::net::SocketAddr;

use anstyle::{AnsiColor, Style};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const LINK: Style = AnsiColor::Cyan.on_default().underline();

/// What the demo says when it is ready.
pub(crate) struct Banner {
    /// The front door.
    pub(crate) door: SocketAddr,
    /// Name and port of each replica.
    pub(crate) replicas: Vec<(String, SocketAddr)>,
    pub(crate) admin: SocketAddr,
    /// Where notifications are kept.
    pub(crate) engine: String,
    /// Whether the door has a viewer to show.
    pub(crate) viewer: bool,
    /// How this program is called.
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

    fn said(door: &str, viewer: bool) -> String {
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
    fn names_what_runs_and_what_to_try() {
        let said = said("127.0.0.1:8080", true);
        for line in [
            "open      http://127.0.0.1:8080,",
            "bff-1     http://127.0.0.1:8081\n",
            "engine    in memory\n",
            "carillon send --severity success \"hello\"\n",
            "curl -N http://127.0.0.1:8080/sse\n",
        ] {
            assert!(said.contains(line), "{line} is not in {said}");
        }
    }

    #[test]
    fn tells_what_is_not_as_usual() {
        let said = said("127.0.0.1:9999", false);
        assert!(said.contains("without a viewer: `cargo demo` builds it"), "{said}");
        assert!(said.contains("carillon tail --url http://127.0.0.1:9999\n"), "{said}");
    }
}
