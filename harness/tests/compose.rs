//! The promises of Dockerfile and docker-compose.yml, read from the files. `scripts/test-compose` runs them.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::MetadataCommand;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const TARGETS: [&str; 3] = ["producer", "bff", "frontend"];
/// The one published port, on the loopback address by default.
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

/// A tag of one release, not `latest`.
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
            assert_eq!(service["pull_policy"], "build", "{name}: no foreign image of that name is run");
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

/// `redis.conf` and the users of the start are tested where Kubernetes is, on a real server.
#[test]
fn redis_starts_as_in_kubernetes_and_each_program_is_a_user_of_its_own() {
    let services = services();
    let redis = &services["redis"];
    assert_eq!(redis["volumes"], json!(["redis:/data", "./k8s/base/redis:/etc/redis:ro"]));
    assert_eq!(redis["entrypoint"], json!(["sh", "/etc/redis/start.sh"]));
    assert!(redis["command"].is_null(), "an option here would not hold in Kubernetes");
    assert_eq!(redis["healthcheck"]["test"], json!(["CMD", "redis-cli", "--user", "operator", "-e", "ping"]));
    let start = read("k8s/base/redis/start.sh");
    let checked: Vec<_> =
        start.lines().filter_map(|line| line.strip_prefix("check ")?.split(' ').next()).collect();
    let given: BTreeSet<_> = redis["environment"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(given, checked.into_iter().collect(), "the passwords that the start needs");
    for (name, password) in [("producer", "PRODUCER_PASSWORD"), ("bff", "BFF_PASSWORD")] {
        let known = redis["environment"][password].as_str().unwrap();
        assert_eq!(services[name]["environment"]["REDIS_URL"], format!("redis://{name}:{known}@redis:6379"));
    }
}

/// Options that give rights to anybody are on only where the door is on the loopback address.
#[test]
fn what_anybody_may_do_is_off_where_other_machines_come_in() {
    let services = services();
    let environment = &services["bff"]["environment"];
    for name in ["ALLOW_PUBLISH", "ALLOW_ANONYMOUS_MESSAGES", "API_KEY", "JWT_SECRET"] {
        assert_eq!(environment[name], format!("${{{name}:-}}"), "{name} is off");
    }
    assert!(environment["DEMO_SIGN_IN"].is_null(), "demo sign-in is off");
    assert_eq!(environment["BIND"], DOOR.replace(":${PORT:-8080}:8080", ""), "the address of the door");
    let passed_on = environment.as_object().unwrap().iter().filter(|(_, value)| value.is_null());
    assert_eq!(passed_on.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["ALLOW_JOBS", "PEOPLE_SEND"]);

    let words: Vec<String> = serde_json::from_value(services["bff"]["entrypoint"].clone()).unwrap();
    let words: Vec<_> = words.iter().map(|word| word.replace("$$", "$")).collect();
    let bin = stand_in("bff", "#!/bin/sh\necho \"jobs=${ALLOW_JOBS-} people=${PEOPLE_SEND-}\"\n");
    let start = |env: &[(&str, &str)]| run(&words, &[], &bin, env);
    for bind in ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"] {
        assert_eq!(start(&[("BIND", bind)]), "jobs=1 people=1", "{bind}");
    }
    assert_eq!(start(&[("BIND", "127.0.0.1"), ("ALLOW_JOBS", ""), ("PEOPLE_SEND", "0")]), "jobs= people=0");
    for bind in ["0.0.0.0", "::", "192.0.2.1", ""] {
        assert_eq!(start(&[("BIND", bind)]), "jobs= people=", "{bind}");
        assert_eq!(start(&[("BIND", bind), ("ALLOW_JOBS", "1")]), "jobs=1 people=", "{bind}");
    }
}

/// A folder with a program that prints its environment.
fn stand_in(name: &str, text: &str) -> TempDir {
    let bin = tempfile::tempdir().unwrap();
    let path = bin.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    bin
}

/// What an entry point prints in an environment of its own.
fn run(words: &[String], arguments: &[&str], bin: &TempDir, env: &[(&str, &str)]) -> String {
    let path = format!("{}:/usr/bin:/bin", bin.path().display());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(arguments).env_clear().env("PATH", path).envs(env.iter().copied());
    String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn the_front_door_makes_a_key_for_its_cookie_where_none_is_given() {
    let frontend = stages().pop().unwrap();
    let line = frontend.lines.iter().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    let words: Vec<String> = serde_json::from_str(line).unwrap();
    let bin = stand_in("caddy", "#!/bin/sh\necho \"$COOKIE_SECRET $*\"\n");
    let start = |secret| run(&words, &["run", "--config", "a b"], &bin, &[("COOKIE_SECRET", secret)]);
    let made = start("");
    let (secret, arguments) = made.split_once(' ').unwrap();
    assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    assert_eq!(arguments, "run --config a b");
    assert_ne!(start(""), made, "each start makes another");
    assert_eq!(start("given"), "given run --config a b");
    let services = services();
    assert_eq!(services["frontend"]["environment"]["COOKIE_SECRET"], "${COOKIE_SECRET:-}");
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
    let hops = &bff["environment"]["TRUSTED_PROXY_HOPS"];
    assert_eq!(hops, "${TRUSTED_PROXY_HOPS:-1}", "all clients of the front door count as one");
    assert!(
        bff["environment"]["TRUSTED_PROXIES"].is_null(),
        "a client on such a network can forge its address"
    );
    assert_eq!(services["frontend"]["environment"]["TRUSTED_PROXIES"], "${TRUSTED_PROXIES:-}");
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
