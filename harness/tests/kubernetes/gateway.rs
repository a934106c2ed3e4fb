//! The Gateway API 1.2 to 1.7 as far as it is used here: only what its standard channel has.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Gateway {
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
pub(crate) struct HttpRoute {
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
