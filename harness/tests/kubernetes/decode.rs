use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster::{Cluster, id, text};
use crate::{envoy, gateway};

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
