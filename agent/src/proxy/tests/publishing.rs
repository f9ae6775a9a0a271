//! What putting a program in force makes anew: what has changed, and no more, however large the mesh is.

use std::net::SocketAddr;
use std::sync::Arc;

use weir_mesh::outlier::Outcome;
use weir_mesh::program::{Clients, Cluster, ClusterId, PART, Program};

use super::harness::{compiled, object};
use super::localities::{EJECTS, with_places};
use crate::proxy::programs::{Programs, Running};
use crate::proxy::{Published, TlsFiles};

/// Clusters of each program here, in ten parts and a bit.
const CLUSTERS: usize = 10 * PART + 7;
const OUTLIERS: &str = "outlierDetection: {consecutive5xxErrors: 1, maxEjectionPercent: 100, baseEjectionTime: 1h}";

/// An endpoint of a cluster of [`world`].
fn endpoint(cluster: usize, number: u8) -> SocketAddr {
    SocketAddr::from(([10, (cluster >> 8) as u8, cluster as u8, number], 80))
}

/// As many clusters as asked for, each of its own name and endpoint, with this policy where it is said of their place.
fn world(policy: &str, has: impl Fn(usize) -> bool) -> Program {
    let one = |rule: &str| compiled(&[("b", &[endpoint(0, 1)])], "http", rule);
    let plain = one("");
    let mut program = one(&object("DestinationRule", &format!("host: b, trafficPolicy: {{{policy}}}")));
    let [with, without] = [&program, &plain].map(|program| Arc::clone(&program.clusters[0]));
    let cluster = |place: usize| {
        let like = if has(place) { &with } else { &without };
        let name = format!("outbound|80||b-{place}").into();
        Arc::new(Cluster { name, endpoints4: [endpoint(place, 1)].into(), ..Cluster::clone(like) })
    };
    program.clusters = (0..CLUSTERS).map(cluster).collect();
    program
}

/// The same with an endpoint more in one cluster.
fn grown(program: &Program, place: usize) -> Program {
    let mut program = program.clone();
    let cluster = program.clusters.get_mut(place);
    let endpoints4 = [endpoint(place, 1), endpoint(place, 2)].into();
    *cluster = Arc::new(Cluster { endpoints4, ..Cluster::clone(cluster) });
    program
}

/// The same at the next generation, to be put in force.
fn next(program: &Program) -> Arc<Program> {
    Arc::new(Program { generation: program.generation + 1, ..program.clone() })
}

fn running(programs: &Programs) -> Arc<Running> {
    Arc::clone(programs.cache().load())
}

/// Of how many clusters the tables are not those of another program in force, cluster by cluster.
fn other_states(one: &Running, other: &Running) -> usize {
    let state = |running: &Running, place| running.state(ClusterId(place as u32)).map(Arc::as_ptr);
    (0..CLUSTERS).filter(|place| state(one, *place) != state(other, *place)).count()
}

#[test]
fn a_change_makes_the_tables_of_what_changed_and_keeps_the_others() {
    let before = world(OUTLIERS, |_| true);
    let programs = Programs::new(before.clone());
    let first = running(&programs);
    assert_eq!(programs.store(next(&before)), Published::default(), "nothing has changed");
    assert_eq!(other_states(&first, &running(&programs)), 0);
    let after = grown(&before, 3 * PART + 5);
    assert_eq!(programs.store(next(&after)), Published { made: 1, originates: false });
    let second = running(&programs);
    assert_eq!((other_states(&first, &second), first.parts_beside(&second)), (1, 1), "one part alone was looked at");
    // Everything compiled: other parts, the same clusters, some of them at other places.
    let mut turned = after.clone();
    turned.clusters = after.clusters.iter().skip(1).chain(after.clusters.iter().take(1)).cloned().collect();
    assert_eq!(programs.store(next(&turned)).made, 0);
    let third = running(&programs);
    let states = |running: &Running| {
        let mut all: Vec<_> =
            (0..CLUSTERS).map(|place| running.state(ClusterId(place as u32)).map(Arc::as_ptr)).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(states(&second), states(&third), "each has its own still");
    let shifted = (0..CLUSTERS as u32)
        .map(ClusterId)
        .all(|id| third.state(id).is_some_and(|state| *state.cluster().name == *turned.clusters[id.index()].name));
    assert!(shifted, "and at its place");
}

#[test]
fn clusters_that_need_nothing_have_nothing_made() {
    let few = |place: usize| place.is_multiple_of(4 * PART);
    let before = world(OUTLIERS, few);
    let programs = Programs::new(before.clone());
    let first = running(&programs);
    let states = (0..CLUSTERS as u32).filter(|place| first.state(ClusterId(*place)).is_some()).count();
    assert_eq!((states, first.parts_beside(&Running::default())), (3, 3), "the other parts have none");
    assert_eq!(programs.store(next(&grown(&before, 1))), Published::default(), "in a part with one that needs some");
    assert_eq!(programs.store(next(&grown(&before, PART))), Published::default(), "in one without");
    // It begins to need some, and ends.
    let world = |place: usize| world(OUTLIERS, |n| few(n) || n == place);
    assert_eq!(programs.store(next(&world(PART))).made, 4, "another compilation's, which shares nothing");
    let state = |place: usize| running(&programs).state(ClusterId(place as u32)).is_some();
    assert!(state(PART) && !state(PART + 1));
    programs.store(next(&before));
    assert!(!state(PART) && state(0));
}

#[test]
fn where_clients_are_matters_to_those_alone_that_balance_by_it() {
    let mut before = world(OUTLIERS, |_| true);
    let endpoints: Vec<_> = (1..=5).map(|number| endpoint(0, number)).collect();
    let rule = format!("loadBalancer: {{simple: ROUND_ROBIN}}, {EJECTS}");
    let placed = compiled(&[("b", &endpoints)], "http", &with_places(&rule));
    let localities = placed.clusters[0].localities.clone().expect("they differ by place");
    for place in [0, 5 * PART] {
        let cluster = before.clusters.get_mut(place);
        let (localities, endpoints4) = (Some(Arc::clone(&localities)), endpoints.as_slice().into());
        *cluster = Arc::new(Cluster { localities, endpoints4, ..Cluster::clone(cluster) });
    }
    let programs = Programs::new(before.clone());
    let first = running(&programs);
    let moved = Program { clients: Arc::new(Clients::default()), ..before };
    assert_eq!(programs.store(next(&moved)).made, 2);
    let second = running(&programs);
    assert_eq!((other_states(&first, &second), first.parts_beside(&second)), (2, 2));
}

#[test]
fn what_is_known_of_endpoints_stays_while_any_cluster_has_them_and_no_longer() {
    let with = |place: usize, endpoints: &[SocketAddr], program: &Program| {
        let mut program = program.clone();
        let cluster = program.clusters.get_mut(place);
        *cluster = Arc::new(Cluster { endpoints4: endpoints.into(), ..Cluster::clone(cluster) });
        program
    };
    let shared = endpoint(9, 9);
    let both = with(1, &[shared, endpoint(1, 1)], &world(OUTLIERS, |_| true));
    let both = with(2 * PART, &[shared, shared], &both);
    let programs = Programs::new(both.clone());
    let ejected = |place: usize| running(&programs).state(ClusterId(place as u32)).map_or(0, |s| s.ejected(0).count());
    let state = running(&programs).state(ClusterId(1)).map(Arc::clone).unwrap();
    assert!(state.record(shared, Outcome::Status(500)));
    assert_eq!((ejected(1), ejected(2 * PART)), (1, 1), "one for both");
    drop(state);
    // It leaves one of them, comes back, leaves the other, comes back.
    for place in [1, 2 * PART] {
        programs.store(next(&with(place, &[endpoint(place, 1)], &both)));
        assert_eq!((ejected(1) + ejected(2 * PART)), 1, "the other still has it");
        programs.store(next(&both));
        assert_eq!((ejected(1), ejected(2 * PART)), (1, 1), "it was never away");
    }
    let neither = with(1, &[endpoint(1, 1)], &with(2 * PART, &[endpoint(2, 1)], &both));
    // A worker that is about to let go of the former program still knows it.
    let former = running(&programs);
    programs.store(next(&neither));
    programs.store(next(&both));
    assert_eq!(ejected(1), 1);
    drop(former);
    programs.store(next(&neither));
    programs.store(next(&both));
    assert_eq!((ejected(1), ejected(2 * PART)), (0, 0), "what comes back is another one");
}

#[test]
fn problems_of_tls_are_asked_for_where_what_encrypts_changes() {
    let tls = "tls: {mode: SIMPLE, caCertificates: /nowhere/ca.pem}";
    let some = |place: usize| place % PART == 3;
    let before = world(tls, some);
    let programs = Programs::beside(before.clone(), TlsFiles::Any, None);
    assert_eq!(programs.tls_problems().len(), 1, "one rule, one problem");
    let originates = |program: &Program| programs.store(next(program)).originates;
    assert!(!originates(&before) && !originates(&grown(&before, 4)), "nothing of these");
    assert!(originates(&grown(&before, 3)), "changed");
    assert!(originates(&world(tls, |_| false)), "gone");
    assert_eq!(programs.tls_problems(), []);
    assert!(originates(&world(tls, |place| place == 0)), "come");
    assert_eq!(programs.tls_problems().len(), 1);
}
