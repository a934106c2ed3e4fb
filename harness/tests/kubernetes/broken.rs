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

/// Sets the value at a pointer and creates its parents; null removes it.
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
    let (traefik, nginx, gateway) = ("traefik", "ingress-nginx", "gateway-api");

    on(traefik, bff, "/spec/colour", json!("red"), "Deployment bff: unknown field /spec/colour");
    on(traefik, bff, "container/ports/0/containerport", json!(1), "unknown field /spec/template/spec/containers/0/ports/0/containerport");
    on(traefik, bff, "/spec/selector", Value::Null, "missing field /spec/selector");
    on(traefik, bff, "/spec/minReadySeconds", json!("soon"), "invalid type");
    on(traefik, bff, "/apiVersion", json!("extensions/v1beta1"), "extensions/v1beta1 has no Deployment here");
    on(traefik, bff, "/metadata/namespace", json!("default"), "Deployment bff is not in realtime-microservices");

    on(traefik, ("Namespace", "realtime-microservices"), "/metadata/labels/pod-security.kubernetes.io~1enforce", json!("baseline"), "enforce: restricted");
    on(traefik, bff, "pod/securityContext/runAsNonRoot", json!(false), "may run as root");
    on(traefik, redis, "pod/securityContext/runAsUser", json!(0), "no user in particular");
    on(traefik, bff, "pod/securityContext/seccompProfile/type", json!("Unconfined"), "any system call");
    on(traefik, bff, "pod/hostNetwork", json!(true), "share something with the node");
    on(traefik, bff, "pod/automountServiceAccountToken", json!(true), "token of the Kubernetes API");
    on(traefik, ("ServiceAccount", "bff"), "/automountServiceAccountToken", json!(true), "account is missing or has a token");
    on(traefik, bff, "pod/serviceAccountName", json!("nobody"), "account is missing or has a token");
    on(traefik, ("Deployment", "frontend"), "pod/enableServiceLinks", json!(true), "adds variables");
    on(traefik, bff, "pod/topologySpreadConstraints/0/whenUnsatisfiable", json!("DoNotSchedule"), "may not fit on one node");
    on(traefik, bff, "pod/topologySpreadConstraints/0/topologyKey", json!("rack"), "do not spread over nodes");
    on(traefik, bff, "container/securityContext/allowPrivilegeEscalation", json!(true), "gain privileges");
    on(traefik, bff, "container/securityContext/readOnlyRootFilesystem", json!(false), "root is not read-only");
    on(traefik, bff, "container/securityContext/capabilities", json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] }), "keeps capabilities");
    on(traefik, bff, "container/securityContext/runAsUser", json!(0), "takes more than its pod");
    on(traefik, bff, "container/resources/limits/memory", Value::Null, "lacks requests or limits");
    on(traefik, bff, "container/image", json!("carillon/bff:latest"), "image is not pinned");

    on(traefik, bff, "container/startupProbe", Value::Null, "no startup probe");
    on(traefik, bff, "container/livenessProbe/httpGet/path", json!("/ready"), "no liveness probe");
    on(traefik, bff, "container/readinessProbe/httpGet/port", json!("http"), "no readiness probe");
    on(traefik, bff, "container/readinessProbe/periodSeconds", json!(30), "longer than ten seconds");
    on(traefik, bff, "container/lifecycle", Value::Null, "no sleep before the stop");
    on(traefik, bff, "pod/terminationGracePeriodSeconds", json!(15), "grace period ends");
    on(traefik, bff, "/spec/strategy/rollingUpdate/maxUnavailable", json!(1), "takes a replica before");
    on(traefik, ("ConfigMap", "bff"), "/data/TRUSTED_PROXY_HOPS", Value::Null, "count as one client");
    on(traefik, ("ConfigMap", "bff"), "/data/TRUSTED_PROXIES", json!("10.0.0.0/8"), "can forge addresses");
    on(traefik, bff, "/spec/replicas", json!(3), "undoes what the autoscaler chose");
    on(traefik, ("HorizontalPodAutoscaler", "bff"), "/spec/minReplicas", json!(1), "fewer than three");
    on(traefik, ("HorizontalPodAutoscaler", "bff"), "/spec/scaleTargetRef/name", json!("gone"), "nothing for it to scale");
    on(traefik, ("PodDisruptionBudget", "bff"), "/spec/selector/matchLabels/app.kubernetes.io~1name", json!("gone"), "does not keep the pods");

    on(traefik, ("PodDisruptionBudget", "frontend"), "/metadata/name", json!("gone"), "frontend: the emptying of a node");
    on(traefik, ("Ingress", "carillon"), "/metadata/labels", Value::Null, "would never be deleted");
    on(traefik, ("ConfigMap", "bff"), "/metadata/labels", Value::Null, "would never be deleted");

    on(traefik, bff, "/spec/selector/matchLabels/app.kubernetes.io~1name", json!("gone"), "does not find its own pods");
    on(traefik, redis, "/spec/serviceName", json!("gone"), "there is no Service for it");
    on(traefik, ("Service", "bff"), "/spec/selector/app.kubernetes.io~1name", json!("gone"), "pods of 0 workloads");
    on(traefik, ("Service", "redis"), "/spec/ports/0/targetPort", json!("http"), "no container listens on");
    on(traefik, bff, "container/envFrom/0/configMapRef/name", json!("gone"), "there is no ConfigMap");
    on(traefik, redis, "pod/volumes/0/configMap/name", json!("gone"), "there is no ConfigMap");
    on(traefik, redis, "pod/volumes/0/name", json!("gone"), "there is no volume");
    on(traefik, redis, "container/env/0/valueFrom/secretKeyRef/key", json!("gone"), "nothing creates the");
    on(traefik, bff, "container/env/1/name", json!("REDIS_PASS"), "REDIS_PASSWORD is not known yet");
    on(traefik, ("ConfigMap", "bff"), "/data/LISTEM", json!(""), "bff has no option LISTEM");
    on(traefik, ("ConfigMap", "frontend"), "/data/BFF_PROT", json!(""), "frontend has no option BFF_PROT");

    on(traefik, ("NetworkPolicy", "default-deny"), "/spec/policyTypes/1", Value::Null, "not everything is denied");
    on(traefik, ("NetworkPolicy", "to-redis"), "/spec/podSelector/matchExpressions/0/values", json!(["gone"]), "pods that are not there");
    on(traefik, ("NetworkPolicy", "redis-takes"), "/spec/ingress/0/ports/0/port", json!(6380), "no pod there listens on");
    on(traefik, ("NetworkPolicy", "redis-takes"), "/spec/ingress/0/from/0/podSelector/matchExpressions/0/values", json!(["bff"]), "refuses Deployment producer");
    on(traefik, ("NetworkPolicy", "redis-takes"), "/spec/ingress/0/from/0/podSelector/matchExpressions/0/values/0", json!("frontend"), "frontend may reach Redis");
    on(traefik, ("ConfigMap", "redis"), "/data/redis.conf", json!("appendonly no"), "lacks 'appendonly yes'");
    on(traefik, ("ConfigMap", "redis"), "/data/redis.conf", json!("appendonly yes"), "lacks 'proto-max-bulk-len 1mb'");
    on(traefik, redis, "/spec/podManagementPolicy", Value::Null, "failed once stays so");
    on(traefik, bff, "container/env/2/value", json!("redis://:$(REDIS_PASSWORD)@redis:6379"), "bff shares a user of Redis");
    on(traefik, bff, "container/env/1/valueFrom/secretKeyRef/name", json!("redis"), "bff shares a user of Redis");
    on(traefik, ("NetworkPolicy", "dns"), "/spec/egress/0/to", Value::Null, "out to any address");
    on(traefik, redis, "/spec/volumeClaimTemplates", Value::Null, "Redis has no volume");
    on(traefik, redis, "container/livenessProbe", Value::Null, "Redis has no livenessProbe");

    on(nginx, ("Ingress", "bff"), "/metadata/annotations/nginx.ingress.kubernetes.io~1session-cookie-name", json!("route"), "lacks session-cookie-name");
    on(nginx, ("Ingress", "bff"), "/metadata/annotations/nginx.ingress.kubernetes.io~1affinity", Value::Null, "lacks affinity");
    on(nginx, ("Ingress", "bff"), "/metadata/annotations/nginx.ingress.kubernetes.io~1proxy-read-timeout", json!("20"), "not above the heartbeat");
    on(nginx, ("Ingress", "bff"), "/metadata/annotations/nginx.ingress.kubernetes.io~1enable-access-log", Value::Null, "lacks enable-access-log");
    on(nginx, ("Ingress", "frontend"), "/metadata/annotations/nginx.ingress.kubernetes.io~1ssl-redirect", json!("true"), "lacks ssl-redirect: false");
    on(nginx, ("Ingress", "bff"), "/spec/ingressClassName", json!("haproxy"), "unsupported class");
    on(nginx, ("Ingress", "bff"), "/spec/rules/0/http/paths/2", Value::Null, "has the routes");
    on(nginx, ("Ingress", "bff"), "/spec/rules/0/http/paths/7/pathType", json!("Exact"), "refuses \"/openapi.json\"");
    on(nginx, ("Ingress", "frontend"), "/spec/rules/0/http/paths/0/backend/service/port/name", json!("admin"), "nothing listens behind /");
    on(nginx, ("NetworkPolicy", "front-door"), "/spec/podSelector/matchExpressions/0/values", json!(["bff"]), "frontend does not take");
    on(traefik, ("Service", "bff"), "/metadata/annotations", Value::Null, "Traefik lacks");
    on(traefik, ("Service", "bff"), "/metadata/annotations/traefik.ingress.kubernetes.io~1service.sticky.cookie.path", json!("/"), "rejects sticky.cookie.path");
    on(traefik, ("Ingress", "carillon"), "/metadata/annotations/traefik.ingress.kubernetes.io~1router.entrypoints", json!("websecure"), "does not come in by web");
    on(gateway, ("HTTPRoute", "bff"), "/spec/rules/0/sessionPersistence", json!({ "type": "Cookie" }), "unknown field `sessionPersistence`");
    on(gateway, ("HTTPRoute", "bff"), "/spec/rules/0/timeouts/request", json!("15s"), "streams are ended");
    on(gateway, ("HTTPRoute", "bff"), "/spec/rules/0/backendRefs/0/port", json!(1), "nothing listens behind /ws");
    on(gateway, ("Gateway", "carillon"), "/spec/listeners/0/name", json!("https"), "its gateway does not listen");
    on(gateway, ("Gateway", "carillon"), "/spec/infrastructure/parametersRef/name", json!("gone"), "has no EnvoyProxy");
    let policy = ("BackendTrafficPolicy", "bff");
    on(gateway, policy, "/spec/loadBalancer/consistentHash/cookie/name", json!("route"), "no cookie holds");
    on(gateway, policy, "/spec/targetRefs/0/name", json!("frontend"), "no cookie holds");
    on(gateway, policy, "/spec/loadBalancer/consistentHash/cookie/ttl", Value::Null, "it sets none");
    on(gateway, policy, "/spec/loadBalancer/consistentHash/cookie/attributes/Path", Value::Null, "a cookie for each path");
    on(gateway, policy, "/spec/retry/retryOn/triggers/0", json!("5xx"), "unknown variant `5xx`");
    on(gateway, ("EnvoyProxy", "carillon"), "/spec/telemetry/accessLog/settings/0/format/text", json!("%REQ(:PATH)%"), "the access log has queries");
    on(gateway, ("EnvoyProxy", "carillon"), "/spec/provider/kubernetes/envoyService/externalTrafficPolicy", json!("Cluster"), "addresses of nodes");
    on("traefik tls-traefik", ("Ingress", "carillon"), "/spec/tls", Value::Null, "does not come in by web");
    on("traefik tls-traefik", ("Ingress", "carillon"), "/spec/rules/0/host", Value::Null, "no certificate for its host");
    on("traefik tls-traefik", ("Service", "bff"), "/metadata/annotations/traefik.ingress.kubernetes.io~1service.sticky.cookie.secure", Value::Null, "lacks service.sticky.cookie.secure");
    on("ingress-nginx tls-ingress-nginx", ("Ingress", "frontend"), "/spec/tls/0/hosts/0", json!("other.example.com"), "no certificate for its host");
    on("ingress-nginx tls-ingress-nginx", ("Ingress", "bff"), "/metadata/annotations/nginx.ingress.kubernetes.io~1session-cookie-secure", Value::Null, "lacks session-cookie-secure");
    let tls = "gateway-api tls-gateway-api";
    on(tls, ("HTTPRoute", "bff"), "/spec/parentRefs/0/sectionName", json!("http"), "reached by plain HTTP");
    on(tls, ("HTTPRoute", "redirect"), "/spec/rules/0/filters/0/requestRedirect/scheme", json!("http"), "not sent to HTTPS");
    on(tls, ("Gateway", "carillon"), "/spec/listeners/1/tls/certificateRefs/0/name", json!("gone"), "no certificate for its host");
    on(tls, policy, "/spec/loadBalancer/consistentHash/cookie/attributes/Secure", Value::Null, "lacks an attribute");
    all
}

#[test]
fn every_promise_can_be_broken() {
    let whole = render::variants();
    for Break { overlay, object: (kind, name), at, value, fault } in breaks() {
        let mut cluster = whole[overlay].clone();
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
    let inside = render::overlay("traefik");
    cluster
        .objects
        .retain(|object| object["kind"] != "Deployment" || object["metadata"]["name"] != "producer");
    cluster.objects.push(inside.find("Deployment", "producer").unwrap().clone());
    assert_eq!(faults(&cluster), ["Redis is gone, and something still looks for it"]);
}
