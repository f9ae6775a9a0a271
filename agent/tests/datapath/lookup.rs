//! Which entry a connect finds: the pod's own view before everybody's, an address before "any address", and the pod's
//! default where there is none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use weir::datapath::PodEntry;
use weir_mesh::plan::{KernelPlan, OnFailure, PlanKey, Verdict};

use crate::SERVICE;
use crate::bed::{Bed, balance, key, planned};

/// An address that no service has, on the port of [`SERVICE`].
const ELSEWHERE: &str = "10.1.2.3:80";

/// Each key is balanced to one server.
fn plan(entries: &[(PlanKey, SocketAddr)]) -> KernelPlan {
    let services = entries.iter().enumerate().map(|(at, (key, server))| {
        let mut service = planned(Verdict::Balance, OnFailure::Balance, &[(1, &[*server])]);
        service.name = format!("shop/service-{at}:80").into();
        (*key, Arc::new(service))
    });
    KernelPlan { services: services.collect(), pods: BTreeMap::new() }
}

#[test]
fn the_own_view_comes_before_everybodys_and_an_address_before_any_address() {
    let Some(mut bed) = Bed::new("views") else { return };
    let [everybody, own, any_everybody, any_own] = [1, 2, 3, 4].map(|name| bed.server(name));
    let mut datapath = bed.open();
    let mut client = bed.client();
    let entries = [
        (key(0, Some(SERVICE)), everybody),
        (key(5, Some(SERVICE)), own),
        (key(0, None), any_everybody),
        (key(5, None), any_own),
    ];
    // Of these entries, a pod of this view that dials that address finds this one.
    for (entries, view, dialled, found) in [
        (&entries[..1], 5, SERVICE, "1=4"),
        (&entries[..2], 5, SERVICE, "2=4"),
        (&entries[..2], 6, SERVICE, "1=4"),
        (&entries[..2], 0, SERVICE, "1=4"),
        (&entries[..], 5, SERVICE, "2=4"),
        (&entries[2..], 5, SERVICE, "4=4"),
        (&entries[2..], 5, ELSEWHERE, "4=4"),
        (&entries[2..], 6, ELSEWHERE, "3=4"),
        (&entries[..3], 5, ELSEWHERE, "3=4"),
        // Everybody's entry for the very address, before the own one for any.
        (&[entries[0], entries[3]], 5, SERVICE, "1=4"),
    ] {
        datapath.pod_set(&PodEntry { view, ..bed.pod() }).unwrap();
        datapath.apply(&plan(entries), Instant::now()).unwrap();
        assert_eq!(client.ask(&format!("4 {dialled}")), found, "view {view} to {dialled} with {entries:?}");
    }
}

#[test]
fn any_address_is_no_address_of_the_pod_itself() {
    let Some(mut bed) = Bed::new("any address") else { return };
    let (service, itself) = (bed.server(1), bed.server(9));
    let mut datapath = bed.open();
    let mut any = key(0, None);
    any.port = itself.port();
    let pod = PodEntry { addresses: vec!["10.244.0.9".parse().unwrap()], ..bed.pod() };
    datapath.pod_set(&pod).unwrap();
    datapath.apply(&plan(&[(any, service)]), Instant::now()).unwrap();
    let mut client = bed.client();
    let port = itself.port();
    assert_eq!(client.ask(&format!("2 10.244.0.8:{port}")), "1=2", "somebody else's");
    assert_eq!(client.ask(&format!("2 {itself}")), "9=2", "loopback");
    let own = client.ask(&format!("2 10.244.0.9:{port}"));
    assert!(own.starts_with("x "), "the pod's own address, which nothing here has: {own}");
    assert_eq!(client.ask(&format!("2 10.244.0.8:{}", port - 1)).get(..2), Some("x "), "another port");
    assert_eq!(datapath.counters().unwrap()["balance"], 2);
}

#[test]
fn a_pod_that_rejects_by_default_reaches_services_and_itself_only() {
    let Some(mut bed) = Bed::new("default reject") else { return };
    let one = bed.server(1);
    let mut datapath = bed.open();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    datapath.pod_set(&bed.pod()).unwrap();
    let mut client = bed.client();
    let passed = client.ask(&format!("2 {ELSEWHERE}"));
    assert!(passed.starts_with("x "), "passed on, to nowhere: {passed}");
    assert_eq!(datapath.counters().unwrap()["pass_no_service"], 2);

    datapath.pod_set(&PodEntry { default_reject: true, ..bed.pod() }).unwrap();
    assert_eq!(client.ask(&format!("2 {ELSEWHERE}")), "refused=2");
    assert_eq!(datapath.counters().unwrap()["reject"], 2);
    assert_eq!(client.ask("2"), "1=2", "a service");
    assert_eq!(client.ask(&format!("2 {one}")), "1=2", "itself");
    let resolver = client.ask("2 10.1.2.3:53 udp");
    assert!(resolver.starts_with("x "), "name lookups are not connections: {resolver}");
    assert_eq!(datapath.counters().unwrap()["reject"], 2, "only those two");
}
