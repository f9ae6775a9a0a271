//! Who belongs to whom, and who moves when endpoints come, go and fail.

use super::*;
use crate::program::HashTable::{Maglev, Ring};

const RING: HashTable = Ring(1024);
const MAGLEV: HashTable = Maglev(65_537);

fn endpoints(count: u16) -> Vec<SocketAddr> {
    (0..count).map(|n| SocketAddr::from(([10, 244, (n >> 8) as u8, n as u8], 8080))).collect()
}

fn even(kind: HashTable, endpoints: &[SocketAddr]) -> Table {
    Table::new(kind, endpoints.iter().map(|address| (*address, 1)))
}

fn user(n: u64) -> u64 {
    XxHash64::oneshot(0, format!("user-{n}").as_bytes())
}

fn pick(table: &Table, endpoints: &[SocketAddr], user_number: u64) -> SocketAddr {
    endpoints[table.pick(user(user_number), |_| true).expect("there are endpoints")]
}

#[test]
fn a_user_is_always_on_one_pod() {
    let endpoints = endpoints(10);
    for kind in [RING, MAGLEV] {
        let table = even(kind, &endpoints);
        let homes: Vec<SocketAddr> = (0..1_000).map(|user| pick(&table, &endpoints, user)).collect();
        for request in 0..100_000_u64 {
            let user = request * 7919 % 1_000;
            assert_eq!(pick(&table, &endpoints, user), homes[user as usize]);
        }
        for endpoint in &endpoints {
            let users = homes.iter().filter(|home| *home == endpoint).count();
            assert!((50..=150).contains(&users), "{kind:?}: {users} of 1,000 on one of ten");
        }
    }
}

#[test]
fn every_node_has_the_same_table() {
    let endpoints = endpoints(17);
    let mut shuffled = endpoints.clone();
    shuffled.reverse();
    shuffled.swap(3, 11);
    let mapped: Vec<SocketAddr> = endpoints
        .iter()
        .map(|address| match address.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
            IpAddr::V6(_) => *address,
        })
        .collect();
    for kind in [RING, MAGLEV] {
        let (one, other, third) = (even(kind, &endpoints), even(kind, &shuffled), even(kind, &mapped));
        for user in 0..10_000 {
            let home = pick(&one, &endpoints, user);
            assert_eq!(pick(&other, &shuffled, user), home);
            assert_eq!(pick(&third, &mapped, user).ip().to_canonical(), home.ip());
        }
    }
}

/// Users of other pods that move when a pod leaves, in ten-thousandths.
fn moved(kind: HashTable, count: u16) -> u64 {
    let before = endpoints(count);
    let full = even(kind, &before);
    let (mut stayers, mut movers) = (0_u64, 0_u64);
    for gone in [0, count / 2, count - 1] {
        let mut after = before.clone();
        let leaver = after.remove(usize::from(gone));
        let smaller = even(kind, &after);
        for user in 0..20_000 {
            let home = pick(&full, &before, user);
            if home != leaver {
                stayers += 1;
                movers += u64::from(pick(&smaller, &after, user) != home);
            }
        }
    }
    movers * 10_000 / stayers
}

#[test]
fn of_a_ring_only_the_users_of_a_pod_that_leaves_move() {
    for count in [2, 3, 7, 10, 64, 200, 256] {
        assert_eq!(moved(RING, count), 0, "{count} pods");
    }
    // Beyond what all points fit into, each pod has some fewer: about one user in as many as there are pods.
    let far = moved(RING, 1_000);
    assert!(far <= 50, "{far} of 10,000");
}

#[test]
fn of_maglevs_table_at_most_two_percent_of_the_others_move() {
    for count in [2, 3, 7, 10, 50, 200] {
        let moved = moved(MAGLEV, count);
        assert!(moved <= 200, "{count} pods: {moved} of 10,000");
    }
}

#[test]
fn a_pod_that_is_not_usable_moves_its_own_users_and_gets_them_back() {
    let endpoints = endpoints(10);
    for kind in [RING, MAGLEV] {
        let table = even(kind, &endpoints);
        let mut taken_over = [0; 10];
        for user in (0..20_000).map(user) {
            let home = table.pick(user, |_| true).expect("ten");
            let meanwhile = table.pick(user, |position| position != 4).expect("nine");
            assert!(meanwhile != 4 && (home == 4 || home == meanwhile));
            taken_over[meanwhile] += u32::from(home == 4);
        }
        assert!((0..10).all(|n| n == 4 || taken_over[n] > 50), "they are spread: {taken_over:?}");
        assert_eq!(table.pick(user(1), |position| position == 9), Some(9));
        assert_eq!(table.pick(user(1), |_| false), None);
    }
}

#[test]
fn weights_are_shares() {
    let endpoints = endpoints(4);
    for kind in [Ring(65_536), MAGLEV] {
        let table = Table::new(kind, endpoints.iter().copied().zip([100, 300, 0, 600]));
        let mut hits = [0_u32; 4];
        (0..100_000).for_each(|n| hits[table.pick(user(n), |_| true).expect("three")] += 1);
        for (hits, share) in hits.iter().zip([10_000_u32, 30_000, 0, 60_000]) {
            assert!(hits.abs_diff(share) <= 800, "{kind:?}: {hits} for {share}");
        }
    }
}

#[test]
fn an_endpoint_that_is_listed_twice_weighs_twice() {
    let two = endpoints(2);
    let table = Table::new(MAGLEV, [(two[0], 1), (two[1], 1), (two[0], 1)]);
    let hits = (0..30_000).filter(|n| table.pick(user(*n), |_| true) == Some(0)).count();
    assert!((19_400..=20_600).contains(&hits), "{hits}");
}

#[test]
fn sizes_are_bounded() {
    let len = |kind, weights: &[u32]| {
        let addresses = endpoints(weights.len() as u16);
        match Table::new(kind, addresses.into_iter().zip(weights.iter().copied())) {
            Table::Ring(ring) => ring.len(),
            Table::Maglev(maglev) => maglev.len(),
        }
    };
    assert_eq!(len(RING, &[1]), 1024);
    assert_eq!(len(RING, &[5, 5]), 2048, "the common factor does not count");
    assert!((262_144..=263_000).contains(&len(RING, &[1; 1_000])));
    assert!((262_144..=262_200).contains(&len(RING, &[u32::MAX, 1, 7])));
    assert!(len(Ring(0), &[1, 1]) == 2 && len(RING, &[]) == 0 && len(RING, &[0, 0]) == 0);
    assert!(len(MAGLEV, &[1, u32::MAX]) == 65_537 && len(MAGLEV, &[0]) == 0);
    assert!(len(Maglev(1), &[1, 1, 1, 1, 1]) == 3, "more endpoints than slots");
}
