//! What routes of the Gateway API are attached to, and what they may refer to: parents, backends of other namespaces and
//! of other kinds, and who grants them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use weir_tests::require::Need;
use weir_tests::{HttpLoad, PodSpec, Service, load, require};

use super::stage::Stage;

const NEEDS: &[Need] = &[Need::Agent, Need::Program("curl")];

/// An object of the Gateway API, in flow style.
fn object(kind: &str, namespace: &str, spec: &str) -> String {
    let version = if kind == "HTTPRoute" { "v1" } else { "v1beta1" };
    let version = if kind == "TCPRoute" { "v1alpha2" } else { version };
    format!(
        "---\napiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: route, namespace: {namespace}}}\n\
         spec: {{{spec}}}\n"
    )
}

/// service-b at ports 80 and 81, its versions as Services of their own (`only-v1`, `only-v2` at port 80, `raw-v1`,
/// `raw-v2` at port 9000), another Service `beside` with the same pods, and a client in namespace `partner`.
fn stage() -> Result<Stage> {
    let stage = Stage::furnished("", |scene| {
        scene.mesh.add_pod(PodSpec::new("partner").namespace("partner"))?;
        scene.manifests.namespaces(&[("default", true), ("partner", true)])?;
        let both = |service: Service| service.selects("service-b").port("http", 80, "80").port("http-more", 81, "80");
        scene.manifests.service(&both(Service::new("service-b", 2)))?;
        scene.manifests.service(&both(Service::new("beside", 4)))?;
        for (version, host) in [("v1", 11), ("v2", 12)] {
            let http = Service::new(&format!("only-{version}"), host).port("http", 80, "80");
            let tcp = Service::new(&format!("raw-{version}"), host + 10).port("tcp", 9000, "9000");
            for mut service in [http, tcp] {
                service.selector = vec![("app".into(), "service-b".into()), ("version".into(), version.into())];
                scene.manifests.service(&service)?;
            }
        }
        Ok(())
    })?;
    stage.agent.await_enrolled("partner/partner", true)?;
    Ok(stage)
}

/// The versions and statuses that 30 requests of a pod meet at an address.
fn met(stage: &Stage, pod: &str, address: &str) -> Result<BTreeSet<String>> {
    let target = address.parse().with_context(|| format!("{address} is no address"))?;
    let host = if SERVICE_B.contains(&address) { "service-b.default" } else { "beside.default" };
    let report = HttpLoad::new(target).host(host).requests(30).fresh().run(stage.scene.mesh.pod(pod))?;
    ensure!(report.failed == 0, "{address}: {report:?}");
    let errors = report.by_status.into_keys().filter(|status| status != "200");
    Ok(report.by_version.into_keys().chain(errors).collect())
}

const SERVICE_B: [&str; 2] = ["10.96.0.2:80", "10.96.0.2:81"];
const BESIDE: [&str; 2] = ["10.96.0.4:80", "10.96.0.4:81"];

#[test]
fn a_route_is_for_the_services_and_ports_that_it_names() -> Result<()> {
    if !require("a_route_is_for_the_services_and_ports_that_it_names", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    let all = [SERVICE_B, BESIDE].concat();
    for (parents, attached) in [
        ("{group: '', kind: Service, name: service-b}", &SERVICE_B[..]),
        ("{group: '', kind: Service, name: service-b, port: 80}", &SERVICE_B[..1]),
        ("{group: '', kind: Service, name: service-b, port: 81}", &SERVICE_B[1..]),
        ("{group: '', kind: Service, name: beside, port: 81}", &BESIDE[1..]),
        ("{group: '', kind: Service, name: service-b}, {group: '', kind: Service, name: beside}", &all),
        ("{group: '', kind: Service, name: service-b, port: 82}", &[]),
        ("{group: '', kind: Service, name: nobody}", &[]),
        // The group is that of Gateways where it is not given, and so is the kind.
        ("{kind: Service, name: service-b}", &[]),
        ("{name: service-b}", &[]),
        ("{group: example.com, kind: Service, name: service-b}", &[]),
    ] {
        let rules = "rules: [{backendRefs: [{name: only-v2, port: 80}]}]";
        stage.rules(&object("HTTPRoute", "default", &format!("parentRefs: [{parents}], {rules}")))?;
        for address in &all {
            let versions = met(&stage, "client", address)?;
            let wanted: &[&str] = if attached.contains(address) { &["v2"] } else { &["v1", "v2"] };
            ensure!(versions.iter().eq(wanted), "{parents}: {address} leads to {versions:?}");
        }
    }
    Ok(())
}

#[test]
fn a_consumers_route_is_for_clients_of_its_namespace_alone() -> Result<()> {
    if !require("a_consumers_route_is_for_clients_of_its_namespace_alone", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    let rules = "rules: [{backendRefs: [{name: only-v2, namespace: default, port: 80}]}]";
    let grant = object(
        "ReferenceGrant",
        "default",
        "from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: partner}], to: [{group: '', kind: Service}]",
    );
    let of = |parent: &str| {
        let route = object("HTTPRoute", "partner", &format!("parentRefs: [{{{parent}}}], {rules}"));
        stage.rules(&(route + &grant))
    };
    let both = |pod: &str| -> Result<Vec<String>> { Ok(met(&stage, pod, SERVICE_B[0])?.into_iter().collect()) };
    of("group: '', kind: Service, name: service-b, namespace: default")?;
    ensure!(
        (both("partner")?, both("client")?) == (vec!["v2".into()], vec!["v1".into(), "v2".into()]),
        "its own alone"
    );
    // Without a namespace it is a Service of its own, which there is none of.
    of("group: '', kind: Service, name: service-b")?;
    ensure!(both("partner")? == ["v1", "v2"], "nobody's");
    Ok(())
}

#[test]
fn a_backend_of_another_namespace_needs_a_grant_that_is_for_it() -> Result<()> {
    if !require("a_backend_of_another_namespace_needs_a_grant_that_is_for_it", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    let parent = "parentRefs: [{group: '', kind: Service, name: service-b, namespace: default}]";
    let backend = "backendRefs: [{name: only-v2, namespace: default, port: 80}]";
    let route = object("HTTPRoute", "partner", &format!("{parent}, rules: [{{{backend}}}]"));
    let from = |group: &str, kind: &str, namespace: &str| {
        format!("from: [{{group: {group}, kind: {kind}, namespace: {namespace}}}]")
    };
    let gateway_api = "gateway.networking.k8s.io";
    let own = from(gateway_api, "HTTPRoute", "partner");
    let service = "to: [{group: '', kind: Service, name: only-v2}]";
    let granted = object("ReferenceGrant", "default", &format!("{own}, {service}"));
    let several = "from: [{group: example.com, kind: Other, namespace: partner}, \
                   {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: partner}], \
                   to: [{group: '', kind: Service, name: only-v1}, {group: '', kind: Service, name: only-v2}]";
    for (namespace, spec, allowed) in [
        ("default", format!("{own}, to: [{{group: '', kind: Service}}]"), true),
        ("default", several.to_owned(), true),
        ("default", format!("{own}, to: [{{group: '', kind: Service, name: only-v1}}]"), false),
        ("default", format!("{own}, to: [{{group: '', kind: Secret, name: only-v2}}]"), false),
        ("default", format!("{own}, to: [{{group: example.com, kind: Service, name: only-v2}}]"), false),
        ("default", format!("{}, {service}", from(gateway_api, "GRPCRoute", "partner")), false),
        ("default", format!("{}, {service}", from(gateway_api, "HTTPRoute", "default")), false),
        ("default", format!("{}, {service}", from("example.com", "HTTPRoute", "partner")), false),
        // It is the backend's namespace that grants.
        ("partner", format!("{own}, {service}"), false),
    ] {
        // Each is looked at after a state that it must change.
        let before = if allowed { "" } else { &*granted };
        for (grant, allowed) in [(before, !allowed), (&object("ReferenceGrant", namespace, &spec), allowed)] {
            stage.rules(&format!("{route}{grant}"))?;
            let answer = stage.curl_in("partner", "http://service-b.default/", &[])?;
            let expected = if allowed { (200, Some("v2")) } else { (500, None) };
            let found = (answer.status, answer.header("x-version"));
            ensure!(found == expected, "{namespace} {spec}: {found:?}, not {expected:?}");
        }
    }
    let told = stage.agent.findings()?;
    ensure!(told.iter().any(|finding| finding.contains("RefNotPermitted")), "{told:?}");
    Ok(())
}

/// Requests of a measured share …
const REQUESTS: u64 = 4000;
/// … and how many points one of 25 % may be off: five standard deviations.
const TOLERANCE: f64 = 3.5;

#[test]
fn the_share_of_a_backend_that_is_no_service_is_answered_with_500() -> Result<()> {
    if !require("the_share_of_a_backend_that_is_no_service_is_answered_with_500", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    let route = |backends: &str| {
        let parent = "parentRefs: [{group: '', kind: Service, name: service-b}]";
        stage.rules(&object("HTTPRoute", "default", &format!("{parent}, rules: [{{backendRefs: [{backends}]}}]")))
    };
    let good = "{group: '', kind: Service, name: only-v1, port: 80, weight: 3}";
    for bad in [
        "{group: example.com, kind: Bucket, name: only-v2, port: 80, weight: 1}",
        "{group: example.com, kind: Service, name: only-v2, port: 80, weight: 1}",
        "{kind: Bucket, name: only-v2, port: 80, weight: 1}",
        "{name: nobody, port: 80, weight: 1}",
        "{name: only-v2, port: 82, weight: 1}",
    ] {
        route(&format!("{good}, {bad}"))?;
        let report = stage.load().requests(REQUESTS).connections(8).run(stage.client())?;
        let share = 100.0 * report.status(500) as f64 / REQUESTS as f64;
        ensure!(report.failed == 0 && (share - 25.0).abs() < TOLERANCE, "{bad}: {share} % of {report:?}");
        ensure!(report.version("v1") == report.status(200) && report.version("v2") == 0, "{bad}: {report:?}");
    }
    for nothing in ["", "{name: only-v1, port: 80, weight: 0}"] {
        route(nothing)?;
        ensure!(stage.curl("/", &[])?.status == 500, "[{nothing}]: nothing to send to");
    }
    Ok(())
}

#[test]
fn a_tcp_route_splits_connections_and_refuses_the_share_of_what_it_may_not_refer_to() -> Result<()> {
    let name = "a_tcp_route_splits_connections_and_refuses_the_share_of_what_it_may_not_refer_to";
    if !require(name, &[Need::Agent]) {
        return Ok(());
    }
    let stage = stage()?;
    let connect = |pod: &str, count| load::tcp(stage.scene.mesh.pod(pod), stage.scene.tcp.at(9000), count, 4);
    let parent = "parentRefs: [{group: '', kind: Service, name: service-b-tcp, namespace: default, port: 9000}]";
    let weighted = |first: &str, second: &str| {
        format!(
            "rules: [{{backendRefs: [{{name: raw-v1, port: 9000, weight: 3{first}}}, {{name: raw-v2, port: 9000, weight: 1{second}}}]}}]"
        )
    };
    let explicit = ", group: '', kind: Service, namespace: default";
    stage.rules(&object("TCPRoute", "default", &format!("{parent}, {}", weighted("", explicit))))?;
    let report = connect("client", REQUESTS)?;
    ensure!(report.failed == 0 && (report.share("v2") - 25.0).abs() < TOLERANCE, "{report:?}");
    // Neither for another port, nor for another Service, nor for what has its name only.
    for parent in [
        parent.replace("port: 9000", "port: 9001"),
        parent.replace("service-b-tcp", "service-b"),
        parent.replace("group: ''", "group: example.com"),
        parent.replace("kind: Service", "kind: Gateway"),
    ] {
        let only = "rules: [{backendRefs: [{name: raw-v2, port: 9000}]}]";
        stage.rules(&object("TCPRoute", "default", &format!("{parent}, {only}")))?;
        let report = connect("client", 40)?;
        ensure!(report.failed == 0 && report.by_version.len() == 2, "{parent}: {report:?}");
    }
    // A consumer's, which a grant lets refer to one of the two.
    let there = ", namespace: default";
    let route = object("TCPRoute", "partner", &format!("{parent}, {}", weighted(there, there)));
    let grant = |kind: &str, to: &str| {
        let from = format!("from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: partner}}]");
        object("ReferenceGrant", "default", &format!("{from}, to: [{{group: '', kind: Service{to}}}]"))
    };
    stage.rules(&(route.clone() + &grant("TCPRoute", "")))?;
    let report = connect("partner", REQUESTS)?;
    ensure!(report.failed == 0 && (report.share("v2") - 25.0).abs() < TOLERANCE, "{report:?}");
    stage.rules(&(route.clone() + &grant("TCPRoute", ", name: raw-v1")))?;
    let report = connect("partner", REQUESTS)?;
    let refused = 100.0 * report.failed as f64 / REQUESTS as f64;
    ensure!((refused - 25.0).abs() < TOLERANCE && report.version("v1") == report.answered, "{refused} % of {report:?}");
    let bucket = weighted("", ", group: example.com, kind: Bucket");
    stage.rules(&object("TCPRoute", "default", &format!("{parent}, {bucket}")))?;
    let report = connect("client", REQUESTS)?;
    let refused = 100.0 * report.failed as f64 / REQUESTS as f64;
    ensure!((refused - 25.0).abs() < TOLERANCE && report.version("v1") == report.answered, "{refused} % of {report:?}");
    stage.rules(&(route + &grant("HTTPRoute", "")))?;
    let report = connect("partner", 40)?;
    ensure!(report.answered == 0 && report.failed == 40, "what is granted to others: {report:?}");
    let report = connect("client", 40)?;
    ensure!(report.failed == 0 && report.by_version.len() == 2, "others have the plain Service: {report:?}");
    Ok(())
}
