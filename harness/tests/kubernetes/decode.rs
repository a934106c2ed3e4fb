use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster::{Cluster, id, text};

/// Where every object but the namespace itself lives.
const NAMESPACE: &str = "realtime-microservices";

/// Every object is of a kind that Kubernetes has, with that kind's fields and no others.
pub(crate) fn faults(cluster: &Cluster) -> Vec<String> {
    let decoded = cluster
        .objects
        .iter()
        .flat_map(|object| decode(object).into_iter().map(|fault| format!("{}: {fault}", id(object))));
    let elsewhere = cluster
        .objects
        .iter()
        .filter(|object| object["kind"] != "Namespace" && object["metadata"]["namespace"] != NAMESPACE);
    decoded.chain(elsewhere.map(|object| format!("{} is not in {NAMESPACE}", id(object)))).collect()
}

fn decode(object: &Value) -> Vec<String> {
    match (text(&object["apiVersion"]), text(&object["kind"])) {
        ("v1", "Namespace") => round_trip::<Namespace>(object),
        ("v1", "ServiceAccount") => round_trip::<ServiceAccount>(object),
        ("v1", "ConfigMap") => round_trip::<ConfigMap>(object),
        ("v1", "Service") => round_trip::<Service>(object),
        ("apps/v1", "Deployment") => round_trip::<Deployment>(object),
        ("apps/v1", "StatefulSet") => round_trip::<StatefulSet>(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => round_trip::<HorizontalPodAutoscaler>(object),
        ("policy/v1", "PodDisruptionBudget") => round_trip::<PodDisruptionBudget>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => round_trip::<NetworkPolicy>(object),
        ("networking.k8s.io/v1", "Ingress") => round_trip::<Ingress>(object),
        ("gateway.networking.k8s.io/v1", "Gateway") => round_trip::<Custom<gateway::Gateway>>(object),
        ("gateway.networking.k8s.io/v1", "HTTPRoute") => round_trip::<Custom<gateway::HttpRoute>>(object),
        ("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy") => {
            round_trip::<Custom<envoy::BackendTrafficPolicy>>(object)
        }
        ("gateway.envoyproxy.io/v1alpha1", "EnvoyProxy") => round_trip::<Custom<envoy::EnvoyProxy>>(object),
        (version, kind) => vec![format!("{version} has no {kind} here")],
    }
}

/// k8s-openapi passes over fields that it does not know, and makes up required ones that are missing. Both
/// show when the object is written again.
fn round_trip<T: DeserializeOwned + Serialize>(object: &Value) -> Vec<String> {
    match T::deserialize(object) {
        Ok(decoded) => {
            let mut faults = Vec::new();
            differences(object, &serde_json::to_value(decoded).unwrap(), "", &mut faults);
            faults
        }
        Err(error) => vec![error.to_string()],
    }
}

fn differences(ours: &Value, theirs: &Value, path: &str, faults: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                match b.get(key) {
                    Some(other) => differences(value, other, &format!("{path}/{key}"), faults),
                    None => faults.push(format!("unknown field {path}/{key}")),
                }
            }
            faults.extend(
                b.keys().filter(|key| !a.contains_key(*key)).map(|key| format!("missing field {path}/{key}")),
            );
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (value, other)) in a.iter().zip(b).enumerate() {
                differences(value, other, &format!("{path}/{at}"), faults);
            }
        }
        _ if ours == theirs => {}
        _ => faults.push(format!("{path}: {ours} is read as {theirs}")),
    }
}

/// An object of a kind that Kubernetes itself does not have.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Custom<Spec> {
    api_version: String,
    kind: String,
    metadata: Value,
    spec: Spec,
}

/// The Gateway API 1.2 to 1.7 as far as it is used here: only what its standard channel has.
mod gateway {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Gateway {
        gateway_class_name: String,
        infrastructure: Infrastructure,
        listeners: Vec<Listener>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Infrastructure {
        parameters_ref: ParametersRef,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ParametersRef {
        group: String,
        kind: String,
        name: String,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Listener {
        name: String,
        protocol: Protocol,
        port: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        hostname: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tls: Option<Tls>,
        allowed_routes: AllowedRoutes,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "UPPERCASE")]
    enum Protocol {
        Http,
        Https,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Tls {
        mode: TlsMode,
        certificate_refs: Vec<CertificateRef>,
    }

    #[derive(Serialize, Deserialize)]
    enum TlsMode {
        Terminate,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct CertificateRef {
        name: String,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct AllowedRoutes {
        namespaces: RouteNamespaces,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RouteNamespaces {
        from: FromNamespaces,
    }

    #[derive(Serialize, Deserialize)]
    enum FromNamespaces {
        Same,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct HttpRoute {
        parent_refs: Vec<ParentRef>,
        rules: Vec<Rule>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct ParentRef {
        name: String,
        section_name: String,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Rule {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        matches: Vec<Match>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        filters: Vec<Filter>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        backend_refs: Vec<BackendRef>,
        #[serde(skip_serializing_if = "Option::is_none")]
        timeouts: Option<Timeouts>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Match {
        path: PathMatch,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct PathMatch {
        r#type: PathMatchType,
        value: String,
    }

    #[derive(Serialize, Deserialize)]
    enum PathMatchType {
        Exact,
        PathPrefix,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Filter {
        r#type: FilterType,
        request_redirect: RequestRedirect,
    }

    #[derive(Serialize, Deserialize)]
    enum FilterType {
        RequestRedirect,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct RequestRedirect {
        scheme: String,
        status_code: u16,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct BackendRef {
        name: String,
        port: u16,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Timeouts {
        request: String,
        backend_request: String,
    }
}

/// Envoy Gateway 1.2 to 1.9 as far as it is used here.
mod envoy {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct BackendTrafficPolicy {
        target_refs: Vec<TargetRef>,
        load_balancer: LoadBalancer,
        retry: Retry,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct TargetRef {
        group: String,
        kind: String,
        name: String,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct LoadBalancer {
        r#type: LoadBalancerType,
        consistent_hash: ConsistentHash,
    }

    #[derive(Serialize, Deserialize)]
    enum LoadBalancerType {
        ConsistentHash,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ConsistentHash {
        r#type: ConsistentHashType,
        cookie: Cookie,
    }

    #[derive(Serialize, Deserialize)]
    enum ConsistentHashType {
        Cookie,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cookie {
        name: String,
        ttl: String,
        attributes: BTreeMap<String, String>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Retry {
        num_retries: u32,
        retry_on: RetryOn,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RetryOn {
        triggers: Vec<Trigger>,
    }

    /// Only what has not reached a replica is sent again.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Trigger {
        ConnectFailure,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct EnvoyProxy {
        provider: Provider,
        telemetry: Telemetry,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Provider {
        r#type: ProviderType,
        kubernetes: Kubernetes,
    }

    #[derive(Serialize, Deserialize)]
    enum ProviderType {
        Kubernetes,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Kubernetes {
        envoy_service: EnvoyService,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct EnvoyService {
        external_traffic_policy: String,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Telemetry {
        access_log: AccessLog,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct AccessLog {
        settings: Vec<Setting>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Setting {
        format: Format,
        sinks: Vec<Sink>,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Format {
        r#type: FormatType,
        text: String,
    }

    #[derive(Serialize, Deserialize)]
    enum FormatType {
        Text,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sink {
        r#type: SinkType,
        file: File,
    }

    #[derive(Serialize, Deserialize)]
    enum SinkType {
        File,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        path: String,
    }
}
