//! Each promise broken on purpose.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::{faults, render};

/// Breaks one value of one object, given by kind, name without a hash, and a JSON pointer, in which
/// `pod` and `container` stand for the way to them. Null removes.
struct Break {
    overlay: &'static str,
    object: (&'static str, &'static str),
    at: &'static str,
    value: Value,
    fault: &'static str,
}

fn object<'a>(cluster: &'a mut Cluster, (kind, name): (&str, &str)) -> &'a mut Value {
    let found = cluster.objects.iter_mut().find(|object| {
        object["kind"] == kind && without_hash(kind, object["metadata"]["name"].as_str().unwrap()) == name
    });
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn without_hash<'a>(kind: &str, name: &'a str) -> &'a str {
    let stem = name.rsplit_once('-').map(|(stem, _)| stem);
    stem.filter(|_| kind == "ConfigMap").unwrap_or(name)
}

/// Puts a value where the pointer says, making what is on the way; null takes away what is there.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let pointer = match pointer.split_once('/').unwrap() {
        ("pod", rest) => format!("/spec/template/spec/{rest}"),
        ("container", rest) => format!("/spec/template/spec/containers/0/{rest}"),
        _ => pointer.to_owned(),
    };
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let mut place = object;
    for step in parent.split('/').skip(1) {
        let step = step.replace("~1", "/");
        place = match step.parse::<usize>() {
            Ok(at) => &mut place[at],
            Err(_) => &mut place[step.as_str()],
        };
    }
    let key = key.replace("~1", "/");
    match (place, value) {
        (Value::Array(list), Value::Null) => drop(list.remove(key.parse().unwrap())),
        (Value::Array(list), value) => list[key.parse::<usize>().unwrap()] = value,
        (place, Value::Null) => drop(place.as_object_mut().unwrap().remove(&key)),
        (place, value) => place[key.as_str()] = value,
    }
}

/// One line each: it is a table.
#[rustfmt::skip]
fn breaks() -> Vec<Break> {
    let mut all = Vec::new();
    let mut on = |overlay, object, at: &'static str, value, fault| {
        all.push(Break { overlay, object, at, value, fault })
    };
    let (bff, redis) = (("Deployment", "bff"), ("StatefulSet", "redis"));
    let nginx = "ingress-nginx";

    on(nginx, bff, "/spec/colour", json!("red"), "Deployment bff: unknown field /spec/colour");
    on(nginx, bff, "container/ports/0/containerport", json!(1), "unknown field /spec/template/spec/containers/0/ports/0/containerport");
    on(nginx, bff, "/spec/selector", Value::Null, "missing field /spec/selector");
    on(nginx, bff, "/spec/minReadySeconds", json!("soon"), "invalid type");
    on(nginx, bff, "/apiVersion", json!("extensions/v1beta1"), "extensions/v1beta1 has no Deployment here");
    on(nginx, bff, "/metadata/namespace", json!("default"), "Deployment bff is not in realtime-microservices");

    on(nginx, ("Namespace", "realtime-microservices"), "/metadata/labels/pod-security.kubernetes.io~1enforce", json!("baseline"), "enforce: restricted");
    on(nginx, bff, "pod/securityContext/runAsNonRoot", json!(false), "may run as root");
    on(nginx, redis, "pod/securityContext/runAsUser", json!(0), "no user in particular");
    on(nginx, bff, "pod/securityContext/seccompProfile/type", json!("Unconfined"), "any system call");
    on(nginx, bff, "pod/hostNetwork", json!(true), "share something with the node");
    on(nginx, bff, "pod/automountServiceAccountToken", json!(true), "token of the Kubernetes API");
    on(nginx, ("ServiceAccount", "bff"), "/automountServiceAccountToken", json!(true), "account is missing or has a token");
    on(nginx, bff, "pod/serviceAccountName", json!("nobody"), "account is missing or has a token");
    on(nginx, ("Deployment", "frontend"), "pod/enableServiceLinks", json!(true), "adds variables");
    on(nginx, bff, "pod/topologySpreadConstraints/0/whenUnsatisfiable", json!("DoNotSchedule"), "may not fit on one node");
    on(nginx, bff, "pod/topologySpreadConstraints/0/topologyKey", json!("rack"), "do not spread over nodes");
    on(nginx, bff, "container/securityContext/allowPrivilegeEscalation", json!(true), "gain privileges");
    on(nginx, bff, "container/securityContext/readOnlyRootFilesystem", json!(false), "root is not read-only");
    on(nginx, bff, "container/securityContext/capabilities", json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] }), "keeps capabilities");
    on(nginx, bff, "container/securityContext/runAsUser", json!(0), "takes more than its pod");
    on(nginx, bff, "container/resources/limits/memory", Value::Null, "lacks requests or limits");
    on(nginx, bff, "container/image", json!("carillon/bff:latest"), "image is not pinned");

    on(nginx, bff, "container/startupProbe", Value::Null, "no startup probe");
    on(nginx, bff, "container/livenessProbe/httpGet/path", json!("/ready"), "no liveness probe");
    on(nginx, bff, "container/readinessProbe/httpGet/port", json!("http"), "no readiness probe");
    on(nginx, bff, "container/readinessProbe/periodSeconds", json!(30), "longer than ten seconds");
    on(nginx, bff, "container/lifecycle", Value::Null, "no sleep before the stop");
    on(nginx, bff, "pod/terminationGracePeriodSeconds", json!(15), "grace period ends");
    on(nginx, bff, "/spec/strategy/rollingUpdate/maxUnavailable", json!(1), "takes a replica before");
    on(nginx, ("ConfigMap", "bff"), "/data/TRUSTED_PROXIES", json!("192.0.2.0/24"), "counts as one client");
    on(nginx, bff, "/spec/replicas", json!(3), "undoes what the autoscaler chose");
    on(nginx, ("HorizontalPodAutoscaler", "bff"), "/spec/minReplicas", json!(1), "fewer than three");
    on(nginx, ("HorizontalPodAutoscaler", "bff"), "/spec/scaleTargetRef/name", json!("gone"), "nothing for it to scale");
    on(nginx, ("PodDisruptionBudget", "bff"), "/spec/selector/matchLabels/app.kubernetes.io~1name", json!("gone"), "does not keep the pods");

    on(nginx, bff, "/spec/selector/matchLabels/app.kubernetes.io~1name", json!("gone"), "does not find its own pods");
    on(nginx, redis, "/spec/serviceName", json!("gone"), "there is no Service for it");
    on(nginx, ("Service", "bff"), "/spec/selector/app.kubernetes.io~1name", json!("gone"), "pods of 0 workloads");
    on(nginx, ("Service", "redis"), "/spec/ports/0/targetPort", json!("http"), "no container listens on");
    on(nginx, bff, "container/envFrom/0/configMapRef/name", json!("gone"), "there is no ConfigMap");
    on(nginx, redis, "pod/volumes/0/configMap/name", json!("gone"), "there is no ConfigMap");
    on(nginx, redis, "pod/volumes/0/name", json!("gone"), "there is no volume");
    on(nginx, redis, "container/env/0/valueFrom/secretKeyRef/key", json!("gone"), "nobody makes the");
    on(nginx, bff, "container/env/1/name", json!("REDIS_PASS"), "REDIS_PASSWORD is not known yet");
    on(nginx, ("ConfigMap", "bff"), "/data/LISTEM", json!(""), "bff has no option LISTEM");
    on(nginx, ("ConfigMap", "frontend"), "/data/BFF_PROT", json!(""), "frontend has no option BFF_PROT");

    on(nginx, ("NetworkPolicy", "default-deny"), "/spec/policyTypes/1", Value::Null, "not everything is denied");
    on(nginx, ("NetworkPolicy", "to-redis"), "/spec/podSelector/matchExpressions/0/values", json!(["gone"]), "pods that are not there");
    on(nginx, ("NetworkPolicy", "redis-takes"), "/spec/ingress/0/ports/0/port", json!(6380), "nobody there listens on");
    on(nginx, ("NetworkPolicy", "redis-takes"), "/spec/ingress/0/from/0/podSelector/matchExpressions/0/values", json!(["bff"]), "refuses Deployment producer");
    on(nginx, ("NetworkPolicy", "redis-takes"), "/spec/ingress/0/from/0/podSelector/matchExpressions/0/values/0", json!("frontend"), "frontend may reach Redis");
    on(nginx, ("ConfigMap", "redis"), "/data/redis.conf", json!("appendonly no"), "lacks 'appendonly yes'");
    on(nginx, redis, "/spec/volumeClaimTemplates", Value::Null, "Redis has no volume");
    on(nginx, redis, "container/livenessProbe", Value::Null, "Redis has no livenessProbe");

    on(nginx, ("Ingress", "bff"), "/metadata/annotations/nginx.ingress.kubernetes.io~1session-cookie-name", json!("route"), "not told session-cookie-name");
    on(nginx, ("Ingress", "bff"), "/metadata/annotations/nginx.ingress.kubernetes.io~1affinity", Value::Null, "not told affinity");
    on(nginx, ("Ingress", "bff"), "/metadata/annotations/nginx.ingress.kubernetes.io~1proxy-read-timeout", json!("20"), "not above the heartbeat");
    on(nginx, ("Ingress", "frontend"), "/metadata/annotations/nginx.ingress.kubernetes.io~1ssl-redirect", json!("true"), "sends plain HTTP elsewhere");
    on(nginx, ("Ingress", "bff"), "/spec/ingressClassName", json!("haproxy"), "no front door that is known");
    on(nginx, ("Ingress", "bff"), "/spec/rules/0/http/paths/2", Value::Null, "has the routes");
    on(nginx, ("Ingress", "frontend"), "/spec/rules/0/http/paths/0/backend/service/port/name", json!("admin"), "nothing listens behind /");
    on(nginx, ("NetworkPolicy", "front-door"), "/spec/podSelector/matchExpressions/0/values", json!(["bff"]), "frontend does not take");
    on("traefik", ("Service", "bff"), "/metadata/annotations", Value::Null, "Traefik is not told");
    on("gateway-api", ("HTTPRoute", "bff"), "/spec/rules/0/sessionPersistence/sessionName", json!("route"), "no cookie");
    on("gateway-api", ("HTTPRoute", "bff"), "/spec/rules/0/timeouts/request", json!("15s"), "streams are ended");
    on("gateway-api", ("HTTPRoute", "bff"), "/spec/rules/0/backendRefs/0/port", json!(1), "nothing listens behind /ws");
    on("gateway-api", ("HTTPRoute", "bff"), "/spec/rules/0/sticky", json!(true), "unknown field");
    on("gateway-api", ("Gateway", "carillon"), "/spec/listeners/0/name", json!("https"), "its gateway does not listen");
    all
}

#[test]
fn every_promise_can_be_broken() {
    let whole: Vec<_> =
        render::overlays().into_iter().map(|name| (name.clone(), render::overlay(&name))).collect();
    for Break { overlay, object: (kind, name), at, value, fault } in breaks() {
        let mut cluster = whole.iter().find(|(name, _)| name == overlay).unwrap().1.clone();
        put(object(&mut cluster, (kind, name)), at, value.clone());
        let found = faults(&cluster);
        assert!(
            found.iter().any(|found| found.contains(fault)),
            "{overlay}, {kind} {name}{at} = {value}: not '{fault}' but {found:#?}"
        );
    }
}

#[test]
fn what_still_looks_for_a_redis_that_is_gone_is_found() {
    let mut cluster = render::overlay("external-redis");
    let inside = render::overlay("ingress-nginx");
    cluster
        .objects
        .retain(|object| object["kind"] != "Deployment" || object["metadata"]["name"] != "producer");
    cluster.objects.push(inside.find("Deployment", "producer").unwrap().clone());
    assert_eq!(faults(&cluster), ["Redis is gone, and something still looks for it"]);
}
