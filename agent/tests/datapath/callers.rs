//! Who is steered: the pod's own processes, wherever below its cgroup; not an agent, not a stranger in the pod's
//! namespace, and never the node.

use std::net::IpAddr;
use std::time::Instant;

use weir::cgroup;
use weir::datapath::{DatapathError, PodCgroup, PodEntry};
use weir::netns::NetNs;

use crate::bed::{Bed, balance};

#[test]
fn an_agent_learns_its_cgroup_from_the_kernel_and_is_not_steered() {
    let Some(mut bed) = Bed::new("agent") else { return };
    let one = bed.server(1);
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    let cgroup = bed.cgroup("agent");
    let answer = bed.child("agent", &cgroup).hear();
    let mut words = answer.splitn(3, ' ');
    assert_eq!(words.next().unwrap(), cgroup::id_of(&cgroup).unwrap().to_string());
    assert_eq!(words.next().unwrap(), "1", "counted as the agent's");
    assert!(words.next().unwrap().starts_with('x'), "nothing is at the service's address itself: {answer}");
    assert_eq!(bed.client().ask("1"), "1=1");
}

#[test]
fn a_caller_outside_of_the_pods_cgroup_is_not_steered() {
    let Some(mut bed) = Bed::new("other cgroup") else { return };
    let one = bed.server(1);
    let mut datapath = bed.open();
    let pod = bed.cgroup("pod");
    datapath.pod_set(&PodEntry { cgroup: PodCgroup::Path(pod), ..bed.pod() }).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    // Beside the pod, above it, and with a name that begins as the pod's does.
    let mut strangers = 0;
    for cgroup in ["helper", "pod-2/app"] {
        let answer = bed.client_in(cgroup).ask("3");
        assert!(answer.starts_with("x ") && answer.ends_with("=3"), "{cgroup}: {answer}");
        strangers += 3;
        assert_eq!(datapath.counters().unwrap()["other_cgroup"], strangers, "{cgroup}");
    }
    let above = bed.config.cgroup.clone();
    assert!(bed.child("client", &above).ask("3").starts_with("x "));
    assert_eq!(datapath.counters().unwrap()["other_cgroup"], strangers + 3);
    assert_eq!(datapath.counters().unwrap()["balance"], 0);

    for cgroup in ["pod", "pod/app", "pod/app/nested"] {
        assert_eq!(bed.client_in(cgroup).ask("3"), "1=3", "{cgroup}");
    }
    let counters = datapath.counters().unwrap();
    assert_eq!((counters["balance"], counters["other_cgroup"]), (9, strangers + 3));

    datapath.pod_set(&PodEntry { cgroup: PodCgroup::Unchecked, ..bed.pod() }).unwrap();
    assert_eq!(bed.client_in("helper").ask("3"), "1=3", "where cgroups say nothing, the namespace decides");
}

#[test]
fn the_nodes_own_namespace_is_never_enrolled() {
    let Some(bed) = Bed::new("host") else { return };
    let mut datapath = bed.open();
    let host = PodEntry { cookie: NetNs::own().unwrap().cookie(), ..bed.pod() };
    assert!(matches!(datapath.pod_set(&host), Err(DatapathError::HostNamespace(_))));
    let gone = PodEntry { cgroup: PodCgroup::Path("/nowhere".into()), ..bed.pod() };
    assert!(matches!(datapath.pod_set(&gone), Err(DatapathError::Io { .. })));
    assert!(datapath.pods().unwrap().is_empty());
    let six = PodEntry { addresses: vec![IpAddr::from([10, 1, 1, 1]), "fd00::1".parse().unwrap()], ..bed.pod() };
    datapath.pod_set(&six).unwrap();
    let (_, pod) = datapath.pods().unwrap()[0];
    assert_eq!((pod.address4, pod.address6[0], pod.address6[15]), ([10, 1, 1, 1], 0xfd, 1));
}
