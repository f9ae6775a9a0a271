//! The first things that users do: a service, a load balancer, a canary, and its usual mistakes.

use super::*;
use crate::finding::code;

const TWO_SERVICES: &str = "\
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {clusterIP: 10.96.0.1, selector: {app: front}, ports: [{protocol: TCP, port: 80, targetPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: back}
spec: {clusterIP: 10.96.0.2, selector: {app: back}, ports: [{protocol: TCP, port: 80, targetPort: 80}]}
";

const CANARY: &str = "\
---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {name: back-rule}
spec:
  host: back
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets:
  - name: v1
    labels: {version: v1}
  - name: v2
    labels: {version: v2}
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {name: back-routes}
spec:
  hosts: [back]
  http:
  - route:
    - destination: {host: back, subset: v1, port: {number: 80}}
      weight: 90
    - destination: {host: back, subset: v2, port: {number: 80}}
      weight: 10
";

fn deployment(name: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {{template: {{metadata: {{labels: {{{labels}}}}}, spec: {{containers: [{{name: c}}]}}}}}}\n"
    )
}

#[test]
fn plain_services_without_port_names_are_balanced_in_the_kernel_and_their_protocol_is_detected() {
    let text = [TWO_SERVICES, &pod("default", "back-1", "10.0.0.1", "app: back")].concat();
    let compiled = compiled(&text);
    assert_eq!(compiled.verdict("10.96.0.2"), (Verdict::Balance, "no rule looks into its connections"));
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), [":1:10.0.0.1:80"]);
    assert_eq!(compiled.verdict("10.96.0.1"), (Verdict::Reject, "no ready endpoint"));
    let named = compiled.found(code::PORT_NAME);
    assert_eq!(named.len(), 2, "{named:?}");
    assert!(named[1].starts_with("Info Service default/back 9: port 80 has no name"), "{named:?}");
}

#[test]
fn round_robin_over_all_pods_is_the_proxys() {
    let text = [
        TWO_SERVICES,
        &pod("default", "back-1", "10.0.0.1", "app: back"),
        &dr("default", "back", "{host: back, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}"),
        &vs("default", "back", "{hosts: [back], http: [{route: [{destination: {host: back, port: {number: 80}}}]}]}"),
    ]
    .concat();
    let compiled = compiled(&text);
    let (verdict, why) = compiled.verdict("10.96.0.2");
    assert_eq!((verdict, why), (Verdict::Proxy, "VirtualService default/back has HTTP rules for the host"));
    let port = compiled.port(0, "10.96.0.2", 80).expect("known");
    let plain = compiled.program.cluster(compiled.program.port(port).plain);
    assert_eq!(plain.policy.simple(), crate::program::LoadBalancer::RoundRobin);
    assert_eq!(compiled.ask(0, "default", "10.96.0.2", "back", "/"), "default: back/1=1");
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), [":1:10.0.0.1:80"], "what the kernel falls back to");
}

#[test]
fn a_second_deployment_gets_its_share_by_pod_count_before_any_rule() {
    let text = [
        TWO_SERVICES,
        &pod("default", "back-1", "10.0.0.1", "app: back"),
        &pod("default", "back-v2", "10.0.0.2", "app: back, version: v2"),
    ]
    .concat();
    assert_eq!(compiled(&text).groups(0, "10.96.0.2", 80), [":1:10.0.0.1:80,10.0.0.2:80"]);
}

#[test]
fn a_canary_splits_by_weight_and_falls_back_by_weight() {
    let text = [
        TWO_SERVICES,
        &pod("default", "back-1", "10.0.0.1", "app: back, version: v1"),
        &pod("default", "back-2", "10.0.0.2", "app: back, version: v2"),
        CANARY,
    ]
    .concat();
    let compiled = compiled(&text);
    assert_eq!(compiled.ask(0, "default", "10.96.0.2", "back", "/"), "default: back-v1/1=90 back-v2/1=10");
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v1:90:10.0.0.1:80", "v2:10:10.0.0.2:80"]);
    assert_eq!(compiled.found(code::EMPTY_SUBSET), [""; 0]);
}

#[test]
fn a_subset_without_pods_keeps_its_share_and_says_which_label_is_missing() {
    let text = [
        TWO_SERVICES,
        &pod("default", "back-1", "10.0.0.1", "app: back"),
        &pod("default", "back-2", "10.0.0.2", "app: back, version: v2, pod-template-hash: x1"),
        CANARY,
    ]
    .concat();
    let compiled = compiled(&text);
    assert_eq!(compiled.ask(0, "default", "10.96.0.2", "back", "/"), "default: back-v1/0=90 back-v2/1=10");
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v1:90:", "v2:10:10.0.0.2:80"]);
    let found = compiled.found(code::EMPTY_SUBSET);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("Error DestinationRule default/back-rule 30: subset v1 selects no pod"), "{found:?}");
    assert!(found[0].contains("label version=v1 (they have app=back and app=back,version=v2)"), "{found:?}");
}

#[test]
fn the_labels_of_deployments_count_where_there_are_no_pods_yet() {
    let templates = [deployment("back", "app: back"), deployment("back-v2", "app: back, version: v2")].concat();
    let found = compiled(&[TWO_SERVICES, &templates, CANARY].concat()).found(code::EMPTY_SUBSET);
    assert_eq!(found.len(), 1, "v2 is found in a template: {found:?}");
    assert!(found[0].contains("subset v1 selects no pod"), "{found:?}");
}

#[test]
fn random_in_another_namespace_by_short_name() {
    let text = [
        service("hello", "hello", "10.96.0.5", HTTP),
        pod("hello", "h-1", "10.0.0.9", "app: hello"),
        dr("hello", "hello-rule", "{host: hello, trafficPolicy: {loadBalancer: {simple: RANDOM}}}"),
    ]
    .concat();
    let compiled = compiled(&text);
    assert_eq!(
        compiled.verdict("10.96.0.5"),
        (Verdict::Proxy, "DestinationRule hello/hello-rule asks for RANDOM on a port that carries HTTP")
    );
}

#[test]
fn two_rules_that_take_everything_send_all_to_the_first_and_say_so() {
    let spec = "{hosts: [b], http: [
      {route: [{destination: {host: b, subset: v2}, weight: 80}]},
      {route: [{destination: {host: b, subset: v1}, weight: 20}]}]}";
    let compiled = compiled(&[shop(HTTP), vs("shop", "b", spec)].concat());
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: b-v2/1=1");
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v2:1:10.0.0.3:8080"]);
    let unreachable = compiled.found(code::UNREACHABLE);
    assert_eq!(unreachable.len(), 1);
    assert!(unreachable[0].contains("only the last rule can be without matches"), "{unreachable:?}");
    assert_eq!(compiled.found(code::NO_EFFECT).len(), 2, "both weights do nothing");
}

#[test]
fn rules_for_gateways_alone_change_nothing_in_the_mesh() {
    let spec = "{hosts: [b], gateways: [edge], http: [{route: [{destination: {host: b, subset: v2}}]}]}";
    let compiled = compiled(&[shop(HTTP), vs("shop", "b", spec)].concat());
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Balance);
    assert_eq!(compiled.found(code::NOT_SUPPORTED).len(), 1);
}

#[test]
fn subsets_that_no_rule_defines_are_reported_each_and_work_once_it_comes() {
    let service =
        [service("default", "my", "10.96.0.7", HTTP), pod("default", "my-1", "10.0.0.1", "app: my, version: v1")]
            .concat();
    let routes = vs(
        "default",
        "my",
        "{hosts: [my.default.svc.cluster.local], http: [{route: [{destination: {host: my, subset: v1}, weight: 90}, {destination: {host: my, subset: v2}, weight: 10}]}]}",
    );
    let without = compiled(&[&*service, &routes].concat());
    assert_eq!(without.ask(0, "default", "10.96.0.7", "my", "/"), "default: 503=90 503=10");
    assert_eq!(without.verdict("10.96.0.7").0, Verdict::Proxy);
    let found = without.found(code::REFERENCE);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("host+subset in destinationrule not found: \"my+v1\""), "{found:?}");
    assert!(found[1].contains("\"my+v2\""), "{found:?}");

    let rule = dr("default", "z", "{host: my, subsets: [{name: v1, labels: {version: v1}}]}");
    let with = compiled(&[&*rule, &service, &routes].concat());
    assert_eq!(with.ask(0, "default", "10.96.0.7", "my", "/"), "default: my-v1/1=90 503=10");
    assert!(with.found(code::REFERENCE)[0].contains("DestinationRule default/z defines v1"));
}

#[test]
fn a_named_target_port_is_each_pods_own() {
    let pod = |name: &str, ip: &str, port: u16, version: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: app-1, version: {version}}}}}\nspec: {{containers: [{{name: c, ports: [{{name: apache, containerPort: {port}}}]}}]}}\nstatus: {{podIP: {ip}}}\n"
        )
    };
    let text = [
        service("default", "app-1", "10.96.0.8", "{name: apache, port: 80, targetPort: apache}"),
        pod("p1", "10.0.0.1", 80, "v1"),
        pod("p2", "10.0.0.2", 8080, "v2"),
        pod("p3", "10.0.0.3", 8080, "v2").replace("apache", "other"),
        dr("default", "app-1", "{host: app-1, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}"),
        vs("default", "app-1", "{hosts: [app-1], http: [{route: [{destination: {host: app-1, subset: v1}, weight: 90}, {destination: {host: app-1, subset: v2}, weight: 10}]}]}"),
    ]
    .concat();
    let compiled = compiled(&text);
    assert_eq!(compiled.groups(0, "10.96.0.8", 80), ["v1:90:10.0.0.1:80", "v2:10:10.0.0.2:8080"]);
    for authority in ["app-1", "app-1.default.svc.cluster.local", "APP-1.default:80"] {
        assert_eq!(
            compiled.ask(0, "default", "10.96.0.8", authority, "/"),
            "default: app-1-v1/1=90 app-1-v2/1=10",
            "{authority}"
        );
    }
    assert!(compiled.found(code::PORT_NAME)[0].contains("is named apache"));
}
