//! Custom kinds come and go: what is not served is no error, is followed when it appears, and its objects go with it.

use std::time::Duration;

use anyhow::Result;
use weir_tests::ApiServer;

use crate::bed::{Bed, NODE, RULES, SHOP, shop, weights};

/// How soon after its definition a kind is followed.
const FEW_SECONDS: Duration = Duration::from_secs(6);

#[test]
fn kinds_that_appear_are_followed_and_go_with_their_definition() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(SHOP)?;
    let mut bed = Bed::start(&api)?;
    assert_eq!(bed.status().kinds.len(), 5, "Kubernetes' own: {:?}", bed.status());
    assert!(bed.status().problems.is_empty(), "{:?}", bed.status());
    api.install_istio_crds()?;
    api.apply(RULES)?;
    let took = bed.until("the rules are there", |bed| bed.weight() == Some(90))?;
    weir_tests::proved!("a new kind is followed after {took:?}");
    assert!(took < FEW_SECONDS, "{took:?}");
    api.apply(&weights(55))?;
    bed.until("they are followed", |bed| bed.weight() == Some(55))?;

    let definition = "virtualservices.networking.istio.io";
    api.delete("customresourcedefinitions.apiextensions.k8s.io", "", definition)?;
    bed.until("the rules are gone", |bed| bed.weight().is_none())?;
    bed.until("the kind is gone", |bed| bed.status().kinds.iter().all(|kind| kind.kind != "VirtualService"))?;
    assert_eq!(bed.snapshot().destination_rules.len(), 1, "another kind of the group stays");
    assert!(bed.status().problems.is_empty(), "{:?}", bed.status());

    api.install_istio_crds()?;
    api.apply(&weights(66))?;
    bed.until("they are there again", |bed| bed.weight() == Some(66))?;
    Ok(())
}

#[test]
fn of_nodes_their_places_are_heard() -> Result<()> {
    let api = shop()?;
    let node = |zone: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {NODE}, labels: {{topology.kubernetes.io/region: eu, \
             topology.kubernetes.io/zone: {zone}}}}}\nspec: {{podCIDR: 10.128.0.0/24}}\n"
        )
    };
    let place = |bed: &Bed| bed.snapshot().place_of(&NODE.into()).to_string();
    api.apply(&node("a"))?;
    let mut bed = Bed::start(&api)?;
    assert_eq!(place(&bed), "eu/a");
    api.apply(&node("b"))?;
    bed.until("its other label is heard of", |bed| place(bed) == "eu/b")?;
    Ok(())
}

#[test]
fn kinds_that_nothing_is_done_with_are_told_of() -> Result<()> {
    let api = ApiServer::start()?;
    api.install_istio_crds()?;
    api.apply(SHOP)?;
    api.apply(
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: out, namespace: shop}, spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.example]}]}}",
    )?;
    let mut bed = Bed::start(&api)?;
    bed.until("it is told of", |bed| !bed.findings().is_empty())?;
    let told = "(Gateway shop/out): Gateway is not supported yet: no port is opened for it";
    assert!(bed.findings()[0].contains(told), "{:?}", bed.findings());
    api.delete("gateways.networking.istio.io", "shop", "out")?;
    bed.until("it is not told of any more", |bed| bed.findings().is_empty())?;
    Ok(())
}

/// The definition of a kind of the Gateway API, of which any object is one.
fn definition(plural: &str, kind: &str, version: &str) -> String {
    format!(
        "{{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {{name: {plural}.gateway.networking.k8s.io}}, spec: {{group: gateway.networking.k8s.io, scope: Namespaced, names: {{plural: {plural}, singular: {}, kind: {kind}, listKind: {kind}List}}, versions: [{{name: {version}, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]}}}}",
        kind.to_lowercase()
    )
}

#[test]
fn what_should_encrypt_and_is_not_enforced_is_told_of() -> Result<()> {
    let api = ApiServer::start()?;
    api.apply(SHOP)?;
    let mut bed = Bed::start(&api)?;
    for (plural, kind, version, spec, told) in [
        (
            "backendtlspolicies",
            "BackendTLSPolicy",
            "v1alpha3",
            "{targetRefs: [{group: '', kind: Service, name: a}], validation: {hostname: a.example}}",
            "Error [WEIR0003] (BackendTLSPolicy shop/told): BackendTLSPolicy is not enforced by this version: clients in the mesh are refused",
        ),
        (
            "udproutes",
            "UDPRoute",
            "v1alpha2",
            "{rules: [{backendRefs: [{name: a, port: 53}]}]}",
            "Warning [WEIR0002] (UDPRoute shop/told): UDPRoute is not supported yet: no UDP is routed",
        ),
    ] {
        api.apply(&definition(plural, kind, version))?;
        api.apply(&format!(
            "{{apiVersion: gateway.networking.k8s.io/{version}, kind: {kind}, metadata: {{name: told, namespace: shop}}, spec: {spec}}}"
        ))?;
        // What is not enforced is the compiler's to tell, what is not served the store's.
        let is_told = |bed: &Bed| {
            let compiled = bed.compile();
            let of_compiler = compiled.findings.iter().map(ToString::to_string);
            bed.findings().into_iter().chain(of_compiler).any(|finding| finding.contains(told))
        };
        bed.until("it is told of", |bed| is_told(bed))?;
        api.delete(&format!("{plural}.gateway.networking.k8s.io"), "shop", "told")?;
        bed.until("it is not told of any more", |bed| !is_told(bed))?;
    }
    assert!(bed.status().problems.is_empty(), "{:?}", bed.status());
    Ok(())
}
