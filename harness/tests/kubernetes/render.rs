use std::path::{Path, PathBuf};
use std::process::Command;

use carillon_harness::need;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// From this version of kubectl on, its kustomize reads a folder under `resources`.
const MODERN_MINOR: u32 = 21;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The names of all overlays.
pub(crate) fn overlays() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("k8s/overlays")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What `kubectl kustomize` makes of an overlay.
pub(crate) fn overlay(name: &str) -> Cluster {
    folder(&root().join("k8s"), &format!("overlays/{name}"))
}

/// What `kubectl kustomize` makes of a folder that refers to no other outside of `root`.
pub(crate) fn folder(root: &Path, name: &str) -> Cluster {
    let yaml = render(root, name);
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    // The kubectl of Debian 12 leaves a shell without a kind where a patch has deleted an object.
    let objects = objects.into_iter().filter(|object| !object["kind"].is_null()).collect();
    Cluster { objects }
}

fn render(root: &Path, folder: &str) -> String {
    need("kubectl", "kubernetes-client");
    let translated = tempfile::tempdir().unwrap();
    let root = if client_minor() >= MODERN_MINOR {
        root
    } else {
        translate(root, translated.path());
        translated.path()
    };
    let output = Command::new("kubectl").arg("kustomize").arg(root.join(folder)).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl kustomize {folder}: {errors}");
    assert!(!errors.contains("deprecated"), "kubectl kustomize {folder}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn client_minor() -> u32 {
    let output = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output().unwrap();
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    let version = version["clientVersion"]["gitVersion"].as_str().unwrap().to_owned();
    version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or_else(|| panic!("{version}"))
}

/// Copies `k8s/` for the kubectl 1.20 of Debian 12, whose kustomize has older names for the same: a
/// folder under `resources` was one of the `bases`, and a file under `patches` one of
/// `patchesStrategicMerge`. A newer kubectl reads the files as they are.
fn translate(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (source, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if source.is_dir() {
            translate(&source, &target);
        } else if source.ends_with("kustomization.yaml") {
            let mut file: Value = serde_saphyr::from_str(&std::fs::read_to_string(&source).unwrap()).unwrap();
            older(&mut file, from);
            // JSON is YAML as well.
            std::fs::write(target, file.to_string()).unwrap();
        } else {
            std::fs::copy(source, target).unwrap();
        }
    }
}

fn older(file: &mut Value, folder: &Path) {
    let resources = file["resources"].as_array().cloned().unwrap_or_default();
    let (bases, resources): (Vec<_>, Vec<_>) =
        resources.into_iter().partition(|entry| folder.join(entry.as_str().unwrap()).is_dir());
    file["resources"] = json!(resources);
    file["bases"] = json!(bases);
    if let Some(patches) = file.as_object_mut().unwrap().remove("patches") {
        let files: Vec<_> = patches.as_array().unwrap().iter().map(|patch| patch["path"].clone()).collect();
        file["patchesStrategicMerge"] = json!(files);
    }
}
