//! The two scripts, in a copy of what they read, with stand-ins for docker, kubectl and git.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use carillon_harness::need;
use tempfile::TempDir;

use crate::render::{self, root};

const BUILD: &str = "scripts/build-and-push-containers.sh";
const DEPLOY: &str = "scripts/deploy-application.sh";
const REGISTRY: &str = "registry.test/team";
/// Writes down how it was called, fails when it is told to, and says what the real one would.
const STAND_IN: &str = r#"#!/bin/sh
called="$(basename "$0") $*"
printf '%s\n' "$called" >>"$STATE/calls"
case $called in "${FAIL:-nothing}"*) exit 7 ;; esac
case $called in
"git status"*) printf '%s' "${CHANGES:-}" ;;
"git rev-parse --short=12 HEAD") echo 0123456789ab ;;
"git rev-parse HEAD") echo 0123456789abcdef ;;
"kubectl kustomize"*) echo "rendered: true" ;;
*"get secret redis "*) if [ -e "$STATE/secret" ]; then echo secret/redis; fi ;;
*"get secret external-redis "*) if [ -e "$STATE/external" ]; then echo secret/external-redis; fi ;;
"kubectl create --filename -") cat >"$STATE/secret" ;;
"kubectl get --filename"*) printf '%s\n' namespace/realtime-microservices service/bff deployment.apps/bff statefulset.apps/redis ;;
esac
"#;

/// A copy of the scripts and of `k8s/`, and the programs that they call.
struct Bench {
    folder: TempDir,
}

/// How a script ended.
struct Outcome {
    code: i32,
    said: String,
    calls: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["k8s", "scripts"] {
            copy(&root().join(part), &folder.path().join(part));
        }
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        for program in ["docker", "kubectl", "git"] {
            let path = folder.path().join("bin").join(program);
            std::fs::write(&path, STAND_IN).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, script: &str, args: &[&str], env: &[(&str, &str)]) -> Outcome {
        let _ = std::fs::remove_file(self.path("calls"));
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let output = Command::new(self.path(script))
            .args(args)
            .env_clear()
            .env("PATH", path)
            .env("STATE", self.folder.path())
            .envs(env.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let calls = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        Outcome {
            code: output.status.code().unwrap_or(-1),
            said,
            calls: calls.lines().map(str::to_owned).collect(),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for (path, bytes) in files(from) {
        let target = to.join(&path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(&target, bytes).unwrap();
        std::fs::set_permissions(target, from.join(path).metadata().unwrap().permissions()).unwrap();
    }
}

/// All files under a folder, by their path in it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
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

#[test]
fn shellcheck_has_nothing_to_say() {
    need("shellcheck", "shellcheck");
    let output = Command::new("shellcheck").args([BUILD, DEPLOY]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn wrong_arguments_are_told_how_it_is_used_and_nothing_is_done() {
    let bench = Bench::new();
    for script in [BUILD, DEPLOY] {
        let wrong: [&[&str]; 6] = [
            &[],
            &[""],
            &["https://registry.test"],
            &["-x"],
            &[REGISTRY, "1.0", "more"],
            &[REGISTRY, "no tag"],
        ];
        for args in wrong {
            let Outcome { code, said, calls } = bench.run(script, args, &[]);
            assert_eq!(code, 2, "{script} {args:?}: {said}");
            assert!(
                said.contains("usage: ") || said.contains("'no tag' is no tag"),
                "{script} {args:?}: {said}"
            );
            assert_eq!(calls, [""; 0], "{script} {args:?}");
        }
        // A commit that does not name what is there is no tag.
        let Outcome { code, said, calls } =
            bench.run(script, &[REGISTRY], &[("CHANGES", " M bff/src/lib.rs")]);
        assert_eq!((code, calls.len()), (2, 1), "{said}");
        assert!(said.contains("uncommitted changes"), "{said}");
    }
    let Outcome { code, said, .. } = bench.run(DEPLOY, &[REGISTRY, "1.0", "--overlay", "haproxy"], &[]);
    assert_eq!(code, 2);
    let (_, names) = said.trim_end().rsplit_once("there is no overlay 'haproxy': take one of ").unwrap();
    let mut names: Vec<_> = names.split(' ').collect();
    names.sort_unstable();
    assert_eq!(names, render::overlays());
}

#[test]
fn images_are_built_and_pushed_one_by_one_until_one_fails() {
    let bench = Bench::new();
    let Outcome { code, said, calls } = bench.run(BUILD, &["registry.test/team/"], &[]);
    assert_eq!(code, 0, "{said}");
    let mut wanted = ["git status --porcelain", "git rev-parse --short=12 HEAD", "git rev-parse HEAD"]
        .map(str::to_owned)
        .to_vec();
    for name in ["producer", "bff", "frontend"] {
        let image = format!("{REGISTRY}/{name}:0123456789ab");
        let args = "--build-arg VERSION=0123456789ab --build-arg REVISION=0123456789abcdef";
        wanted.push(format!("docker build --target {name} {args} --tag {image} ."));
        wanted.push(format!("docker push {image}"));
    }
    assert_eq!(calls, wanted);
    assert!(said.contains(&format!("{DEPLOY} {REGISTRY} 0123456789ab")), "{said}");

    for fail in ["docker build --target producer", "docker push registry.test/team/bff"] {
        // Uncommitted changes are no matter to a tag that was given.
        let env = [("FAIL", fail), ("CHANGES", "?? new")];
        let Outcome { code, calls, .. } = bench.run(BUILD, &[REGISTRY, "1.0"], &env);
        assert_ne!(code, 0, "{fail}");
        assert!(calls.last().unwrap().starts_with(fail), "{fail}: {calls:?}");
    }
}

#[test]
fn a_deployment_makes_one_password_and_shows_it_to_nobody() {
    let bench = Bench::new();
    let before = files(&bench.path("k8s"));
    let first = bench.run(DEPLOY, &[REGISTRY, "1.0"], &[]);
    assert_eq!(first.code, 0, "{}", first.said);
    let secret = std::fs::read_to_string(bench.path("secret")).unwrap();
    let (_, password) = secret.trim_end().rsplit_once("password: ").unwrap();
    assert!(password.len() == 64 && password.bytes().all(|byte| byte.is_ascii_hexdigit()), "{password}");
    let in_namespace = "kubectl --namespace realtime-microservices";
    let common = [
        "kubectl kustomize .generated".to_owned(),
        "kubectl apply --filename k8s/base/namespace.yaml".to_owned(),
        format!("{in_namespace} get secret redis --ignore-not-found --output name"),
        "kubectl create --filename -".to_owned(),
        "kubectl apply --filename .generated/application.yaml".to_owned(),
        "kubectl get --filename .generated/application.yaml --output name".to_owned(),
        format!("{in_namespace} rollout status deployment.apps/bff --timeout=5m"),
        format!("{in_namespace} rollout status statefulset.apps/redis --timeout=5m"),
    ];
    assert_eq!(first.calls, common);

    let again = bench.run(DEPLOY, &[REGISTRY, "1.0"], &[]);
    assert_eq!(again.code, 0, "{}", again.said);
    assert_eq!(std::fs::read_to_string(bench.path("secret")).unwrap(), secret, "the password was replaced");
    assert_eq!(again.calls, [&common[..3], &common[4..]].concat());
    assert_eq!(files(&bench.path("k8s")), before, "a tracked file was changed");

    for outcome in [&first, &again] {
        let shown = format!("{}{}", outcome.said, outcome.calls.join("\n"));
        assert!(!shown.contains(password), "{shown}");
        assert!(outcome.said.contains("port-forward service/frontend 8080:8080"), "{}", outcome.said);
        assert!(outcome.said.contains("kubectl delete namespace realtime-microservices"), "{}", outcome.said);
    }
    for (path, bytes) in files(&bench.path(".generated")) {
        assert!(!String::from_utf8_lossy(&bytes).contains(password), "the password is in {}", path.display());
    }
}

#[test]
fn a_deployment_stops_at_the_first_command_that_fails() {
    let in_namespace = "kubectl --namespace realtime-microservices";
    for fail in [
        "git rev-parse".to_owned(),
        "kubectl kustomize".to_owned(),
        "kubectl apply --filename k8s".to_owned(),
        format!("{in_namespace} get secret"),
        "kubectl create".to_owned(),
        "kubectl apply --filename .generated".to_owned(),
        "kubectl get --filename".to_owned(),
        format!("{in_namespace} rollout status deployment"),
    ] {
        let Outcome { code, said, calls } = Bench::new().run(DEPLOY, &[REGISTRY], &[("FAIL", &fail)]);
        assert_ne!(code, 0, "{fail}");
        assert!(calls.last().unwrap().starts_with(&fail), "{fail}: {calls:?}");
        assert!(!said.contains("Carillon runs"), "{fail}: {said}");
    }
}

#[test]
fn a_redis_elsewhere_needs_its_secret() {
    let bench = Bench::new();
    let args = [REGISTRY, "1.0", "--overlay", "external-redis"];
    let Outcome { code, said, calls } = bench.run(DEPLOY, &args, &[]);
    assert_eq!((code, calls.len()), (1, 3), "{said}");
    assert!(said.contains("create secret generic external-redis"), "{said}");
    std::fs::write(bench.path("external"), "").unwrap();
    let Outcome { code, said, calls } =
        bench.run(DEPLOY, &[REGISTRY, "1.0"], &[("OVERLAY", "external-redis")]);
    assert_eq!(code, 0, "{said}");
    assert!(!calls.iter().any(|call| call.starts_with("kubectl create")), "{calls:?}");
}

#[test]
fn what_is_deployed_are_the_images_of_the_registry_and_nothing_else_is_changed() {
    let bench = Bench::new();
    for name in render::overlays() {
        std::fs::write(bench.path("external"), "").unwrap();
        let Outcome { code, said, .. } =
            bench.run(DEPLOY, &["registry.test:5000", "007", "--overlay", &name], &[]);
        assert_eq!(code, 0, "{said}");
        let rendered = render::folder(bench.folder.path(), ".generated");
        let plain = render::overlay(&name);
        for (object, before) in rendered.objects.iter().zip(&plain.objects) {
            let wanted = ["producer", "bff", "frontend"].iter().fold(before.to_string(), |text, image| {
                text.replace(&format!("carillon/{image}:0.1.0"), &format!("registry.test:5000/{image}:007"))
            });
            assert_eq!(object.to_string(), wanted);
        }
        assert_eq!(rendered.objects.len(), plain.objects.len());
    }
}

/// There is no PowerShell on Debian: the twins are read, not run.
#[test]
fn the_twins_start_no_program_without_looking_at_its_exit_code() {
    let arguments = [
        ("build-and-push-containers", vec!["'build', '--target'", "'push'"]),
        (
            "deploy-application",
            vec![
                "'kustomize'",
                "'get', 'secret'",
                "'create', '--filename', '-'",
                "'apply'",
                "'rollout', 'status'",
            ],
        ),
    ];
    for (name, arguments) in arguments {
        let text = std::fs::read_to_string(root().join(format!("scripts/{name}.ps1"))).unwrap();
        assert!(text.is_ascii(), "PowerShell 5 reads a file without a mark as Windows-1252");
        assert!(
            text.contains("[Parameter(Mandatory = $true)]") && text.contains("[string]$DockerRegistryUrl"),
            "{name}"
        );
        assert!(text.contains("$ErrorActionPreference = 'Stop'"), "{name}");
        let code: Vec<_> =
            text.split("#>").nth(1).unwrap().lines().filter(|line| !line.trim().starts_with('#')).collect();
        for (at, line) in code.iter().enumerate() {
            let line = line.trim_start();
            let direct = ["docker ", "kubectl ", "git "].iter().any(|program| line.starts_with(program));
            assert!(!direct, "{name}: {line}");
            if line.contains("& $Program") {
                assert!(code[at + 1].contains("if ($LASTEXITCODE -ne 0) { throw"), "{name}: {line}");
            } else {
                assert!(!line.contains("& "), "{name}: {line}");
            }
        }
        for argument in arguments {
            assert!(
                code.iter().any(|line| line.contains("Invoke-Program") && line.contains(argument)),
                "{name}: {argument}"
            );
        }
    }
}
