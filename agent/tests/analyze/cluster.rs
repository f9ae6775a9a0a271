//! `weir analyze --kubernetes` against the test API server: what a cluster holds, files as if they were applied, and
//! users who may not see everything.

use std::path::Path;

use weir_tests::ApiServer;

use super::{FOUND, SHOP, codes, text, weir};

/// Who may list what the analysis reads, but for Services.
const READER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [networking.istio.io, security.istio.io, telemetry.istio.io, extensions.istio.io], resources: ['*'], verbs: [list]}
- {apiGroups: [gateway.networking.k8s.io, apps, apiextensions.k8s.io], resources: ['*'], verbs: [list]}
- {apiGroups: [''], resources: [namespaces, pods, nodes, configmaps, secrets], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: User, name: ann, apiGroup: rbac.authorization.k8s.io}]
";

fn on(kubeconfig: &Path, arguments: &[&str]) -> std::process::Output {
    weir(&["--kubernetes", "-o", "json", "--kubeconfig", kubeconfig.to_str().unwrap()])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn what_a_cluster_holds_is_analyzed_and_files_come_before_it() {
    let api = ApiServer::start().unwrap();
    api.install_istio_crds().unwrap();
    api.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {weir.mesh/mode: enabled}}\n").unwrap();
    api.apply(SHOP).unwrap();
    let kubeconfig = api.kubeconfig();
    let output = on(&kubeconfig, &["-A"]);
    assert_eq!(output.status.code(), Some(FOUND), "{}", text(&output.stderr));
    assert!(codes(&output).contains(&"IST0101".to_owned()) && codes(&output).contains(&"IST0118".to_owned()));
    // The kubeconfig's namespace is `default`, which holds nothing and takes no part.
    let output = on(&kubeconfig, &[]);
    assert_eq!(codes(&output), ["IST0102"]);
    // A file is what is about to be applied.
    let directory = tempfile::tempdir().unwrap();
    let mended = directory.path().join("mended.yaml");
    std::fs::write(&mended, SHOP.replace("host: wbe", "host: web")).unwrap();
    let output = on(&kubeconfig, &["-n", "shop", mended.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert_eq!(codes(&output), ["IST0118"]);
}

#[test]
fn a_cluster_without_the_kinds_is_no_error() {
    let api = ApiServer::start().unwrap();
    let output = on(&api.kubeconfig(), &["-A"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_policy_that_should_encrypt_is_listed_and_told_of() {
    let api = ApiServer::start().unwrap();
    api.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n").unwrap();
    api.apply("{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: backendtlspolicies.gateway.networking.k8s.io}, spec: {group: gateway.networking.k8s.io, scope: Namespaced, names: {plural: backendtlspolicies, singular: backendtlspolicy, kind: BackendTLSPolicy, listKind: BackendTLSPolicyList}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}").unwrap();
    api.apply("{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: web, namespace: shop}, spec: {targetRefs: [{group: '', kind: Service, name: web}], validation: {hostname: web.example}}}").unwrap();
    let output = on(&api.kubeconfig(), &["-A"]);
    assert_eq!(output.status.code(), Some(FOUND), "{}", text(&output.stderr));
    assert!(codes(&output).contains(&"WEIR0003".to_owned()), "{}", text(&output.stdout));
}

#[test]
fn what_may_not_be_listed_is_said_and_nothing_follows_from_it() {
    let api = ApiServer::builder().rbac().start().unwrap();
    api.install_istio_crds().unwrap();
    api.apply(READER).unwrap();
    api.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {weir.mesh/mode: enabled}}\n").unwrap();
    api.apply(SHOP).unwrap();
    let output = on(&api.kubeconfig_for("ann").unwrap(), &["-A"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut told = found.as_array().unwrap().iter().filter(|finding| finding["code"] == "IST0141");
    let said = told.next().unwrap()["message"].as_str().unwrap();
    assert!(said.starts_with("Service objects may not be listed everywhere"), "{said}");
    assert!(said.contains("forbidden") && said.contains("services"), "the server's own words: {said}");
    assert!(!codes(&output).iter().any(|code| code == "IST0101" || code == "IST0118"), "{}", text(&output.stdout));
    let output = on(Path::new("/nonexistent/kubeconfig"), &["-A"]);
    assert_eq!(output.status.code(), Some(2));
}
