//! A server that forgets, refuses, overloads or goes away: what it said last stays, and nothing seems empty in between.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weir_tests::ApiServer;
use weir_tests::apiserver::Fault;

use crate::bed::{Bed, furnish, shop, weights};

/// The shop never seems to be gone, or any part of it.
fn whole(bed: &Bed) -> Result<()> {
    let s = bed.snapshot();
    let there = (s.namespaces.contains_key(&("".into(), "shop".into())), s.services.len(), s.endpoint_slices.len());
    ensure!(there == (true, 1, 1) && bed.weight().is_some(), "{there:?}, weight {:?}", bed.weight());
    Ok(())
}

fn after_410(api: &ApiServer) -> Result<()> {
    let mut bed = Bed::start(api)?;
    let before = bed.compile().plan;
    for round in 1..=3 {
        // What happens while nobody listens is only in the lists.
        api.faults().refuse_connections()?;
        api.faults().break_watches()?;
        api.apply(&weights(30 + round))?;
        api.delete("pods", "shop", "web-v2")?;
        api.faults().expire_history()?;
        api.resume()?;
        bed.watching("the list was read anew", |bed| {
            whole(bed)?;
            Ok(bed.weight() == Some(30 + round) && bed.snapshot().pods.len() == 1)
        })?;
        api.apply(crate::bed::SHOP)?;
        bed.until("the pod is back", |bed| bed.snapshot().pods.len() == 2)?;
    }
    assert!(bed.lists("Pod") >= 4, "{:?}", bed.status());
    assert_eq!(bed.compile().plan.services.len(), before.services.len());
    Ok(())
}

#[test]
fn a_forgotten_place_is_found_again_without_an_empty_moment() -> Result<()> {
    after_410(&shop()?)
}

#[test]
fn a_410_instead_of_a_stream_is_the_same() -> Result<()> {
    let api = ApiServer::builder().gone_before_stream().start()?;
    furnish(&api)?;
    after_410(&api)
}

#[test]
fn retry_after_is_waited_for() -> Result<()> {
    let api = shop()?;
    let mut bed = Bed::start(&api)?;
    api.faults().inject(Fault::answer(429).retry_after(3).times(1).resource("virtualservices.networking.istio.io"))?;
    let asked = || -> Result<u64> { Ok(api.counters()?.requests("watch", "virtualservices.networking.istio.io")) };
    let before = asked()?;
    let broken = Instant::now();
    api.faults().break_watches()?;
    bed.until("it was asked again", |_| asked().is_ok_and(|now| now > before))?;
    api.apply(&weights(33))?;
    bed.until("the change is heard", |bed| bed.weight() == Some(33))?;
    let waited = broken.elapsed();
    ensure!(waited > Duration::from_secs(3) && waited < Duration::from_secs(8), "after {waited:?}");
    Ok(())
}

#[test]
fn while_it_is_away_what_it_said_stays_and_it_goes_on_without_a_list() -> Result<()> {
    let api = shop()?;
    let mut bed = Bed::start(&api)?;
    api.reset_counters()?;
    api.stop()?;
    bed.watching("it is known to be away", |bed| whole(bed).map(|()| bed.status().away_since.is_some()))?;
    bed.during(Duration::from_secs(4));
    whole(&bed)?;
    let connections = api.counters()?.connections;
    api.apply(&weights(12))?;
    api.resume()?;
    bed.watching("it is heard again", |bed| whole(bed).map(|()| bed.weight() == Some(12)))?;
    bed.until("it is known to be back", |bed| bed.status().away_since.is_none())?;
    assert!(bed.status().problems.is_empty());
    let counters = api.counters()?;
    assert_eq!((connections, counters.requests("list", "")), (0, 0));
    for kind in ["Namespace", "Service", "Pod", "EndpointSlice", "VirtualService"] {
        assert_eq!(bed.lists(kind), 1, "{kind} was listed again: {:?}", counters.recent);
    }
    Ok(())
}

#[test]
fn a_server_that_refuses_most_requests_is_not_asked_all_the_time() -> Result<()> {
    let api = shop()?;
    let mut bed = Bed::start(&api)?;
    api.reset_counters()?;
    api.faults().inject(Fault::answer(503))?;
    api.faults().break_watches()?;
    bed.during(Duration::from_secs(8));
    // Doubling from 0.8 s: at most five attempts of each kind, and a few looks at what is served.
    let (asked, kinds) = (api.counters()?.requests("watch", ""), bed.status().kinds.len() as u64 + 1);
    ensure!(asked <= 6 * kinds, "{asked} requests for {kinds} kinds in 8 s");
    whole(&bed)?;
    api.faults().clear()?;
    api.apply(&weights(77))?;
    bed.until("it is heard again", |bed| bed.weight() == Some(77))?;
    Ok(())
}

#[test]
fn a_slow_server_is_waited_for() -> Result<()> {
    let api = shop()?;
    api.faults().latency(Duration::from_millis(300))?;
    let mut bed = Bed::start(&api)?;
    api.apply(&weights(41))?;
    bed.until("it is heard", |bed| bed.weight() == Some(41))?;
    assert!(bed.status().away_since.is_none());
    Ok(())
}

#[test]
fn a_kind_that_may_not_be_read_is_named_and_nothing_is_complete_without_it() -> Result<()> {
    let api = shop()?;
    api.faults().inject(Fault::answer(403).resource("authorizationpolicies.security.istio.io"))?;
    let mut bed = Bed::spawn(&api)?;
    bed.until("the refusal is told", |bed| {
        bed.status().problems.iter().any(|p| p.starts_with("authorizationpolicies: 403"))
    })?;
    bed.during(Duration::from_millis(500));
    assert!(!bed.is_complete(), "what protects is never skipped");
    assert!(bed.status().away_since.is_none());
    api.faults().clear()?;
    bed.until_complete()?;
    assert!(bed.status().problems.is_empty(), "{:?}", bed.status());
    Ok(())
}
