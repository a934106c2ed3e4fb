//! Rules about the code, as tests: a reviewer would otherwise repeat them again and again.
#![allow(clippy::unwrap_used, reason = "a test")]

mod imports;
mod titles;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// The crates of ours that each crate may depend on: `protocol ← broker ← {producer, bff} ← cli`,
/// `protocol ← frontend`, `protocol ← service ← {producer, auth, bff, cli}`, `auth ← {bff, cli}`. A new edge is a
/// decision: write it down in docs/decisions/ and then here. Development dependencies are free.
const EDGES: [(&str, &[&str]); 12] = [
    ("protocol", &[]),
    ("broker", &["protocol"]),
    ("service", &["protocol"]),
    ("producer", &["protocol", "broker", "service"]),
    ("auth", &["protocol", "service"]),
    ("bff", &["protocol", "broker", "service", "auth"]),
    ("frontend", &["protocol"]),
    ("client", &["protocol"]),
    ("cli", &["protocol", "client", "broker", "service", "auth", "producer", "bff"]),
    ("xtask", &[]),
    ("simulator", &["protocol", "client", "broker", "service", "auth", "bff", "frontend", "harness"]),
    ("harness", &["protocol", "client"]),
];
/// External crates, with all whose names continue with a dash, that only one of our crates may depend on.
const OWNERS: [(&str, &str); 6] = [
    ("redis", "broker"),
    ("leptos", "frontend"),
    ("gloo", "frontend"),
    ("jsonwebtoken", "auth"),
    ("chacha20poly1305", "auth"),
    ("spki", "auth"),
];
/// The dependencies of `protocol`, which has to stay small in the browser.
const PROTOCOL_NEEDS: [&str; 2] = ["serde", "serde_json"];
/// The dependencies of `protocol` that a feature enables: `schema` describes the messages in docs/openapi.json and
/// docs/asyncapi.json, and only tests enable it.
const PROTOCOL_MAY_NEED: [&str; 1] = ["schemars"];
/// Names of crates that would collect anything.
const NO_NAMES: [&str; 4] = ["common", "shared", "utils", "types"];
/// Maximum lines of a source file, without its tests.
const FILE_MAX_LINES: usize = 400;
/// Lines of unit tests at the end of the file that they test. Longer ones are in `tests.rs` in the folder of that file.
const INLINE_TESTS_MAX_LINES: usize = 150;

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A package's name without our prefix.
fn short(name: &str) -> &str {
    name.strip_prefix("carillon-").unwrap_or(name)
}

fn needs(package: &Package) -> impl Iterator<Item = &str> {
    let real =
        package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    real.map(|dependency| dependency.name.as_str())
}

/// A source file, by its path from the root.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(root().join(path))
            .unwrap_or_else(|error| panic!("{path} should exist, by design: {error}"));
        Self { path: path.to_owned(), text }
    }

    /// Returns each line of code with its number, without comments and code for tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let for_tests = for_tests(&self.text);
        (1..)
            .zip(self.text.lines())
            .filter(move |(number, line)| !line.trim_start().starts_with("//") && !for_tests.contains(number))
    }

    /// Returns its module from the root of its crate, as `a::b`; empty for the root itself. `None` for a file outside of a
    /// crate's modules, such as a program or an integration test.
    fn module(&self) -> Option<(String, String)> {
        let (owner, path) = self.path.split_once("/src/")?;
        let path = path.strip_suffix(".rs")?;
        let path = path.strip_suffix("/mod").unwrap_or(path).replace('/', "::");
        (path != "main").then(|| (owner.to_owned(), if path == "lib" { String::new() } else { path }))
    }

    /// Whether all of it is compiled for tests alone.
    fn is_for_tests(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Returns each line with its number, including tests, without comments.
    fn all(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Returns the numbers of the lines that `#[cfg(test)]` compiles for tests only: the item after it, to its end.
fn for_tests(text: &str) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut lines = (1..).zip(text.lines()).peekable();
    while let Some((number, line)) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            continue;
        }
        found.insert(number);
        let indent = line.len() - line.trim_start().len();
        for (number, line) in lines.by_ref() {
            found.insert(number);
            // rustfmt closes an item where it began.
            let is_at_start = line.len() - line.trim_start().len() == indent;
            if is_at_start && (line.ends_with(';') || line.trim_end_matches([',', ';']).ends_with('}')) {
                break;
            }
        }
    }
    found
}

/// All Rust files of the workspace's members.
fn sources() -> Vec<Source> {
    let mut folders: Vec<_> = metadata()
        .packages
        .iter()
        .map(|package| package.manifest_path.parent().unwrap().as_std_path().to_owned())
        .collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !["target", "node_modules", "dist"].contains(&name.as_str()) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                sources.push(Source::read(&path));
            }
        }
    }
    assert!(sources.len() > 20, "the sources are found");
    sources
}

/// Fails with one line for each fault.
fn none(faults: &BTreeSet<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.iter().cloned().collect::<Vec<_>>().join("\n"));
}

#[test]
fn crates_depend_on_each_other_one_way() {
    let mut faults = BTreeSet::new();
    let metadata = metadata();
    let ours: BTreeSet<_> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    for package in &metadata.packages {
        let name = short(&package.name);
        let Some((_, allowed)) = EDGES.iter().find(|(member, _)| *member == name) else {
            faults.insert(format!("{name} is not in the map of crates in harness/tests/tidy/main.rs"));
            continue;
        };
        for need in needs(package).filter(|need| ours.contains(need)).map(short) {
            if !allowed.contains(&need) {
                faults.insert(format!("{name} may not depend on {need}"));
            }
        }
    }
    none(&faults);
}

#[test]
fn each_heavy_dependency_has_one_owner() {
    let mut faults = BTreeSet::new();
    for package in &metadata().packages {
        for dependency in &package.dependencies {
            for (prefix, owner) in OWNERS {
                let is_it = dependency.name == prefix
                    || dependency.name.starts_with(&format!("{prefix}-"))
                    || dependency.name.starts_with(&format!("{prefix}_"));
                if is_it && short(&package.name) != owner {
                    faults.insert(format!(
                        "{} may not depend on {}: only {owner} does",
                        package.name, dependency.name
                    ));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn protocol_stays_small() {
    let metadata = metadata();
    let protocol = metadata.packages.iter().find(|package| short(&package.name) == "protocol").unwrap();
    let named = |optional: bool| -> BTreeSet<_> {
        let all = protocol.dependencies.iter().filter(|dependency| dependency.optional == optional);
        all.filter(|dependency| dependency.kind != DependencyKind::Development)
            .map(|dependency| dependency.name.as_str())
            .collect()
    };
    assert_eq!(named(false), BTreeSet::from(PROTOCOL_NEEDS));
    assert_eq!(named(true), BTreeSet::from(PROTOCOL_MAY_NEED));
    assert!(!protocol.features.contains_key("default"), "the viewer takes protocol as it is");
    for package in &metadata.packages {
        let asks = |kind| {
            let ours =
                package.dependencies.iter().filter(|dependency| dependency.name == protocol.name.as_str());
            ours.filter(move |dependency| dependency.kind == kind)
                .any(|dependency| !dependency.features.is_empty())
        };
        assert!(!asks(DependencyKind::Normal), "{}: only tests describe the messages", package.name);
    }
}

#[test]
fn crates_are_named_for_a_thing() {
    for package in &metadata().packages {
        let name = short(&package.name);
        assert!(!NO_NAMES.contains(&name), "{name} could mean anything: name the crate for its contents");
    }
}

#[test]
fn the_hub_is_synchronous() {
    let files = sources().into_iter().filter(|source| source.path.starts_with("bff/src/delivery/hub"));
    let files: Vec<_> = files.filter(|source| !source.is_for_tests()).collect();
    assert!(files.len() > 4, "the hub has several files");
    let mut faults = BTreeSet::new();
    for source in &files {
        for (number, line) in source.code() {
            let is_async =
                ["async fn", "async move", "async {", ".await"].iter().any(|word| line.contains(word));
            if is_async {
                faults.insert(format!("{}:{number}: the hub does no I/O and never waits", source.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn what_is_genuine_depends_on_no_clock_and_no_redis() {
    let metadata = metadata();
    let auth = metadata.packages.iter().find(|package| short(&package.name) == "auth").unwrap();
    for need in needs(auth) {
        assert!(
            !["carillon-broker", "carillon-bff", "metrics"].contains(&need),
            "auth may not depend on {need}"
        );
    }
    let files: Vec<_> = sources().into_iter().filter(|source| source.path.starts_with("auth/src/")).collect();
    assert!(files.len() > 10, "auth has several files");
    for source in &files {
        for (number, line) in source.code() {
            let is_clock = line.contains("SystemTime");
            assert!(!is_clock, "{}:{number}: callers pass the time", source.path);
        }
    }
}

#[test]
fn the_inbox_is_pure() {
    let parts = sources().into_iter().filter(|source| source.path.starts_with("frontend/src/inbox/"));
    for source in parts.chain([Source::read("frontend/src/inbox.rs")]) {
        for (number, line) in source.code() {
            for word in ["std::net", "tokio", "web_sys", "gloo", "js_sys", "wasm_bindgen"] {
                assert!(!line.contains(word), "{}:{number}: the inbox does no I/O ({word})", source.path);
            }
        }
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    let faults = sources()
        .iter()
        .filter_map(|source| {
            let lines = source.text.lines().count() - for_tests(&source.text).len();
            let fault = format!("{}: {lines} lines, at most {FILE_MAX_LINES}", source.path);
            (lines > FILE_MAX_LINES).then_some(fault)
        })
        .collect();
    none(&faults);
}

#[test]
fn unit_tests_end_their_file_or_are_in_its_folder() {
    let mut faults = BTreeSet::new();
    for source in sources().iter().filter(|source| source.path.contains("/src/")) {
        if source.path.ends_with("_tests.rs") {
            faults.insert(format!("{}: unit tests of a file x.rs are in it or in x/tests.rs", source.path));
        }
        if let Some((number, _)) = source.all().find(|(_, line)| line.contains(concat!("#[", "path"))) {
            faults.insert(format!("{}:{number}: a module is where its name leads", source.path));
        }
        if let Some((_, tests)) = source.text.split_once("#[cfg(test)]\nmod tests {\n") {
            let lines = tests.lines().count();
            if lines > INLINE_TESTS_MAX_LINES {
                let file = source.path.trim_end_matches(".rs");
                faults.insert(format!("{}: {lines} lines of tests belong into {file}/tests.rs", source.path));
            }
        }
    }
    none(&faults);
}

#[test]
fn queues_are_bounded_tasks_awaited_and_the_environment_read_in_one_place() {
    let mut faults = BTreeSet::new();
    for source in sources() {
        let owner = source.path.split('/').next().unwrap();
        for (number, line) in source.all() {
            let at = format!("{}:{number}", source.path);
            if line.contains(concat!("unbounded", "_channel"))
                || line.contains(concat!("Unbounded", "Sender"))
            {
                faults.insert(format!("{at}: every queue has a bound, with a name"));
            }
            if line.contains(concat!("tokio::", "spawn(")) {
                faults.insert(format!(
                    "{at}: the failure of a task without a waiter goes unnoticed: use `Tasks` or a `TaskTracker`"
                ));
            }
            if line.contains(concat!("env::", "var(")) && owner != "service" {
                faults
                    .insert(format!("{at}: only `service` reads the environment; options come through clap"));
            }
        }
    }
    none(&faults);
}

#[test]
fn what_a_replica_holds_in_sum_fits_into_the_memory_that_it_is_given() {
    let limits = std::fs::read_to_string(root().join("docs/limits.md")).unwrap();
    let section = limits.split("## What a replica holds in sum").nth(1).unwrap();
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let figures: Vec<u64> = rows
        .filter_map(|row| row.trim_matches('|').rsplit('|').next()?.trim().trim_matches('*').parse().ok())
        .collect();
    let (sum, rows) = figures.split_last().unwrap();
    assert!(rows.len() > 10 && rows.iter().sum::<u64>() == *sum, "{figures:?}");
    let manifest = std::fs::read_to_string(root().join("k8s/base/bff.yaml")).unwrap();
    let memory = manifest.split("limits:").nth(1).unwrap().split("memory: ").nth(1).unwrap();
    let memory: u64 = memory.split("Mi").next().unwrap().parse().unwrap();
    assert!(*sum < memory, "{sum} MiB in {memory} MiB");
}
