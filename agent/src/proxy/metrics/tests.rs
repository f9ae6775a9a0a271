//! Series are made once, folded when there are too many, and dropped when who they tell of is gone.

use std::net::SocketAddr;

use arc_swap::ArcSwap;
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::store::Store;

use super::*;
use crate::netns::NetNs;
use crate::proxy::Identity;
use crate::proxy::error::{Flag, Flags};

/// The proxy's pod, and one program with a service `b` and its pod at 10.0.0.2.
fn mesh(with_pod: bool) -> Arc<Program> {
    let mut store = Store::new();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.1, selector: {app: b}, ports: [{name: http, port: 80}]}\n";
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: b-1, namespace: shop, labels: {app: b, version: v2}}\n\
               spec: {nodeName: n1}\nstatus: {phase: Running, podIP: 10.0.0.2}\n";
    store.set_file("mesh.yaml", &format!("{service}{}", if with_pod { pod } else { "" }));
    let (snapshot, findings) = store.assemble();
    assert_eq!(findings, []);
    Arc::new(compile(&snapshot, &CompileOptions::default()).program)
}

fn workload(name: &str) -> Arc<Workload> {
    Arc::new(Workload { name: name.into(), namespace: "shop".into(), ..Workload::default() })
}

fn pod(workload: Arc<Workload>, addresses: Vec<IpAddr>) -> Arc<SourcePod> {
    let identity = ArcSwap::from_pointee(Identity { workload, addresses });
    let netns = NetNs::own().expect("a namespace");
    Arc::new(SourcePod { name: "shop/a".into(), namespace: "shop".into(), view: 0.into(), netns, identity })
}

fn endpoint() -> SocketAddr {
    ([10, 0, 0, 2], 80).into()
}

/// Counts a request of the pod to `b`, with this outcome. Whether it got labels of its own.
fn request(edges: &Edges, program: &Arc<Program>, pod: &SourcePod, status: u16, flags: Flags) -> bool {
    let place = Place::Cluster(program.ports[0].plain);
    let edge = edges.edge(program, pod, place, Some(endpoint()), false);
    edges.count(&edge, status, flags, |shard| shard.request(Duration::from_micros(700), 10, 0))
}

fn text(registry: &Registry, program: &Program, now: Instant) -> String {
    Pieces::new(registry.sorted(program, now)).collect()
}

#[test]
fn a_series_says_everything_in_istios_words() {
    let registry = Arc::new(Registry::new(2, 10));
    let (program, a) = (mesh(true), pod(workload("a"), vec![]));
    registry.add_pod(&a);
    // Two workers, which meet the same pair.
    for worker in 0..2 {
        let edges = Edges::new(Arc::clone(&registry), worker);
        edges.turn_to(&program);
        assert!(request(&edges, &program, &a, 200, Flags::default()));
        assert!(request(&edges, &program, &a, 200, Flags::default()));
    }
    let text = text(&registry, &program, Instant::now());
    let total: Vec<&str> = text.lines().filter(|line| line.starts_with("istio_requests_total{")).collect();
    let want = "istio_requests_total{reporter=\"source\",\
        source_workload=\"a\",source_workload_namespace=\"shop\",source_principal=\"unknown\",source_app=\"unknown\",\
        source_version=\"unknown\",source_canonical_service=\"unknown\",source_canonical_revision=\"unknown\",\
        source_cluster=\"Kubernetes\",destination_workload=\"b-1\",destination_workload_namespace=\"shop\",\
        destination_principal=\"spiffe://cluster.local/ns/shop/sa/default\",destination_app=\"b\",destination_version=\"v2\",\
        destination_canonical_service=\"b\",destination_canonical_revision=\"v2\",destination_cluster=\"Kubernetes\",\
        destination_service=\"b.shop.svc.cluster.local\",destination_service_name=\"b\",\
        destination_service_namespace=\"shop\",request_protocol=\"http\",response_code=\"200\",response_flags=\"-\",\
        connection_security_policy=\"none\"} 4";
    assert_eq!(total, [want]);
    let bucket = |name: &str, bound: &str| {
        let found = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}_bucket{{")) && line.contains(&format!(",le=\"{bound}\"}}")));
        found.and_then(|line| line.rsplit_once(' ')).map(|(_, count)| count.to_owned())
    };
    let bounds = "0.5 1 5 10 25 50 100 250 500 1000 2500 5000 10000 30000 60000 300000 600000 1800000 3600000 +Inf";
    for bound in bounds.split(' ') {
        let slow = if bound == "0.5" { "0" } else { "4" };
        assert_eq!(bucket("istio_request_duration_milliseconds", bound).as_deref(), Some(slow), "0.7 ms below {bound}");
        let small = if matches!(bound, "0.5" | "1" | "5") { "0" } else { "4" };
        assert_eq!(bucket("istio_request_bytes", bound).as_deref(), Some(small), "10 bytes below {bound}");
        assert_eq!(bucket("istio_response_bytes", bound).as_deref(), Some("4"), "nothing below {bound}");
    }
    assert_eq!(text.matches("_bucket{").count(), 3 * 20);
    let sum = text.lines().find(|line| line.starts_with("istio_request_duration_milliseconds_sum")).expect("a sum");
    assert!(sum.ends_with("} 2.800"), "{sum}");
}

#[test]
fn a_pod_of_this_node_is_told_of_from_its_side_too() {
    let registry = Arc::new(Registry::new(1, 10));
    let (program, a) = (mesh(true), pod(workload("a"), vec!["10.0.0.2".parse().expect("an address")]));
    registry.add_pod(&a);
    let edges = Edges::new(Arc::clone(&registry), 0);
    request(&edges, &program, &a, 200, Flags::default());
    let text = text(&registry, &program, Instant::now());
    for reporter in ["source", "destination"] {
        assert_eq!(text.matches(&format!("istio_requests_total{{reporter=\"{reporter}\"")).count(), 1, "{reporter}");
    }
}

#[test]
fn too_many_label_sets_are_counted_together_and_said_so() {
    let registry = Arc::new(Registry::new(1, 3));
    let (program, a) = (mesh(true), pod(workload("a"), vec![]));
    registry.add_pod(&a);
    let edges = Edges::new(Arc::clone(&registry), 0);
    edges.turn_to(&program);
    let own = (400..450).filter(|status| request(&edges, &program, &a, *status, Flag::NoRoute.into())).count();
    assert_eq!(own, 3);
    // Those that have their own go on with them.
    assert!(request(&edges, &program, &a, 401, Flag::NoRoute.into()));
    let text = text(&registry, &program, Instant::now());
    let totals: Vec<&str> = text.lines().filter(|line| line.starts_with("istio_requests_total{")).collect();
    assert_eq!(totals.len(), 4, "{totals:?}");
    let folded = totals.iter().find(|line| line.contains("destination_service=\"other\"")).expect("the rest");
    assert!(folded.ends_with(" 47") && folded.contains("response_code=\"400\""), "{folded}");
}

#[test]
fn who_is_gone_is_told_of_a_while_and_then_dropped() {
    let registry = Arc::new(Registry::new(1, 10));
    let (program, a) = (mesh(true), pod(workload("a"), vec![]));
    registry.add_pod(&a);
    let edges = Edges::new(Arc::clone(&registry), 0);
    edges.turn_to(&program);
    request(&edges, &program, &a, 200, Flags::default());
    let start = Instant::now();
    let count = |program: &Program, now| registry.sorted(program, now).len();
    let emptied = mesh(false);
    assert_eq!(count(&emptied, start), 1, "a worker has it in hand");
    edges.turn_to(&emptied);
    // Its endpoint's pod is gone; while it comes back, nothing happens.
    assert_eq!(count(&emptied, start), 1);
    assert_eq!(count(&program, start + GONE_FOR), 1);
    assert_eq!(count(&emptied, start + GONE_FOR), 1, "gone anew");
    assert_eq!(count(&emptied, start + 2 * GONE_FOR), 0);
    // The other side.
    request(&edges, &program, &a, 200, Flags::default());
    registry.remove_pod(a.netns.cookie());
    edges.forget();
    assert_eq!(count(&program, start), 1);
    assert_eq!(count(&program, start + GONE_FOR), 0);
}

#[test]
fn what_is_met_again_needs_no_labels() {
    let registry = Arc::new(Registry::new(1, 10));
    let (program, a) = (mesh(true), pod(workload("a"), vec![]));
    let edges = Edges::new(Arc::clone(&registry), 0);
    edges.turn_to(&program);
    let place = Place::Cluster(program.ports[0].plain);
    let edge = || edges.edge(&program, &a, place, Some(endpoint()), false);
    assert!(std::rc::Rc::ptr_eq(&edge(), &edge()));
    let other = mesh(true);
    let later = edges.edge(&other, &a, place, Some(endpoint()), false);
    assert!(!std::rc::Rc::ptr_eq(&later, &edge()), "numbers of another program mean something else");
}
