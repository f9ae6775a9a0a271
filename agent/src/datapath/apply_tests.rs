//! Tests of `apply` against maps in memory that check, at each write, what a hook running at that moment would see.

use std::collections::{BTreeMap, HashMap};

use weir_ebpf::{ANY_ADDRESS, Backend};
use weir_mesh::plan::WeightedGroup;
use weir_mesh::program::Protocol;

use super::*;
use crate::datapath::slots::REUSE_GRACE;
use crate::datapath::state::Adopted;

#[derive(Default)]
struct Fake {
    backends: HashMap<u32, Backend>,
    slots: HashMap<u32, u32>,
    services: HashMap<ServiceKey, Service>,
    counters: Vec<u32>,
    /// Calls that would be system calls.
    calls: usize,
    refuse_services: bool,
    refuse_backends: bool,
    /// Skips the checks that look at all slots at each write, for a test that fills them all.
    large: bool,
}

impl Fake {
    /// What hooks may give out for an entry: each slot's endpoint.
    fn reachable(&self, service: &Service) -> Vec<Option<SocketAddr>> {
        let range = if service.slots.length > 0 { service.slots } else { service.fallback };
        (range.offset..range.offset + range.length)
            .map(|at| {
                let index = self.slots[&at];
                (index != EMPTY_SLOT).then(|| {
                    let index = weir_ebpf::slot_backend(index);
                    let backend = self.backends[&index];
                    assert_eq!(backend.in_use, 1, "a live slot names an unused backend");
                    address::endpoint(&backend.address, backend.port)
                })
            })
            .collect()
    }

    fn check(&self) {
        if self.large {
            return;
        }
        let mut owner = HashMap::new();
        for (key, service) in &self.services {
            self.reachable(service);
            for range in [service.slots, service.fallback] {
                for at in range.offset..range.offset + range.length {
                    assert_eq!(owner.insert(at, key), None, "slot {at} has two owners");
                }
            }
        }
    }

    fn adopt(&self) -> State {
        let adopted = Adopted {
            services: self.services.iter().map(|(k, v)| (*k, *v)).collect(),
            counters: self.counters.clone(),
        };
        State::adopt(adopted, |at| self.slots[&at], |i| self.backends.get(&i).copied())
    }
}

impl Maps for Fake {
    fn set_backend(&mut self, index: u32, value: &Backend) -> io::Result<()> {
        self.calls += 1;
        if self.refuse_backends {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        self.backends.insert(index, *value);
        self.check();
        Ok(())
    }
    fn write_slots(&mut self, offset: u32, slots: &[u32]) {
        for (at, slot) in (offset..).zip(slots) {
            for service in self.services.values().filter(|_| !self.large) {
                for range in [service.slots, service.fallback] {
                    assert!(!(range.offset..range.offset + range.length).contains(&at), "slot {at} is live");
                }
            }
            self.slots.insert(at, *slot);
        }
    }
    fn slot(&self, at: u32) -> u32 {
        self.slots.get(&at).copied().unwrap_or(0)
    }
    fn set_service(&mut self, key: &ServiceKey, value: &Service) -> io::Result<()> {
        self.calls += 1;
        if self.refuse_services {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        assert!(self.counters.contains(&value.index), "counters are made first");
        self.services.insert(*key, *value);
        self.check();
        Ok(())
    }
    fn remove_service(&mut self, key: &ServiceKey) -> io::Result<()> {
        self.calls += 1;
        self.services.remove(key);
        Ok(())
    }
    fn add_counters(&mut self, index: u32) -> io::Result<()> {
        self.calls += 1;
        self.counters.push(index);
        Ok(())
    }
    fn remove_counters(&mut self, index: u32) -> io::Result<()> {
        self.calls += 1;
        self.counters.retain(|i| *i != index);
        Ok(())
    }
}

fn group(weight: u32, endpoints: &[&str]) -> WeightedGroup {
    WeightedGroup { subset: "".into(), weight, endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect() }
}

fn service(name: &str, verdict: Verdict, groups: Vec<WeightedGroup>) -> PlannedService {
    PlannedService {
        name: name.into(),
        verdict,
        why: String::new(),
        because: None,
        protocol: Protocol::Tcp,
        on_failure: OnFailure::Balance,
        slots: if verdict == Verdict::Balance { groups.clone() } else { Vec::new() },
        fallback: if verdict == Verdict::Proxy { groups } else { Vec::new() },
    }
}

fn key(last: u8) -> PlanKey {
    PlanKey { view: 0, address: Some([10, 96, 0, last].into()), port: 80, udp: false }
}

fn plan(services: Vec<(PlanKey, PlannedService)>) -> KernelPlan {
    let services = services.into_iter().map(|(key, service)| (key, Arc::new(service)));
    KernelPlan { services: services.collect(), pods: BTreeMap::new() }
}

fn held(fake: &Fake, last: u8) -> Service {
    fake.services[&address::service_key(&key(last))]
}

#[test]
fn a_split_lands_in_the_slots_and_an_unchanged_plan_costs_nothing() {
    let (mut state, mut fake, now) = (State::new(), Fake::default(), Instant::now());
    let split = vec![group(90, &["10.0.0.1:80", "10.0.0.2:80"]), group(10, &[])];
    let wanted = plan(vec![(key(1), service("a/a:80", Verdict::Balance, split))]);
    let report = apply(&mut state, &mut fake, &wanted, now);
    assert_eq!((report.written, report.errors.len()), (1, 0));
    let reachable = fake.reachable(&held(&fake, 1));
    assert_eq!(reachable.iter().filter(|e| e.is_none()).count() * 10, reachable.len());
    let calls = fake.calls;
    assert_eq!(apply(&mut state, &mut fake, &wanted, now).unchanged, 1);
    assert_eq!(fake.calls, calls);
}

#[test]
fn verdicts_take_the_groups_that_they_use() {
    let (mut state, mut fake, now) = (State::new(), Fake::default(), Instant::now());
    let some = || vec![group(1, &["10.0.0.1:80"])];
    let mut refusing = service("p", Verdict::Proxy, some());
    refusing.on_failure = OnFailure::Refuse;
    apply(
        &mut state,
        &mut fake,
        &plan(vec![
            (key(1), service("b", Verdict::Balance, some())),
            (key(2), refusing),
            (key(3), service("e", Verdict::Balance, vec![group(1, &[])])),
            (key(4), service("x", Verdict::Pass, some())),
        ]),
        now,
    );
    let shape = |last| {
        let s = held(&fake, last);
        (s.verdict, s.flags, s.slots.length, s.fallback.length)
    };
    assert_eq!(shape(1), (weir_ebpf::Verdict::Balance as u32, 0, 16, 0));
    assert_eq!(shape(2), (weir_ebpf::Verdict::Proxy as u32, SERVICE_REFUSE_ON_FAILURE, 0, 16));
    assert_eq!(shape(3), (weir_ebpf::Verdict::Reject as u32, 0, 0, 0));
    assert_eq!(shape(4), (weir_ebpf::Verdict::Pass as u32, 0, 0, 0));
}

#[test]
fn a_verdict_that_moves_keeps_range_index_and_counters() {
    let (mut state, mut fake, now) = (State::new(), Fake::default(), Instant::now());
    let some = || vec![group(1, &["10.0.0.1:80"])];
    apply(&mut state, &mut fake, &plan(vec![(key(1), service("a", Verdict::Balance, some()))]), now);
    let before = held(&fake, 1);
    apply(&mut state, &mut fake, &plan(vec![(key(1), service("a", Verdict::Proxy, some()))]), now);
    let after = held(&fake, 1);
    assert_eq!((after.fallback, after.slots.length, after.index), (before.slots, 0, before.index));
    apply(&mut state, &mut fake, &plan(vec![(key(1), service("a", Verdict::Balance, some()))]), now + REUSE_GRACE);
    assert_eq!(held(&fake, 1), before);
}

#[test]
fn many_changes_never_show_a_hook_a_foreign_slot() {
    let (mut state, mut fake, start) = (State::new(), Fake::default(), Instant::now());
    // A generator of its own (xorshift), so that a failure repeats.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    for round in 0..300_u64 {
        let now = start + Duration::from_millis(round * 300);
        let mut services = Vec::new();
        // Every other round only some entries change, and none comes or goes.
        let single = round % 2 == 1;
        for last in 0..12_u8 {
            if single && (roll(4) > 0 || !fake.services.contains_key(&address::service_key(&key(last)))) {
                continue;
            }
            if roll(4) == 0 {
                continue;
            }
            let endpoints: Vec<String> = (0..roll(5)).map(|_| format!("10.0.{}.{}:80", last, roll(6))).collect();
            let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
            let groups = vec![group(roll(100) as u32, &endpoints), group(10, &["10.9.9.9:80"])];
            let verdict = if roll(2) == 0 { Verdict::Balance } else { Verdict::Proxy };
            services.push((key(last), service(&format!("s{last}"), verdict, groups)));
        }
        let wanted = plan(services);
        let report = if single {
            let changed: Vec<_> = wanted.services.clone().into_iter().collect();
            let before = fake.services.len();
            let report = change(&mut state, &mut fake, &changed, now);
            assert_eq!((fake.services.len(), report.removed), (before, 0));
            report
        } else {
            apply(&mut state, &mut fake, &wanted, now)
        };
        assert!(report.errors.is_empty());
        assert!(single || fake.services.len() == wanted.services.len());
        for (plan_key, planned) in &wanted.services {
            let endpoints: Vec<SocketAddr> = balance::flatten(groups(planned)).collect();
            let expected: Vec<_> = balance::expand(groups(planned), 16, 4096)
                .into_iter()
                .map(|p| p.map(|p| endpoints[p as usize]))
                .collect();
            assert_eq!(fake.reachable(&fake.services[&address::service_key(plan_key)]), expected);
        }
        if roll(10) == 0 {
            state = fake.adopt();
        }
    }
    apply(&mut state, &mut fake, &plan(Vec::new()), start + Duration::from_secs(1000));
    apply(&mut state, &mut fake, &plan(Vec::new()), start + Duration::from_secs(2000));
    assert!(fake.services.is_empty() && fake.counters.is_empty());
}

#[test]
fn adoption_writes_nothing_that_is_right_and_removes_nothing_before_a_plan() {
    let (mut state, mut fake, now) = (State::new(), Fake::default(), Instant::now());
    let wanted = plan(vec![
        (key(1), service("a", Verdict::Balance, vec![group(1, &["10.0.0.1:80", "10.0.0.2:80"])])),
        (key(2), service("b", Verdict::Proxy, vec![group(1, &["10.0.0.2:80"])])),
        (key(3), service("c", Verdict::Reject, Vec::new())),
    ]);
    apply(&mut state, &mut fake, &wanted, now);
    let (calls, services) = (fake.calls, fake.services.clone());
    let mut adopted = fake.adopt();
    let report = apply(&mut adopted, &mut fake, &wanted, now);
    assert_eq!((report.unchanged, report.written, report.removed), (3, 0, 0));
    assert_eq!((fake.calls, &fake.services), (calls, &services));
    let fewer = plan(vec![(key(2), service("b", Verdict::Proxy, vec![group(1, &["10.0.0.2:80"])]))]);
    assert_eq!(apply(&mut adopted, &mut fake, &fewer, now).removed, 2);
    assert_eq!(held(&fake, 2), services[&address::service_key(&key(2))]);
    assert_eq!(fake.counters, [1]);
}

#[test]
fn what_does_not_fit_keeps_its_old_entry_and_the_others_proceed() {
    let (mut state, mut fake, now) = (State::new(), Fake { large: true, ..Fake::default() }, Instant::now());
    let wide = |most: &str| vec![group(1, &["10.0.0.1:80"]), group(4095, &[most])];
    let full: Vec<_> =
        (0..=255).map(|i| (key(i), service(&format!("s{i}"), Verdict::Balance, wide("10.0.0.2:80")))).collect();
    assert!(apply(&mut state, &mut fake, &plan(full.clone()), now).errors.is_empty());
    let before = held(&fake, 0);
    let mut changed = full;
    changed[0].1 = service("s0", Verdict::Balance, wide("10.0.0.3:80"));
    changed[1].1 = service("s1", Verdict::Reject, Vec::new());
    let report = apply(&mut state, &mut fake, &plan(changed.clone()), now);
    assert!(matches!(&report.errors[..], [ServiceError { reason: ServiceFault::NoSlots(4096), .. }]));
    assert_eq!((held(&fake, 0), report.written, report.retry_after), (before, 1, Some(REUSE_GRACE)));
    let report = apply(&mut state, &mut fake, &plan(changed), now + REUSE_GRACE);
    assert!(report.errors.is_empty() && report.written == 1);
    assert_ne!(held(&fake, 0).slots, before.slots);
}

#[test]
fn without_room_nothing_goes_past_the_proxy_nor_to_what_is_refused() {
    let (mut state, mut fake, now) = (State::new(), Fake { large: true, ..Fake::default() }, Instant::now());
    let wide = |most: &[&str]| vec![group(1, &["10.0.0.1:80"]), group(4095, most)];
    let mut all: Vec<_> =
        (0..=255).map(|i| (key(i), service(&format!("s{i}"), Verdict::Balance, wide(&["10.0.0.2:80"])))).collect();
    assert!(apply(&mut state, &mut fake, &plan(all.clone()), now).errors.is_empty());
    // What encrypts, what refuses some, and one that is new.
    all[0].1 = service("s0", Verdict::Proxy, wide(&[]));
    all[1].1 = service("s1", Verdict::Balance, wide(&[]));
    let other = PlanKey { port: 81, ..key(0) };
    all.push((other, service("new", Verdict::Proxy, wide(&["10.0.0.2:80"]))));
    let report = apply(&mut state, &mut fake, &plan(all.clone()), now);
    assert_eq!((report.written, report.errors.len(), report.retry_after), (3, 3, Some(REUSE_GRACE)));
    let of = |fake: &Fake, key| {
        let Service { verdict, flags, slots, fallback, .. } = fake.services[&address::service_key(&key)];
        (verdict, flags, slots.length, fallback.length)
    };
    let [proxy, reject] = [weir_ebpf::Verdict::Proxy, weir_ebpf::Verdict::Reject].map(|verdict| verdict as u32);
    assert_eq!(of(&fake, key(0)), (proxy, SERVICE_REFUSE_ON_FAILURE, 0, 0));
    assert_eq!(of(&fake, key(1)), (reject, 0, 0, 0));
    assert_eq!(of(&fake, other), (proxy, SERVICE_REFUSE_ON_FAILURE, 0, 0));
    let report = apply(&mut state, &mut fake, &plan(all.clone()), now);
    assert_eq!((report.written, report.errors.len()), (0, 3), "written once");
    // Two ranges are free by then, for three.
    let report = apply(&mut state, &mut fake, &plan(all), now + REUSE_GRACE);
    assert_eq!((report.written, report.errors.len()), (2, 1));
    assert_eq!(of(&fake, key(0)), (proxy, 0, 0, 4096));
}

#[test]
fn a_refused_write_leaves_the_old_entry_and_leaks_nothing() {
    let (mut state, mut fake, now) = (State::new(), Fake::default(), Instant::now());
    let one = plan(vec![(key(1), service("a", Verdict::Balance, vec![group(1, &["10.0.0.1:80"])]))]);
    let two = plan(vec![(key(1), service("a", Verdict::Balance, vec![group(1, &["10.0.0.2:80"])]))]);
    apply(&mut state, &mut fake, &one, now);
    let before = held(&fake, 1);
    fake.refuse_backends = true;
    assert_eq!(apply(&mut state, &mut fake, &two, now).errors.len(), 1);
    fake.refuse_backends = false;
    fake.refuse_services = true;
    assert_eq!(apply(&mut state, &mut fake, &two, now).errors.len(), 1);
    assert_eq!(held(&fake, 1), before);
    fake.refuse_services = false;
    assert_eq!(apply(&mut state, &mut fake, &two, now).written, 1);
    assert_eq!(fake.reachable(&held(&fake, 1))[0], Some("10.0.0.2:80".parse().unwrap()));
    apply(&mut state, &mut fake, &plan(Vec::new()), now);
    apply(&mut state, &mut fake, &plan(Vec::new()), now + REUSE_GRACE);
    assert!(fake.backends.values().all(|b| b.in_use == 0 && b.address == ANY_ADDRESS));
    for _ in 0..256 {
        assert!(state.slots.allocate(4096).is_some());
    }
}

#[test]
fn two_spellings_of_one_address_are_reported() {
    let (mut state, mut fake, now) = (State::new(), Fake::default(), Instant::now());
    let mapped = PlanKey { address: Some("::ffff:10.96.0.1".parse().unwrap()), ..key(1) };
    let wanted = plan(vec![
        (key(1), service("a", Verdict::Reject, Vec::new())),
        (mapped, service("b", Verdict::Reject, Vec::new())),
    ]);
    let report = apply(&mut state, &mut fake, &wanted, now);
    assert!(matches!(&report.errors[..], [ServiceError { reason: ServiceFault::Duplicate, .. }]));
}
