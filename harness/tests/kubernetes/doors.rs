use std::collections::BTreeSet;

use carillon_protocol::limits::HEARTBEAT_MS;
use serde_json::{Value, json};

use crate::cluster::{Cluster, id, list, port, ports, text};
use crate::render::root;

/// The same cookie wherever the front door is.
const COOKIE: &str = "REALTIMESERVERID";
/// In front of every annotation of ingress-nginx.
const NGINX: &str = "nginx.ingress.kubernetes.io/";
/// In front of every annotation of Traefik.
const TRAEFIK: &str = "traefik.ingress.kubernetes.io/";
/// The options of a cookie that Traefik 3.0 supports. An unsupported one makes it drop the Service.
const TRAEFIK_COOKIE: [&str; 6] = ["", ".name", ".secure", ".httponly", ".samesite", ".maxage"];
/// What stands for the host of the certificate until the deploy script puts another one there.
const HOST: &str = "carillon.example.com";
/// The Secret with the certificate.
const CERTIFICATE: &str = "carillon-tls";

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
        if target.is_none() {
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
    let has_tls = cluster.all("Ingress").any(|ingress| !ingress["spec"]["tls"].is_null());
    for ingress in cluster.all("Ingress") {
        let found = match text(&ingress["spec"]["ingressClassName"]) {
            "nginx" => nginx_faults(ingress, has_tls),
            "traefik" => traefik_faults(ingress, cluster.find("Service", "bff"), has_tls),
            class => vec![format!("unsupported class '{class}'")],
        };
        faults.extend(found.into_iter().map(|fault| format!("{}: {fault}", id(ingress))));
        let hosts: Vec<_> = list(&ingress["spec"]["rules"]).map(|rule| &rule["host"]).collect();
        let certified = json!([{ "hosts": [HOST], "secretName": CERTIFICATE }]);
        if has_tls && (hosts != [HOST] || ingress["spec"]["tls"] != certified) {
            faults.push(format!("{}: no certificate for its host", id(ingress)));
        }
    }
    faults
}

fn traefik_faults(ingress: &Value, service: Option<&Value>, has_tls: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let none = Value::Null;
    let sticky = service.map_or(&none, |service| &service["metadata"]["annotations"]);
    let mut wanted = vec![("", "true"), (".name", COOKIE), (".httponly", "true"), (".samesite", "lax")];
    wanted.extend(has_tls.then_some((".secure", "true")));
    for (key, value) in wanted {
        if sticky[format!("{TRAEFIK}service.sticky.cookie{key}")] != value {
            faults.push(format!("Traefik lacks service.sticky.cookie{key}: {value}"));
        }
    }
    let cookie = format!("{TRAEFIK}service.sticky.cookie");
    let words = sticky.as_object().into_iter().flatten().filter_map(|(key, _)| key.strip_prefix(&cookie));
    let unknown = words.filter(|word| !TRAEFIK_COOKIE.contains(word));
    faults.extend(unknown.map(|word| format!("Traefik 3.0 rejects sticky.cookie{word}")));
    let annotations = &ingress["metadata"]["annotations"];
    let entry = if has_tls { "websecure" } else { "web" };
    let tls = if has_tls { json!("true") } else { Value::Null };
    if annotations[format!("{TRAEFIK}router.entrypoints")] != entry
        || annotations[format!("{TRAEFIK}router.tls")] != tls
    {
        faults.push(format!("it does not come in by {entry}"));
    }
    faults
}

fn nginx_faults(ingress: &Value, has_tls: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let annotations = &ingress["metadata"]["annotations"];
    let mut wanted = vec![("ssl-redirect", if has_tls { "true" } else { "false" })];
    if ingress["spec"]["rules"].to_string().contains("\"bff\"") {
        wanted.extend([
            ("affinity", "cookie"),
            ("affinity-mode", "persistent"),
            ("session-cookie-name", COOKIE),
            ("session-cookie-path", "/"),
            ("session-cookie-samesite", "Lax"),
            ("session-cookie-change-on-failure", "true"),
            ("proxy-buffering", "off"),
            // A query may hold a token or a session.
            ("enable-access-log", "false"),
        ]);
        wanted.extend(has_tls.then_some(("session-cookie-secure", "true")));
        for key in ["proxy-read-timeout", "proxy-send-timeout"] {
            let seconds: u64 = text(&annotations[format!("{NGINX}{key}")]).parse().unwrap_or_default();
            if seconds * 1_000 < 2 * HEARTBEAT_MS {
                faults.push(format!("{key} is not above the heartbeat"));
            }
        }
    }
    for (key, value) in wanted {
        if annotations[format!("{NGINX}{key}")] != value {
            faults.push(format!("ingress-nginx lacks {key}: {value}"));
        }
    }
    let paths = list(&ingress["spec"]["rules"]).flat_map(|rule| list(&rule["http"]["paths"]));
    for path in paths.filter(|path| path["pathType"] != "ImplementationSpecific") {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "/-_".contains(letter);
        if !text(&path["path"]).chars().all(plain) {
            faults.push(format!("ingress-nginx 1.13.0 refuses {} as {}", path["path"], path["pathType"]));
        }
    }
    faults
}

fn gateway_faults(cluster: &Cluster) -> Vec<String> {
    let mut faults = Vec::new();
    let gateway = cluster.all("Gateway").next().unwrap_or(&Value::Null);
    let secure = list(&gateway["spec"]["listeners"]).find(|listener| listener["protocol"] == "HTTPS");
    for route in cluster.all("HTTPRoute") {
        for parent in list(&route["spec"]["parentRefs"]) {
            let listener = (parent["name"] == gateway["metadata"]["name"])
                .then(|| {
                    list(&gateway["spec"]["listeners"])
                        .find(|listener| listener["name"] == parent["sectionName"])
                })
                .flatten();
            let leads_on = list(&route["spec"]["rules"]).any(|rule| !rule["backendRefs"].is_null());
            match listener {
                None => faults.push(format!("{}: its gateway does not listen", id(route))),
                Some(listener) if secure.is_some() && leads_on && listener["protocol"] != "HTTPS" => {
                    faults.push(format!("{}: it is reached by plain HTTP", id(route)));
                }
                Some(_) => {}
            }
        }
        for rule in list(&route["spec"]["rules"]).filter(|rule| rule["backendRefs"][0]["name"] == "bff") {
            if rule["timeouts"]["request"] != "0s" || rule["timeouts"]["backendRequest"] != "0s" {
                faults.push(format!("{}: its streams are ended", id(route)));
            }
        }
    }
    if let Some(listener) = secure {
        let redirect = cluster.find("HTTPRoute", "redirect").unwrap_or(&Value::Null);
        let filter = &redirect["spec"]["rules"][0]["filters"][0]["requestRedirect"];
        if redirect["spec"]["parentRefs"][0]["sectionName"] != "http" || filter["scheme"] != "https" {
            faults.push("plain HTTP is not sent to HTTPS".to_owned());
        }
        if listener["hostname"] != HOST
            || listener["tls"]["certificateRefs"] != json!([{ "name": CERTIFICATE }])
        {
            faults.push("the Gateway has no certificate for its host".to_owned());
        }
    }
    faults.extend(envoy_faults(cluster, gateway, secure.is_some()));
    faults
}

/// What Envoy Gateway adds: one cookie for all paths, clients' own addresses, and a log without queries.
fn envoy_faults(cluster: &Cluster, gateway: &Value, has_tls: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let policy = cluster.find("BackendTrafficPolicy", "bff").unwrap_or(&Value::Null);
    let target = &policy["spec"]["targetRefs"];
    let cookie = &policy["spec"]["loadBalancer"]["consistentHash"]["cookie"];
    if *target != json!([{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "bff" }])
        || cookie["name"] != COOKIE
    {
        faults.push("no cookie holds a browser to its replica".to_owned());
    }
    if cookie["ttl"].is_null() {
        faults.push("Envoy only reads the cookie: without a ttl it sets none".to_owned());
    }
    if cookie["attributes"]["Path"] != "/" {
        faults.push("a browser gets a cookie for each path".to_owned());
    }
    if cookie["attributes"]["SameSite"] != "Lax" || cookie["attributes"]["Secure"].is_null() == has_tls {
        faults.push("the cookie lacks an attribute, or has one too many".to_owned());
    }
    let parameters = &gateway["spec"]["infrastructure"]["parametersRef"];
    let proxy = cluster.find("EnvoyProxy", text(&parameters["name"])).unwrap_or(&Value::Null);
    if parameters["kind"] != "EnvoyProxy" || proxy.is_null() {
        faults.push("the Gateway has no EnvoyProxy".to_owned());
    }
    if proxy["spec"]["provider"]["kubernetes"]["envoyService"]["externalTrafficPolicy"] != "Local" {
        faults.push("clients have the addresses of nodes".to_owned());
    }
    let format = text(&proxy["spec"]["telemetry"]["accessLog"]["settings"][0]["format"]["text"]);
    let rest = format.replace("%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%", "");
    if format == rest || rest.contains("PATH") || rest.contains("REFERER") {
        faults.push("the access log has queries, or no path".to_owned());
    }
    faults
}
