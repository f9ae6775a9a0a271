//! An update comes to what a compilation of everything comes to, whatever changes in whatever order; and it is what
//! answers the common change.

use std::collections::BTreeMap;

use super::order::shape;
use super::*;
use crate::crd::Object;
use crate::snapshot::Snapshot;
use crate::source::ObjectRef;
use crate::store::Change;

/// Steps of a random walk, and walks.
const STEPS: usize = 120;
const WALKS: u64 = 12;
/// Short walks, of many worlds. Code that is not optimized takes minutes for all of them.
const SHORT_WALKS: u64 = if cfg!(debug_assertions) { 100 } else { 1000 };
const SHORT: usize = 3;
/// More walks, which found a fault once: endpoints that name no pod, in a service that others send to.
const FOUND: [u64; 2] = [80, 522];

/// Long walks, short ones that edit rules, and those that found a fault: seed, steps, and whether they edit rules.
fn walks() -> impl Iterator<Item = (u64, usize, bool)> {
    let long = (1..=WALKS).map(|seed| (seed, STEPS, seed % 2 == 0));
    let short = (1..=SHORT_WALKS).map(|seed| (1000 + seed, SHORT, true));
    long.chain(FOUND.map(|seed| (seed, STEPS, false))).chain(short)
}

/// Objects as texts, by a name of the test's own.
type World = BTreeMap<String, String>;

/// xorshift64: the same walk for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

fn snapshot(world: &World) -> Snapshot {
    let mut store = Store::new();
    write(&mut store, &World::new(), world)
}

/// Goes from one world to the next. Only what differs is read.
fn write(store: &mut Store, before: &World, now: &World) -> Snapshot {
    for (name, text) in now.iter().filter(|(name, text)| before.get(*name) != Some(*text)) {
        store.set_file(name, text);
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        store.remove_file(name);
    }
    let (snapshot, findings) = store.assemble();
    let read = findings.iter().all(|finding| finding.code == crate::finding::code::NOT_SUPPORTED);
    assert!(read, "the walk writes what can be read: {findings:?}");
    snapshot
}

fn objects(world: &World, snapshot: &Snapshot) -> BTreeMap<String, Object> {
    let text = |name: &str| {
        let (kind, rest) = name.split_once(' ').expect("kind and name");
        let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
        let group = crate::crd::RESOURCES.iter().find(|row| row.kind == kind).expect("a known kind").group;
        ObjectRef { kind: kind.into(), group: group.into(), namespace: namespace.into(), name: name.into() }
    };
    world.keys().map(|name| (name.clone(), snapshot.get(&text(name)).expect("it was stored"))).collect()
}

fn changes(before: (&World, &Snapshot), now: (&World, &Snapshot)) -> Vec<Change> {
    let (was, is) = (objects(before.0, before.1), objects(now.0, now.1));
    let names: std::collections::BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let changed = names.into_iter().filter(|name| before.0.get(*name) != now.0.get(*name));
    changed
        .map(|name| {
            let object = was.get(name).or(is.get(name)).expect("one of the two").meta().object.clone();
            Change { object, before: was.get(name).cloned() }
        })
        .collect()
}

/// The throw of the dice that edits a VirtualService.
const VIRTUAL_SERVICE: u64 = 34;
const NAMESPACES: [&str; 3] = ["one", "two", "istio-system"];
const SERVICES: [&str; 4] = ["a", "b", "c", "d"];

fn slice(random: &mut Random, namespace: &str, service: &str) -> String {
    let endpoints: Vec<String> = (0..random.below(5))
        .map(|_| {
            let n = random.below(8);
            let ready = random.below(4) > 0;
            let target =
                if random.below(40) == 0 { String::new() } else { format!(", targetRef: {{kind: Pod, name: p{n}}}") };
            let spot = random.one(&["", "", ", nodeName: n0", ", nodeName: n1, zone: a", ", zone: b"]);
            format!("{{addresses: [{}], conditions: {{ready: {ready}}}{target}{spot}}}", address(namespace, n))
        })
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-1, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}, {{name: tcp-x, port: 81}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

fn address(namespace: &str, n: u64) -> String {
    let third = NAMESPACES.iter().position(|one| *one == namespace).expect("one of them");
    format!("10.0.{third}.{}", n + 1)
}

fn walk_pod(random: &mut Random, namespace: &str, n: u64) -> String {
    let labels = format!("app: {}, version: {}", random.one(&SERVICES), random.one(&["v1", "v2"]));
    let mode = random.one(&["", ", weir.mesh/mode: enabled", ", weir.mesh/mode: sideways", ", istio-locality: eu.a"]);
    let phase = random.one(&["Running", "Running", "Running", "Succeeded"]);
    let network = random.one(&["", "", "", ", hostNetwork: true"]);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{n}, namespace: {namespace}, labels: {{{labels}{mode}}}}}\nspec: {{nodeName: n{}{network}}}\nstatus: {{phase: {phase}, podIPs: [{{ip: {}}}]}}\n",
        random.below(2),
        address(namespace, n)
    )
}

fn walk_service(random: &mut Random, namespace: &str, service: &str) -> String {
    let place = SERVICES.iter().position(|one| *one == service).expect("one of them");
    let third = NAMESPACES.iter().position(|one| *one == namespace).expect("one of them");
    let ip = match random.below(10) {
        0 => "None".to_owned(),
        // Now and then two services claim one address.
        1 => "10.96.9.9".to_owned(),
        _ => format!("10.96.{third}.{place}"),
    };
    let more = random.one(&[
        "",
        ", internalTrafficPolicy: Local",
        ", sessionAffinity: ClientIP",
        ", trafficDistribution: PreferClose",
        ", trafficDistribution: PreferSameNode",
    ]);
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {service}, namespace: {namespace}}}\nspec: {{clusterIP: {ip}, selector: {{app: {service}}}, ports: [{{name: http, port: 80, targetPort: 8080}}, {{name: tcp-x, port: 81}}]{more}}}\n"
    )
}

fn host(random: &mut Random) -> String {
    let (service, namespace) = (random.one(&SERVICES), random.one(&NAMESPACES));
    match random.below(8) {
        0 => "\"*.svc.cluster.local\"".to_owned(),
        1 => format!("\"*.{namespace}.svc.cluster.local\""),
        2..5 => service.to_owned(),
        _ => format!("{service}.{namespace}.svc.cluster.local"),
    }
}

fn target(random: &mut Random) -> String {
    let subset = random.one(&["", ", subset: v1", ", subset: v2"]);
    let port = random.one(&[", port: {number: 80}", ", port: {number: 81}"]);
    let (service, namespace) = (random.one(&SERVICES), random.one(&NAMESPACES));
    let host = match random.below(12) {
        0 => "db.internal".to_owned(),
        _ => format!("{service}.{namespace}.svc.cluster.local"),
    };
    format!("{{destination: {{host: {host}{subset}{port}}}, weight: {}}}", 1 + random.below(5))
}

/// VirtualServices that keep their hosts, by name: hosts of ServiceEntries, hosts that nobody has, many of those, and of
/// a service by what another says.
const KEEPERS: [(&str, &str); 7] = [
    ("entry", "db.internal"),
    ("dns", "api.internal"),
    ("exact", "a.example.com"),
    ("wild", "\"*.example.com\""),
    ("wilder", "\"*.a.example.com\""),
    ("root", "a"),
    ("part", ""),
];

/// Rules of one of [`KEEPERS`].
fn keeper(random: &mut Random, namespace: &str) -> (String, String) {
    let (name, host) = KEEPERS[random.below(KEEPERS.len() as u64) as usize];
    let (one, two) = (target(random), target(random));
    let export = random.one(&["", "", "", "", "", ", exportTo: [\".\"]"]);
    // Who tells other clients apart than before is compiled with everything else.
    let matching = match namespace {
        "two" => "match: [{uri: {prefix: /x/y}, sourceLabels: {app: a}}], ",
        _ => random.one(&["", "match: [{uri: {prefix: /x}}], "]),
    };
    let first = match name {
        "root" => format!("{{{matching}delegate: {{name: part, namespace: {}}}}}", random.one(&NAMESPACES[..2])),
        _ => format!("{{{matching}route: [{one}]}}"),
    };
    let hosts = if host.is_empty() { String::new() } else { format!("hosts: [{host}], ") };
    let spec = format!("{{{hosts}http: [{first}, {{route: [{one}, {two}]}}]{export}}}");
    (format!("VirtualService {namespace}/{name}"), vs(namespace, name, &spec))
}

/// A ServiceEntry for one of the hosts of [`KEEPERS`].
fn walk_entry(random: &mut Random, namespace: &str) -> (String, String) {
    let static_one = random.below(2) == 0;
    let (name, host, resolution) =
        if static_one { ("db", "db.internal", "STATIC") } else { ("api", "api.internal", "DNS") };
    let endpoints = match resolution {
        "DNS" => String::new(),
        _ => format!(
            ", endpoints: [{{address: 192.0.2.{}, weight: {}}}, {{address: 192.0.2.9, labels: {{version: v1}}}}]",
            1 + random.below(3),
            1 + random.below(3)
        ),
    };
    let export = random.one(&["", "", ", exportTo: [\".\"]"]);
    let spec = format!(
        "{{hosts: [{host}], addresses: [10.99.0.{}], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: {resolution}{endpoints}{export}}}",
        name.len()
    );
    (format!("ServiceEntry {namespace}/{name}"), rule("ServiceEntry", namespace, name, &spec))
}

/// One edit, mostly one of those that happen most; with `rules`, half of them are of VirtualServices.
fn edit(random: &mut Random, world: &mut World, rules: bool) {
    let (namespace, service) = (random.one(&NAMESPACES), random.one(&SERVICES));
    let export = random.one(&["", "", ", exportTo: [\".\"]", ", exportTo: [\"*\"]", ", exportTo: [one]"]);
    let dice = if rules && random.below(2) == 0 { VIRTUAL_SERVICE } else { random.below(42) };
    let (name, text) = match dice {
        0..18 => (format!("EndpointSlice {namespace}/{service}-1"), slice(random, namespace, service)),
        18..32 => {
            let n = random.below(8);
            (format!("Pod {namespace}/p{n}"), walk_pod(random, namespace, n))
        }
        32..34 => (format!("Service {namespace}/{service}"), walk_service(random, namespace, service)),
        VIRTUAL_SERVICE if random.below(2) == 0 => keeper(random, namespace),
        40 => walk_entry(random, namespace),
        41 => {
            let name = format!("n{}", random.below(2));
            let (region, zone) = (random.one(&["eu", "us"]), random.one(&["a", "b"]));
            let text = format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{topology.kubernetes.io/region: {region}, topology.kubernetes.io/zone: {zone}}}}}\n"
            );
            (format!("Node {name}"), text)
        }
        VIRTUAL_SERVICE | 35 => {
            let (host, targets) = (host(random), [target(random), target(random)].join(", "));
            let matching =
                random.one(&["", "", "match: [{uri: {prefix: /x}}], ", "match: [{sourceLabels: {app: a}}], "]);
            let spec = match random.below(4) {
                0 => format!("{{hosts: [{host}], tcp: [{{route: [{targets}]}}]{export}}}"),
                1 => format!("{{hosts: [{host}], http: [{{{matching}route: [{targets}]}}]{export}}}"),
                2 => format!(
                    "{{hosts: [{host}], http: [{{{matching}redirect: {{uri: /y}}}}, {{mirror: {{host: a}}, route: [{targets}]}}]{export}}}"
                ),
                _ => format!(
                    "{{hosts: [{host}], http: [{{match: [{{uri: {{prefix: /x}}}}], route: [{targets}]}}]{export}}}"
                ),
            };
            (format!("VirtualService {namespace}/{service}"), vs(namespace, service, &spec))
        }
        36..38 => {
            let policy = random.one(&[
                "",
                "",
                ", trafficPolicy: {loadBalancer: {simple: RANDOM}}",
                ", trafficPolicy: {tls: {mode: SIMPLE}}",
                ", trafficPolicy: {outlierDetection: {}}",
                ", trafficPolicy: {outlierDetection: {}, loadBalancer: {localityLbSetting: {failoverPriority: [version]}}}",
                ", trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: eu, to: {us: 100}}]}}}",
            ]);
            let spec = format!(
                "{{host: {}, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]{policy}{export}}}",
                host(random)
            );
            (format!("DestinationRule {namespace}/{service}"), dr(namespace, service, &spec))
        }
        38 => {
            let labels = random.one(&["", "weir.mesh/mode: enabled", "weir.mesh/telemetry: http"]);
            let text =
                format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{{labels}}}}}\n");
            (format!("Namespace {namespace}"), text)
        }
        _ => {
            let text = format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: x, namespace: {namespace}}}\nspec: {{selector: {{matchLabels: {{app: {service}}}}}}}\n"
            );
            (format!("AuthorizationPolicy {namespace}/x"), text)
        }
    };
    // A policy lasts a step or two: it sends everything to the whole compilation.
    world.retain(|name, _| !name.starts_with("AuthorizationPolicy") || random.below(2) == 0);
    if random.below(6) == 0 {
        world.remove(&name);
    } else {
        world.insert(name, text);
    }
}

#[test]
fn an_update_comes_to_what_everything_comes_to() {
    let (mut updates, mut moved, mut ruled, mut placed) = (0, 0, 0, 0);
    let mut kept = KEEPERS.map(|(name, _)| (name, 0));
    for (seed, steps, rules) in walks() {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::new();
        for namespace in NAMESPACES {
            for service in SERVICES {
                let text = walk_service(&mut random, namespace, service);
                world.insert(format!("Service {namespace}/{service}"), text);
                world.insert(format!("EndpointSlice {namespace}/{service}-1"), slice(&mut random, namespace, service));
            }
            for n in 0..8 {
                world.insert(format!("Pod {namespace}/p{n}"), walk_pod(&mut random, namespace, n));
            }
        }
        if rules {
            for _ in 0..12 {
                let namespace = random.one(&NAMESPACES);
                let (name, text) = if random.below(4) == 0 {
                    walk_entry(&mut random, namespace)
                } else {
                    keeper(&mut random, namespace)
                };
                world.insert(name, text);
            }
        }
        let mut options = CompileOptions { node: Some("n1".into()), ..CompileOptions::default() };
        let mut store = Store::new();
        let mut objects = write(&mut store, &World::new(), &world);
        let mut compiler = Compiler::default();
        let mut in_force = compiler.compile(&objects, &options, &Program::default(), &KernelPlan::default());
        for step in 0..steps {
            let mut edited = world.clone();
            for _ in 0..=random.below(2) {
                edit(&mut random, &mut edited, rules);
            }
            let now = write(&mut store, &world, &edited);
            let changes = changes((&world, &objects), (&edited, &now));
            options.generation += 1;
            options.views = in_force.views.clone();
            let whole = compile(&now, &options);
            let held = InForce { program: &in_force.program, plan: &in_force.plan, findings: &in_force.findings };
            if let Some(delta) = compiler.update(&now, &changes, held, &options) {
                updates += 1;
                ruled += usize::from(changes.iter().any(|change| &*change.object.kind == "VirtualService"));
                moved += usize::from(!delta.services.is_empty());
                for (name, count) in &mut kept {
                    *count += changes.iter().filter(|change| *change.object.name == **name).count();
                }
                for (key, entry) in delta.services {
                    assert!(in_force.plan.services.insert(key, entry).is_some(), "no entry comes");
                }
                for (name, pod) in delta.pods {
                    match pod {
                        Some(pod) => drop(in_force.plan.pods.insert(name, pod)),
                        None => drop(in_force.plan.pods.remove(&name)),
                    }
                }
                in_force.program = delta.program;
                in_force.findings = delta.findings.unwrap_or(in_force.findings);
                assert_eq!(in_force.plan, whole.plan, "seed {seed}, step {step}: {changes:?}");
                placed += in_force.program.clusters.iter().filter(|cluster| cluster.localities.is_some()).count();
                assert_eq!(in_force.program.clients, whole.program.clients, "seed {seed}, step {step}: {changes:?}");
                assert_eq!(in_force.findings, whole.findings, "seed {seed}, step {step}: {changes:?}");
                assert_eq!(shape(&in_force), shape(&whole), "seed {seed}, step {step}: {changes:?}");
                assert_eq!((in_force.views.clone(), options.generation), (whole.views, in_force.program.generation));
            } else {
                in_force = compiler.compile(&now, &options, &in_force.program, &in_force.plan);
                assert_eq!(
                    (&in_force.plan, &in_force.findings),
                    (&whole.plan, &whole.findings),
                    "seed {seed}, step {step}"
                );
                assert_eq!(shape(&in_force), shape(&whole), "seed {seed}, step {step}: {changes:?}");
            }
            (world, objects) = (edited, now);
        }
    }
    // Most steps touch endpoints and pods alone, but not all of these worlds can be updated.
    assert!(updates > WALKS as usize * STEPS / 8, "only {updates} updates");
    assert!(ruled > updates / 16, "only {ruled} of {updates} updates changed a rule");
    assert!(kept.iter().all(|(_, updates)| *updates as u64 > SHORT_WALKS / 100), "{kept:?} of {updates} updates");
    assert!(placed > updates, "only {placed} clusters of {updates} updates by locality");
    assert!(moved > updates / 8, "only {moved} of {updates} updates changed an entry");
}

#[test]
fn a_change_of_one_endpoint_is_an_update_and_shares_the_rest() {
    let slice = |service: &str, ready: bool| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [10.0.0.1], targetRef: {{kind: Pod, name: b-1}}}}, {{addresses: [10.0.0.3], conditions: {{ready: {ready}}}, targetRef: {{kind: Pod, name: b-3}}}}]\n"
        )
    };
    let canary = "{hosts: [b], http: [{route: [{destination: {host: b, subset: v1}, weight: 3}, {destination: {host: b, subset: v2}, weight: 1}]}]}";
    let world = |ready| {
        World::from([
            (
                "x shop".to_owned(),
                [shop(HTTP), vs("shop", "b", canary), service("shop", "a", "10.96.0.3", HTTP)].concat(),
            ),
            ("EndpointSlice shop/b".to_owned(), slice("b", ready)),
        ])
    };
    let options = CompileOptions::default();
    let (before, now) = (snapshot(&world(true)), snapshot(&world(false)));
    let mut compiler = Compiler::default();
    let compiled = compiler.compile(&before, &options, &Program::default(), &KernelPlan::default());
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v1:3:10.0.0.1:8080", "v2:1:10.0.0.3:8080"]);
    let object = ObjectRef {
        kind: "EndpointSlice".into(),
        group: "discovery.k8s.io".into(),
        namespace: "shop".into(),
        name: "b".into(),
    };
    let changes = [Change { before: before.get(&object), object }];
    let held = InForce { program: &compiled.program, plan: &compiled.plan, findings: &compiled.findings };
    let delta = compiler.update(&now, &changes, held, &CompileOptions { generation: 1, ..options }).expect("an update");
    let [(key, entry)] = &*delta.services else { panic!("{:?}", delta.services) };
    assert_eq!((key.port, &*entry.name, entry.fallback[1].endpoints.len()), (80, "shop/b:80", 0));
    assert!(Arc::ptr_eq(&delta.program.destinations, &compiled.program.destinations));
    assert!(Arc::ptr_eq(&delta.program.host_tables, &compiled.program.host_tables));
    let shared = delta.program.clusters.iter().zip(compiled.program.clusters.iter()).filter(|(a, b)| Arc::ptr_eq(a, b));
    assert_eq!(
        (delta.program.clusters.len() - shared.count(), delta.program.generation),
        (2, 1),
        "the plain one and v2"
    );
}
