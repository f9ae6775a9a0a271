//! What is decided for every request asks for no memory: picks, hashes, ejection. A change of a mesh asks for as much as
//! it touches, however large the mesh is. Counted by an allocator of its own, which is why this is a test binary of its
//! own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weir_mesh::balance::affinity::{affinity, stay};
use weir_mesh::balance::locality::{Member, Place, Plan, Scratch};
use weir_mesh::balance::{Candidates, Table};
use weir_mesh::compile::{CompileOptions, Compiler, InForce};
use weir_mesh::outlier::{Gate, Health, Outcome, record, sweep};
use weir_mesh::plan::KernelPlan;
use weir_mesh::program::{Cookie, HashKey, HashTable, OutlierDetection, Program, WeightedCluster};
use weir_mesh::request::RequestView;
use weir_mesh::snapshot::Snapshot;
use weir_mesh::source::ObjectRef;
use weir_mesh::store::{Change, Store};

thread_local! {
    /// Of this thread: tests run beside each other.
    static ASKED: Cell<usize> = const { Cell::new(0) };
    /// Of this thread too, and never less: what is given back counts, too.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: each call is handed on as it is, and the counter touches no memory but its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + 1));
        BYTES.with(|bytes| bytes.set(bytes.get() + layout.size()));
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

/// How many bytes of memory are asked for, and what came of it.
fn bytes<T>(what: impl FnOnce() -> T) -> (usize, T) {
    let before = BYTES.with(Cell::get);
    let done = what();
    (BYTES.with(Cell::get) - before, done)
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

/// A mesh of as many services as asked for, ten in a namespace, each with an endpoint that is its pod; the endpoint of
/// the first is ready or not.
fn mesh(services: usize, ready: bool) -> Snapshot {
    let mut text = String::new();
    for n in 0..services {
        let (namespace, address) = (n / 10, format!("{}.{}.{}", 64 + (n >> 16), (n >> 8) & 255, n & 255));
        let ready = ready || n > 0;
        write!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s-{n}, namespace: n-{namespace}}}\n\
             spec: {{clusterIP: 10.{address}, selector: {{app: s-{n}}}, ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: p-{n}, namespace: n-{namespace}, labels: {{app: s-{n}}}}}\n\
             status: {{phase: Running, podIPs: [{{ip: 11.{address}}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: s-{n}, \
             namespace: n-{namespace}, labels: {{kubernetes.io/service-name: s-{n}}}}}\n\
             ports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [11.{address}], \
             conditions: {{ready: {ready}}}, targetRef: {{kind: Pod, name: p-{n}}}}}]\n---\n"
        )
        .expect("a String takes everything");
    }
    let mut store = Store::new();
    store.set_file("mesh.yaml", &text);
    let (snapshot, findings) = store.assemble();
    assert_eq!(findings, []);
    snapshot
}

#[test]
fn what_a_change_copies_does_not_grow_with_the_mesh() {
    let object = |kind: &str, group: &str, name: &str| ObjectRef {
        kind: kind.into(),
        group: group.into(),
        namespace: "n-0".into(),
        name: name.into(),
    };
    let changed = mesh(10, false);
    let [few, many] = [500, 2_000].map(|services| {
        let was = mesh(services, true);
        let options = CompileOptions::default();
        let mut compiler = Compiler::default();
        let compiled = compiler.compile(&was, &options, &Program::default(), &KernelPlan::default());
        assert_eq!(compiled.program.clusters.len(), services);
        let in_force = InForce { program: &compiled.program, plan: &compiled.plan, findings: &compiled.findings };
        [object("EndpointSlice", "discovery.k8s.io", "s-0"), object("Pod", "", "p-0")].map(|object| {
            let mut now = was.clone();
            now.replace(changed.get(&object).expect("it is there"));
            let changes = [Change { before: was.get(&object), object }];
            let (bytes, delta) = bytes(|| compiler.update(&now, &changes, in_force, &options));
            assert_eq!(delta.expect("an update").program.clusters.len(), services);
            bytes
        })
    });
    for (few, many) in few.into_iter().zip(many) {
        // A pointer for each of 1,500 services more would be 12,000 bytes more.
        assert!(many < few + 4_000, "{few} bytes of 500 services, {many} of 2,000");
    }
}
