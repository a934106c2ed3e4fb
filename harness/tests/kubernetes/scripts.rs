//! The two scripts, in a copy of what they read, with stand-ins for docker, kubectl and git.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use carillon_harness::need;
use tempfile::TempDir;

use crate::render::{self, copy, files, root};

const BUILD: &str = "scripts/build-and-push-containers.sh";
const DEPLOY: &str = "scripts/deploy-application.sh";
const START: &str = "k8s/base/redis/start.sh";
const REGISTRY: &str = "registry.test/team";
/// In front of whatever is asked in the namespace.
const IN_NAMESPACE: &str = "kubectl --namespace realtime-microservices";
/// The end of a deployment that went well, and of no other.
const RUNS: &str = "Carillon runs.";
/// Writes down how it was called, fails when it is told to, and says what the real one would: what is in the
/// file that is named for the question, where there is one.
const STAND_IN: &str = r#"#!/bin/sh
called="$(basename "$0") $*"
printf '%s\n' "$called" >>"$STATE/calls"
case $called in "${FAIL:-nothing}"*) exit 7 ;; esac
answer() { if [ -e "$STATE/$1" ]; then cat "$STATE/$1"; else printf '%s' "$2"; fi; }
case $called in
"git status"*) printf '%s' "${CHANGES:-}" ;;
"git rev-parse --short=12 HEAD") echo 0123456789ab ;;
"git rev-parse HEAD") echo 0123456789abcdef ;;
"docker image inspect"*) for word; do image=$word; done; answer digests "${image%:*}@sha256:00$image" ;;
"kubectl kustomize"*) answer rendered "$RENDERED" ;;
"kubectl get --raw /version") answer version '{ "major": "1", "minor": "30+" }' ;;
"kubectl api-versions") answer served "$SERVED" ;;
"kubectl get namespace"*) answer phase "" ;;
*"get ingressclass traefik"*) answer class ingressclass.networking.k8s.io/traefik ;;
*"get gatewayclass eg"*) answer class gatewayclass.gateway.networking.k8s.io/eg ;;
*"get secret "*" --output name") if [ -e "$STATE/secret-$5" ]; then echo "secret/$5"; fi ;;
*"get secret "*) if [ -e "$STATE/secret-$5" ]; then printf '%s ' "$5=$(cksum <"$STATE/secret-$5")"; fi ;;
"kubectl create --filename -") cat >"$STATE/created" && cp "$STATE/created" "$STATE/secret-$(sed -n 's/^  name: //p' "$STATE/created")" ;;
"kubectl apply --filename .generated"*) echo applied >"$STATE/applied" ;;
*"get deployments,statefulsets"*) answer generations "bff=1$(cat "$STATE/applied" 2>/dev/null)" ;;
"kubectl get --filename"*) answer objects "$OBJECTS" ;;
*"get httproute"*|*"get backendtrafficpolicy"*) answer conditions "Accepted=True ResolvedRefs=True " ;;
*" --selector app.kubernetes.io/part-of=carillon --output name") answer left "$OBJECTS" ;;
esac
"#;
/// What stands for a rendered overlay: enough for the questions of the script.
const RENDERED: &str = "apiVersion: apps/v1\nkind: StatefulSet\n---\napiVersion: networking.k8s.io/v1\nspec:\n  ingressClassName: traefik\n";
/// The same with a Redis elsewhere.
const ELSEWHERE: &str = "apiVersion: apps/v1\nkind: Deployment\n  name: external-redis\n";
/// The same with a Gateway.
const GATEWAY: &str =
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nspec:\n  gatewayClassName: eg\n";
const SERVED: &str = "apps/v1\nnetworking.k8s.io/v1\n";
const OBJECTS: &str =
    "namespace/realtime-microservices\nservice/bff\ndeployment.apps/bff\nstatefulset.apps/redis\n";
const GATEWAY_OBJECTS: &str = "deployment.apps/bff\ngateway.gateway.networking.k8s.io/carillon\n\
    httproute.gateway.networking.k8s.io/bff\nbackendtrafficpolicy.gateway.envoyproxy.io/bff\n";

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

impl Outcome {
    /// Whether a command that begins so was run.
    fn called(&self, start: &str) -> bool {
        self.calls.iter().any(|call| call.starts_with(start))
    }

    /// It failed before anything but the namespace and the passwords was there, and says why.
    fn refused(&self, why: &str) {
        assert_ne!(self.code, 0, "{why}: {}", self.said);
        assert!(self.said.contains(why), "not '{why}' but {}", self.said);
        assert!(!self.called("kubectl apply --filename .generated"), "{why}: {:?}", self.calls);
        assert!(!self.said.contains(RUNS), "{why}: {}", self.said);
    }
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["k8s", "scripts"] {
            copy(&root().join(part), &folder.path().join(part));
        }
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        // Nothing waits here.
        for (program, text) in
            [("docker", STAND_IN), ("kubectl", STAND_IN), ("git", STAND_IN), ("sleep", "#!/bin/sh\n")]
        {
            let path = folder.path().join("bin").join(program);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Self { folder }
    }

    /// One with the answers to some questions.
    fn with(answers: &[(&str, &str)]) -> Self {
        let bench = Self::new();
        for (name, answer) in answers {
            std::fs::write(bench.path(name), answer).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn run(&self, script: &str, args: &[&str], env: &[(&str, &str)]) -> Outcome {
        let _ = std::fs::remove_file(self.path("calls"));
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let output = Command::new(self.path(script))
            .args(args)
            .env_clear()
            .env("PATH", path)
            .env("STATE", self.folder.path())
            .envs([("RENDERED", RENDERED), ("SERVED", SERVED), ("OBJECTS", OBJECTS)])
            .envs(env.iter().copied())
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let calls = self.read("calls");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            said,
            calls: calls.lines().map(str::to_owned).collect(),
        }
    }

    /// A deployment of a tag by its overlay.
    fn deploy(&self, options: &[&str]) -> Outcome {
        self.run(DEPLOY, &[options, &[REGISTRY, "1.0"]].concat(), &[])
    }
}

#[test]
fn shellcheck_has_nothing_to_say() {
    need("shellcheck", "shellcheck");
    let output =
        Command::new("shellcheck").args([BUILD, DEPLOY, START]).current_dir(root()).output().unwrap();
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
    for (option, known) in [("overlay", render::overlays()), ("component", render::components())] {
        let Outcome { code, said, calls } = bench.deploy(&[&format!("--{option}"), "haproxy"]);
        assert_eq!((code, calls.len()), (2, 0), "{said}");
        let start = format!("there is no {option} 'haproxy': take one of ");
        let (_, names) = said.trim_end().rsplit_once(&start).unwrap();
        let mut names: Vec<_> = names.split(' ').collect();
        names.sort_unstable();
        assert_eq!(names, known);
    }
    for host in ["a/b", "no", "-a.example.org", "a..b"] {
        let Outcome { code, said, calls } = bench.deploy(&["--host", host]);
        assert_eq!((code, calls.len()), (2, 0), "{host}: {said}");
    }
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
        wanted.push(format!(
            "docker image inspect --format {{{{range .RepoDigests}}}}{{{{println .}}}}{{{{end}}}} {image}"
        ));
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
fn a_deployment_makes_a_password_for_each_user_of_redis_and_shows_it_to_nobody() {
    let bench = Bench::new();
    let before = files(&bench.path("k8s"));
    let first = bench.deploy(&[]);
    assert_eq!(first.code, 0, "{}", first.said);
    let users = ["redis", "redis-producer", "redis-bff"];
    let secrets = users.map(|name| bench.read(&format!("secret-{name}")));
    let passwords = secrets.each_ref().map(|secret| secret.trim_end().rsplit_once("password: ").unwrap().1);
    for (at, password) in passwords.iter().enumerate() {
        assert!(password.len() == 64 && password.bytes().all(|byte| byte.is_ascii_hexdigit()), "{password}");
        assert!(!passwords[..at].contains(password), "two users have one password");
    }
    let mut wanted = vec![
        "kubectl kustomize .generated".to_owned(),
        "kubectl get --raw /version".to_owned(),
        "kubectl api-versions".to_owned(),
        format!("{IN_NAMESPACE} get ingressclass traefik --ignore-not-found --output name"),
        "kubectl get namespace realtime-microservices --ignore-not-found --output jsonpath={.status.phase}"
            .to_owned(),
        "kubectl apply --filename k8s/base/namespace.yaml".to_owned(),
    ];
    for name in users {
        wanted.push(format!("{IN_NAMESPACE} get secret {name} --ignore-not-found --output name"));
        wanted.push("kubectl create --filename -".to_owned());
    }
    let versions: Vec<_> = users.iter().chain(&["redis-producer", "redis-bff", "bff"]).collect();
    for name in versions {
        let version = "jsonpath={.metadata.name}={.metadata.uid}/{.metadata.resourceVersion} ";
        wanted.push(format!("{IN_NAMESPACE} get secret {name} --ignore-not-found --output {version}"));
    }
    let generations = format!(
        "{IN_NAMESPACE} get deployments,statefulsets --selector app.kubernetes.io/part-of=carillon --output \
         jsonpath={{range .items[*]}}{{.kind}}/{{.metadata.name}}={{.metadata.generation}} {{end}}"
    );
    wanted.extend([
        "kubectl kustomize .generated".to_owned(),
        "kubectl apply --dry-run=server --filename .generated/application.yaml".to_owned(),
        generations.clone(),
        "kubectl apply --filename .generated/application.yaml".to_owned(),
        generations,
        "kubectl get --filename .generated/application.yaml --output name".to_owned(),
        // Nothing else becomes ready without Redis.
        format!("{IN_NAMESPACE} rollout status statefulset.apps/redis --timeout=5m"),
        format!("{IN_NAMESPACE} rollout status deployment.apps/bff --timeout=5m"),
    ]);
    let (left, calls) = first.calls.split_last().unwrap();
    assert_eq!(calls, wanted);
    assert!(
        left.contains("get deployments.apps,") && left.contains("--selector app.kubernetes.io/part-of"),
        "{left}"
    );

    let again = bench.deploy(&[]);
    assert_eq!(again.code, 0, "{}", again.said);
    assert_eq!(users.map(|name| bench.read(&format!("secret-{name}"))), secrets, "a password was replaced");
    assert!(!again.called("kubectl create"), "{:?}", again.calls);
    assert_eq!(files(&bench.path("k8s")), before, "a tracked file was changed");

    for outcome in [&first, &again] {
        let shown = format!("{}{}", outcome.said, outcome.calls.join("\n"));
        assert!(!passwords.iter().any(|password| shown.contains(password)), "{shown}");
        assert!(outcome.said.contains("port-forward service/frontend 8080:8080"), "{}", outcome.said);
        assert!(outcome.said.contains("kubectl delete namespace realtime-microservices"), "{}", outcome.said);
    }
    for (path, bytes) in files(&bench.path(".generated")) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !passwords.iter().any(|password| text.contains(password)),
            "a password is in {}",
            path.display()
        );
    }
}

#[test]
fn a_deployment_stops_at_the_first_command_that_fails() {
    for fail in [
        "git rev-parse".to_owned(),
        "kubectl kustomize".to_owned(),
        "kubectl get --raw".to_owned(),
        "kubectl api-versions".to_owned(),
        format!("{IN_NAMESPACE} get ingressclass"),
        "kubectl get namespace".to_owned(),
        "kubectl apply --filename k8s".to_owned(),
        format!("{IN_NAMESPACE} get secret"),
        "kubectl create".to_owned(),
        "kubectl apply --dry-run=server".to_owned(),
        format!("{IN_NAMESPACE} get deployments,statefulsets"),
        "kubectl apply --filename .generated".to_owned(),
        "kubectl get --filename".to_owned(),
        format!("{IN_NAMESPACE} get deployments.apps"),
    ] {
        let Outcome { code, said, calls } = Bench::new().run(DEPLOY, &[REGISTRY], &[("FAIL", &fail)]);
        assert_ne!(code, 0, "{fail}");
        assert!(calls.last().unwrap().starts_with(&fail), "{fail}: {calls:?}");
        assert!(!said.contains(RUNS), "{fail}: {said}");
    }
}

#[test]
fn a_cluster_that_cannot_run_it_is_seen_before_anything_is_applied() {
    for (name, answer, options, why) in [
        ("version", r#"{ "minor": "29" }"#, &[][..], "older than Kubernetes 1.30"),
        ("version", "", &[], "older than Kubernetes 1.30"),
        ("served", "apps/v1\n", &[], "does not serve networking.k8s.io/v1"),
        ("class", "", &[], "has no ingressclass traefik"),
        ("rendered", GATEWAY, &["--overlay=gateway-api"], "does not serve gateway.networking.k8s.io/v1"),
        ("rendered", ELSEWHERE, &["--overlay=external-redis"], "create secret generic external-redis"),
        ("rendered", "a: carillon.example.com", &["--component=tls-traefik"], "needs the host"),
        ("rendered", "a: b", &["--host=chat.example.org"], "is for a tls component"),
        ("phase", "Terminating", &[], "is still being deleted"),
    ] {
        Bench::with(&[(name, answer)]).deploy(options).refused(why);
    }
    // What the questions above do not find, the API server does.
    let refused = Bench::new().run(DEPLOY, &[REGISTRY, "1.0"], &[("FAIL", "kubectl apply --dry-run=server")]);
    refused.refused("delete statefulset redis --cascade=orphan");

    let bench = Bench::with(&[("rendered", "apiVersion: apps/v1\nhost: carillon.example.com\n")]);
    let host = ["--component", "tls-traefik", "--host", "chat.example.org"];
    bench.deploy(&host).refused("create secret tls carillon-tls");
    std::fs::write(bench.path("secret-carillon-tls"), "").unwrap();
    let Outcome { code, said, .. } = bench.deploy(&host);
    assert_eq!(code, 0, "{said}");
    assert!(bench.read(".generated/application.yaml").contains("host: chat.example.org"), "{said}");
}

#[test]
fn a_namespace_that_somebody_made_brings_no_warning_and_one_that_goes_is_waited_for() {
    let remembered = "kubectl apply set-last-applied --create-annotation --filename k8s/base/namespace.yaml";
    let outcome = Bench::with(&[("phase", "Active")]).deploy(&[]);
    assert!(outcome.code == 0 && outcome.called(remembered), "{}", outcome.said);
    assert!(!Bench::new().deploy(&[]).called(remembered), "there is no namespace to write it to");
    let outcome = Bench::with(&[("phase", "Terminating")]).deploy(&[]);
    assert!(outcome.called("kubectl wait --for=delete namespace/realtime-microservices"), "{}", outcome.said);
}

#[test]
fn a_redis_elsewhere_needs_no_password_of_ours() {
    let bench = Bench::with(&[("rendered", ELSEWHERE), ("secret-external-redis", "")]);
    let outcome = bench.run(DEPLOY, &[REGISTRY, "1.0"], &[("OVERLAY", "external-redis")]);
    assert_eq!(outcome.code, 0, "{}", outcome.said);
    assert!(!outcome.called("kubectl create"), "{:?}", outcome.calls);
}

/// A pod has its Secrets since its start, so one that was lost and made again is none that Redis knows.
#[test]
fn a_secret_that_has_changed_starts_the_pods_that_use_it_anew() {
    let bench = Bench::new();
    let described = |name: &str| {
        let text = bench.read(".generated/secrets.yaml");
        let (_, rest) = text.split_once(&format!("  name: {name}\n")).unwrap();
        rest.split("---").next().unwrap().to_owned()
    };
    bench.deploy(&[]);
    let before = ["redis", "producer", "bff"].map(described);
    bench.deploy(&[]);
    assert_eq!(["redis", "producer", "bff"].map(described), before, "nothing has changed");
    std::fs::remove_file(bench.path("secret-redis-bff")).unwrap();
    bench.deploy(&[]);
    let after = ["redis", "producer", "bff"].map(described);
    assert!(after[0] != before[0] && after[1] == before[1] && after[2] != before[2], "{after:?}");
    std::fs::write(bench.path("secret-bff"), "API_KEY").unwrap();
    bench.deploy(&[]);
    let keyed = ["redis", "producer", "bff"].map(described);
    assert!(keyed[..2] == after[..2] && keyed[2] != after[2], "{keyed:?}");
}

#[test]
fn what_does_not_come_up_is_shown_with_its_pods_and_events() {
    for workload in ["statefulset.apps/redis", "deployment.apps/bff"] {
        let fail = format!("{IN_NAMESPACE} rollout status {workload}");
        let outcome = Bench::new().run(DEPLOY, &[REGISTRY], &[("FAIL", &fail)]);
        assert_eq!(outcome.code, 7, "{}", outcome.said);
        assert!(outcome.said.contains(&format!("{workload} does not come up")), "{}", outcome.said);
        assert!(!outcome.said.contains(RUNS), "{}", outcome.said);
        for asked in ["get pods --output wide", "get events --sort-by=.lastTimestamp"] {
            assert!(outcome.called(&format!("{IN_NAMESPACE} {asked}")), "{asked}: {:?}", outcome.calls);
        }
    }
}

#[test]
fn a_gateway_that_nobody_reaches_is_not_called_running() {
    let gateway =
        [("rendered", GATEWAY), ("objects", GATEWAY_OBJECTS), ("served", "gateway.networking.k8s.io/v1\n")];
    let run = |more: &[(&str, &str)], env: &[(&str, &str)]| {
        let bench = Bench::with(&[&gateway[..], more].concat());
        bench.run(DEPLOY, &["--overlay=gateway-api", REGISTRY, "1.0"], env)
    };
    let outcome = run(&[], &[]);
    assert!(outcome.code == 0 && outcome.said.contains("get gateway carillon"), "{}", outcome.said);
    let programmed = format!("{IN_NAMESPACE} wait --for=condition=Programmed gateway/carillon");
    assert!(outcome.called(&programmed), "{:?}", outcome.calls);
    for (more, env) in [
        (&[][..], &[("FAIL", &*programmed)][..]),
        (&[("conditions", "")], &[]),
        (&[("conditions", "Accepted=False ResolvedRefs=True ")], &[]),
        (&[("conditions", "Accepted=True ResolvedRefs=False ")], &[]),
    ] {
        let outcome = run(more, env);
        assert_eq!(outcome.code, 1, "{more:?}: {}", outcome.said);
        assert!(!outcome.said.contains(RUNS), "{more:?}: {}", outcome.said);
    }
}

#[test]
fn what_another_overlay_left_is_removed_when_the_new_one_runs() {
    let left = format!(
        "{OBJECTS}ingress.networking.k8s.io/bff\nnetworkpolicy.networking.k8s.io/to-external-redis\n"
    );
    let outcome = Bench::with(&[("left", &left)]).deploy(&[]);
    assert_eq!(outcome.code, 0, "{}", outcome.said);
    let removed = "delete ingress.networking.k8s.io/bff networkpolicy.networking.k8s.io/to-external-redis";
    assert_eq!(outcome.calls.last().unwrap(), &format!("{IN_NAMESPACE} {removed}"));
    assert!(
        !outcome.calls.iter().any(|call| call.contains("get deployments.apps") && call.contains("secret"))
    );
    let asked = outcome.calls.iter().find(|call| call.contains("get deployments.apps")).unwrap();
    assert!(!asked.contains("gateway"), "a kind that the cluster does not serve is an error: {asked}");

    let served = format!("{SERVED}gateway.networking.k8s.io/v1\ngateway.envoyproxy.io/v1alpha1\n");
    let outcome = Bench::with(&[("served", &served)]).deploy(&[]);
    let asked = outcome.calls.iter().find(|call| call.contains("get deployments.apps")).unwrap();
    for kind in ["gateways", "httproutes", "backendtrafficpolicies", "envoyproxies"] {
        assert!(asked.contains(&format!(",{kind}.gateway.")), "{kind}: {asked}");
    }
    assert!(!outcome.called(&format!("{IN_NAMESPACE} delete")), "{:?}", outcome.calls);

    let fail = format!("{IN_NAMESPACE} rollout status");
    let bench = Bench::with(&[("left", &left)]);
    let outcome = bench.run(DEPLOY, &[REGISTRY, "1.0"], &[("FAIL", &fail)]);
    assert!(!outcome.called(&format!("{IN_NAMESPACE} delete")), "the old one is all there is");
}

#[test]
fn a_tag_that_was_pushed_again_is_deployed_by_its_digest_or_said_to_change_nothing() {
    let note = "No pod was started anew";
    let bench = Bench::new();
    assert!(!bench.deploy(&[]).said.contains(note), "the generations have changed");
    let again = bench.deploy(&[]);
    assert!(again.said.contains(note) && again.said.contains("1.0 was pushed again"), "{}", again.said);

    std::fs::write(bench.path("digests"), "").unwrap();
    assert_eq!(bench.run(BUILD, &[REGISTRY, "1.0"], &[]).code, 0);
    assert!(!bench.path(".images/1.0").exists(), "a registry that gives no digest");

    let digest = format!("sha256:{}", "0".repeat(64));
    let digests: String =
        ["producer", "bff", "frontend"].map(|name| format!("{REGISTRY}/{name}@{digest}\n")).concat();
    std::fs::write(bench.path("digests"), format!("other.test/bff@sha256:11\n{digests}")).unwrap();
    let built = bench.run(BUILD, &[REGISTRY, "1.0"], &[]);
    assert!(built.code == 0 && built.said.contains(".images/1.0"), "{}", built.said);
    let deployed = bench.deploy(&[]);
    assert!(deployed.said.contains("by the digests in .images/1.0"), "{}", deployed.said);
    assert!(!deployed.said.contains(note), "{}", deployed.said);
    let file = bench.read(".generated/kustomization.yaml");
    assert_eq!(file.matches(&format!("  digest: {digest}\n")).count(), 3, "{file}");
    assert!(!file.contains("newTag"), "{file}");
    // The digests of one registry are none of another.
    bench.run(DEPLOY, &["elsewhere.test", "1.0"], &[]);
    assert!(bench.read(".generated/kustomization.yaml").contains("newTag: \"1.0\""));
}

#[test]
fn what_is_deployed_are_the_images_of_the_registry_and_nothing_else_is_changed() {
    let bench = Bench::with(&[("secret-external-redis", "")]);
    let all = render::variants();
    for (name, plain) in &all {
        let mut words = name.split(' ');
        let overlay = format!("--overlay={}", words.next().unwrap());
        let components: Vec<_> = words.map(|word| format!("--component={word}")).collect();
        let mut args: Vec<_> = components.iter().map(String::as_str).collect();
        args.extend([&overlay, "registry.test:5000", "007"]);
        // The stand-in renders nothing that the script must look for; the folder is rendered for real below.
        if plain.find("StatefulSet", "redis").is_none() {
            std::fs::write(bench.path("rendered"), ELSEWHERE).unwrap();
        }
        let Outcome { code, said, .. } = bench.run(DEPLOY, &args, &[]);
        assert_eq!(code, 0, "{name}: {said}");
        let _ = std::fs::remove_file(bench.path("rendered"));
        let mut rendered = render::folder(bench.folder.path(), ".generated");
        for object in &mut rendered.objects {
            let has_secrets = object["kind"] == "StatefulSet"
                || object["kind"] == "Deployment" && object["metadata"]["name"] != "frontend";
            if has_secrets {
                let template = &mut object["spec"]["template"]["metadata"];
                let annotations = template.as_object_mut().unwrap().remove("annotations").unwrap();
                let versions = annotations["carillon/secrets"].as_str().unwrap();
                assert!(versions.contains("redis"), "{name}: {versions}");
            }
        }
        for (object, before) in rendered.objects.iter().zip(&plain.objects) {
            let wanted = ["producer", "bff", "frontend"].iter().fold(before.to_string(), |text, image| {
                text.replace(&format!("carillon/{image}:0.1.0"), &format!("registry.test:5000/{image}:007"))
            });
            assert_eq!(object.to_string(), wanted, "{name}");
        }
        assert_eq!(rendered.objects.len(), plain.objects.len(), "{name}");
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
