use serde_json::Value;

/// The objects of a rendered overlay.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) objects: Vec<Value>,
}

impl Cluster {
    /// All objects of a kind.
    pub(crate) fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// An object by its kind and name.
    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    }

    /// Whatever makes pods.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = &Value> {
        self.all("Deployment").chain(self.all("StatefulSet"))
    }

    /// The workloads whose pods a selector finds.
    pub(crate) fn selected<'a>(&'a self, selector: &'a Value) -> impl Iterator<Item = &'a Value> {
        self.workloads().filter(|workload| matches(selector, labels(workload)))
    }

    /// The objects of a pod's configuration by the name it is known by in `k8s/`, without the hash.
    pub(crate) fn config(&self, stem: &str) -> &Value {
        let is_stem = |name: &str| name.rsplit_once('-').is_some_and(|(before, _)| before == stem);
        self.all("ConfigMap")
            .find(|object| object["metadata"]["name"].as_str().is_some_and(is_stem))
            .map_or(&Value::Null, |object| &object["data"])
    }
}

/// The kind and name of an object, for a message.
pub(crate) fn id(object: &Value) -> String {
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// A text, or nothing where there is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The elements of a list, or none where there is none.
pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The description of a workload's pods.
pub(crate) fn pod(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]
}

/// The labels of a workload's pods.
pub(crate) fn labels(workload: &Value) -> &Value {
    &workload["spec"]["template"]["metadata"]["labels"]
}

/// The containers of a workload's pods, those that run first included.
pub(crate) fn containers(workload: &Value) -> impl Iterator<Item = &Value> {
    list(&pod(workload)["initContainers"]).chain(list(&pod(workload)["containers"]))
}

/// The numbers of the ports that a workload's pods listen on.
pub(crate) fn ports(workload: &Value) -> Vec<u64> {
    containers(workload)
        .flat_map(|container| list(&container["ports"]))
        .filter_map(|port| port["containerPort"].as_u64())
        .collect()
}

/// The number of a port of a workload's pods, by that number or by its name.
pub(crate) fn port(workload: &Value, wanted: &Value) -> Option<u64> {
    containers(workload)
        .flat_map(|container| list(&container["ports"]))
        .find(|port| port["name"] == *wanted || port["containerPort"] == *wanted)
        .and_then(|port| port["containerPort"].as_u64())
}

/// Whether a label selector, or the plain map of a Service, finds these labels. An empty selector finds all.
pub(crate) fn matches(selector: &Value, labels: &Value) -> bool {
    let Some(fields) = selector.as_object() else { return false };
    let is_selector = fields.keys().all(|key| key == "matchLabels" || key == "matchExpressions");
    let plain = if is_selector { &selector["matchLabels"] } else { selector };
    let mut equal = plain.as_object().into_iter().flatten();
    let mut expressions = list(&selector["matchExpressions"]);
    equal.all(|(key, value)| labels[key] == *value)
        && expressions.all(|expression| {
            assert_eq!(expression["operator"], "In", "no other operator is known here");
            list(&expression["values"]).any(|value| labels[text(&expression["key"])] == *value)
        })
}
