//! The script that deploys.

use crate::bench::{
    Bench, DEPLOY, ELSEWHERE, GATEWAY, GATEWAY_OBJECTS, IN_NAMESPACE, OBJECTS, Outcome, REGISTRY, RUNS,
    SERVED,
};
use crate::render::{self, files};

#[test]
fn a_deployment_makes_a_password_for_each_user_of_redis_and_shows_it_to_nobody() {
    let bench = Bench::new();
    let before = files(&bench.path("k8s"));
    let first = bench.deploy(&[]);
    assert_eq!(first.code, 0, "{}", first.printed);
    let users = ["redis", "redis-producer", "redis-bff"];
    let secrets = users.map(|name| bench.read(&format!("secret-{name}")));
    let passwords = secrets.each_ref().map(|secret| secret.trim_end().rsplit_once("password: ").unwrap().1);
    for (at, password) in passwords.iter().enumerate() {
        assert!(password.len() == 64 && password.bytes().all(|byte| byte.is_ascii_hexdigit()), "{password}");
        assert!(!passwords[..at].contains(password), "two users have one password");
    }
    let mut wanted = vec![
        "kubectl kustomize .generated".to_owned(),
        "kubectl get --raw /version".to_owned(),
        "kubectl api-versions".to_owned(),
        format!("{IN_NAMESPACE} get ingressclass traefik --ignore-not-found --output name"),
        "kubectl get namespace realtime-microservices --ignore-not-found --output jsonpath={.status.phase}"
            .to_owned(),
        "kubectl apply --filename k8s/base/namespace.yaml".to_owned(),
    ];
    for name in users {
        wanted.push(format!("{IN_NAMESPACE} get secret {name} --ignore-not-found --output name"));
        wanted.push("kubectl create --filename -".to_owned());
    }
    let versions: Vec<_> = users.iter().chain(&["redis-producer", "redis-bff", "bff"]).collect();
    for name in versions {
        let version = "jsonpath={.metadata.name}={.metadata.uid}/{.metadata.resourceVersion} ";
        wanted.push(format!("{IN_NAMESPACE} get secret {name} --ignore-not-found --output {version}"));
    }
    let generations = format!(
        "{IN_NAMESPACE} get deployments,statefulsets --selector app.kubernetes.io/part-of=carillon --output \
         jsonpath={{range .items[*]}}{{.kind}}/{{.metadata.name}}={{.metadata.generation}} {{end}}"
    );
    wanted.extend([
        "kubectl kustomize .generated".to_owned(),
        "kubectl apply --dry-run=server --filename .generated/application.yaml".to_owned(),
        generations.clone(),
        "kubectl apply --filename .generated/application.yaml".to_owned(),
        generations,
        "kubectl get --filename .generated/application.yaml --output name".to_owned(),
        // Nothing else becomes ready without Redis.
        format!("{IN_NAMESPACE} rollout status statefulset.apps/redis --timeout=5m"),
        format!("{IN_NAMESPACE} rollout status deployment.apps/bff --timeout=5m"),
    ]);
    let (left, calls) = first.calls.split_last().unwrap();
    assert_eq!(calls, wanted);
    assert!(
        left.contains("get deployments.apps,") && left.contains("--selector app.kubernetes.io/part-of"),
        "{left}"
    );

    let again = bench.deploy(&[]);
    assert_eq!(again.code, 0, "{}", again.printed);
    assert_eq!(users.map(|name| bench.read(&format!("secret-{name}"))), secrets, "a password was replaced");
    assert!(!again.called("kubectl create"), "{:?}", again.calls);
    assert_eq!(files(&bench.path("k8s")), before, "a tracked file was changed");

    for outcome in [&first, &again] {
        let shown = format!("{}{}", outcome.printed, outcome.calls.join("\n"));
        assert!(!passwords.iter().any(|password| shown.contains(password)), "{shown}");
        assert!(outcome.printed.contains("port-forward service/frontend 8080:8080"), "{}", outcome.printed);
        assert!(
            outcome.printed.contains("kubectl delete namespace realtime-microservices"),
            "{}",
            outcome.printed
        );
    }
    for (path, bytes) in files(&bench.path(".generated")) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !passwords.iter().any(|password| text.contains(password)),
            "a password is in {}",
            path.display()
        );
    }
}

#[test]
fn a_deployment_stops_at_the_first_command_that_fails() {
    for fail in [
        "git rev-parse".to_owned(),
        "kubectl kustomize".to_owned(),
        "kubectl get --raw".to_owned(),
        "kubectl api-versions".to_owned(),
        format!("{IN_NAMESPACE} get ingressclass"),
        "kubectl get namespace".to_owned(),
        "kubectl apply --filename k8s".to_owned(),
        format!("{IN_NAMESPACE} get secret"),
        "kubectl create".to_owned(),
        "kubectl apply --dry-run=server".to_owned(),
        format!("{IN_NAMESPACE} get deployments,statefulsets"),
        "kubectl apply --filename .generated".to_owned(),
        "kubectl get --filename".to_owned(),
        format!("{IN_NAMESPACE} get deployments.apps"),
    ] {
        let Outcome { code, printed, calls } = Bench::new().run(DEPLOY, &[REGISTRY], &[("FAIL", &fail)]);
        assert_ne!(code, 0, "{fail}");
        assert!(calls.last().unwrap().starts_with(&fail), "{fail}: {calls:?}");
        assert!(!printed.contains(RUNS), "{fail}: {printed}");
    }
}

#[test]
fn a_cluster_that_cannot_run_it_is_seen_before_anything_is_applied() {
    for (name, answer, options, why) in [
        ("version", r#"{ "minor": "29" }"#, &[][..], "older than Kubernetes 1.30"),
        ("version", "", &[], "older than Kubernetes 1.30"),
        ("served", "apps/v1\n", &[], "does not serve networking.k8s.io/v1"),
        ("class", "", &[], "has no ingressclass traefik"),
        ("rendered", GATEWAY, &["--overlay=gateway-api"], "does not serve gateway.networking.k8s.io/v1"),
        ("rendered", ELSEWHERE, &["--overlay=external-redis"], "create secret generic external-redis"),
        ("rendered", "a: carillon.example.com", &["--component=tls-traefik"], "needs the host"),
        ("rendered", "a: b", &["--host=chat.example.org"], "is for a tls component"),
        ("phase", "Terminating", &[], "is still being deleted"),
    ] {
        Bench::with(&[(name, answer)]).deploy(options).refused(why);
    }
    // What the questions above do not find, the API server does.
    let refused = Bench::new().run(DEPLOY, &[REGISTRY, "1.0"], &[("FAIL", "kubectl apply --dry-run=server")]);
    refused.refused("delete statefulset redis --cascade=orphan");

    let bench = Bench::with(&[("rendered", "apiVersion: apps/v1\nhost: carillon.example.com\n")]);
    let host = ["--component", "tls-traefik", "--host", "chat.example.org"];
    bench.deploy(&host).refused("create secret tls carillon-tls");
    std::fs::write(bench.path("secret-carillon-tls"), "").unwrap();
    let Outcome { code, printed, .. } = bench.deploy(&host);
    assert_eq!(code, 0, "{printed}");
    assert!(bench.read(".generated/application.yaml").contains("host: chat.example.org"), "{printed}");
}

#[test]
fn a_namespace_that_somebody_made_brings_no_warning_and_one_that_goes_is_waited_for() {
    let remembered = "kubectl apply set-last-applied --create-annotation --filename k8s/base/namespace.yaml";
    let outcome = Bench::with(&[("phase", "Active")]).deploy(&[]);
    assert!(outcome.code == 0 && outcome.called(remembered), "{}", outcome.printed);
    assert!(!Bench::new().deploy(&[]).called(remembered), "there is no namespace to write it to");
    let outcome = Bench::with(&[("phase", "Terminating")]).deploy(&[]);
    assert!(
        outcome.called("kubectl wait --for=delete namespace/realtime-microservices"),
        "{}",
        outcome.printed
    );
}

#[test]
fn a_redis_elsewhere_needs_no_password_of_ours() {
    let bench = Bench::with(&[("rendered", ELSEWHERE), ("secret-external-redis", "")]);
    let outcome = bench.run(DEPLOY, &[REGISTRY, "1.0"], &[("OVERLAY", "external-redis")]);
    assert_eq!(outcome.code, 0, "{}", outcome.printed);
    assert!(!outcome.called("kubectl create"), "{:?}", outcome.calls);
}

/// A pod reads its Secrets when it starts: after a lost one was made again, Redis still has the old password.
#[test]
fn a_secret_that_has_changed_starts_the_pods_that_use_it_anew() {
    let bench = Bench::new();
    let described = |name: &str| {
        let text = bench.read(".generated/secrets.yaml");
        let (_, rest) = text.split_once(&format!("  name: {name}\n")).unwrap();
        rest.split("---").next().unwrap().to_owned()
    };
    bench.deploy(&[]);
    let before = ["redis", "producer", "bff"].map(described);
    bench.deploy(&[]);
    assert_eq!(["redis", "producer", "bff"].map(described), before, "nothing has changed");
    std::fs::remove_file(bench.path("secret-redis-bff")).unwrap();
    bench.deploy(&[]);
    let after = ["redis", "producer", "bff"].map(described);
    assert!(after[0] != before[0] && after[1] == before[1] && after[2] != before[2], "{after:?}");
    std::fs::write(bench.path("secret-bff"), "API_KEY").unwrap();
    bench.deploy(&[]);
    let keyed = ["redis", "producer", "bff"].map(described);
    assert!(keyed[..2] == after[..2] && keyed[2] != after[2], "{keyed:?}");
}

#[test]
fn what_does_not_come_up_is_shown_with_its_pods_and_events() {
    for workload in ["statefulset.apps/redis", "deployment.apps/bff"] {
        let fail = format!("{IN_NAMESPACE} rollout status {workload}");
        let outcome = Bench::new().run(DEPLOY, &[REGISTRY], &[("FAIL", &fail)]);
        assert_eq!(outcome.code, 7, "{}", outcome.printed);
        assert!(outcome.printed.contains(&format!("{workload} is not ready")), "{}", outcome.printed);
        assert!(!outcome.printed.contains(RUNS), "{}", outcome.printed);
        for asked in ["get pods --output wide", "get events --sort-by=.lastTimestamp"] {
            assert!(outcome.called(&format!("{IN_NAMESPACE} {asked}")), "{asked}: {:?}", outcome.calls);
        }
    }
}

#[test]
fn a_gateway_that_nobody_reaches_is_not_called_running() {
    let gateway =
        [("rendered", GATEWAY), ("objects", GATEWAY_OBJECTS), ("served", "gateway.networking.k8s.io/v1\n")];
    let run = |more: &[(&str, &str)], env: &[(&str, &str)]| {
        let bench = Bench::with(&[&gateway[..], more].concat());
        bench.run(DEPLOY, &["--overlay=gateway-api", REGISTRY, "1.0"], env)
    };
    let outcome = run(&[], &[]);
    assert!(outcome.code == 0 && outcome.printed.contains("get gateway carillon"), "{}", outcome.printed);
    let programmed = format!("{IN_NAMESPACE} wait --for=condition=Programmed gateway/carillon");
    assert!(outcome.called(&programmed), "{:?}", outcome.calls);
    for (more, env) in [
        (&[][..], &[("FAIL", &*programmed)][..]),
        (&[("conditions", "")], &[]),
        (&[("conditions", "Accepted=False ResolvedRefs=True ")], &[]),
        (&[("conditions", "Accepted=True ResolvedRefs=False ")], &[]),
    ] {
        let outcome = run(more, env);
        assert_eq!(outcome.code, 1, "{more:?}: {}", outcome.printed);
        assert!(!outcome.printed.contains(RUNS), "{more:?}: {}", outcome.printed);
    }
}

#[test]
fn what_another_overlay_left_is_removed_when_the_new_one_runs() {
    let left = format!(
        "{OBJECTS}ingress.networking.k8s.io/bff\nnetworkpolicy.networking.k8s.io/to-external-redis\n"
    );
    let outcome = Bench::with(&[("left", &left)]).deploy(&[]);
    assert_eq!(outcome.code, 0, "{}", outcome.printed);
    let removed = "delete ingress.networking.k8s.io/bff networkpolicy.networking.k8s.io/to-external-redis";
    assert_eq!(outcome.calls.last().unwrap(), &format!("{IN_NAMESPACE} {removed}"));
    assert!(
        !outcome.calls.iter().any(|call| call.contains("get deployments.apps") && call.contains("secret"))
    );
    let asked = outcome.calls.iter().find(|call| call.contains("get deployments.apps")).unwrap();
    assert!(!asked.contains("gateway"), "a kind that the cluster does not serve is an error: {asked}");

    let served = format!("{SERVED}gateway.networking.k8s.io/v1\ngateway.envoyproxy.io/v1alpha1\n");
    let outcome = Bench::with(&[("served", &served)]).deploy(&[]);
    let asked = outcome.calls.iter().find(|call| call.contains("get deployments.apps")).unwrap();
    for kind in ["gateways", "httproutes", "backendtrafficpolicies", "envoyproxies"] {
        assert!(asked.contains(&format!(",{kind}.gateway.")), "{kind}: {asked}");
    }
    assert!(!outcome.called(&format!("{IN_NAMESPACE} delete")), "{:?}", outcome.calls);

    let fail = format!("{IN_NAMESPACE} rollout status");
    let bench = Bench::with(&[("left", &left)]);
    let outcome = bench.run(DEPLOY, &[REGISTRY, "1.0"], &[("FAIL", &fail)]);
    assert!(!outcome.called(&format!("{IN_NAMESPACE} delete")), "the old one is all there is");
}

#[test]
fn what_is_deployed_are_the_images_of_the_registry_and_nothing_else_is_changed() {
    let bench = Bench::with(&[("secret-external-redis", "")]);
    let all = render::variants();
    for (name, plain) in &all {
        let mut words = name.split(' ');
        let overlay = format!("--overlay={}", words.next().unwrap());
        let components: Vec<_> = words.map(|word| format!("--component={word}")).collect();
        let mut args: Vec<_> = components.iter().map(String::as_str).collect();
        args.extend([&overlay, "registry.test:5000", "007"]);
        // The stand-in renders as little as the script checks; the folder is rendered for real below.
        if plain.find("StatefulSet", "redis").is_none() {
            std::fs::write(bench.path("rendered"), ELSEWHERE).unwrap();
        }
        let Outcome { code, printed, .. } = bench.run(DEPLOY, &args, &[]);
        assert_eq!(code, 0, "{name}: {printed}");
        let _ = std::fs::remove_file(bench.path("rendered"));
        let mut rendered = render::folder(bench.folder.path(), ".generated");
        for object in &mut rendered.objects {
            let has_secrets = object["kind"] == "StatefulSet"
                || object["kind"] == "Deployment" && object["metadata"]["name"] != "frontend";
            if has_secrets {
                let template = &mut object["spec"]["template"]["metadata"];
                let annotations = template.as_object_mut().unwrap().remove("annotations").unwrap();
                let versions = annotations["carillon/secrets"].as_str().unwrap();
                assert!(versions.contains("redis"), "{name}: {versions}");
            }
        }
        for (object, before) in rendered.objects.iter().zip(&plain.objects) {
            let wanted = ["producer", "bff", "frontend"].iter().fold(before.to_string(), |text, image| {
                text.replace(&format!("carillon/{image}:0.1.0"), &format!("registry.test:5000/{image}:007"))
            });
            assert_eq!(object.to_string(), wanted, "{name}");
        }
        assert_eq!(rendered.objects.len(), plain.objects.len(), "{name}");
    }
}
