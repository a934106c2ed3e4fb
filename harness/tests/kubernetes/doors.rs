use std::collections::BTreeSet;

use carillon_protocol::limits::HEARTBEAT_MS;
use serde_json::Value;

use crate::cluster::{Cluster, id, list, port, ports, text};
use crate::render::root;

/// The same cookie wherever the front door is.
const COOKIE: &str = "REALTIMESERVERID";
/// In front of every annotation of ingress-nginx.
const NGINX: &str = "nginx.ingress.kubernetes.io/";
/// In front of every annotation of Traefik on a Service.
const TRAEFIK: &str = "traefik.ingress.kubernetes.io/service.sticky.cookie";

/// A path and the Service behind it.
type Route = (String, String);

/// The front door brings each path to the right pods, keeps a browser at its replica, and ends no stream.
pub(crate) fn faults(cluster: &Cluster) -> Vec<String> {
    let mut faults = Vec::new();
    let (routes, dangling) = if cluster.all("Gateway").count() > 0 {
        faults.extend(gateway_faults(cluster));
        gateway_routes(cluster)
    } else {
        faults.extend(ingress_faults(cluster));
        ingress_routes(cluster)
    };
    faults.extend(dangling.into_iter().map(|route| format!("nothing listens behind {route}")));
    if routes != wanted() {
        faults.push(format!("the front door has the routes {routes:?}, and Caddy's {:?}", wanted()));
    }
    let policy = cluster.find("NetworkPolicy", "front-door").unwrap_or(&Value::Null);
    for name in ["bff", "frontend"] {
        let workload = cluster.find("Deployment", name).unwrap_or(&Value::Null);
        let selected = cluster.selected(&policy["spec"]["podSelector"]).any(|found| found == workload);
        let from_door = list(&policy["spec"]["ingress"]).any(|rule| {
            list(&rule["from"]).any(|peer| !peer["namespaceSelector"].is_null())
                && list(&rule["ports"]).any(|entry| {
                    Some(&entry["port"])
                        == cluster.find("Service", name).map(|service| &service["spec"]["ports"][0]["port"])
                })
        });
        if !selected || !from_door {
            faults.push(format!("{name} does not take what comes from the front door"));
        }
    }
    faults
}

/// The routes of the front door of Compose and of the tests, from its file; all else is the viewer's.
fn wanted() -> BTreeSet<Route> {
    let caddyfile = std::fs::read_to_string(root().join("frontend/Caddyfile")).unwrap();
    let line =
        caddyfile.lines().find_map(|line| line.trim().strip_prefix("@replicas path ")).expect("a matcher");
    let paths = line.split_whitespace().map(|path| path.strip_suffix("/*").unwrap_or(path));
    let routes = paths.map(|path| (path.to_owned(), "bff".to_owned()));
    routes.chain([("/".to_owned(), "frontend".to_owned())]).collect()
}

/// The routes of all Ingress objects, and those that lead nowhere.
fn ingress_routes(cluster: &Cluster) -> (BTreeSet<Route>, Vec<String>) {
    let rules = cluster.all("Ingress").flat_map(|ingress| list(&ingress["spec"]["rules"]));
    let (mut routes, mut dangling) = (BTreeSet::new(), Vec::new());
    for path in rules.flat_map(|rule| list(&rule["http"]["paths"])) {
        let service = &path["backend"]["service"];
        let name = text(&service["name"]);
        let target = cluster.find("Service", name).and_then(|found| {
            list(&found["spec"]["ports"]).find(|entry| entry["name"] == service["port"]["name"]).filter(
                |entry| {
                    cluster
                        .selected(&found["spec"]["selector"])
                        .any(|workload| port(workload, &entry["targetPort"]).is_some())
                },
            )
        });
        if target.is_none() || !["Exact", "Prefix"].contains(&text(&path["pathType"])) {
            dangling.push(text(&path["path"]).to_owned());
        }
        routes.insert((text(&path["path"]).to_owned(), name.to_owned()));
    }
    (routes, dangling)
}

fn gateway_routes(cluster: &Cluster) -> (BTreeSet<Route>, Vec<String>) {
    let (mut routes, mut dangling) = (BTreeSet::new(), Vec::new());
    for rule in cluster.all("HTTPRoute").flat_map(|route| list(&route["spec"]["rules"])) {
        for backend in list(&rule["backendRefs"]) {
            let service = cluster.find("Service", text(&backend["name"]));
            let reached = service.is_some_and(|service| {
                list(&service["spec"]["ports"]).any(|entry| entry["port"] == backend["port"])
                    && cluster
                        .selected(&service["spec"]["selector"])
                        .any(|workload| !ports(workload).is_empty())
            });
            for path in list(&rule["matches"]).map(|entry| text(&entry["path"]["value"])) {
                routes.insert((path.to_owned(), text(&backend["name"]).to_owned()));
                dangling.extend((!reached).then(|| path.to_owned()));
            }
        }
    }
    (routes, dangling)
}

fn ingress_faults(cluster: &Cluster) -> Vec<String> {
    let mut faults = Vec::new();
    for ingress in cluster.all("Ingress") {
        let class = text(&ingress["spec"]["ingressClassName"]);
        let has_bff = ingress["spec"]["rules"].to_string().contains("\"bff\"");
        let annotations = &ingress["metadata"]["annotations"];
        match class {
            "nginx" if has_bff => faults.extend(nginx_faults(annotations)),
            "nginx" => {}
            "traefik" => {
                let service = cluster.find("Service", "bff").unwrap_or(&Value::Null);
                let annotations = &service["metadata"]["annotations"];
                for (key, value) in [("", "true"), (".name", COOKIE), (".path", "/")] {
                    if annotations[format!("{TRAEFIK}{key}")] != value {
                        faults.push(format!("Traefik is not told {TRAEFIK}{key}: {value}"));
                    }
                }
            }
            _ => faults.push(format!("{}: '{class}' is no front door that is known here", id(ingress))),
        }
        if class == "nginx" && annotations[format!("{NGINX}ssl-redirect")] != "false" {
            faults.push(format!("{}: it sends plain HTTP elsewhere", id(ingress)));
        }
    }
    faults
}

fn nginx_faults(annotations: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let wanted = [
        ("affinity", "cookie"),
        ("affinity-mode", "persistent"),
        ("session-cookie-name", COOKIE),
        ("session-cookie-path", "/"),
        ("session-cookie-change-on-failure", "true"),
        ("proxy-buffering", "off"),
    ];
    for (key, value) in wanted {
        if annotations[format!("{NGINX}{key}")] != value {
            faults.push(format!("ingress-nginx is not told {key}: {value}"));
        }
    }
    for key in ["proxy-read-timeout", "proxy-send-timeout"] {
        let seconds: u64 = text(&annotations[format!("{NGINX}{key}")]).parse().unwrap_or_default();
        if seconds * 1_000 < 2 * HEARTBEAT_MS {
            faults.push(format!("{key} is not above the heartbeat"));
        }
    }
    faults
}

fn gateway_faults(cluster: &Cluster) -> Vec<String> {
    let mut faults = Vec::new();
    for route in cluster.all("HTTPRoute") {
        for parent in list(&route["spec"]["parentRefs"]) {
            let gateway = cluster.find("Gateway", text(&parent["name"])).unwrap_or(&Value::Null);
            if !list(&gateway["spec"]["listeners"]).any(|listener| listener["name"] == parent["sectionName"])
            {
                faults.push(format!("{}: its gateway does not listen", id(route)));
            }
        }
        for rule in list(&route["spec"]["rules"]).filter(|rule| rule["backendRefs"][0]["name"] == "bff") {
            if rule["sessionPersistence"]["sessionName"] != COOKIE {
                faults.push(format!("{}: no cookie", id(route)));
            }
            if rule["timeouts"]["request"] != "0s" || rule["timeouts"]["backendRequest"] != "0s" {
                faults.push(format!("{}: its streams are ended", id(route)));
            }
        }
    }
    faults
}
