//! What `k8s/` and the two scripts promise. Each promise is a function that lists what is wrong with a
//! rendered overlay, and `broken` breaks each of them on purpose.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;
mod broken;
mod cluster;
mod decode;
mod deploy;
mod doors;
mod envoy;
mod gateway;
mod pods;
mod redis;
mod render;
mod scripts;
mod wiring;

use cluster::Cluster;

/// Everything that is wrong with a rendered overlay.
fn faults(cluster: &Cluster) -> Vec<String> {
    [decode::faults, pods::faults, wiring::faults, doors::faults]
        .iter()
        .flat_map(|check| check(cluster))
        .collect()
}

#[test]
fn every_overlay_and_component_keeps_its_promises() {
    let variants = render::variants();
    for component in render::components() {
        let used = variants.keys().any(|name| name.split(' ').skip(1).any(|word| word == component));
        assert!(used, "no variant has the component {component}");
    }
    for (name, cluster) in variants {
        assert!(cluster.objects.len() > 15, "{name}: {} objects", cluster.objects.len());
        assert_eq!(faults(&cluster), [""; 0], "{name}");
    }
}
