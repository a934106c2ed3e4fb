//! Envoy Gateway 1.2 to 1.9 as far as it is used here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BackendTrafficPolicy {
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
pub(crate) struct EnvoyProxy {
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
