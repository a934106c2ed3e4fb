use std::collections::BTreeMap;
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

/// The front doors that are overlays of their own; the other overlays put something behind one of them.
pub(crate) const DOORS: [&str; 3] = ["gateway-api", "ingress-nginx", "traefik"];

/// The names of all overlays.
pub(crate) fn overlays() -> Vec<String> {
    names("overlays")
}

/// The names of all components.
pub(crate) fn components() -> Vec<String> {
    names("components")
}

fn names(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join("k8s").join(folder)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What can be deployed: each overlay by itself, and each front door by TLS, with a Redis elsewhere, and both.
/// The first word of a name is the overlay, the others are components.
pub(crate) fn variants() -> BTreeMap<String, Cluster> {
    let plain = overlays().into_iter().map(|name| (name.clone(), overlay(&name)));
    let composed = DOORS.into_iter().flat_map(|door| {
        let tls = format!("tls-{door}");
        let added = [
            vec![tls.as_str()],
            vec!["external-redis"],
            vec!["external-redis", "external-redis-private-ca", tls.as_str()],
        ];
        added.map(|components| (format!("{door} {}", components.join(" ")), composed(door, &components)))
    });
    plain.chain(composed).collect()
}

/// What `kubectl kustomize` makes of an overlay.
pub(crate) fn overlay(name: &str) -> Cluster {
    folder(&root().join("k8s"), &format!("overlays/{name}"))
}

/// An overlay with components, as the deploy script puts them together.
fn composed(overlay: &str, components: &[&str]) -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    copy(&root().join("k8s"), &folder.path().join("k8s"));
    std::fs::create_dir(folder.path().join("both")).unwrap();
    let components: Vec<_> = components.iter().map(|name| format!("../k8s/components/{name}")).collect();
    let file = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [format!("../k8s/overlays/{overlay}")],
        "components": components,
    });
    std::fs::write(folder.path().join("both/kustomization.yaml"), file.to_string()).unwrap();
    self::folder(folder.path(), "both")
}

/// Copies a folder, permissions included.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for (path, bytes) in files(from) {
        let target = to.join(&path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(&target, bytes).unwrap();
        std::fs::set_permissions(target, from.join(path).metadata().unwrap().permissions()).unwrap();
    }
}

/// All files under a folder, by their path in it.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (name.join(inner), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
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
/// folder under `resources` was one of the `bases`, a file under `patches` one of `patchesStrategicMerge` or, with
/// a target, of `patchesJson6902`. It knows no components: their resources and patches become the folder's own. A
/// newer kubectl reads the files as they are.
fn translate(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (source, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if source.is_dir() {
            translate(&source, &target);
        } else if source.ends_with("kustomization.yaml") {
            let mut file = kustomization(&source);
            inline_components(&mut file, from, to);
            older(&mut file, from);
            // JSON is YAML as well.
            std::fs::write(target, file.to_string()).unwrap();
        } else {
            std::fs::copy(source, target).unwrap();
        }
    }
}

fn kustomization(path: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Puts what a file's components have into the file, and their files beside it.
fn inline_components(file: &mut Value, from: &Path, to: &Path) {
    let components = file.as_object_mut().unwrap().remove("components").unwrap_or_default();
    let texts = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let mut resources = texts(&file["resources"]);
    let mut patches = texts(&file["patches"]);
    for component in texts(&components) {
        let folder = from.join(component.as_str().unwrap());
        let name = format!("of-{}", folder.file_name().unwrap().to_string_lossy());
        copy(&folder, &to.join(&name));
        std::fs::remove_file(to.join(&name).join("kustomization.yaml")).unwrap();
        let inner = kustomization(&folder.join("kustomization.yaml"));
        let moved = |path: &Value| json!(format!("{name}/{}", path.as_str().unwrap()));
        resources.extend(texts(&inner["resources"]).iter().map(moved));
        for mut patch in texts(&inner["patches"]) {
            patch["path"] = moved(&patch["path"]);
            patches.push(patch);
        }
        if !inner["namespace"].is_null() {
            file["namespace"] = inner["namespace"].clone();
        }
    }
    file["resources"] = json!(resources);
    if !patches.is_empty() {
        file["patches"] = json!(patches);
    }
}

fn older(file: &mut Value, folder: &Path) {
    let resources = file["resources"].as_array().cloned().unwrap_or_default();
    let (bases, resources): (Vec<_>, Vec<_>) =
        resources.into_iter().partition(|entry| folder.join(entry.as_str().unwrap()).is_dir());
    file["resources"] = json!(resources);
    file["bases"] = json!(bases);
    if let Some(patches) = file.as_object_mut().unwrap().remove("patches") {
        let (targeted, merged): (Vec<_>, Vec<_>) =
            patches.as_array().unwrap().iter().cloned().partition(|patch| !patch["target"].is_null());
        let files: Vec<_> = merged.iter().map(|patch| patch["path"].clone()).collect();
        file["patchesStrategicMerge"] = json!(files);
        file["patchesJson6902"] = json!(targeted);
    }
}
