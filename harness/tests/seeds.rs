//! `docs/seeds.md` lists where each feature of five older systems is, and which test shows it. All the names in it must
//! exist.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const SYSTEMS: [&str; 5] =
    ["realtime-microservices", "notify", "notifier", "distriSocks", "Switchboard Operator"];
/// Minimum rows of a system; fewer would leave features out.
const ROWS_MIN: usize = 6;
/// The beginning of a row without a test, for a feature that is absent.
const ABSENT: &str = "Not here";

struct Row {
    line: usize,
    system: String,
    there: String,
    here: String,
    shown_by: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The rows of all tables, without their heads.
fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut system = String::new();
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(heading) = text.strip_prefix("## ") {
            system = heading.trim_start_matches('[').split(']').next().unwrap().to_owned();
        }
        let is_head = text.starts_with("| there |") || text.starts_with("| --- |");
        if !text.starts_with('|') || is_head {
            continue;
        }
        let cells: Vec<_> = text.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let [there, here, shown_by] = cells.try_into().unwrap_or_else(|cells| {
            panic!("docs/seeds.md:{line}: a row has three cells, and this one {cells:?}")
        });
        rows.push(Row { line, system: system.clone(), there, here, shown_by });
    }
    rows
}

/// Returns the words in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a file has a test of this name that runs.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let function = format!("fn {name}(");
    let Some(at) = lines.iter().position(|line| line.contains(&function)) else { return false };
    let attributes: Vec<_> = lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).collect();
    let is_test = attributes.iter().any(|line| line.contains("test]") || line.contains("test("));
    // A suite that runs on both engines names its tests in a macro.
    let in_suite = text.split_once("on_both_engines!(").and_then(|(_, rest)| rest.split_once(");"));
    let in_suite = in_suite.is_some_and(|(names, _)| names.split(',').any(|one| one.trim() == name));
    (is_test || in_suite) && !attributes.iter().any(|line| line.starts_with("#[ignore"))
}

/// Returns the faults of the tests that a row names.
fn faults(row: &Row) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut file, mut tests) = (None, 0);
    for word in quoted(&row.shown_by) {
        if word.contains('/') {
            file = std::fs::read_to_string(root().join(word)).ok();
            if file.is_none() {
                faults.push(format!("there is no {word}"));
            }
        } else if file.as_deref().is_some_and(|text| has_test(text, word)) {
            tests += 1;
        } else {
            faults.push(format!("there is no test {word} in the file before it"));
        }
    }
    for link in row.here.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = link.split('#').next().unwrap();
        if !path.starts_with("http") && !root().join("docs").join(path).exists() {
            faults.push(format!("there is no docs/{path}"));
        }
    }
    if row.there.is_empty() || row.here.is_empty() {
        faults.push("an empty cell".to_owned());
    }
    if (tests == 0) != row.here.starts_with(ABSENT) {
        faults.push(format!("a row names a test, or begins with '{ABSENT}'"));
    }
    faults
}

#[test]
fn everything_that_is_named_is_there() {
    let text = std::fs::read_to_string(root().join("docs/seeds.md")).unwrap();
    let rows = rows(&text);
    let faults: BTreeSet<_> = rows
        .iter()
        .flat_map(|row| faults(row).into_iter().map(|fault| format!("docs/seeds.md:{}: {fault}", row.line)))
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.into_iter().collect::<Vec<_>>().join("\n"));
    for system in SYSTEMS {
        let count = rows.iter().filter(|row| row.system == system).count();
        assert!(count >= ROWS_MIN, "{system} has {count} rows, at least {ROWS_MIN}");
    }
    assert!(rows.iter().all(|row| SYSTEMS.contains(&row.system.as_str())));
}

#[test]
fn what_is_not_there_is_found() {
    let row = |here: &str, shown_by: &str| Row {
        line: 1,
        system: String::new(),
        there: "x".to_owned(),
        here: here.to_owned(),
        shown_by: shown_by.to_owned(),
    };
    let good = "`harness/tests/seeds.rs` `what_is_not_there_is_found`";
    assert!(faults(&row("[here](seeds.md)", good)).is_empty());
    assert!(faults(&row("Not here: why", "–")).is_empty());
    for (here, shown_by) in [
        ("x", "–"),
        ("Not here", good),
        ("[here](nothing.md)", good),
        ("x", "`harness/tests/nothing.rs` `what_is_not_there_is_found`"),
        ("x", "`harness/tests/seeds.rs` `rows`"),
        ("x", "`harness/tests/seeds.rs` `what_is_not_there`"),
        ("x", "`what_is_not_there_is_found`"),
    ] {
        assert!(!faults(&row(here, shown_by)).is_empty(), "{here} {shown_by}");
    }
    let suite = "on_both_engines!(\n    first,\n    second,\n);\n\nasync fn first(bench: Bench) {\n";
    assert!(has_test(suite, "first") && !has_test(suite, "second"));
    assert!(!has_test("#[test]\n#[ignore]\nfn slow() {", "slow"));
}
