//! Who takes part.

use super::*;
use crate::finding::code;

fn namespace(name: &str, labels: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

/// A pod with a network namespace; `more` is further metadata, `spec` further spec.
fn local(namespace: &str, name: &str, labels: &str, more: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}, annotations: {{weir.mesh/netns: /run/netns/{name}{more}}}}}\nspec: {{nodeName: n1{spec}}}\nstatus: {{podIP: 10.0.0.1}}\n"
    )
}

fn enrolled(text: &str, options: &CompileOptions) -> Vec<String> {
    with_store(&[("t", text)], options).0.plan.pods.keys().map(ToString::to_string).collect()
}

#[test]
fn the_pods_label_wins_over_its_namespaces_and_weirs_over_istios() {
    let text = [
        namespace("joined", "weir.mesh/mode: enabled"),
        namespace("apart", "weir.mesh/mode: disabled, istio-injection: enabled"),
        namespace("sidecar", "istio-injection: enabled"),
        namespace("ambient", "istio.io/dataplane-mode: ambient"),
        local("joined", "follows", "app: x", "", ""),
        local("joined", "leaves", "weir.mesh/mode: disabled", "", ""),
        local("apart", "stays-out", "app: x", "", ""),
        local("apart", "joins", "weir.mesh/mode: enabled", "", ""),
        local("sidecar", "s", "app: x", "", ""),
        local("sidecar", "not-injected", "sidecar.istio.io/inject: \"false\"", "", ""),
        local("ambient", "a", "app: x", "", ""),
        local("ambient", "none", "istio.io/dataplane-mode: none", "", ""),
        local("unlabelled", "u", "app: x", "", ""),
    ]
    .concat();
    let all = CompileOptions::default();
    assert_eq!(enrolled(&text, &all), ["ambient/a", "apart/joins", "joined/follows", "sidecar/s"]);
    let own = CompileOptions { accept_istio_labels: false, ..all };
    assert_eq!(enrolled(&text, &own), ["apart/joins", "joined/follows"]);
}

#[test]
fn istios_labels_do_not_count_while_its_control_plane_is_there() {
    let text = [
        namespace("joined", "weir.mesh/mode: enabled, istio-injection: enabled"),
        namespace("sidecar", "istio-injection: enabled"),
        namespace("ambient", "istio.io/dataplane-mode: ambient"),
        local("joined", "follows", "app: x", "", ""),
        local("sidecar", "s", "app: x", "", ""),
        local("sidecar", "joins", "weir.mesh/mode: enabled", "", ""),
        local("ambient", "a", "app: x", "", ""),
        local("other", "o", "istio.io/dataplane-mode: ambient", "", ""),
    ]
    .concat();
    let istiod = |namespace: &str| {
        let ports = "{name: https-dns, port: 15012}";
        service(namespace, "istiod-1-29", "10.96.0.99", ports)
            .replace("metadata: {", "metadata: {labels: {app: istiod}, ")
    };
    let all = CompileOptions::default();
    let (alone, beside) =
        (["joined/follows", "sidecar/joins"], ["ambient/a", "joined/follows", "other/o", "sidecar/joins", "sidecar/s"]);
    // Nobody else can have it that nobody takes part.
    assert_eq!(enrolled(&[&*text, &istiod("shop")].concat(), &all), beside);
    let text = [&*text, &istiod("istio-system")].concat();
    assert_eq!(enrolled(&text, &all), alone);
    let (compiled, _) = with_store(&[("t", &text)], &all);
    let told = compiled.found(code::NOT_ENROLLED);
    assert!(
        told.len() == 2 && told.iter().all(|said| said.contains("there is Service istio-system/istiod-1-29")),
        "{told:?}"
    );
    let own = CompileOptions { accept_istio_labels: false, ..all };
    let (compiled, _) = with_store(&[("t", &text)], &own);
    assert_eq!((compiled.found(code::NOT_ENROLLED).len(), enrolled(&text, &own).len()), (0, 2));
}

#[test]
fn pods_that_cannot_take_part_say_why() {
    let on = "weir.mesh/mode: enabled";
    let text = [
        local("a", "host", on, "", ", hostNetwork: true"),
        local("a", "kata", on, "", ", runtimeClassName: kata-qemu"),
        local("a", "sandboxed", on, "", ", runtimeClassName: gvisor"),
        local("a", "istio", on, "", ", containers: [{name: app}, {name: istio-proxy}]"),
        local("a", "native", on, "", ", initContainers: [{name: istio-proxy, restartPolicy: Always}]"),
        local("a", "linkerd", on, "", ", containers: [{name: linkerd-proxy}]"),
        local("a", "injected", on, ", sidecar.istio.io/status: x", ""),
        local("a", "ambient", on, ", ambient.istio.io/redirection: enabled", ""),
        local("kube-system", "dns", on, "", ""),
        local("a", "odd", "weir.mesh/mode: maybe", "", ""),
        local("a", "done", on, "", "").replace("podIP", "phase: Succeeded, podIP"),
        local("a", "early", on, "", "").replace("status: {podIP: 10.0.0.1}", ""),
    ]
    .concat();
    let compiled = compiled(&text);
    assert!(compiled.plan.pods.is_empty(), "{:?}", compiled.plan.pods);
    assert_eq!(compiled.found(code::NOT_ENROLLED).len(), 9, "{:?}", compiled.findings);
    assert_eq!(compiled.found(code::BAD_SETTING).len(), 1);
}

#[test]
fn only_the_nodes_own_pods_are_planned() {
    let here = local("a", "here", "weir.mesh/mode: enabled", ", weir.mesh/cgroup: /sys/x", "");
    let bare = pod("a", "bare", "10.0.0.7", "weir.mesh/mode: enabled");
    let there = bare.replace("bare", "there").replace("n1", "n2");
    let text = [here, bare.clone(), there].concat();
    assert_eq!(enrolled(&text, &CompileOptions::default()), ["a/here"], "without a node: those with a namespace");
    let node = CompileOptions { node: Some("n1".into()), ..CompileOptions::default() };
    let uid = bare.replace("name: bare", "name: bare, uid: u-1").replace("podIP", "reason");
    assert_eq!(enrolled(&uid, &node), ["a/bare"], "a pod with a uid has its addresses in its namespace");
    let compiled = with_store(&[("t", &text)], &node).0;
    assert_eq!(compiled.plan.pods.keys().map(|k| &**k).collect::<Vec<_>>(), ["a/bare", "a/here"]);
    let here = &compiled.plan.pods["a/here"];
    assert_eq!((here.netns.as_deref(), here.cgroup.as_deref()), (Some("/run/netns/here"), Some("/sys/x")));
    assert_eq!(here.addresses, [ip("10.0.0.1")]);
}
