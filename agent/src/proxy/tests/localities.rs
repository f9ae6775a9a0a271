//! Balancing by locality: who takes over when a region fails, shares that a rule gives, and clients that stick.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{Mesh, at_each_level, compiled, eventually, object, origin, rules, serve, soon};

/// Any error ejects, for longer than a test takes, and everybody if need be.
pub(super) const EJECTS: &str =
    "outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 1h, maxEjectionPercent: 100}";

/// Endpoints of `b` that say where they are: two in eu/a, one in eu/b, two in us/x. Those of a place can be broken.
struct World {
    endpoints: Vec<SocketAddr>,
    broken: BTreeMap<&'static str, Arc<AtomicBool>>,
}

const PLACES: [&str; 5] = ["eu/a", "eu/a", "eu/b", "us/x", "us/x"];

impl World {
    async fn new() -> Self {
        let broken: BTreeMap<&str, Arc<AtomicBool>> = PLACES.map(|place| (place, Arc::default())).into();
        let mut endpoints = Vec::new();
        for place in PLACES {
            let broken = Arc::clone(&broken[place]);
            endpoints.push(
                origin(move |_| {
                    let status = if broken.load(SeqCst) { 503 } else { 200 };
                    async move { Response::builder().status(status).body(Full::<Bytes>::from(place)).unwrap() }
                })
                .await,
            );
        }
        Self { endpoints, broken }
    }

    fn set_broken(&self, place: &str, broken: bool) {
        self.broken[place].store(broken, SeqCst);
    }

    fn mesh(&self, policy: &str) -> Mesh {
        Mesh::ruled(&[("b", &self.endpoints)], &with_places(policy))
    }

    fn ruled(&self, rules: &str) -> Mesh {
        Mesh::ruled(&[("b", &self.endpoints)], &(places() + rules))
    }
}

/// A rule with this policy, and where pods are.
pub(super) fn with_places(policy: &str) -> String {
    object("DestinationRule", &format!("host: b, trafficPolicy: {{{policy}}}")) + &places()
}

/// Where pods are: the client in eu/a, the endpoints in [`PLACES`]; `version` is v1 in eu/a and us/x.
fn places() -> String {
    let mut text = String::new();
    let node = |name: &str, place: &str| {
        let (region, zone) = place.split_once('/').unwrap();
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: \
             {{topology.kubernetes.io/region: {region}, topology.kubernetes.io/zone: {zone}}}}}\n"
        )
    };
    let pod = |name: &str, node: &str, metadata: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, {metadata}}}\n\
             spec: {{nodeName: {node}}}\nstatus: {{phase: Running, podIPs: [{{ip: 10.9.9.9}}]}}\n"
        )
    };
    text += &node("home", "eu/a");
    text += &pod(
        "a",
        "home",
        "labels: {weir.mesh/mode: enabled, version: v1}, annotations: {weir.mesh/netns: /proc/1/ns/net}",
    );
    for (position, place) in PLACES.into_iter().enumerate() {
        let name = format!("b-{position}");
        text += &node(&name, place);
        text += &pod(&name, &name, &format!("labels: {{version: {}}}", if place == "eu/b" { "v2" } else { "v1" }));
    }
    text
}

/// Who answers so many requests, by the place, on several connections; `-` = nobody.
async fn answers(mesh: &Mesh, requests: usize) -> BTreeMap<String, usize> {
    let mut clients = [mesh.client().await, mesh.client().await];
    let mut found = BTreeMap::new();
    for n in 0..requests {
        let (status, body) = clients[n % 2].get("/").await;
        *found.entry(if status == 200 { body } else { "-".to_owned() }).or_insert(0) += 1;
    }
    found
}

fn only(place: &str, requests: usize) -> BTreeMap<String, usize> {
    [(place.to_owned(), requests)].into()
}

#[tokio::test]
async fn a_region_that_fails_is_replaced_by_the_next() {
    let world = World::new().await;
    let simple = format!("loadBalancer: {{simple: ROUND_ROBIN}}, {EJECTS}");
    let mesh = world.mesh(&simple);
    assert_eq!(answers(&mesh, 40).await, only("eu/a", 40), "its own zone");
    for (fails, next, ejected) in [("eu/a", "eu/b", 2), ("eu/b", "us/x", 3)] {
        world.set_broken(fails, true);
        // Whoever is asked once more is out of use at once.
        answers(&mesh, 20).await;
        eventually("it is noticed", || mesh.proxy.counters().ejections == ejected).await;
        assert_eq!(answers(&mesh, 40).await, only(next, 40), "after {fails}");
    }
    // A region that a rule names comes before all others.
    let named = format!(
        "loadBalancer: {{simple: ROUND_ROBIN, localityLbSetting: {{failover: [{{from: eu, to: us}}]}}}}, {EJECTS}"
    );
    at_each_level(&named, async |rule| {
        let world = World::new().await;
        let mesh = world.ruled(&rule);
        world.set_broken("eu/a", true);
        world.set_broken("eu/b", true);
        answers(&mesh, 30).await;
        eventually("it is noticed", || mesh.proxy.counters().ejections == 3).await;
        assert_eq!(answers(&mesh, 40).await, only("us/x", 40));
    })
    .await;
}

#[tokio::test]
async fn a_retry_goes_to_the_next_locality_where_the_rule_says_so() {
    let world = World::new().await;
    // Nobody is ever ejected: what moves requests is the rule.
    let policy = "loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 1000000}";
    let mesh = |retries: &str| {
        let retried =
            format!("http: [{{retries: {{retryOn: 5xx, {retries}}}, route: [{{destination: {{host: b}}}}]}}]");
        Mesh::ruled(&[("b", &world.endpoints)], &(with_places(policy) + &rules(&retried)))
    };
    let near = mesh("attempts: 2, backoff: 1ms");
    let far = mesh("attempts: 2, backoff: 1ms, retryRemoteLocalities: true");
    let same = mesh("attempts: 1, backoff: 1ms, retryRemoteLocalities: true, retryIgnorePreviousHosts: false");
    assert_eq!(answers(&far, 40).await, only("eu/a", 40), "the first try is the own zone's");
    world.set_broken("eu/a", true);
    assert_eq!(answers(&near, 40).await, only("-", 40), "retries stay in the zone");
    assert_eq!(answers(&far, 40).await, only("eu/b", 40), "the nearest other one");
    assert_eq!(answers(&same, 40).await, only("eu/b", 40), "whatever is said of hosts");
    world.set_broken("eu/b", true);
    assert_eq!(answers(&far, 40).await, only("us/x", 40), "one further away each time");
    assert_eq!(answers(&same, 40).await, only("-", 40), "it has one retry alone");
    world.set_broken("us/x", true);
    assert_eq!(answers(&far, 10).await, only("-", 10));
    // Where localities make no difference it is a retry like any other.
    let rule = "http: [{retries: {attempts: 1, retryOn: 5xx, backoff: 1ms, retryRemoteLocalities: true}, \
                route: [{destination: {host: b}}]}]";
    let endpoints = [world.endpoints[0], super::harness::named("well").await];
    let plain = Mesh::ruled(&[("b", &endpoints)], &rules(rule));
    assert_eq!(answers(&plain, 20).await, only("well", 20));
}

#[tokio::test]
async fn half_of_a_zone_bears_seventy_percent() {
    let world = World::new().await;
    let mesh = world.mesh(&format!("loadBalancer: {{simple: ROUND_ROBIN}}, {EJECTS}"));
    world.set_broken("eu/a", true);
    assert_eq!(answers(&mesh, 1).await, only("-", 1));
    eventually("one is ejected", || mesh.proxy.counters().ejections == 1).await;
    world.set_broken("eu/a", false);
    let found = answers(&mesh, 400).await;
    assert!(found["eu/a"].abs_diff(280) < 12 && found["eu/a"] + found["eu/b"] == 400, "{found:?}");
}

#[tokio::test]
async fn shares_of_localities_are_kept_within_two_points() {
    let world = World::new().await;
    for simple in ["ROUND_ROBIN", "RANDOM", "LEAST_REQUEST"] {
        let policy = format!(
            "loadBalancer: {{simple: {simple}, localityLbSetting: {{distribute: [{{from: eu/a/*, to: {{eu/b/*: 20, us/*: 80}}}}]}}}}"
        );
        at_each_level(&policy, async |rule| {
            let found = answers(&world.ruled(&rule), 2_000).await;
            // Of 2,000 by chance one standard deviation is 18; by turns it is exact but for two workers' beginnings.
            let allowed = if simple == "ROUND_ROBIN" { 40 } else { 100 };
            assert!(
                found["us/x"].abs_diff(1_600) < allowed && found["us/x"] + found["eu/b"] == 2_000,
                "{simple}: {found:?}"
            );
        })
        .await;
    }
}

/// The rule with which load decides: 20 % and 80 % to two places of which neither is the client's own.
const BY_LOAD: &str = "loadBalancer: {localityLbSetting: {distribute: [{from: eu/a/*, to: {eu/b/*: 20, us/*: 80}}]}}";

/// An endpoint that takes so many milliseconds to say where it is, or that it is broken, and counts.
async fn slow(place: &'static str, takes: u64, status: u16) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let answer = move |_| {
        counted.fetch_add(1, SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(takes)).await;
            Response::builder().status(status).body(Full::<Bytes>::from(place)).unwrap()
        }
    };
    (origin(answer).await, asked)
}

/// Who answers 2,000 requests, eight at a time. By chance alone one standard deviation of a share of 20 % is 18.
async fn under_load(mesh: &Mesh) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for of_client in futures_util::future::join_all((0..8).map(|_| answers(mesh, 250))).await {
        for (place, count) in of_client {
            *found.entry(place).or_insert(0) += count;
        }
    }
    found
}

#[tokio::test]
async fn what_a_place_gets_does_not_depend_on_how_long_its_answers_take() {
    // What is slow is the greater share, then the lesser one: load would move requests away from it.
    for (eu, us) in [(1, 8), (8, 1)] {
        let mut endpoints = Vec::new();
        for place in PLACES {
            endpoints.push(slow(place, if place == "us/x" { us } else { eu }, 200).await.0);
        }
        let found = under_load(&Mesh::ruled(&[("b", &endpoints)], &with_places(BY_LOAD))).await;
        assert!(found["us/x"].abs_diff(1_600) < 100 && found["us/x"] + found["eu/b"] == 2_000, "{eu}, {us}: {found:?}");
    }
    // Nor what is left for the next place when a half of the own one fails: it bears 70 %.
    let mut endpoints = Vec::new();
    for (position, place) in PLACES.into_iter().enumerate() {
        let (takes, status) = [(0, 503), (8, 200), (1, 200)][position.min(2)];
        endpoints.push(slow(place, takes, status).await.0);
    }
    let mesh = Mesh::ruled(&[("b", &endpoints)], &with_places(EJECTS));
    answers(&mesh, 20).await;
    eventually("one is ejected", || mesh.proxy.counters().ejections == 1).await;
    let found = under_load(&mesh).await;
    assert!(found["eu/a"].abs_diff(1_400) < 105 && found["eu/a"] + found["eu/b"] == 2_000, "{found:?}");
}

#[tokio::test]
async fn retries_go_to_places_by_their_shares_too() {
    // The broken one is never busy, and the other one of its place is: whoever goes by load asks the broken one first.
    let mut endpoints = Vec::new();
    for (place, takes, status) in
        [("eu/a", 0, 200), ("eu/a", 0, 200), ("eu/b", 4, 200), ("us/x", 0, 503), ("us/x", 4, 200)]
    {
        endpoints.push(slow(place, takes, status).await);
    }
    let addresses: Vec<SocketAddr> = endpoints.iter().map(|(address, _)| *address).collect();
    let retried =
        rules("http: [{retries: {attempts: 1, retryOn: 5xx, backoff: 1ms}, route: [{destination: {host: b}}]}]");
    let mesh = Mesh::ruled(&[("b", &addresses)], &(with_places(BY_LOAD) + &retried));
    let found = under_load(&mesh).await;
    assert_eq!(found["us/x"] + found["eu/b"], 2_000, "{found:?}");
    let again = endpoints[3].1.load(SeqCst);
    let wanted = (2_000 + again) / 5;
    assert!(again > 500 && found["eu/b"].abs_diff(wanted) < 105, "of {again} retries some {}: {found:?}", again / 5);
}

#[tokio::test]
async fn a_place_whose_endpoints_are_not_warm_keeps_its_share() {
    let world = World::new().await;
    for simple in ["ROUND_ROBIN", "RANDOM", "LEAST_REQUEST"] {
        let shares = BY_LOAD
            .replace("loadBalancer: {", &format!("loadBalancer: {{simple: {simple}, warmup: {{duration: 1h}}, "));
        let mesh = Mesh::ruled(&[("b", &world.endpoints[..4])], &with_places(&shares));
        assert!(answers(&mesh, 100).await["us/x"] > 50);
        // A second endpoint of the place, which gets a tenth of what the first one does.
        mesh.programs.store(Arc::new(compiled(&[("b", &world.endpoints)], "http", &with_places(&shares))));
        let found = answers(&mesh, 2_000).await;
        assert!(found["us/x"].abs_diff(1_600) < 100, "{simple}: {found:?}");
    }
}

#[tokio::test]
async fn labels_decide_who_takes_over() {
    let policy = format!(
        "loadBalancer: {{simple: ROUND_ROBIN, localityLbSetting: {{failoverPriority: [version, topology.kubernetes.io/region]}}}}, {EJECTS}"
    );
    at_each_level(&policy, async |rule| {
        let world = World::new().await;
        let mesh = world.ruled(&rule);
        assert_eq!(answers(&mesh, 20).await, only("eu/a", 20), "the version and the region");
        world.set_broken("eu/a", true);
        answers(&mesh, 20).await;
        eventually("it is noticed", || mesh.proxy.counters().ejections == 2).await;
        let next = "the version of another region before the other version";
        assert_eq!(answers(&mesh, 20).await, only("us/x", 20), "{next}");
    })
    .await;
    let world = World::new().await;
    let mesh =
        world.mesh(&format!("loadBalancer: {{localityLbSetting: {{failoverPriority: ['version=v2']}}}}, {EJECTS}"));
    assert_eq!(answers(&mesh, 20).await, only("eu/b", 20), "what the rule says instead of the client's own");
}

#[tokio::test]
async fn without_outlier_detection_or_switched_off_all_are_used_alike() {
    let world = World::new().await;
    let off = "localityLbSetting: {enabled: false}";
    for policy in [
        "loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: true}}".to_owned(),
        format!("loadBalancer: {{simple: ROUND_ROBIN, {off}}}, {EJECTS}"),
    ] {
        at_each_level(&policy, async |rule| {
            let found = answers(&world.ruled(&rule), 100).await;
            let shares = [("eu/a", 40_usize), ("eu/b", 20), ("us/x", 40)];
            assert!(shares.iter().all(|(place, share)| found[*place].abs_diff(*share) <= 4), "{policy}: {found:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn connections_fail_over_too() {
    let mut alive = Vec::new();
    for place in PLACES {
        alive.push(
            serve(move |mut stream, _| async move {
                let _ = stream.write_all(place.as_bytes()).await;
            })
            .await,
        );
    }
    let said = async |mesh: &Mesh| {
        let mut said = String::new();
        soon(mesh.connect().await.read_to_string(&mut said)).await.unwrap();
        said
    };
    let mesh = Mesh::ruled_on("tcp", &[("b", &alive)], &with_places(EJECTS));
    for _ in 0..20 {
        assert_eq!(said(&mesh).await, "eu/a");
    }
    // Nobody listens in the client's own zone any more.
    let mut gone = alive.clone();
    gone[0] = super::harness::nobody();
    gone[1] = super::harness::nobody();
    mesh.programs.store(Arc::new(compiled(&[("b", &gone)], "tcp", &with_places(EJECTS))));
    for _ in 0..20 {
        assert_eq!(said(&mesh).await, "eu/b", "whether it was tried before or not");
    }
    assert_eq!(mesh.proxy.counters().ejections, 2);
}

#[tokio::test]
async fn clients_that_stick_move_no_more_than_a_failure_makes_them() {
    let world = World::new().await;
    let mesh = world.mesh(&format!(
        "loadBalancer: {{consistentHash: {{httpHeaderName: x-user}}, localityLbSetting: {{distribute: [{{from: eu/*, to: {{eu/*: 60, us/*: 40}}}}]}}}}, {EJECTS}"
    ));
    let by_user = async || {
        let mut client = mesh.client().await;
        let mut found = Vec::new();
        for user in 0..200 {
            let request = Request::get("/").header("host", "b").header("x-user", format!("user-{user}"));
            let answer = client.send(request.body(Full::default()).unwrap()).await;
            let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
            found.push(String::from_utf8_lossy(&body).into_owned());
        }
        found
    };
    let first = by_user().await;
    assert_eq!(by_user().await, first, "whatever worker");
    let in_us = first.iter().filter(|place| *place == "us/x").count();
    // 40 % of 200; chance alone makes seven one standard deviation.
    assert!((45..=115).contains(&in_us), "{in_us} of 200");
    world.set_broken("us/x", true);
    by_user().await;
    eventually("it is noticed", || mesh.proxy.counters().ejections == 2).await;
    for (was, is) in first.iter().zip(by_user().await) {
        assert!(if was == "us/x" { is != "us/x" } else { is == *was }, "{was} → {is}");
    }
}

#[tokio::test]
async fn a_client_whose_place_changes_prefers_others_from_then_on() {
    let world = World::new().await;
    let mesh = world.mesh(&format!("loadBalancer: {{simple: ROUND_ROBIN}}, {EJECTS}"));
    assert_eq!(answers(&mesh, 10).await, only("eu/a", 10));
    let moved = with_places(&format!("loadBalancer: {{simple: ROUND_ROBIN}}, {EJECTS}"))
        .replace("labels: {weir.mesh/mode: enabled", "labels: {istio-locality: us.x, weir.mesh/mode: enabled");
    mesh.programs.store(Arc::new(compiled(&[("b", &world.endpoints)], "http", &moved)));
    assert_eq!(answers(&mesh, 10).await, only("us/x", 10));
}
