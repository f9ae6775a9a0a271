//! Which version a request meets: by header, cookie, query, method, path and authority, by whose pod asks, and by a
//! hash of the client's address.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use weir_tests::require::Need;
use weir_tests::{HttpLoad, PodSpec, require};

use super::stage::{Stage, V1, V2, destination, http, http_with, more_pods, object};

#[test]
fn the_canary_is_chosen_by_what_a_request_says() -> Result<()> {
    if !require("the_canary_is_chosen_by_what_a_request_says", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let matches = "{headers: {x-user-type: {exact: premium}}}, {headers: {cookie: {regex: '^(.*?;)?\\s*(tier=gold)(;.*)?$'}}}, \
                   {headers: {x-build: {prefix: beta-}}}, {queryParams: {canary: {exact: '1'}}}, {method: {exact: PUT}}, \
                   {uri: {exact: /exact}}, {uri: {prefix: /v2/}}, {uri: {regex: '/item/[0-9]+'}}, \
                   {uri: {prefix: /CASE}, ignoreUriCase: true}, {authority: {exact: 'service-b.default:80'}}, \
                   {uri: {prefix: /bare}, withoutHeaders: {x-stable: {}}}, {uri: {prefix: /scheme}, scheme: {exact: http}}, \
                   {uri: {prefix: /secure}, scheme: {exact: https}}, \
                   {method: {regex: 'DEL.*'}}, {method: {prefix: PAT}}, {queryParams: {build: {regex: '[0-9]+'}}}, {queryParams: {stage: {prefix: be}}}, \
                   {authority: {prefix: canary.}}, {authority: {regex: '.*[.]beta'}}, \
                   {uri: {prefix: /without}, withoutHeaders: {x-tier: {regex: 'low|free'}}}";
    let hosts = "[service-b, canary.example, stable.example, shop.beta]";
    let rules = object("VirtualService", &format!("hosts: {hosts}, http: [{{match: [{matches}], {V2}}}, {{{V1}}}]"));
    let stage = Stage::new(&(rules + &destination("")))?;
    for (path, arguments, version) in [
        ("/", &[][..], "v1"),
        ("/", &["-H", "X-User-Type: premium"], "v2"),
        ("/", &["-H", "X-User-Type: premium-plus"], "v1"),
        ("/", &["--cookie", "theme=dark; tier=gold; x=y"], "v2"),
        ("/", &["--cookie", "tier=gold"], "v2"),
        ("/", &["--cookie", "tier=golden"], "v1"),
        ("/", &["-H", "x-build: beta-7"], "v2"),
        ("/", &["-H", "x-build: stable"], "v1"),
        ("/?a=b&canary=1", &[], "v2"),
        ("/?canary=10", &[], "v1"),
        ("/", &["-X", "PUT"], "v2"),
        ("/exact?with=query", &[], "v2"),
        ("/exactly", &[], "v1"),
        ("/v2/cart", &[], "v2"),
        ("/v2", &[], "v1"),
        ("/item/42", &[], "v2"),
        ("/item/42/x", &[], "v1"),
        ("/case/x", &[], "v2"),
        ("/", &["-H", "Host: service-b.default:80"], "v2"),
        ("/", &["-H", "Host: canary.example"], "v2"),
        ("/", &["-H", "Host: shop.beta"], "v2"),
        ("/", &["-H", "Host: stable.example"], "v1"),
        ("/bare", &[], "v2"),
        ("/bare", &["-H", "x-stable: yes"], "v1"),
        ("/scheme", &[], "v2"),
        ("/secure", &[], "v1"),
        ("/", &["-X", "DELETE"], "v2"),
        ("/", &["-X", "PATCH"], "v2"),
        ("/", &["-X", "PROPFIND"], "v1"),
        ("/?build=42", &[], "v2"),
        ("/?build=42b", &[], "v1"),
        ("/?stage=beta", &[], "v2"),
        ("/?stage=alpha", &[], "v1"),
        ("/without", &["-H", "x-tier: gold"], "v2"),
        ("/without", &["-H", "x-tier: free"], "v1"),
    ] {
        let met = stage.version(path, arguments)?;
        ensure!(met == version, "{path} {arguments:?} met {met}, not {version}");
    }
    Ok(())
}

/// Two pods of other sorts: one with a label, one in another namespace.
fn with_other_clients(rules: &str) -> Result<Stage> {
    Stage::furnished(rules, |scene| {
        scene.mesh.add_pod(PodSpec::new("web").label("app", "web"))?;
        scene.mesh.add_pod(PodSpec::new("partner").namespace("partner").label("app", "client"))?;
        scene.manifests.namespaces(&[("default", true), ("partner", true)])
    })
}

#[test]
fn the_canary_is_chosen_by_who_asks() -> Result<()> {
    if !require("the_canary_is_chosen_by_who_asks", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let stage = with_other_clients(&http(&format!("{{match: [{{sourceLabels: {{app: web}}}}], {V2}}}, {{{V1}}}")))?;
    let met = |pod: &str| -> Result<String> {
        stage.agent.await_enrolled(&stage.scene.mesh.pod(pod).key(), true)?;
        let answer = stage.curl_in(pod, "http://service-b.default/", &[])?;
        ensure!(answer.status == 200, "{pod}: {answer:?}");
        Ok(answer.header("x-version").unwrap_or_default().to_owned())
    };
    ensure!((met("client")?, met("web")?, met("partner")?) == ("v1".into(), "v2".into(), "v1".into()), "by labels");
    stage.rules(&http(&format!("{{match: [{{sourceNamespace: partner}}], {V2}}}, {{{V1}}}")))?;
    ensure!((met("client")?, met("web")?, met("partner")?) == ("v1".into(), "v1".into(), "v2".into()), "by namespace");
    for (port, version) in [(81, "v1"), (80, "v2")] {
        stage.rules(&http(&format!("{{match: [{{gateways: [mesh], port: {port}}}], {V2}}}, {{{V1}}}")))?;
        ensure!(met("web")? == version, "a rule for port {port}");
    }
    // What is not exported does not exist for others: they get the plain service.
    let rule = object("VirtualService", &format!("hosts: [service-b], exportTo: ['.'], http: [{{{V2}}}]"));
    stage.rules(&(rule + &destination("")))?;
    let versions = |pod: &str| -> Result<BTreeSet<String>> { (0..30).map(|_| met(pod)).collect() };
    ensure!(versions("client")?.len() == 1 && versions("partner")?.len() == 2, "of its own namespace alone");
    Ok(())
}

#[test]
fn a_delegates_rules_stand_in_the_place_of_the_root() -> Result<()> {
    let name = "a_delegates_rules_stand_in_the_place_of_the_root";
    if !require(name, &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let delegate = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: cart, namespace: default}}\n\
         spec: {{http: [{{match: [{{uri: {{prefix: /cart/beta}}}}], {V2}}}, {{{V1}}}]}}\n"
    );
    let root = "{match: [{uri: {prefix: /cart}}], delegate: {name: cart, namespace: default}}";
    let stage = Stage::new(&(http(&format!("{root}, {{{V2}}}")) + &delegate))?;
    for (path, version) in [("/cart/beta/1", "v2"), ("/cart/1", "v1"), ("/", "v2")] {
        let met = stage.version(path, &[])?;
        ensure!(met == version, "{path} met {met}");
    }
    Ok(())
}

#[test]
fn a_client_address_keeps_its_pod() -> Result<()> {
    if !require("a_client_address_keeps_its_pod", &[Need::Agent]) {
        return Ok(());
    }
    let clients: Vec<String> = (0..12).map(|n| format!("client-{n}")).collect();
    let rules =
        http_with("{route: [{destination: {host: service-b}}]}", "loadBalancer: {consistentHash: {useSourceIp: true}}");
    let stage = Stage::furnished(&rules, |scene| {
        more_pods(&mut scene.mesh, &["b-v3-0", "b-v3-1"], "v3", "")?;
        clients.iter().try_for_each(|name| scene.mesh.add_pod(PodSpec::new(name)).map(drop))
    })?;
    let mut met = BTreeSet::new();
    for name in &clients {
        let pod = stage.scene.mesh.pod(name);
        stage.agent.await_enrolled(&pod.key(), true)?;
        let load = HttpLoad::new(stage.scene.http.at(80)).host("service-b").requests(40).connections(4);
        let (kept, fresh) = (load.clone().run(pod)?, load.fresh().run(pod)?);
        ensure!(kept.failed + fresh.failed == 0, "{kept:?} {fresh:?}");
        ensure!(kept.by_pod.len() == 1 && kept.by_pod.keys().eq(fresh.by_pod.keys()), "{name}: {kept:?} {fresh:?}");
        met.extend(kept.by_pod.into_keys());
    }
    ensure!(met.len() > 2, "twelve clients met {met:?} only");
    Ok(())
}
