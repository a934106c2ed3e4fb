use serde_json::{Value, json};

use crate::cluster::{Cluster, containers, id, labels, list, matches, pod, port, text};
use crate::render::root;

/// Every pod is one that the restricted pod security standard takes, knows its bounds, and runs an image
/// that cannot change; the replicas come and go without a reader noticing.
pub(crate) fn faults(cluster: &Cluster) -> Vec<String> {
    let mut faults = Vec::new();
    for label in ["enforce", "audit", "warn"] {
        let key = format!("pod-security.kubernetes.io/{label}");
        let namespace = cluster.all("Namespace").next().unwrap_or(&Value::Null);
        if namespace["metadata"]["labels"][&key] != "restricted" {
            faults.push(format!("the namespace has no {key}: restricted"));
        }
    }
    for workload in cluster.workloads() {
        let id = id(workload);
        faults.extend(pod_faults(cluster, workload).map(|fault| format!("{id}: {fault}")));
        for container in containers(workload) {
            faults.extend(container_faults(container).map(|fault| format!("{id}: {fault}")));
        }
    }
    match cluster.find("Deployment", "bff") {
        Some(bff) => faults.extend(replica_faults(cluster, bff)),
        None => faults.push("there is no Deployment bff".to_owned()),
    }
    faults
}

/// The texts whose condition does not hold.
fn unless<const N: usize>(conditions: [(bool, &str); N]) -> impl Iterator<Item = String> {
    conditions.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault.to_owned())
}

fn pod_faults(cluster: &Cluster, workload: &Value) -> impl Iterator<Item = String> {
    let (pod, security) = (pod(workload), &pod(workload)["securityContext"]);
    let account = cluster.find("ServiceAccount", text(&pod["serviceAccountName"]));
    let spread = list(&pod["topologySpreadConstraints"]).all(|spread| {
        spread["whenUnsatisfiable"] == "ScheduleAnyway" && matches(&spread["labelSelector"], labels(workload))
    });
    let host = ["hostNetwork", "hostPID", "hostIPC"].iter().any(|field| !pod[*field].is_null())
        || list(&pod["volumes"]).any(|volume| !volume["hostPath"].is_null());
    unless([
        (security["runAsNonRoot"] == true, "its pods may run as root"),
        (
            security["runAsUser"].as_u64().is_some_and(|user| user > 0),
            "its pods run as no user in particular",
        ),
        (security["seccompProfile"]["type"] == "RuntimeDefault", "its pods may make any system call"),
        (!host, "its pods share something with the node"),
        (pod["automountServiceAccountToken"] == false, "its pods get a token of the Kubernetes API"),
        (
            account.is_some_and(|account| account["automountServiceAccountToken"] == false),
            "its account is missing or has a token",
        ),
        (pod["enableServiceLinks"] == false, "Kubernetes adds variables to its pods, which may be options"),
        (spread, "its pods may not fit on one node, or do not spread"),
    ])
}

fn container_faults(container: &Value) -> impl Iterator<Item = String> {
    let (security, resources) = (&container["securityContext"], &container["resources"]);
    let bounded = ["requests", "limits"]
        .iter()
        .all(|bound| ["cpu", "memory"].iter().all(|what| !resources[*bound][*what].is_null()));
    unless([
        (security["allowPrivilegeEscalation"] == false, "it may gain privileges"),
        (security["readOnlyRootFilesystem"] == true, "its root is not read-only"),
        (security["capabilities"] == json!({ "drop": ["ALL"] }), "it keeps capabilities"),
        (
            security["privileged"].is_null() && security["runAsUser"].is_null(),
            "a container takes more than its pod",
        ),
        (bounded, "it lacks requests or limits of processor and memory"),
        (is_pinned(text(&container["image"])), "its image is not pinned"),
    ])
}

/// Whether an image is pinned, by a digest or by a tag that is a version.
fn is_pinned(image: &str) -> bool {
    if let Some((_, digest)) = image.split_once('@') {
        return digest.starts_with("sha256:") && digest.len() == "sha256:".len() + 64;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':')
        .is_some_and(|(_, tag)| tag.starts_with(|first: char| first.is_ascii_digit()) && tag.contains('.'))
}

/// Some seconds beside those that are counted: to be scheduled, and to write logs.
const AIR_SECONDS: u64 = 5;

fn replica_faults(cluster: &Cluster, bff: &Value) -> impl Iterator<Item = String> {
    let container = containers(bff).next().unwrap_or(&Value::Null);
    let probe = |name: &str, path: &str| {
        let get = &container[name]["httpGet"];
        get["path"] == path && port(bff, &get["port"]) == Some(admin_port(cluster))
    };
    let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or_default();
    let grace = pod(bff)["terminationGracePeriodSeconds"].as_u64().unwrap_or_default();
    let not_ready = ["periodSeconds", "failureThreshold"]
        .iter()
        .map(|field| container["readinessProbe"][*field].as_u64().unwrap_or(100))
        .product::<u64>();
    let scaler = cluster
        .all("HorizontalPodAutoscaler")
        .find(|scaler| scaler["spec"]["scaleTargetRef"]["name"] == "bff");
    let scaler = scaler.map_or(&Value::Null, |scaler| &scaler["spec"]);
    let (least, most) =
        (scaler["minReplicas"].as_u64().unwrap_or(1), scaler["maxReplicas"].as_u64().unwrap_or(1));
    let spread: Vec<_> =
        list(&pod(bff)["topologySpreadConstraints"]).map(|spread| text(&spread["topologyKey"])).collect();
    unless([
        (probe("startupProbe", "/live"), "bff: no startup probe on the admin port"),
        (probe("livenessProbe", "/live"), "bff: no liveness probe on the admin port"),
        (probe("readinessProbe", "/ready"), "bff: no readiness probe on the admin port"),
        (not_ready <= 10, "bff: a replica that is not ready is sent readers for longer than ten seconds"),
        (sleep >= 3, "bff: no sleep before the stop"),
        (grace >= sleep + stop_seconds() + AIR_SECONDS, "bff: the grace period ends before the drain does"),
        (
            bff["spec"]["strategy"]
                == json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } }),
            "bff: a rollout takes a replica before it brings one",
        ),
        (bff["spec"]["replicas"].is_null(), "bff: each deploy undoes what the autoscaler chose"),
        (least >= 3 && most > least, "bff: fewer than three replicas, or no room for more"),
        (spread.contains(&"kubernetes.io/hostname"), "bff: replicas do not spread over nodes"),
        (
            cluster.config("bff")["TRUSTED_PROXY_HOPS"] == "1",
            "bff: all clients of the front door count as one client",
        ),
        (
            cluster.config("bff")["TRUSTED_PROXIES"].is_null(),
            "bff: clients on such a network can forge addresses",
        ),
    ])
}

fn admin_port(cluster: &Cluster) -> u64 {
    let admin = text(&cluster.config("bff")["ADMIN_LISTEN"]);
    admin.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default()
}

/// The seconds within which a replica stops, from its source.
fn stop_seconds() -> u64 {
    let source = std::fs::read_to_string(root().join("bff/src/replica.rs")).unwrap();
    let (_, rest) = source.split_once("STOP_DEADLINE: Duration = Duration::from_secs(").expect("a deadline");
    rest.split(')').next().unwrap().parse().unwrap()
}

#[test]
fn an_image_is_pinned_by_a_version_or_a_digest() {
    let digest = format!("bff@sha256:{}", "0".repeat(64));
    for (image, pinned) in [
        ("redis:8.4.4-alpine", true),
        ("localhost:5000/bff:0.1.0", true),
        (digest.as_str(), true),
        ("redis", false),
        ("redis:latest", false),
        ("redis:8", false),
        ("localhost:5000/bff", false),
        ("bff@sha256:00", false),
    ] {
        assert_eq!(is_pinned(image), pinned, "{image}");
    }
}
