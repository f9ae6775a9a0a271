//! Who gets how much, by place and health.

use std::collections::BTreeMap;

use super::*;

type Labels = BTreeMap<&'static str, &'static str>;

fn member(place: &'static str, labels: &[(&'static str, &'static str)]) -> Member<'static, Labels> {
    Member { place: Place::parse(place), weight: 1, labels: labels.iter().copied().collect() }
}

fn setting() -> Setting {
    Setting { enabled: None, distribute: Box::default(), failover: Box::default(), failover_priority: Box::default() }
}

fn plan(setting: Option<&Setting>, client: &Member<'_, Labels>, endpoints: Vec<Member<'static, Labels>>) -> Plan {
    Plan::new(setting, true, client, endpoints, |labels, key| labels.get(key).copied())
}

fn at(setting: Option<&Setting>, client: &'static str, places: &[&'static str]) -> Plan {
    plan(setting, &member(client, &[]), places.iter().map(|place| member(place, &[])).collect())
}

/// Percentages of the endpoints when those of `failing` do.
fn percent(plan: &Plan, minimum: u8, failing: &[usize]) -> Vec<u32> {
    let mut weights = Vec::new();
    plan.weights(minimum, |endpoint| !failing.contains(&endpoint), &mut Scratch::default(), &mut weights);
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    weights.iter().map(|weight| (f64::from(*weight) * 100.0 / total.max(1.0)).round() as u32).collect()
}

#[test]
fn near_ones_first_and_farther_ones_as_these_fail() {
    let plan = at(None, "eu/a/1", &["us/x/1", "eu/b/1", "eu/a/2", "eu/a/1", "eu/a/1"]);
    assert_eq!(percent(&plan, 0, &[]), [0, 0, 0, 50, 50]);
    assert_eq!(percent(&plan, 0, &[3]), [0, 0, 30, 0, 70], "half of it bears 70 %");
    assert_eq!(percent(&plan, 0, &[3, 4]), [0, 0, 100, 0, 0]);
    assert_eq!(percent(&plan, 0, &[2, 3, 4]), [0, 100, 0, 0, 0]);
    assert_eq!(percent(&plan, 0, &[1, 2, 3, 4]), [100, 0, 0, 0, 0]);
    assert_eq!(percent(&plan, 0, &[0, 1, 2, 3, 4]), [0; 5], "nobody");
    assert_eq!(percent(&plan, 50, &[0, 1, 2, 3, 4]), [20; 5], "or everybody");
    assert!(!plan.is_flat());
}

#[test]
fn priorities_that_cannot_bear_it_share_it() {
    // One of four in each of two places: 35 % and 35 %.
    let plan = at(None, "eu/a/1", &["eu/a/1", "eu/a/1", "eu/a/1", "eu/a/1", "us/a/1", "us/a/1", "us/a/1", "us/a/1"]);
    let failing = [1, 2, 3, 5, 6, 7];
    assert_eq!(percent(&plan, 0, &failing), [50, 0, 0, 0, 50, 0, 0, 0]);
    assert_eq!(percent(&plan, 50, &failing), [13; 8], "both are below the minimum");
    assert_eq!(percent(&plan, 50, &[1, 2, 3]), [35, 0, 0, 0, 16, 16, 16, 16], "the other one is well");
}

#[test]
fn a_region_fails_over_to_the_one_that_is_named() {
    let mut setting = setting();
    setting.failover = [("eu".into(), "asia".into())].into();
    let places = ["us/x/1", "asia/x/1", "eu/b/1"];
    let to_asia = at(Some(&setting), "eu/a/1", &places);
    assert_eq!(percent(&to_asia, 0, &[]), [0, 0, 100]);
    assert_eq!(percent(&to_asia, 0, &[2]), [0, 100, 0]);
    assert_eq!(percent(&to_asia, 0, &[1, 2]), [100, 0, 0]);
    let from_us = at(Some(&setting), "us/y/1", &places);
    assert_eq!(percent(&from_us, 0, &[0]), [0, 50, 50], "nothing is named for it");
}

#[test]
fn nothing_is_preferred_where_failures_are_not_noticed_or_it_is_switched_off() {
    let places = ["us/x/1", "eu/a/1"];
    let endpoints = || places.iter().map(|place| member(place, &[]));
    let client = member("eu/a/1", &[]);
    let blind = Plan::new(None, false, &client, endpoints(), |labels: &Labels, key| labels.get(key).copied());
    let off = Setting { enabled: Some(false), ..setting() };
    for plan in [blind, at(Some(&off), "eu/a/1", &places)] {
        assert!(plan.is_flat());
        assert_eq!(percent(&plan, 0, &[]), [50, 50]);
        assert_eq!(percent(&plan, 0, &[0]), [0, 100]);
    }
}

#[test]
fn labels_in_their_order_decide_who_takes_over() {
    let mut setting = setting();
    setting.failover_priority = ["network".into(), "version=v1".into()].into();
    let client = member("eu/a/1", &[("network", "n1"), ("version", "v9")]);
    let endpoints = vec![
        member("eu/a/1", &[("network", "n2"), ("version", "v1")]),
        member("us/a/1", &[("network", "n1"), ("version", "v1")]),
        member("us/a/1", &[("network", "n1"), ("version", "v2")]),
    ];
    let by_labels = plan(Some(&setting), &client, endpoints.clone());
    assert_eq!(percent(&by_labels, 0, &[]), [0, 100, 0]);
    assert_eq!(percent(&by_labels, 0, &[1]), [0, 0, 100]);
    assert_eq!(percent(&by_labels, 0, &[1, 2]), [100, 0, 0], "the second label does not count without the first");
    // With regions beside labels, those decide between endpoints that the labels tell not apart.
    setting.failover = [("eu".into(), "asia".into())].into();
    let mut more = endpoints;
    more.push(member("asia/a/1", &[("network", "n1"), ("version", "v1")]));
    let both = plan(Some(&setting), &client, more);
    assert_eq!(percent(&both, 0, &[]), [0, 0, 0, 100]);
    assert_eq!(percent(&both, 0, &[3]), [0, 100, 0, 0]);
}

#[test]
fn shares_that_the_user_gave() {
    let mut setting = setting();
    let shares = |to: &[(&str, u32)]| to.iter().map(|(name, share)| ((*name).into(), *share)).collect();
    setting.distribute = [
        ("us/*".into(), shares(&[("us/*", 100)])),
        ("eu/a/*".into(), shares(&[("eu/a/*", 70), ("eu/b/*", 20), ("asia", 10)])),
    ]
    .into();
    let places = ["eu/a/1", "eu/a/2", "eu/b/1", "eu/b/1", "asia/x/1", "us/x/1"];
    let plan = at(Some(&setting), "eu/a/9", &places);
    assert_eq!(percent(&plan, 0, &[]), [35, 35, 10, 10, 10, 0], "what is not named is not used");
    // A half of a place bears 70 % of its share: 70, 14, 10.
    assert_eq!(percent(&plan, 0, &[3]), [37, 37, 15, 0, 11, 0]);
    assert_eq!(percent(&plan, 0, &[0, 1]), [0, 0, 33, 33, 33, 0]);
    assert_eq!(percent(&plan, 100, &[0, 1, 2, 3, 4]), [35, 35, 10, 10, 10, 0], "all alike in need");
    assert_eq!(percent(&at(Some(&setting), "us/q/1", &places), 0, &[]), [0, 0, 0, 0, 0, 100]);
    assert_eq!(percent(&at(Some(&setting), "asia/q/1", &places), 0, &[]), [17; 6], "no rule for this client");
    setting.enabled = Some(false);
    assert_eq!(
        percent(&at(Some(&setting), "us/q/1", &places), 0, &[]),
        [17; 6],
        "nor shares, where it is switched off"
    );
}

#[test]
fn load_evens_out_within_a_share_or_a_priority() {
    let groups = |plan: &Plan, len: usize| (0..len).map(|position| plan.group(position)).collect::<Vec<_>>();
    let places = ["eu/a/1", "eu/a/1", "eu/b/1", "us/x/1", "asia/x/1"];
    let mut setting = setting();
    let to = [("eu/*".into(), 80), ("us".into(), 20)].into();
    setting.distribute = [("*".into(), to)].into();
    let given = at(Some(&setting), "eu/a/1", &places);
    assert_eq!(groups(&given, 5), [Some(0), Some(0), Some(1), Some(2), None], "each place by itself");
    assert_eq!(given.groups(), 3);
    let near_first = at(None, "eu/c/1", &places);
    assert_eq!(groups(&near_first, 5), [Some(0), Some(0), Some(0), Some(1), Some(1)], "whatever the place");
    assert_eq!(near_first.groups(), 2);
}

#[test]
fn endpoints_weigh_within_their_place() {
    let client = member("eu/a/1", &[]);
    let mut endpoints = vec![member("eu/a/1", &[]), member("eu/a/1", &[]), member("us/a/1", &[])];
    endpoints[1].weight = 3;
    let plan = plan(None, &client, endpoints);
    assert_eq!(percent(&plan, 0, &[]), [25, 75, 0]);
}

#[test]
fn places_are_within_what_is_named() {
    for (named, place, within) in [
        ("*", "eu/a/1", true),
        ("eu", "eu/a/1", true),
        ("eu/*", "eu/a/1", true),
        ("eu/a", "eu/a/1", true),
        ("eu/a/*", "eu/a/1", true),
        ("eu/a/1", "eu/a/1", true),
        ("eu/b", "eu/a/1", false),
        ("eu/a/2", "eu/a/1", false),
        ("us/*", "eu/a/1", false),
        ("eu/a", "eu", false),
        ("eu/*", "eu", true),
    ] {
        assert_eq!(Place::parse(place).is_within(named), within, "{place} in {named}");
    }
}
