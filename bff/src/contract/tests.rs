use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::{asyncapi, openapi};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Otherwise the test writes the new document to the target folder, to be copied after an intended change.
#[test]
fn the_committed_documents_match_the_types() {
    let mut other = Vec::new();
    for (name, document) in [("openapi.json", openapi::document()), ("asyncapi.json", asyncapi::document())] {
        let made = format!("{}\n", serde_json::to_string_pretty(&document).unwrap());
        if fs::read_to_string(root().join("docs").join(name)).unwrap() != made {
            fs::write(root().join("target").join(name), made).unwrap();
            other.push(format!("look at the difference, then: cp target/{name} docs/{name}"));
        }
    }
    assert!(other.is_empty(), "the documents differ from the types; {other:#?}");
}

/// Everything below `value` that points somewhere.
fn pointers<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(to) if key == "$ref" => found.push(to),
                    value => pointers(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| pointers(item, found)),
        _ => {}
    }
}

#[test]
fn every_pointer_leads_somewhere() {
    for document in [openapi::document(), asyncapi::document()] {
        let mut found = Vec::new();
        pointers(&document, &mut found);
        assert!(found.len() > 10, "{found:?}");
        for to in found {
            let path = to.strip_prefix('#').unwrap();
            assert!(document.pointer(path).is_some(), "{to} leads nowhere");
        }
    }
}

#[test]
fn operations_have_ids_of_their_own_and_name_what_their_paths_take() {
    let document = openapi::document();
    let mut ids = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path}: its id is taken");
            assert!(!operation["responses"].as_object().unwrap().is_empty(), "{path} has no responses");
            assert!(operation.get("security").is_some(), "{path} has no security schemes");
        }
    }
}

/// Checks values against one message of the AsyncAPI document.
fn message(document: &Value, name: &str) -> Validator {
    let mut schema = document.clone();
    schema["$ref"] = json!(format!("#/components/messages/{name}/payload"));
    jsonschema::draft7::new(&schema).unwrap()
}

#[test]
fn the_samples_of_all_messages_are_as_described_and_nothing_else_is() {
    let document = asyncapi::document();
    let mut checked = 0;
    for side in ["server", "client"] {
        for file in fs::read_dir(root().join("protocol/golden").join(side)).unwrap() {
            let kind = file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
            let schema = message(&document, &format!("{side}-{kind}"));
            let sample = asyncapi::sample(side, &kind);
            if let Err(error) = schema.validate(&sample) {
                panic!("{side}/{kind}: {error}");
            }
            let required =
                document["components"]["messages"][format!("{side}-{kind}")]["payload"]["required"].clone();
            for field in required.as_array().unwrap() {
                let mut without = sample.clone();
                without.as_object_mut().unwrap().remove(field.as_str().unwrap());
                assert!(!schema.is_valid(&without), "{side}/{kind} without {field}");
            }
            let mut other = sample;
            other["type"] = json!("other");
            assert!(!schema.is_valid(&other), "{side}/{kind}: of another type");
            checked += 1;
        }
    }
    let described = document["components"]["messages"].as_object().unwrap();
    // Those of notify have no samples of ours: notify/socket.rs has them.
    assert_eq!(checked, described.keys().filter(|name| !name.starts_with("notify-")).count());
}

/// The paths in `.route("…"` of all sources.
fn routed(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            routed(&path, found);
        } else if !path.to_str().unwrap().ends_with("tests.rs") {
            let source = fs::read_to_string(&path).unwrap();
            let calls = source.split(".route(").skip(1).map(str::trim_start);
            found
                .extend(calls.filter_map(|rest| Some(rest.strip_prefix('"')?.split_once('"')?.0.to_owned())));
        }
    }
}

#[test]
fn every_route_is_described() {
    let mut found = BTreeSet::new();
    routed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    // What leads nowhere, the parts of the page, and what the port for operators answers.
    let elsewhere = ["/docs/start.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"];
    found.retain(|path| !["/api", "/api/{*path}"].contains(&path.as_str()));
    found.retain(|path| !elsewhere.contains(&path.as_str()) && !path.starts_with("/debug/"));
    let document = openapi::document();
    let described: BTreeSet<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(described, found);
}
