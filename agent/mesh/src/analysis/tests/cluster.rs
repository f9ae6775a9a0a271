//! What only a cluster, or objects that a cluster makes, can show.

use super::super::{Options, Sources, analyze};
use super::rules::{SERVICE, virtual_service};
use super::{NOW, codes};

#[test]
fn files_come_before_what_the_cluster_has() {
    let mut sources = Sources::new(Options { now: NOW, ..Options::default() });
    let served = crate::crd::parse(SERVICE.replace("name: http, ", "").as_str(), 0).unwrap().unwrap();
    sources.add_served(served, "v1", "Service").unwrap();
    sources.add_file("a.yaml", SERVICE);
    assert!(analyze(&mut sources).is_empty());
}

#[test]
fn an_old_kubernetes_is_told_of() {
    let told = |version: &str| {
        let mut sources = Sources::default();
        sources.set_kubernetes(version);
        analyze(&mut sources).iter().any(|finding| finding.code == "IST0142")
    };
    assert!(told("v1.29.9") && told("v1.9.0") && told("1.28.3-gke.100"));
    assert!(!told("v1.30.0") && !told("v1.33.0-rc.1") && !told("v2.0.0") && !told("unknown"));
    let (major, minor) = crate::analysis::OLDEST_KUBERNETES;
    let page = include_str!("../../../../../docs/install.md");
    assert!(page.contains(&format!("Kubernetes {major}.{minor} or newer")));
}

#[test]
fn a_pod_that_does_not_take_part_is_told_as_istio_knows_it() {
    let pod = |annotations: &str| {
        codes(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: shop, labels: {{weir.mesh/mode: enabled}}, annotations: {{{annotations}}}}}\nspec: {{hostNetwork: true, containers: [{{name: app}}]}}\n"
        ))
        .contains("WEIR0005")
    };
    assert!(pod("") && pod("galley.istio.io/analyze-suppress: IST0102"));
    assert!(!pod("galley.istio.io/analyze-suppress: IST0103"));
}

#[test]
fn definitions_of_the_gateway_api_serve_a_version_that_is_read() {
    let told = |kind: &str, served: &[&str]| {
        let versions = served.iter().map(|version| format!("{{name: {version}, served: true}}")).collect::<Vec<_>>();
        let plural = kind.to_ascii_lowercase();
        let text = format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}s.gateway.networking.k8s.io}}\nspec: {{group: gateway.networking.k8s.io, names: {{kind: {kind}}}, versions: [{}, {{name: v1, served: false}}]}}\n",
            versions.join(", ")
        );
        let codes = codes(&text);
        ["IST0156", "IST0172"].into_iter().filter(|code| codes.contains(code)).collect::<Vec<_>>()
    };
    assert_eq!(told("HTTPRoute", &["v1alpha2"]), ["IST0156"]);
    assert_eq!(told("HTTPRoute", &["v1alpha2", "v1beta1"]), ["IST0172"]);
    assert_eq!(told("Gateway", &["v1"]), [""; 0]);
    // No release serves these otherwise.
    assert_eq!([told("TCPRoute", &["v1alpha2"]), told("ReferenceGrant", &["v1beta1"])], [[""; 0]; 2]);
    assert_eq!(told("XMesh", &["v1alpha1"]), [""; 0]);
}

#[test]
fn nothing_follows_from_a_kind_that_could_not_be_read() {
    let text = virtual_service("  - route: [{destination: {host: elsewhere}}]\n");
    let mut sources = Sources::new(Options { now: NOW, ..Options::default() });
    sources.add_file("a.yaml", &text);
    sources.leave_out("Service", "services is forbidden");
    let found = analyze(&mut sources);
    assert!(!found.iter().any(|finding| finding.code == "IST0101"));
    let told = found.iter().find(|finding| finding.code == "IST0141").expect("it is told of");
    assert!(told.message.starts_with("Service objects may not be listed everywhere"), "{told}");
    assert!(told.message.ends_with("services is forbidden"), "{told}");
}

#[test]
fn objects_without_a_namespace_are_shown_without_one() {
    let text = SERVICE.replace(", namespace: shop", "").replace("name: http, ", "");
    let shown = |namespace: Option<&str>| {
        let options = Options { namespace: namespace.map(Into::into), now: NOW, ..Options::default() };
        let mut sources = Sources::new(options);
        sources.add_file("a.yaml", &text);
        let findings = analyze(&mut sources);
        sources.shown(findings[0].object.as_ref().unwrap())
    };
    assert_eq!(shown(None), "Service web");
    assert_eq!(shown(Some("shop")), "Service shop/web");
}
