//! What is decided for every request asks for no memory: picks, hashes, ejection. Counted by an allocator of its own, which
//! is why this is a test binary of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weir_mesh::balance::affinity::{affinity, stay};
use weir_mesh::balance::locality::{Member, Place, Plan, Scratch};
use weir_mesh::balance::{Candidates, Table};
use weir_mesh::outlier::{Gate, Health, Outcome, record, sweep};
use weir_mesh::program::{Cookie, HashKey, HashTable, OutlierDetection, WeightedCluster};
use weir_mesh::request::RequestView;

thread_local! {
    /// Of this thread: tests run beside each other.
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: each call is handed on as it is, and the counter touches no memory but its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + 1));
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often memory is asked for.
fn asked(what: impl FnOnce()) -> usize {
    let before = ASKED.with(Cell::get);
    what();
    ASKED.with(Cell::get) - before
}

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

fn endpoints() -> impl Iterator<Item = (SocketAddr, u32)> {
    (1..=50).map(|n| (SocketAddr::from(([10, 1, 0, n], 80)), u32::from(n % 3) + 1))
}

#[test]
fn the_counter_counts() {
    assert_eq!(asked(|| drop(black_box(Box::new(7)))), 1);
}

#[test]
fn picks_ask_for_no_memory() {
    let candidates = Candidates::new(endpoints().map(|(_, weight)| weight));
    let tables = [HashTable::DEFAULT, HashTable::Maglev(65_537)].map(|kind| Table::new(kind, endpoints()));
    let count = asked(|| {
        for roll in (0..1_000).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            black_box((candidates.round_robin(roll), candidates.random(roll)));
            black_box(candidates.least_request(roll, |position| position as u32 % 7));
            for table in &tables {
                black_box(table.pick(roll, |position| position != 4));
            }
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn hashes_ask_for_no_memory() {
    let cookie = Cookie {
        name: "user".into(),
        path: "/".into(),
        ttl: Some(Duration::from_hours(1)),
        attributes: Box::default(),
    };
    let keys = [
        HashKey::Header(HeaderName::from_static("x-user")),
        HashKey::Cookie(cookie),
        HashKey::SourceIp,
        HashKey::QueryParameter("user".into()),
    ];
    let mut headers = HeaderMap::new();
    headers.insert("x-user", HeaderValue::from_static("ann"));
    headers.insert("cookie", HeaderValue::from_static("a=1; user=ann"));
    let query = Some("a=1&user=ann");
    let request =
        RequestView { method: &Method::GET, scheme: "http", authority: "shop", path: "/", query, headers: &headers };
    let destinations =
        [("stable", 99), ("canary", 1)].map(|(name, weight)| WeightedCluster::new(None, weight, name.into()));
    let count = asked(|| {
        for key in &keys {
            let found = affinity(key, &request, CLIENT, 7).expect("the request has it");
            black_box(stay(&destinations, found.hash));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn outcomes_and_sweeps_ask_for_no_memory() {
    let policy = OutlierDetection { max_ejection_percent: 50, ..OutlierDetection::default() };
    let pool: Vec<Health> = (0..50).map(|_| Health::default()).collect();
    let gate = Gate::default();
    let mut ejections = 0;
    let count = asked(|| {
        for round in 0..100 {
            for health in &pool {
                let outcome = if round % 9 == 8 { Outcome::Connected } else { Outcome::Status(500) };
                ejections += usize::from(record(&policy, health, outcome, round, &gate, || pool.iter()).is_some());
                black_box(sweep(&policy, health, round));
            }
        }
    });
    assert_eq!((count, ejections), (0, 25));
}

#[test]
fn a_change_of_health_asks_for_no_memory_but_once() {
    let places = ["eu/a", "eu/b", "us/a"].map(Place::parse);
    let member = |n: usize| Member { place: places[n % 3], weight: 1, labels: () };
    let plan = Plan::new(None, true, &member(0), (0..50).map(member), |(), _| None);
    let (mut scratch, mut weights, mut candidates) = (Scratch::default(), Vec::new(), Candidates::default());
    let mut change = |failing: usize| {
        plan.weights(10, |position| position != failing, &mut scratch, &mut weights);
        candidates.set(weights.iter().copied());
    };
    change(0);
    assert_eq!(asked(|| (1..50).for_each(&mut change)), 0);
}
