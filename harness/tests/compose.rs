//! What Dockerfile and docker-compose.yml promise, read from the files. `scripts/test-compose` runs them.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;
use serde_json::{Map, Value, json};

const TARGETS: [&str; 3] = ["producer", "bff", "frontend"];
/// The one port that is published, on the loopback address unless asked otherwise.
const DOOR: &str = "${BIND:-127.0.0.1}:${PORT:-8080}:8080";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn services() -> Map<String, Value> {
    yaml("docker-compose.yml")["services"].as_object().unwrap().clone()
}

/// A stage of the Dockerfile: what it comes from, its name, and its instructions.
struct Stage {
    from: String,
    name: String,
    lines: Vec<String>,
}

/// The stages in their order. Continued lines are joined, comments left out.
fn stages() -> Vec<Stage> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let mut stages: Vec<Stage> = vec![];
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["FROM", from, "AS", name] => {
                stages.push(Stage { from: from.to_owned(), name: name.to_owned(), lines: vec![] });
            }
            _ => stages.last_mut().expect("FROM comes first").lines.push(line.to_owned()),
        }
    }
    stages
}

/// A tag that says which release it is, and not just the newest.
fn is_pinned(image: &str) -> bool {
    let tag = image.split_once(':').map(|(_, tag)| tag).unwrap_or_default();
    let digits = tag.chars().filter(char::is_ascii_digit).count();
    !tag.starts_with("latest") && (tag.matches('.').count() >= 2 || digits >= 8)
}

#[test]
fn base_images_are_pinned_and_the_compiler_is_the_one_of_the_workspace() {
    let mut known = BTreeSet::new();
    for stage in stages() {
        assert!(known.contains(&stage.from) || is_pinned(&stage.from), "{}: pin {}", stage.name, stage.from);
        known.insert(stage.name);
    }
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap();
    let builder = format!("rust:{}-", channel.trim_matches('"'));
    assert!(stages().iter().any(|stage| stage.from.starts_with(&builder)), "the builder is {builder}…");
}

#[test]
fn an_image_runs_as_nobody_stops_on_sigterm_and_says_what_it_is() {
    for target in TARGETS {
        let stages = stages();
        let stage = stages.iter().find(|stage| stage.name == target).unwrap();
        let has = |text: &str| stage.lines.iter().any(|line| line.contains(text));
        assert!(has("USER 65532:65532"), "{target} runs as root");
        assert!(has("STOPSIGNAL SIGTERM"), "{target}");
        assert!(has(&format!(r#"org.opencontainers.image.title="carillon/{target}""#)), "{target}");
        let base = format!(r#"image.base.name="docker.io/library/{}""#, stage.from);
        assert!(has(&base), "{target} names its base in a label");
        assert_eq!(has("HEALTHCHECK"), target != "producer", "{target}: it has a port that can be asked");
    }
    let frontend = stages().pop().unwrap();
    assert!(
        frontend.lines.contains(&"COPY frontend/Caddyfile /etc/caddy/Caddyfile".to_owned()),
        "the front door of the images is that of the browser tests"
    );
}

#[test]
fn the_build_context_has_every_crate_and_little_else() {
    let ignore = read(".dockerignore");
    let lines: BTreeSet<_> = ignore.lines().filter(|line| !line.starts_with('#')).collect();
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let folders = metadata.packages.iter().map(|package| {
        let folder = package.manifest_path.parent().unwrap().strip_prefix(root()).unwrap();
        format!("!{folder}")
    });
    // The replica carries the two documents.
    let documents = ["!docs/asyncapi.json", "!docs/openapi.json"];
    let files = [&["*", "!.cargo", "!Cargo.lock", "!Cargo.toml", "*/tests"][..], &documents].concat();
    let files = files.into_iter().map(ToOwned::to_owned);
    let wanted: BTreeSet<_> = folders.chain(files).collect();
    assert_eq!(lines, wanted.iter().map(String::as_str).collect());
}

#[test]
fn every_service_is_confined_bounded_and_comes_back() {
    let services = services();
    let names: BTreeSet<_> = services.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["bff", "frontend", "producer", "redis"]));
    for (name, service) in &services {
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        assert!(service["logging"]["options"]["max-size"].is_string(), "{name}: logs are bounded");
        for limit in ["cpus", "memory", "pids"] {
            assert!(!service["deploy"]["resources"]["limits"][limit].is_null(), "{name}: {limit}");
        }
        for forbidden in ["privileged", "cap_add", "network_mode", "pid", "container_name"] {
            assert!(service[forbidden].is_null(), "{name}: {forbidden}");
        }
        // The producer has no port that could be asked, and ends when it can't go on.
        assert_eq!(service["healthcheck"]["test"].is_array(), name != "producer", "{name}: health check");
    }
}

#[test]
fn our_images_are_built_here_and_the_others_pinned() {
    for (name, service) in services() {
        let image = service["image"].as_str().unwrap();
        if TARGETS.contains(&&*name) {
            assert_eq!(image, format!("carillon/{name}:${{TAG:-dev}}"));
            assert_eq!(service["build"]["target"], *name);
            assert_eq!(service["pull_policy"], "build", "{name}: nobody else's image of that name is run");
        } else {
            assert!(is_pinned(image), "{name}: pin {image}");
        }
    }
}

#[test]
fn only_the_front_door_is_published_and_redis_is_out_of_its_reach() {
    let services = services();
    for (name, service) in &services {
        let ports = if name == "frontend" { json!([DOOR]) } else { Value::Null };
        assert_eq!(service["ports"], ports, "{name}");
    }
    assert_eq!(services["frontend"]["networks"], json!(["front"]));
    assert_eq!(services["bff"]["networks"], json!(["front", "redis"]));
    for name in ["redis", "producer"] {
        assert_eq!(services[name]["networks"], json!(["redis"]), "{name}");
    }
    assert_eq!(yaml("docker-compose.yml")["networks"]["redis"]["internal"], true);
}

#[test]
fn redis_keeps_what_it_has_accepted() {
    let redis = &services()["redis"];
    let words: Vec<_> =
        redis["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    for (option, value) in [
        ("--appendonly", "yes"),
        ("--dir", "/data"),
        ("--maxmemory-policy", "noeviction"),
        ("--stream-node-max-bytes", "512"),
    ] {
        assert!(words.chunks(2).any(|pair| pair == [option, value]), "{option} {value}");
    }
    assert_eq!(redis["volumes"], json!(["redis:/data"]));
}

#[test]
fn each_starts_when_what_it_needs_is_healthy_and_has_time_to_end() {
    let services = services();
    for (name, need) in [("producer", "redis"), ("bff", "redis"), ("frontend", "bff")] {
        assert_eq!(services[name]["depends_on"][need]["condition"], "service_healthy", "{name}");
    }
    let bff = &services["bff"];
    assert_eq!(bff["deploy"]["replicas"], 3, "one replica would hide every fan-out fault");
    let grace = bff["stop_grace_period"].as_str().unwrap().trim_end_matches('s').parse::<u32>().unwrap();
    assert!(grace > 10, "a replica ends within ten seconds");
    assert_eq!(bff["healthcheck"]["test"], json!(["CMD", "bff", "check"]));
    let proxies = bff["environment"]["TRUSTED_PROXIES"].as_str().unwrap();
    assert!(proxies.contains("172.16.0.0/12"), "whoever comes through the front door counts as one client");
}

#[test]
fn the_stack_for_work_on_the_code_changes_only_what_is_built() {
    let local = yaml("docker-compose.local.yml");
    for (name, service) in local["services"].as_object().unwrap() {
        assert_eq!(
            service["image"],
            format!("carillon/{name}:local"),
            "a fast build never takes a release's name"
        );
        let keys: BTreeSet<_> = service.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(keys.is_subset(&BTreeSet::from(["image", "build", "environment"])), "{name}: {keys:?}");
    }
}
