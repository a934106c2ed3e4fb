use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::{Cluster, containers, id, labels, list, matches, pod, port, ports, text};
use crate::render::root;

/// Secrets that no manifest makes: the first three come from the deploy script, the others from the operator.
const SECRETS: [(&str, &str); 9] = [
    ("redis", "password"),
    ("redis-producer", "password"),
    ("redis-bff", "password"),
    ("bff", "API_KEY"),
    ("bff", "WEBHOOK_SECRET"),
    ("bff", "APIAUTH_SECRET"),
    ("bff", "JWT_SECRET"),
    ("external-redis", "REDIS_URL"),
    ("external-redis", "ca.crt"),
];
/// What Redis listens on.
const REDIS_PORT: u64 = 6379;
/// The label by which the deploy script finds what another overlay has left.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "carillon");

/// What names something else names something that is there.
pub(crate) fn faults(cluster: &Cluster) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in cluster.workloads() {
        let id = id(workload);
        if !matches(&workload["spec"]["selector"], labels(workload)) {
            faults.push(format!("{id}: its selector does not find its own pods"));
        }
        if workload["kind"] == "StatefulSet"
            && cluster.find("Service", text(&workload["spec"]["serviceName"])).is_none()
        {
            faults.push(format!("{id}: there is no Service for it"));
        }
        faults.extend(reference_faults(cluster, workload).into_iter().map(|fault| format!("{id}: {fault}")));
    }
    faults.extend(cluster.all("Service").flat_map(|service| service_faults(cluster, service)));
    let unlabelled =
        cluster.objects.iter().filter(|object| object["metadata"]["labels"][PART_OF.0] != PART_OF.1);
    faults.extend(
        unlabelled.map(|object| format!("{}: without its label it would never be deleted", id(object))),
    );
    for budget in cluster.all("PodDisruptionBudget") {
        if cluster.selected(&budget["spec"]["selector"]).count() != 1 || budget["spec"]["maxUnavailable"] != 1
        {
            faults.push(format!("{}: it does not keep the pods of one workload", id(budget)));
        }
    }
    for scaler in cluster.all("HorizontalPodAutoscaler") {
        let target = &scaler["spec"]["scaleTargetRef"];
        if cluster.find(text(&target["kind"]), text(&target["name"])).is_none() {
            faults.push(format!("{}: there is nothing for it to scale", id(scaler)));
        }
    }
    if cluster.find("HorizontalPodAutoscaler", "bff").is_none() {
        faults.push("bff: no autoscaler".to_owned());
    }
    for name in ["bff", "frontend"] {
        if cluster.find("PodDisruptionBudget", name).is_none() {
            faults.push(format!("{name}: the emptying of a node may take all pods at once"));
        }
    }
    faults.extend(policy_faults(cluster));
    faults.extend(redis_faults(cluster));
    faults.extend(option_faults(cluster));
    faults
}

fn service_faults(cluster: &Cluster, service: &Value) -> Vec<String> {
    let selected: Vec<_> = cluster.selected(&service["spec"]["selector"]).collect();
    let [workload] = selected.as_slice() else {
        return vec![format!("{}: it finds the pods of {} workloads", id(service), selected.len())];
    };
    let unreached =
        list(&service["spec"]["ports"]).filter(|entry| port(workload, &entry["targetPort"]).is_none());
    unreached
        .map(|entry| format!("{}: no container listens on {}", id(service), entry["targetPort"]))
        .collect()
}

/// Config maps, secrets, and variables that stand in other variables.
fn reference_faults(cluster: &Cluster, workload: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut config = |name: &Value| {
        if cluster.find("ConfigMap", text(name)).is_none() {
            faults.push(format!("there is no ConfigMap {name}"));
        }
    };
    list(&pod(workload)["volumes"])
        .map(|volume| &volume["configMap"]["name"])
        .filter(|name| !name.is_null())
        .for_each(&mut config);
    containers(workload)
        .flat_map(|container| list(&container["envFrom"]))
        .for_each(|from| config(&from["configMapRef"]["name"]));

    let by_variable = containers(workload)
        .flat_map(|container| list(&container["env"]))
        .map(|variable| &variable["valueFrom"]["secretKeyRef"])
        .map(|secret| (&secret["name"], &secret["key"]));
    let by_volume = list(&pod(workload)["volumes"])
        .map(|volume| &volume["secret"])
        .flat_map(|secret| list(&secret["items"]).map(|item| (&secret["secretName"], &item["key"])));
    for (name, key) in by_variable.chain(by_volume).filter(|(name, _)| !name.is_null()) {
        if !SECRETS.contains(&(text(name), text(key))) {
            faults.push(format!("nothing creates the {key} of the Secret {name}"));
        }
    }
    for container in containers(workload) {
        let mut earlier = BTreeSet::new();
        for variable in list(&container["env"]) {
            let inner =
                text(&variable["value"]).split("$(").skip(1).filter_map(|rest| rest.split(')').next());
            faults.extend(
                inner.filter(|name| !earlier.contains(name)).map(|name| format!("{name} is not known yet")),
            );
            earlier.insert(text(&variable["name"]));
        }
        let volumes: BTreeSet<_> = list(&pod(workload)["volumes"])
            .chain(list(&workload["spec"]["volumeClaimTemplates"]).map(|claim| &claim["metadata"]))
            .map(|volume| text(&volume["name"]))
            .collect();
        let mounts = list(&container["volumeMounts"]).map(|mount| text(&mount["name"]));
        faults.extend(
            mounts.filter(|name| !volumes.contains(name)).map(|name| format!("there is no volume {name}")),
        );
    }
    faults
}

fn policy_faults(cluster: &Cluster) -> Vec<String> {
    let mut faults = Vec::new();
    let deny = cluster.find("NetworkPolicy", "default-deny").map(|policy| &policy["spec"]);
    if deny != Some(&json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] })) {
        faults.push("not everything is denied by default".to_owned());
    }
    for policy in cluster.all("NetworkPolicy") {
        let selected: Vec<_> = cluster.selected(&policy["spec"]["podSelector"]).collect();
        let ingress: Vec<_> = list(&policy["spec"]["ingress"]).collect();
        let egress: Vec<_> = list(&policy["spec"]["egress"]).collect();
        let peers = ingress
            .iter()
            .flat_map(|rule| list(&rule["from"]))
            .chain(egress.iter().flat_map(|rule| list(&rule["to"])));
        // Pods of another namespace are not ours to find.
        let ours = peers.filter(|peer| !peer["podSelector"].is_null() && peer["namespaceSelector"].is_null());
        let lost = ours.filter(|peer| cluster.selected(&peer["podSelector"]).count() == 0);
        if selected.is_empty() || lost.count() > 0 {
            faults.push(format!("{}: it names pods that are not there", id(policy)));
        }
        let shut = ingress.iter().flat_map(|rule| list(&rule["ports"])).filter(|entry| {
            !selected
                .iter()
                .any(|workload| entry["port"].as_u64().is_some_and(|port| ports(workload).contains(&port)))
        });
        faults.extend(shut.map(|entry| format!("{}: no pod there listens on {}", id(policy), entry["port"])));
        // A Redis elsewhere may be anywhere; nothing else is.
        if text(&policy["metadata"]["name"]) != "to-external-redis"
            && egress.iter().any(|rule| list(&rule["to"]).count() == 0)
        {
            faults.push(format!("{}: it lets pods out to any address", id(policy)));
        }
        // What is sent inside must also be taken there.
        for rule in egress.iter().filter(|rule| !rule["to"].is_null()) {
            let ours = list(&rule["to"]).filter(|peer| peer["namespaceSelector"].is_null());
            for workload in ours.flat_map(|peer| cluster.selected(&peer["podSelector"])) {
                for port in list(&rule["ports"]).filter_map(|entry| entry["port"].as_u64()) {
                    let refused = selected.iter().filter(|from| !takes(cluster, workload, from, port));
                    faults.extend(refused.map(|from| format!("{} refuses {}", id(workload), id(from))));
                }
            }
        }
    }
    faults
}

/// Whether a policy lets the pods of `from` in at a port.
fn takes(cluster: &Cluster, workload: &Value, from: &Value, port: u64) -> bool {
    cluster
        .all("NetworkPolicy")
        .filter(|policy| matches(&policy["spec"]["podSelector"], labels(workload)))
        .flat_map(|policy| list(&policy["spec"]["ingress"]))
        .filter(|rule| list(&rule["ports"]).any(|entry| entry["port"] == port))
        .any(|rule| list(&rule["from"]).any(|peer| matches(&peer["podSelector"], labels(from))))
}

fn redis_faults(cluster: &Cluster) -> Vec<String> {
    let clients = ["producer", "bff"].map(|name| cluster.find("Deployment", name).unwrap_or(&Value::Null));
    let Some(redis) = cluster.find("StatefulSet", "redis") else {
        let from_secret = |client: &Value| {
            containers(client).flat_map(|container| list(&container["env"])).any(|variable| {
                variable["name"] == "REDIS_URL"
                    && variable["valueFrom"]["secretKeyRef"]["name"] == "external-redis"
            })
        };
        let left =
            cluster.find("Service", "redis").is_some() || !clients.iter().all(|client| from_secret(client));
        return if left {
            vec!["Redis is gone, and something still looks for it".to_owned()]
        } else {
            Vec::new()
        };
    };
    let mut faults = Vec::new();
    for client in cluster.workloads() {
        if takes(cluster, redis, client, REDIS_PORT) != clients.contains(&client) {
            faults.push(format!("{} may reach Redis, or has to and may not", id(client)));
        }
    }
    let config = text(&cluster.config("redis")["redis.conf"]);
    let lines: BTreeSet<_> = config.lines().collect();
    for line in [
        "appendonly yes",
        "maxmemory-policy noeviction",
        "stream-node-max-bytes 512",
        "proto-max-bulk-len 1mb",
        "dir /data",
    ] {
        if !lines.contains(line) {
            faults.push(format!("redis.conf lacks '{line}'"));
        }
    }
    if list(&redis["spec"]["volumeClaimTemplates"]).count() != 1 {
        faults.push("Redis has no volume".to_owned());
    }
    if redis["spec"]["podManagementPolicy"] != "Parallel" {
        faults.push("a Redis that failed once stays so".to_owned());
    }
    faults.extend(["startupProbe", "livenessProbe", "readinessProbe"].iter().flat_map(|probe| {
        let ping = json!(["redis-cli", "--user", "operator", "-e", "ping"]);
        let lacking = containers(redis).filter(move |container| container[*probe]["exec"]["command"] != ping);
        lacking.map(move |_| format!("Redis has no {probe}"))
    }));
    for (client, name) in clients.iter().zip(["producer", "bff"]) {
        let variables: Vec<_> = containers(client).flat_map(|container| list(&container["env"])).collect();
        let variable = |wanted: &str| {
            variables.iter().find(|variable| variable["name"] == wanted).map_or(&Value::Null, |found| *found)
        };
        let password = &variable("REDIS_PASSWORD")["valueFrom"]["secretKeyRef"]["name"];
        let url = format!("redis://{name}:$(REDIS_PASSWORD)@redis:6379");
        if variable("REDIS_URL")["value"] != url || *password != format!("redis-{name}") {
            faults.push(format!("{name} shares a user of Redis"));
        }
    }
    faults
}

/// Every variable that is set is an option of the program that reads it.
fn option_faults(cluster: &Cluster) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    // The page of all options is made from the programs, and a test of the command line holds it.
    let options = read("docs/configuration.md");
    let program = |name: &str| {
        let section = options.split("\n## ").find(|section| section.starts_with(&format!("`{name}`\n")));
        section.unwrap_or_else(|| panic!("{name} has no section")).to_owned()
    };
    let programs = [
        ("bff", program("bff")),
        ("producer", program("producer")),
        ("frontend", read("frontend/Caddyfile")),
    ];
    let mut faults = Vec::new();
    for (name, source) in &programs {
        let container = cluster.find("Deployment", name).and_then(|workload| containers(workload).next());
        let variables = container
            .into_iter()
            .flat_map(|container| list(&container["env"]))
            .map(|variable| text(&variable["name"]));
        let data =
            cluster.config(name).as_object().into_iter().flat_map(|data| data.keys().map(String::as_str));
        for variable in variables.chain(data) {
            let is_option = match *name {
                "frontend" => source.contains(&format!("{{${variable}")),
                _ => source.contains(&format!("| `{variable}` |")),
            };
            // What the programs' libraries read, and what only stands in another variable.
            let is_other = ["LOG", "REDIS_PASSWORD", "XDG_CONFIG_HOME", "XDG_DATA_HOME"].contains(&variable);
            if !is_option && !is_other {
                faults.push(format!("{name} has no option {variable}"));
            }
        }
    }
    faults
}
