//! Ejected endpoints: the hook passes over them until their time is over, within their own version, over a restart, and
//! by fallback as well; what is ejected altogether is used.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use weir::datapath::{Datapath, Ejected, HealthTable, REUSE_GRACE, monotonic_ns};
use weir_ebpf::Backend;
use weir_mesh::plan::{OnFailure, Verdict};

use crate::bed::{Bed, balance, plan};

/// Long enough for some thousand connects, short enough to wait for.
const EJECTED: Duration = Duration::from_secs(3);

fn eject(health: &HealthTable, endpoint: SocketAddr, time: Duration) {
    health.tell(&[Ejected { endpoint, until_ns: monotonic_ns() + time.as_nanos() as u64, times: 2 }]);
}

/// How many connects each server got.
fn counts(answer: &str) -> BTreeMap<&str, u32> {
    answer.split(' ').filter_map(|part| part.split_once('=')).map(|(name, n)| (name, n.parse().unwrap())).collect()
}

#[test]
fn an_ejected_endpoint_gets_nothing_until_its_time_is_over_whatever_becomes_of_the_agent() {
    let Some(mut bed) = Bed::new("eject") else { return };
    let (one, two) = (bed.server(1), bed.server(2));
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    // No listener: what the proxy would have takes the fallback slots.
    let groups: &[(u32, &[_])] = &[(1, &[one, two])];
    datapath.apply(&plan(Verdict::Proxy, OnFailure::Balance, groups), Instant::now()).unwrap();
    let mut client = bed.client();
    eject(&datapath.health(), one, EJECTED);
    let since = Instant::now();
    drop(datapath);
    assert_eq!(client.ask("1000"), "2=1000");
    let again = bed.open();
    let ejected = again.health().ejected();
    assert_eq!(ejected.iter().map(|one| (one.endpoint, one.times)).collect::<Vec<_>>(), [(one, 2)]);
    assert_eq!(client.ask("100"), "2=100", "adopted");
    assert!(since.elapsed() < EJECTED, "the machine is too slow for this test");
    assert_eq!(again.counters().unwrap()["ejected_panic"], 0);
    assert!(again.counters().unwrap()["ejected_avoided"] > 300);
    thread::sleep(EJECTED.saturating_sub(since.elapsed()));
    assert_eq!(again.health().ejected(), []);
    let answer = client.ask("200");
    assert!(counts(&answer)["1"] > 60, "{answer}");
}

#[test]
fn an_ejected_endpoints_share_stays_with_its_version_and_all_are_used_where_all_are_ejected() {
    let Some(mut bed) = Bed::new("eject-version") else { return };
    let servers: Vec<SocketAddr> = (1..=4).map(|name| bed.server(name)).collect();
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    let groups: &[(u32, &[_])] = &[(90, &servers[..3]), (10, &servers[3..])];
    // Before it has an index: it is told when the plan comes.
    eject(&datapath.health(), servers[0], Duration::from_mins(1));
    datapath.apply(&balance(groups), Instant::now()).unwrap();
    let mut client = bed.client();
    let answer = client.ask("1000");
    let got = counts(&answer);
    assert!(!got.contains_key("1"), "{answer}");
    // The others of the version have its share about evenly; five standard deviations of the canary's are 48.
    assert!(got["2"].abs_diff(got["3"]) < 200 && got["4"].abs_diff(100) < 50, "{answer}");
    for endpoint in &servers[1..3] {
        eject(&datapath.health(), *endpoint, Duration::from_mins(1));
    }
    let answer = client.ask("1000");
    let got = counts(&answer);
    assert!(got["1"] > 200 && got["2"] > 200 && got["3"] > 200 && got["4"].abs_diff(100) < 50, "{answer}");
    assert!(datapath.counters().unwrap()["ejected_panic"] > 800);
}

#[test]
fn who_takes_over_finds_indices_that_were_given_out_meanwhile_and_may_take_an_ejection_back() {
    let Some(bed) = Bed::new("eject-take-over") else { return };
    let servers: Vec<SocketAddr> = (1..=3).map(|name| bed.server(name)).collect();
    let mut first = bed.open();
    first.apply(&balance(&[(1, &servers[..1])]), Instant::now()).unwrap();
    let mut second = Datapath::load(&bed.config).unwrap();
    first.apply(&balance(&[(1, &servers)]), Instant::now()).unwrap();
    // Told before it is in charge.
    eject(&second.health(), servers[2], Duration::from_mins(1));
    assert_eq!(first.health().ejected(), []);
    second.designate().unwrap();
    second.take_over().unwrap();
    let ejected = |datapath: &Datapath| -> Vec<SocketAddr> {
        datapath.health().ejected().iter().map(|one| one.endpoint).collect()
    };
    assert_eq!((ejected(&first), ejected(&second)), (vec![servers[2]], vec![servers[2]]));
    eject(&second.health(), servers[1], Duration::from_mins(1));
    second.health().tell(&[Ejected { endpoint: servers[2], until_ns: 0, times: 0 }]);
    assert_eq!(ejected(&second), [servers[1]]);
    // Nor does it come back with the next index.
    second.apply(&balance(&[(1, &servers[..2])]), Instant::now()).unwrap();
    second.apply(&balance(&[(1, &servers)]), Instant::now() + REUSE_GRACE).unwrap();
    assert_eq!(ejected(&second), [servers[1]]);
}

/// The endpoint of each index that is in use.
fn indices(bed: &Bed) -> BTreeMap<u32, u16> {
    let map = MapData::from_pin(bed.pins().join("maps/weir_backends")).unwrap();
    let backends: Array<_, Backend> = Map::Array(map).try_into().unwrap();
    let value = |index| backends.get(&index, 0).unwrap();
    (0..64).map(|index| (index, value(index))).filter(|(_, b)| b.in_use == 1).map(|(i, b)| (i, b.port)).collect()
}

#[test]
fn an_index_that_is_used_again_has_nothing_of_the_endpoint_that_had_it() {
    let Some(mut bed) = Bed::new("eject-reuse") else { return };
    let servers: Vec<SocketAddr> = (1..=3).map(|name| bed.server(name)).collect();
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    let start = Instant::now();
    datapath.apply(&balance(&[(1, &servers[..1])]), start).unwrap();
    eject(&datapath.health(), servers[0], Duration::from_mins(1));
    let before = indices(&bed);
    let (index, _) = before.first_key_value().unwrap();
    // It goes, another one comes, and has its index once that has rested.
    datapath.apply(&balance(&[]), start).unwrap();
    datapath.apply(&balance(&[(1, &servers[1..2])]), start + REUSE_GRACE).unwrap();
    let after = indices(&bed);
    assert_eq!((before.len(), after.get(index), after.len()), (1, Some(&servers[1].port()), 1), "the same index");
    assert_eq!(datapath.health().ejected(), []);
    let mut client = bed.client();
    assert_eq!(client.ask("100"), "2=100");
    datapath.apply(&balance(&[(1, &servers[1..])]), start + REUSE_GRACE).unwrap();
    let answer = client.ask("300");
    assert!(counts(&answer)["2"] > 90 && counts(&answer)["3"] > 90, "{answer}");
    // The one that was ejected still is when it comes back, whichever index it has then.
    datapath.apply(&balance(&[(1, &servers)]), start + 2 * REUSE_GRACE).unwrap();
    let ejected: Vec<SocketAddr> = datapath.health().ejected().iter().map(|one| one.endpoint).collect();
    assert_eq!(ejected, servers[..1]);
    let answer = client.ask("300");
    assert!(!counts(&answer).contains_key("1"), "{answer}");
    assert_eq!(datapath.counters().unwrap()["ejected_panic"], 0);
}

#[test]
fn the_table_has_names_for_its_fields() {
    let Some(bed) = Bed::new("eject-dump") else { return };
    let mut datapath = bed.open();
    let one = bed.server(1);
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    eject(&datapath.health(), one, Duration::from_mins(1));
    let map = bed.pins().join("maps/weir_health");
    let dump =
        Command::new("bpftool").args(["map", "lookup", "pinned"]).arg(map).args(["key", "0", "0", "0", "0"]).output();
    let Ok(dump) = dump else { return weir_tests::require::skip("eject-dump", "no bpftool") };
    let text = String::from_utf8_lossy(&dump.stdout);
    assert!(text.contains("\"ejected_until\": ") && text.contains("\"times_ejected\": 2"), "{text}");
}
