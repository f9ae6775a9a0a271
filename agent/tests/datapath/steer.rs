//! Verdict `proxy`: the connection reaches the pod's listener with its destination known, and takes another way where
//! the proxy is away or the socket cannot go there.

use std::io::Write;
use std::net::TcpListener;
use std::time::Instant;

use weir::datapath::{PodEntry, monotonic_ns};
use weir_mesh::plan::{OnFailure, Verdict};

use crate::SERVICE;
use crate::bed::{Bed, plan};

/// A beat so far in the future that the agent is alive for the whole test, however busy the machine is.
const LIVES_NS: u64 = 60_000_000_000;

#[test]
fn proxied_connections_reach_the_listener_with_their_destination() {
    let Some(mut bed) = Bed::new("proxy") else { return };
    let one = bed.server(1);
    let listener = bed.netns.run(|| TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut datapath = bed.open();
    datapath.pod_set(&PodEntry { listener4: port, ..bed.pod() }).unwrap();
    datapath.apply(&plan(Verdict::Proxy, OnFailure::Balance, &[(1, &[one])]), Instant::now()).unwrap();
    let mut client = bed.client();
    datapath.beat(monotonic_ns() + LIVES_NS);
    client.say("1");
    let (mut accepted, peer) = listener.accept().unwrap();
    let flows = datapath.flows();
    let cookie = bed.netns.cookie();
    assert_eq!(flows.take(cookie, peer, port.wrapping_add(1)), None);
    assert_eq!(flows.take(cookie, peer, port), Some(SERVICE.parse().unwrap()));
    assert_eq!(flows.take(cookie, peer, port), None, "taken");
    accepted.write_all(&[7]).unwrap();
    assert_eq!(client.hear(), "7=1");
    datapath.heartbeat_handle().stop();
    assert_eq!(client.ask("3"), "1=3", "a silent agent's ports take their fallback");
    let counters = datapath.service_counters().unwrap()["shop/cart:80"];
    assert_eq!((counters.proxied, counters.fallback), (1, 3));
    datapath.apply(&plan(Verdict::Proxy, OnFailure::Refuse, &[(1, &[one])]), Instant::now()).unwrap();
    assert_eq!(client.ask("3"), "refused=3");
}

#[test]
fn a_socket_bound_to_a_device_takes_the_fallback_or_is_refused_whether_the_proxy_lives_or_not() {
    let Some(mut bed) = Bed::new("device") else { return };
    let one = bed.server(1);
    let mut datapath = bed.open();
    let (listener, pod) = bed.listener();
    listener.set_nonblocking(true).unwrap();
    datapath.pod_set(&pod).unwrap();
    let mut client = bed.client();
    for alive in [true, false] {
        let counted = |datapath: &weir::datapath::Datapath, name| datapath.counters().unwrap()[name];
        for (on_failure, counter, answer) in
            [(OnFailure::Balance, "device_bound", "1=2"), (OnFailure::Refuse, "fallback_refused", "refused=2")]
        {
            datapath.apply(&plan(Verdict::Proxy, on_failure, &[(1, &[one])]), Instant::now()).unwrap();
            let before = counted(&datapath, counter);
            if alive {
                datapath.beat(monotonic_ns() + LIVES_NS);
            } else {
                datapath.heartbeat_handle().stop();
            }
            assert_eq!(client.ask(&format!("2 {SERVICE} dev lo")), answer, "alive: {alive}, {on_failure:?}");
            assert_eq!(counted(&datapath, counter) - before, 2, "alive: {alive}, {on_failure:?}");
        }
    }
    assert!(listener.accept().is_err(), "none of them came to the proxy");
    assert_eq!(datapath.counters().unwrap()["proxy"], 0);
    let service = datapath.service_counters().unwrap()["shop/cart:80"];
    assert_eq!((service.fallback, service.rejected, service.proxied), (4, 4, 0));
}
