//! A copy of the two scripts and of what they read, with stand-ins for docker, kubectl and git.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::render::{copy, root};

pub(crate) const BUILD: &str = "scripts/build-and-push-containers.sh";
pub(crate) const DEPLOY: &str = "scripts/deploy-application.sh";
pub(crate) const REGISTRY: &str = "registry.test/team";
/// The start of each command in the namespace.
pub(crate) const IN_NAMESPACE: &str = "kubectl --namespace realtime-microservices";
/// The end of a deployment that went well, and of no other.
pub(crate) const RUNS: &str = "Carillon runs.";
/// Records its calls, fails when a variable names the call, and prints what the real program would print, or the
/// content of the file for that question, where there is one.
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
pub(crate) const ELSEWHERE: &str = "apiVersion: apps/v1\nkind: Deployment\n  name: external-redis\n";
/// The same with a Gateway.
pub(crate) const GATEWAY: &str =
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nspec:\n  gatewayClassName: eg\n";
pub(crate) const SERVED: &str = "apps/v1\nnetworking.k8s.io/v1\n";
pub(crate) const OBJECTS: &str =
    "namespace/realtime-microservices\nservice/bff\ndeployment.apps/bff\nstatefulset.apps/redis\n";
pub(crate) const GATEWAY_OBJECTS: &str = "deployment.apps/bff\ngateway.gateway.networking.k8s.io/carillon\n\
    httproute.gateway.networking.k8s.io/bff\nbackendtrafficpolicy.gateway.envoyproxy.io/bff\n";

/// A copy of the scripts and of `k8s/`, and the programs that they call.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
}

/// How a script ended.
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) printed: String,
    pub(crate) calls: Vec<String>,
}

impl Outcome {
    /// Whether a command that begins so was run.
    pub(crate) fn called(&self, start: &str) -> bool {
        self.calls.iter().any(|call| call.starts_with(start))
    }

    /// It failed before it applied anything but the namespace and the passwords, and printed the reason.
    pub(crate) fn refused(&self, why: &str) {
        assert_ne!(self.code, 0, "{why}: {}", self.printed);
        assert!(self.printed.contains(why), "not '{why}' but {}", self.printed);
        assert!(!self.called("kubectl apply --filename .generated"), "{why}: {:?}", self.calls);
        assert!(!self.printed.contains(RUNS), "{why}: {}", self.printed);
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn with(answers: &[(&str, &str)]) -> Self {
        let bench = Self::new();
        for (name, answer) in answers {
            std::fs::write(bench.path(name), answer).unwrap();
        }
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn run(&self, script: &str, args: &[&str], env: &[(&str, &str)]) -> Outcome {
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
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let calls = self.read("calls");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            printed,
            calls: calls.lines().map(str::to_owned).collect(),
        }
    }

    /// A deployment of a tag by its overlay.
    pub(crate) fn deploy(&self, options: &[&str]) -> Outcome {
        self.run(DEPLOY, &[options, &[REGISTRY, "1.0"]].concat(), &[])
    }
}
