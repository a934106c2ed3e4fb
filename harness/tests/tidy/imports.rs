//! Rules of imports between files: there are no circles, and a room of `bff` imports from rooms below it only.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, metadata, none, short, sources};

/// The rooms of `bff`, files at its top among them, and the rooms that each may import from, besides `metrics`, `refusal`,
/// `request` and `clock`, which are for all. They stand in order: a room imports from rooms below it alone. A new edge is
/// a decision: see ARCHITECTURE.md.
const ROOMS: [(&str, &[&str]); 24] = [
    ("replica", &[]),
    ("router", &[]),
    ("command_line", &["config", "upkeep"]),
    ("config", &["application", "people", "gate", "upkeep", "limits"]),
    ("contract", &["people", "jobs", "gate"]),
    ("compat", &["sockets", "user_state", "gate"]),
    ("sockets", &["people", "application", "gate", "delivery", "limits"]),
    ("notifications", &["people", "gate", "delivery", "limits", "entry_refused"]),
    ("people", &["gate", "delivery", "upkeep", "limits", "entry_refused"]),
    ("jobs", &["gate", "upkeep"]),
    ("application", &["gate", "upkeep", "limits"]),
    ("user_state", &["gate", "delivery"]),
    ("broker_events", &["gate", "delivery"]),
    ("gate", &["delivery", "limits"]),
    ("delivery", &["limits"]),
    ("upkeep", &[]),
    ("limits", &[]),
    ("entry_refused", &[]),
    ("viewer", &[]),
    ("request", &[]),
    ("refusal", &[]),
    ("metrics", &[]),
    ("clock", &[]),
    ("random", &[]),
];
/// The modules that every room may import from.
const FOR_ALL: [&str; 5] = ["metrics", "refusal", "request", "clock", "random"];
/// What wires the rooms imports from all that stand below it.
const WIRING: [&str; 2] = ["replica", "router"];
/// The modules that each module of a crate's sources imports from, by name. A module and those within it are one from the
/// outside: what a module takes from those within it is no edge.
fn imports(sources: &[Source], owner: &str) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeMap<String, &Source> = sources
        .iter()
        .filter(|source| !source.is_for_tests())
        .filter_map(|source| {
            source.module().filter(|(of, _)| of == owner).map(|(_, module)| (module, source))
        })
        .collect();
    let resolve = |path: &[&str]| {
        (0..=path.len()).rev().map(|length| path[..length].join("::")).find(|name| modules.contains_key(name))
    };
    let edges = |(module, source): (&String, &&Source)| {
        let own: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
        let code: String = source.code().flat_map(|(_, line)| [line, "\n"]).collect();
        let found = paths(&code).into_iter().filter_map(|path| {
            let mut parts: Vec<&str> = path.split("::").collect();
            let mut from = match parts.remove(0) {
                "crate" => vec![],
                "super" => own[..own.len().saturating_sub(1)].to_vec(),
                _ => return None,
            };
            while parts.first() == Some(&"super") {
                parts.remove(0);
                from.pop();
            }
            from.extend(parts);
            resolve(&from)
        });
        let is_within = |other: &String| module.is_empty() || other.starts_with(&format!("{module}::"));
        (module.clone(), found.filter(|other| other != module && !is_within(other)).collect())
    };
    modules.iter().map(edges).collect()
}

/// The paths that begin with `crate` or `super`, those of groups in `use` among them.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|sign| !sign.is_alphanumeric() && sign != '_' && sign != ':') {
                expand(&code[at..], "", &mut found);
            }
        }
    }
    found
}

/// Adds the paths of one tree of a `use`, or one path, and returns how many bytes it takes.
fn expand(text: &str, before: &str, found: &mut Vec<String>) -> usize {
    let is_path = |sign: char| sign.is_alphanumeric() || sign == '_' || sign == ':';
    let end = text.find(|sign| !is_path(sign)).unwrap_or(text.len());
    let path = format!("{before}{}", &text[..end]);
    if !text[end..].starts_with('{') {
        found.push(path);
        return end;
    }
    let mut at = end + 1;
    loop {
        at += text[at..].len() - text[at..].trim_start_matches([' ', '\n', ',']).len();
        if at >= text.len() || text[at..].starts_with('}') {
            return at + 1;
        }
        let taken = expand(&text[at..], &path, found);
        // A name after `as`, or a star.
        let rest = text[at + taken..].find([',', '}']).unwrap_or(0);
        at += taken + rest;
    }
}

/// One circle of imports, if there is any.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        at: &'a str,
        edges: &'a BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(begin) = way.iter().position(|one| *one == at) {
            return Some(way[begin..].iter().map(|one| (*one).to_owned()).collect());
        }
        if !done.insert(at) {
            return None;
        }
        way.push(at);
        let found = edges.get(at).into_iter().flatten().find_map(|next| visit(next, edges, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|at| visit(at, edges, &mut Vec::new(), &mut done))
}

#[test]
fn files_import_each_other_in_no_circle() {
    let (sources, mut faults) = (sources(), BTreeSet::new());
    for package in &metadata().packages {
        let owner = short(&package.name);
        if let Some(circle) = circle(&imports(&sources, owner)) {
            faults.insert(format!("{owner}: {} and back again", circle.join(" → ")));
        }
    }
    none(&faults);
}

#[test]
fn rooms_import_downward_only() {
    let (edges, mut faults) = (imports(&sources(), "bff"), BTreeSet::new());
    let room = |module: &str| module.split("::").next().unwrap().to_owned();
    let order = |name: &str| ROOMS.iter().position(|(room, _)| *room == name);
    assert!(edges.len() > 80, "the files are found: {}", edges.len());
    for (module, others) in edges.iter().filter(|(module, _)| !module.is_empty()) {
        let from = room(module);
        let Some(at) = order(&from) else {
            faults.insert(format!("{from} is not in the table of rooms in harness/tests/tidy/imports.rs"));
            continue;
        };
        for to in
            others.iter().map(|other| room(other)).filter(|to| *to != from && !FOR_ALL.contains(&to.as_str()))
        {
            let is_below = order(&to).is_some_and(|below| below > at);
            let is_allowed = WIRING.contains(&from.as_str()) || ROOMS[at].1.contains(&to.as_str());
            if !is_below || !is_allowed {
                faults.insert(format!("bff/src: {module} may not import from {to}"));
            }
        }
    }
    none(&faults);
}

#[test]
fn the_rules_see_what_they_guard() {
    let circular =
        [("a", "use crate::b::{self, C as D};"), ("b", "use super::c::E;"), ("c", "fn f(x: crate::a::X) {}")];
    let source =
        |name: &str, text: &str| Source { path: format!("bff/src/{name}.rs"), text: text.to_owned() };
    let mut sources: Vec<_> = circular.map(|(name, text)| source(name, text)).into();
    let found = circle(&imports(&sources, "bff")).unwrap();
    assert_eq!(BTreeSet::from_iter(found), BTreeSet::from(["a", "b", "c"].map(str::to_owned)));
    sources[2] = source("c", "// crate::a::X\n#[cfg(test)]\nmod tests {\n    use crate::a::X;\n}\n");
    assert_eq!(circle(&imports(&sources, "bff")), None);
    sources[2] = source("c", "#[cfg(test)]\nfn g() {\n}\n\nfn f(x: crate::a::X) {}\n");
    assert!(circle(&imports(&sources, "bff")).is_some(), "what stands after a test counts");
    let nested = source("c", "use crate::{d, a::{b, X}};");
    assert_eq!(paths(&nested.text), ["crate::d", "crate::a::b", "crate::a::X"]);
}
