//! Weighted slots: the split, its change under load, and ports without an endpoint or with a planned refusal.

use std::thread;
use std::time::{Duration, Instant};

use weir_mesh::plan::{OnFailure, Verdict};

use crate::bed::{Bed, balance, plan};

#[test]
fn connects_of_a_pod_are_balanced_by_weight_and_refused_without_endpoints() {
    let Some(mut bed) = Bed::new("balance") else { return };
    let (one, two) = (bed.server(1), bed.server(2));
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(75, &[one]), (25, &[two])]), Instant::now()).unwrap();
    let mut client = bed.client();
    let answer = client.ask("1000");
    let first: u32 = answer.split_once("1=").and_then(|(_, n)| n.split(' ').next()?.parse().ok()).unwrap();
    // Five standard deviations of a binomial split: one run in 1.7 million fails by chance.
    assert!((750_u32.abs_diff(first)) < 70, "{answer}");
    assert!(answer.contains("2=") && !answer.contains('x') && !answer.contains("refused"), "{answer}");
    assert_eq!(datapath.service_counters().unwrap()["shop/cart:80"].balanced, 1000);
    assert_eq!(datapath.counters().unwrap()["balance"], 1000);

    datapath.apply(&balance(&[(1, &[])]), Instant::now()).unwrap();
    assert_eq!(client.ask("10"), "refused=10");
    assert_eq!(datapath.service_counters().unwrap()["shop/cart:80"].rejected, 10);
}

#[test]
fn slots_swap_under_load_without_a_miss() {
    const CONNECTS: u32 = 20_000;
    let Some(mut bed) = Bed::new("swap") else { return };
    let (one, two) = (bed.server(1), bed.server(2));
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    let plans = [balance(&[(1, &[one])]), balance(&[(1, &[two])]), balance(&[(1, &[one, two])])];
    datapath.apply(&plans[0], Instant::now()).unwrap();
    let mut client = bed.client();
    client.say(&CONNECTS.to_string());
    let answer = thread::spawn(move || (client.hear(), client));
    let mut swaps = 0;
    while !answer.is_finished() {
        swaps += 1;
        let report = datapath.apply(&plans[swaps % 3], Instant::now()).unwrap();
        assert_eq!((report.written, report.errors.len()), (1, 0));
        thread::sleep(Duration::from_millis(1));
    }
    let (answer, mut client) = answer.join().unwrap();
    let counts: Vec<u32> = answer.split(' ').filter_map(|p| p.split_once('=')?.1.parse().ok()).collect();
    assert!(answer.starts_with("1=") && answer.contains(" 2=") && counts.len() == 2, "{answer}");
    assert_eq!(counts.iter().sum::<u32>(), CONNECTS);
    assert!(swaps > 20, "{swaps}");
    let counters = datapath.counters().unwrap();
    assert_eq!((counters["balance"], counters["no_backend"]), (u64::from(CONNECTS), 0));
    datapath.apply(&plans[1], Instant::now()).unwrap();
    assert_eq!(client.ask("100"), "2=100");
}

#[test]
fn a_planned_reject_refuses_at_once_whatever_its_slots_say() {
    let Some(mut bed) = Bed::new("reject") else { return };
    let one = bed.server(1);
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    let groups: &[(u32, &[_])] = &[(1, &[one])];
    datapath.apply(&plan(Verdict::Reject, OnFailure::Balance, groups), Instant::now()).unwrap();
    let mut client = bed.client();
    let started = Instant::now();
    assert_eq!(client.ask("20"), "refused=20");
    // A SYN that is answered by nobody is sent again after a second.
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
    let service = datapath.service_counters().unwrap()["shop/cart:80"];
    assert_eq!((service.rejected, service.balanced, datapath.counters().unwrap()["reject"]), (20, 0, 20));

    datapath.apply(&plan(Verdict::Balance, OnFailure::Balance, groups), Instant::now()).unwrap();
    assert_eq!(client.ask("1"), "1=1", "the same port, opened again");
}
