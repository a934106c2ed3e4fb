//! Checks the documents against each other and the tree: the links and names in them must exist.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders with built or fetched files.
const SKIPPED: [&str; 5] = ["target", "node_modules", "dist", ".git", "corpus"];
/// Files that may name a page of docs/, by how their names end.
const SOURCES: [&str; 7] = ["rs", "lua", "json", "html", "py", "yaml", "toml"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns all files below the root, by their paths from there, with a wanted extension.
fn files(is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let (mut folders, mut found) = (vec![root()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !SKIPPED.contains(&name) {
                folders.push(path);
            } else if is_wanted(path.extension().and_then(|one| one.to_str()).unwrap_or_default()) {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// Returns the lines of a page outside of its examples.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut is_example = false;
    page.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_example ^= is_fence;
        !is_example && !is_fence
    })
}

/// Returns the anchors that GitHub gives the headings of a page.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page).filter(|line| line.starts_with('#'));
    let letters = |heading: &str| {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|one| one.is_alphanumeric() || " -_".contains(*one))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    headings.map(|heading| letters(heading.trim_start_matches('#').trim())).collect()
}

/// Returns the fault of a link from a page in `folder`, if it has one.
fn fault(folder: &Path, link: &str) -> Option<String> {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let to = folder.join(path);
    if !to.exists() {
        return Some(format!("{link}: there is no such file"));
    }
    let page = std::fs::read_to_string(to).unwrap_or_default();
    let is_missing = anchor.is_some_and(|anchor| !anchors(&page).contains(anchor));
    is_missing.then(|| format!("{link}: the page has no such heading"))
}

/// Fails with one line for each fault.
fn none(faults: &BTreeSet<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.iter().cloned().collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let (mut faults, mut links) = (BTreeSet::new(), 0);
    for path in files(|extension| extension == "md") {
        let page = text(&path);
        let folder = root().join(&path).parent().unwrap().to_owned();
        let prose = prose(&page).collect::<Vec<_>>().join("\n");
        for link in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let fault = match link.strip_prefix('#') {
                Some(anchor) if anchors(&page).contains(anchor) => None,
                Some(_) => Some(format!("{link}: the page has no such heading")),
                None => fault(&folder, link),
            };
            faults.extend(fault.map(|fault| format!("{path}: {fault}")));
        }
    }
    assert!(links > 50, "the pages are found");
    none(&faults);
}

#[test]
fn every_page_that_the_sources_name_is_there() {
    let (mut faults, mut named) = (BTreeSet::new(), 0);
    let is_script = |path: &String| path.starts_with("scripts/");
    let sources = files(|extension| SOURCES.contains(&extension));
    for path in sources.into_iter().chain(files(str::is_empty).into_iter().filter(is_script)) {
        let text = text(&path);
        for rest in text.split("docs/").skip(1) {
            let is_part = |one: char| one.is_alphanumeric() || "/-_.#".contains(one);
            let link = rest.split(|one| !is_part(one)).next().unwrap().trim_end_matches(['.', '#']);
            if link.ends_with(".md") || link.contains(".md#") {
                named += 1;
                faults.extend(fault(&root().join("docs"), link).map(|fault| format!("{path}: docs/{fault}")));
            }
        }
    }
    assert!(named > 5, "the sources are found");
    none(&faults);
}

#[test]
fn every_file_that_the_map_names_is_there() {
    let map = text("ARCHITECTURE.md");
    let named = map.split('`').skip(1).step_by(2).filter(|word| word.contains("/src/"));
    let faults: BTreeSet<_> = named
        .filter(|path| !root().join(path).exists())
        .map(|path| format!("ARCHITECTURE.md: there is no {path}"))
        .collect();
    none(&faults);
}

#[test]
fn words_are_in_order_and_decisions_have_a_number_each() {
    let glossary = text("docs/glossary.md");
    let words: Vec<_> =
        glossary.lines().filter_map(|line| line.strip_prefix("| **")?.split("**").next()).collect();
    assert!(words.len() > 20 && words.is_sorted(), "docs/glossary.md: {words:?}");
    let mut numbers: Vec<_> = files(|extension| extension == "md")
        .into_iter()
        .filter_map(|path| {
            path.strip_prefix("docs/decisions/").map(|name| name[..4].parse::<usize>().unwrap())
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}
