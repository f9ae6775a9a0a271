//! Weights and failover between localities (`region/zone/subzone`), of a DestinationRule's load balancer.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::at::{At, Report};

const TOPOLOGY: &[&str] =
    &["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

pub(super) fn rules(report: &mut Report<'_>, setting: &At<'_>, outlier: bool) {
    let distribute = setting.items("distribute");
    let failover = setting.items("failover");
    let priorities = setting.items("failoverPriority");
    if !distribute.is_empty() && !failover.is_empty() {
        report.error(setting, "only one of distribute and failover may be given");
    }
    if !failover.is_empty()
        && let Some(priority) = priorities.iter().find(|p| TOPOLOGY.contains(&p.str()))
    {
        report.error(priority, format!("`{}` cannot be given together with failover", priority.str()));
    }
    let sources: Vec<(At<'_>, &str)> =
        distribute.iter().filter_map(|share| share.get("from")).map(|from| (from.clone(), from.str())).collect();
    overlaps(report, &sources);
    for share in &distribute {
        let targets: Vec<(At<'_>, &str)> = share.entries("to").into_iter().map(|(name, at)| (at, name)).collect();
        overlaps(report, &targets);
        weights(report, share);
    }
    let fails_over = !failover.is_empty() || !priorities.is_empty();
    if fails_over && !outlier {
        report.warn(setting, "nothing fails over, because no endpoint is ever found to be broken").help =
            Some("add outlierDetection beside loadBalancer".to_owned());
    }
    self::failover(report, setting);
}

/// `failover[]`: from one region to another.
pub(super) fn failover(report: &mut Report<'_>, setting: &At<'_>) {
    for step in setting.items("failover") {
        let (from, to) = (step.text("from"), step.text("to"));
        if from == to {
            report.error(&step, "`from` and `to` must be different regions");
        }
        for (key, region) in [("from", from), ("to", to)] {
            if region.contains('/') || region.contains('*') {
                report.field(&step, key, format!("`{region}` must be a region, without zone and without `*`"));
            }
        }
    }
}

fn weights(report: &mut Report<'_>, share: &At<'_>) {
    let Some(to) = share.get("to") else {
        return;
    };
    let mut total = 0_i64;
    for (name, _) in share.entries("to") {
        let weight = to.int(name).unwrap_or(0);
        total = total.saturating_add(weight);
        if !(1..=100).contains(&weight) {
            report.field(&to, name, format!("must be between 1 and 100, is {weight}"));
        }
    }
    if total != 100 {
        report.error(&to, format!("the weights must add up to 100, and add up to {total}"));
    }
}

/// No locality may be part of another one of the list, and only its last part may be a `*`.
fn overlaps(report: &mut Report<'_>, localities: &[(At<'_>, &str)]) {
    let mut seen = BTreeSet::new();
    for (at, locality) in localities {
        let stars = locality.matches('*').count();
        if stars > 1 || stars == 1 && !locality.ends_with('*') {
            report.error(at, format!("`{locality}`: `*` may only be at its end"));
        } else if locality.splitn(3, '/').any(str::is_empty) {
            report.error(at, format!("`{locality}` must be region, region/zone or region/zone/subzone"));
        } else {
            let place = locality.trim_end_matches('*').trim_end_matches('/');
            if let Some(other) = overlapping(&seen, place) {
                let other = if other.is_empty() { "*" } else { other };
                report.error(at, format!("`{locality}` and `{other}` overlap"));
            }
            seen.insert(place);
        }
    }
}

/// One of the places that is part of this one, or that this one is part of. The empty place is everywhere.
fn overlapping<'l>(places: &BTreeSet<&'l str>, place: &str) -> Option<&'l str> {
    let mut around = place.match_indices('/').map(|(end, _)| &place[..end]).chain([place, ""]);
    if let Some(outer) = around.find_map(|outer| places.get(outer)) {
        return Some(outer);
    }
    let is_within =
        |inner: &str| inner.strip_prefix(place).is_some_and(|rest| place.is_empty() || rest.starts_with('/'));
    // In their order, those within come right after `place/`.
    let start = if place.is_empty() { String::new() } else { format!("{place}/") };
    places
        .range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded))
        .next()
        .copied()
        .filter(|inner| is_within(inner))
}
