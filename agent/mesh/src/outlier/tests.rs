//! When endpoints are ejected, for how long, and how many at most.

use super::Outcome::{Abandoned, ConnectFailed, Connected, Status, TimedOut};
use super::*;

const SECOND: u64 = 1_000_000_000;

/// A cluster of endpoints and a clock.
struct Pool {
    policy: OutlierDetection,
    endpoints: Vec<Health>,
    gate: Gate,
    now: u64,
}

impl Pool {
    fn new(count: usize, policy: OutlierDetection) -> Self {
        let endpoints = (0..count).map(|_| Health::default()).collect();
        Self { policy, endpoints, gate: Gate::default(), now: 1_000 * SECOND }
    }

    fn record(&self, endpoint: usize, outcome: Outcome) -> Option<Ejection> {
        let health = &self.endpoints[endpoint];
        record(&self.policy, health, outcome, self.now, &self.gate, || self.endpoints.iter())
    }

    /// The number of the outcome, from 1, that ejects it.
    fn ejected_by(&self, endpoint: usize, outcomes: &[Outcome]) -> Option<usize> {
        outcomes.iter().position(|outcome| self.record(endpoint, *outcome).is_some()).map(|position| position + 1)
    }

    /// The seconds that the endpoint is out for, once it fails often enough.
    fn fail(&self, endpoint: usize) -> Option<u64> {
        let ejection = (0..100).find_map(|_| self.record(endpoint, Status(500)))?;
        assert_eq!(self.endpoints[endpoint].ejected_until(self.now), Some(ejection.until));
        Some((ejection.until - self.now) / SECOND)
    }

    /// Goes on, with a sweep every interval; tells how many came back.
    fn wait(&mut self, seconds: u64) -> usize {
        let (end, interval) = (self.now + seconds * SECOND, nanos(self.policy.interval));
        let mut returned = 0;
        while self.now < end {
            self.now = end.min(self.now + interval);
            returned += self.endpoints.iter().filter(|health| sweep(&self.policy, health, self.now)).count();
        }
        returned
    }

    fn ejected(&self) -> Vec<usize> {
        (0..self.endpoints.len()).filter(|n| self.endpoints[*n].is_ejected(self.now)).collect()
    }
}

fn seven() -> OutlierDetection {
    OutlierDetection { consecutive_5xx_errors: 7, max_ejection_percent: 100, ..OutlierDetection::default() }
}

#[test]
fn seven_errors_in_a_row_eject_and_each_round_is_longer() {
    let mut pool = Pool::new(3, seven());
    assert_eq!(pool.ejected_by(1, &[Status(500); 6]), None);
    assert_eq!(pool.record(1, Status(200)), None);
    assert_eq!(pool.ejected_by(1, &[Status(500); 20]), Some(7), "a success begins anew");
    assert_eq!(pool.ejected(), [1]);
    for seconds in [30, 60, 90] {
        let until = pool.endpoints[1].ejected_until(pool.now).expect("it is out");
        assert_eq!(until - pool.now, seconds * SECOND);
        pool.now = until - 1;
        assert_eq!(pool.ejected_by(1, &[Status(500); 20]), None, "what was sent before does not count");
        pool.now = until;
        assert!(pool.ejected().is_empty(), "back on time, though nobody has swept");
        assert_eq!(pool.ejected_by(1, &[Status(503); 20]), Some(7), "errors are counted anew");
    }
}

#[test]
fn ejections_get_shorter_in_quiet_intervals_and_never_longer_than_the_limit() {
    let mut pool = Pool::new(2, seven());
    for seconds in [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300] {
        assert_eq!(pool.fail(0), Some(seconds));
        pool.now += seconds * SECOND;
    }
    assert_eq!(pool.wait(1), 1, "the sweep tells that it is back");
    assert_eq!((pool.wait(9), pool.endpoints[0].ejections()), (0, 9), "one interval in use");
    assert_eq!((pool.wait(50), pool.endpoints[0].ejections()), (0, 4));
    assert_eq!(pool.fail(0), Some(150));
    pool.wait(1_000);
    assert_eq!((pool.endpoints[0].ejections(), pool.fail(0)), (0, Some(30)), "all is forgotten");
    pool.endpoints[0].reset();
    assert_eq!((pool.ejected().len(), pool.fail(0)), (0, Some(30)));
    let long = OutlierDetection { base_ejection_time: Duration::from_mins(10), ..seven() };
    let mut pool = Pool::new(2, long);
    for _ in 0..3 {
        assert_eq!(pool.fail(1), Some(600), "a base time beyond the limit is the limit");
        pool.now += 600 * SECOND;
    }
}

#[test]
fn sweeps_of_several_clusters_shorten_once_an_interval() {
    let mut pool = Pool::new(2, seven());
    assert_eq!((pool.fail(0), pool.wait(30)), (Some(30), 1));
    assert_eq!((pool.fail(0), pool.wait(60)), (Some(60), 1));
    for _ in 0..5 {
        pool.wait(2);
    }
    assert_eq!(pool.endpoints[0].ejections(), 1);
}

#[test]
fn one_is_ejected_wherever_two_are_healthy_and_the_percentage_caps_the_rest() {
    let ejected = |count: usize, percent: u8| {
        let pool = Pool::new(count, OutlierDetection { max_ejection_percent: percent, ..seven() });
        (0..count).filter(|endpoint| pool.fail(*endpoint).is_some()).count()
    };
    // Endpoints, percentage, how many go when all fail.
    for (count, percent, gone) in [
        (1, 10, 0),
        (1, 99, 0),
        (1, 100, 1),
        (2, 10, 1),
        (3, 10, 1),
        (3, 50, 1),
        (3, 67, 2),
        (9, 10, 1),
        (10, 10, 1),
        (20, 10, 2),
        (29, 10, 2),
        (10, 100, 10),
        (5, 0, 1),
    ] {
        assert_eq!(ejected(count, percent), gone, "{percent} % of {count}");
    }
    // One that could not go goes when it fails on and there is room.
    let mut pool = Pool::new(3, OutlierDetection { max_ejection_percent: 10, ..seven() });
    assert_eq!((pool.fail(0), pool.fail(1)), (Some(30), None));
    pool.now += 30 * SECOND;
    assert_eq!(pool.ejected_by(1, &[Status(500); 9]), Some(5), "the hundred before were counted by sevens");
}

#[test]
fn each_kind_of_error_has_its_own_count() {
    let policy = OutlierDetection { consecutive_gateway_errors: 3, ..seven() };
    let pool = Pool::new(4, policy.clone());
    assert_eq!(
        pool.ejected_by(0, &[Status(502), Status(503), Status(500), Status(504), Status(502), Status(503)]),
        Some(6)
    );
    assert_eq!(pool.ejected_by(1, &[ConnectFailed, TimedOut, ConnectFailed]), Some(3), "as 503 and 504");
    let mixed = [Status(500), ConnectFailed, Status(501), TimedOut, Status(500), Status(599), Status(500)];
    assert_eq!(pool.ejected_by(2, &mixed), Some(7));
    let reason =
        |endpoint: usize, outcome| (0..9).find_map(|_| pool.record(endpoint, outcome)).map(|e| e.reason.as_str());
    assert_eq!(reason(3, Status(503)), Some("CONSECUTIVE_GATEWAY_FAILURE"));
    let none = OutlierDetection { consecutive_5xx_errors: 0, consecutive_gateway_errors: 0, ..policy };
    assert_eq!(Pool::new(2, none).ejected_by(0, &[Status(503); 99]), None, "0 counts nothing");
}

#[test]
fn local_failures_may_be_counted_apart() {
    let split = OutlierDetection { split_local_origin_errors: true, consecutive_local_origin_failures: 3, ..seven() };
    let pool = Pool::new(4, split.clone());
    assert_eq!(
        pool.ejected_by(0, &[ConnectFailed, TimedOut, Status(500), ConnectFailed, ConnectFailed, TimedOut]),
        Some(6)
    );
    assert_eq!(pool.ejected_by(1, &[ConnectFailed, ConnectFailed, Connected, ConnectFailed, ConnectFailed]), None);
    assert_eq!(pool.ejected_by(2, &[Status(500), Status(500), Status(500)]), None, "those are not local");
    assert_eq!(
        pool.ejected_by(2, &[Connected, ConnectFailed, Status(500), Status(500), Status(500), Status(500)]),
        Some(6)
    );
    let off = OutlierDetection { consecutive_local_origin_failures: 0, ..split };
    assert_eq!(Pool::new(2, off).ejected_by(0, &[ConnectFailed; 99]), None);
}

#[test]
fn clients_that_give_up_count_neither_for_nor_against() {
    let pool = Pool::new(2, seven());
    let mut outcomes = vec![Abandoned; 1_000];
    assert_eq!(pool.ejected_by(0, &outcomes), None);
    outcomes = [Status(500), Abandoned].repeat(7);
    assert_eq!(pool.ejected_by(0, &outcomes), Some(13));
}

#[test]
fn codes_in_the_place_of_5xx() {
    let codes = OutlierDetection { http_error_codes: [429, 500].into(), consecutive_gateway_errors: 2, ..seven() };
    let pool = Pool::new(3, codes);
    assert_eq!(pool.ejected_by(0, &[Status(429); 9]), Some(7));
    assert_eq!(pool.ejected_by(1, &[Status(503); 99]), None);
    assert_eq!(pool.ejected_by(1, &[ConnectFailed; 9]), Some(2), "no code at all is what it always is");
}

#[test]
fn connections_count_by_whether_they_are_made() {
    let pool = Pool::new(2, seven());
    assert_eq!(pool.ejected_by(0, &[ConnectFailed; 6]), None);
    pool.record(0, Connected);
    assert_eq!(pool.ejected_by(0, &[ConnectFailed; 9]), Some(7));
}

#[test]
fn too_few_in_use_are_no_reason_to_use_them_alone() {
    let policy = OutlierDetection { min_health_percent: 50, ..seven() };
    assert!(!panics(&policy, 5, 10) && panics(&policy, 4, 10) && panics(&policy, 0, 1));
    assert!(!panics(&seven(), 0, 10), "without a minimum there is none");
    assert!(!panics(&policy, 0, 0));
}

#[test]
fn workers_together_eject_no_more_than_the_percentage_and_each_endpoint_once() {
    for _ in 0..20 {
        let pool = Pool::new(20, OutlierDetection { max_ejection_percent: 25, ..seven() });
        let ejections: usize = std::thread::scope(|scope| {
            let worker = || (0..4_000).filter(|n| pool.record(n % 20, Status(500)).is_some()).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().expect("it does not panic")).sum()
        });
        assert_eq!((ejections, pool.ejected().len()), (5, 5));
    }
}

#[test]
fn a_table_of_the_kernel_reads_the_same() {
    let pool = Pool::new(2, seven());
    pool.fail(1);
    let endpoint = &pool.endpoints[1];
    assert_eq!(std::mem::offset_of!(Health, ejected_until), 0);
    assert_eq!(std::mem::offset_of!(Health, local_origin_failures), 24);
    assert_eq!(endpoint.ejected_until.load(Relaxed), pool.now + 30 * SECOND);
}
