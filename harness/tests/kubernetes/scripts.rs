//! The two scripts as both must be, and the one that builds.

use std::process::Command;

use carillon_harness::need;

use crate::bench::{BUILD, Bench, DEPLOY, Outcome, REGISTRY};
use crate::render::{self, root};

const START: &str = "k8s/base/redis/start.sh";
const TEST: &str = "scripts/test-kubernetes";

#[test]
fn shellcheck_has_nothing_to_say() {
    need("shellcheck", "shellcheck");
    let output =
        Command::new("shellcheck").args([BUILD, DEPLOY, START, TEST]).current_dir(root()).output().unwrap();
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
            let Outcome { code, printed, calls } = bench.run(script, args, &[]);
            assert_eq!(code, 2, "{script} {args:?}: {printed}");
            assert!(
                printed.contains("usage: ") || printed.contains("'no tag' is not a valid image tag"),
                "{script} {args:?}: {printed}"
            );
            assert_eq!(calls, [""; 0], "{script} {args:?}");
        }
        // A commit that does not name what is there is no tag.
        let Outcome { code, printed, calls } =
            bench.run(script, &[REGISTRY], &[("CHANGES", " M bff/src/lib.rs")]);
        assert_eq!((code, calls.len()), (2, 1), "{printed}");
        assert!(printed.contains("uncommitted changes"), "{printed}");
    }
    for (option, known) in [("overlay", render::overlays()), ("component", render::components())] {
        let Outcome { code, printed, calls } = bench.deploy(&[&format!("--{option}"), "haproxy"]);
        assert_eq!((code, calls.len()), (2, 0), "{printed}");
        let start = format!("there is no {option} 'haproxy': take one of ");
        let (_, names) = printed.trim_end().rsplit_once(&start).unwrap();
        let mut names: Vec<_> = names.split(' ').collect();
        names.sort_unstable();
        assert_eq!(names, known);
    }
    for host in ["a/b", "no", "-a.example.org", "a..b"] {
        let Outcome { code, printed, calls } = bench.deploy(&["--host", host]);
        assert_eq!((code, calls.len()), (2, 0), "{host}: {printed}");
    }
}

#[test]
fn images_are_built_and_pushed_one_by_one_until_one_fails() {
    let bench = Bench::new();
    let Outcome { code, printed, calls } = bench.run(BUILD, &["registry.test/team/"], &[]);
    assert_eq!(code, 0, "{printed}");
    let mut wanted = ["git status --porcelain", "git rev-parse --short=12 HEAD", "git rev-parse HEAD"]
        .map(str::to_owned)
        .to_vec();
    for name in ["producer", "bff", "frontend"] {
        let image = format!("{REGISTRY}/{name}:0123456789ab");
        let args = "--build-arg VERSION=0123456789ab --build-arg REVISION=0123456789abcdef";
        wanted.push(format!("docker build --target {name} {args} --tag {image} ."));
        wanted.push(format!("docker push {image}"));
        wanted.push(format!(
            "docker image inspect --format {{{{range .RepoDigests}}}}{{{{println .}}}}{{{{end}}}} {image}"
        ));
    }
    assert_eq!(calls, wanted);
    assert!(printed.contains(&format!("{DEPLOY} {REGISTRY} 0123456789ab")), "{printed}");

    for fail in ["docker build --target producer", "docker push registry.test/team/bff"] {
        // Uncommitted changes are no matter to a tag that was given.
        let env = [("FAIL", fail), ("CHANGES", "?? new")];
        let Outcome { code, calls, .. } = bench.run(BUILD, &[REGISTRY, "1.0"], &env);
        assert_ne!(code, 0, "{fail}");
        assert!(calls.last().unwrap().starts_with(fail), "{fail}: {calls:?}");
    }
}

#[test]
fn a_tag_that_was_pushed_again_is_deployed_by_its_digest_or_a_warning_is_printed() {
    let note = "No pod was restarted";
    let bench = Bench::new();
    assert!(!bench.deploy(&[]).printed.contains(note), "the generations have changed");
    let again = bench.deploy(&[]);
    assert!(
        again.printed.contains(note) && again.printed.contains("1.0 was pushed again"),
        "{}",
        again.printed
    );

    std::fs::write(bench.path("digests"), "").unwrap();
    assert_eq!(bench.run(BUILD, &[REGISTRY, "1.0"], &[]).code, 0);
    assert!(!bench.path(".images/1.0").exists(), "a registry that gives no digest");

    let digest = format!("sha256:{}", "0".repeat(64));
    let digests: String =
        ["producer", "bff", "frontend"].map(|name| format!("{REGISTRY}/{name}@{digest}\n")).concat();
    std::fs::write(bench.path("digests"), format!("other.test/bff@sha256:11\n{digests}")).unwrap();
    let built = bench.run(BUILD, &[REGISTRY, "1.0"], &[]);
    assert!(built.code == 0 && built.printed.contains(".images/1.0"), "{}", built.printed);
    let deployed = bench.deploy(&[]);
    assert!(deployed.printed.contains("by the digests in .images/1.0"), "{}", deployed.printed);
    assert!(!deployed.printed.contains(note), "{}", deployed.printed);
    let file = bench.read(".generated/kustomization.yaml");
    assert_eq!(file.matches(&format!("  digest: {digest}\n")).count(), 3, "{file}");
    assert!(!file.contains("newTag"), "{file}");
    // The digests of one registry do not count for another.
    bench.run(DEPLOY, &["elsewhere.test", "1.0"], &[]);
    assert!(bench.read(".generated/kustomization.yaml").contains("newTag: \"1.0\""));
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
                "'get', '--raw', '/version'",
                "'api-versions'",
                "'create', '--filename', '-'",
                "'apply', '--dry-run=server'",
                "'apply', '--filename'",
                "'delete'",
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
                code.iter().any(|line| line.contains("Invoke-") && line.contains(argument)),
                "{name}: {argument}"
            );
        }
    }
}
