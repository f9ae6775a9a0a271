//! How the load of a service is shared and limited, in DestinationRules of one host.

use super::*;

const FROM: [&str; 2] = ["--from", "tea/kettle-v1"];
const KETTLE: &str = "kettle.tea.svc.cluster.local";

fn told(rule: &str) -> Told {
    explain(&["kettle.yaml", rule], &FROM, "http://kettle/")
}

/// That the rule is accepted, gives cause to these findings alone, and that `explain` shows this setting with its place.
fn holds(rule: &str, findings: &[&str], setting: &str) {
    accepts(&[rule]);
    assert_found(&analyze(&["kettle.yaml", rule]), findings);
    let told = told(rule);
    told.has(&[setting]);
    let last = told.said.lines().last().unwrap_or_default();
    assert!(told.answered && last.ends_with(&format!(": 100% to {KETTLE}:80")), "{}", told.said);
}

#[test]
fn endpoints_are_chosen_at_random_where_that_is_asked_for() {
    let setting = "loadBalancer: RANDOM (DestinationRule tea/kettle-load at random.yaml:7:5)";
    holds("random.yaml", &[], setting);
    told("random.yaml").has(&["✔ 198.18.0.1:80 tea/kettle-v1-assumed-1", "✔ 198.18.0.2:80 tea/kettle-v2-assumed-1"]);
}

#[test]
fn a_hash_beside_another_rule_for_the_host_is_told_of_and_alone_it_holds() {
    let ring = "loadBalancer: consistentHash on header x-forwarded-for (ring of at least 1024) (DestinationRule tea/kettle-sticky at hash.yaml:8:5)";
    holds("hash.yaml", &[], ring);
    let both = ["kettle.yaml", "random.yaml", "hash.yaml"];
    let found = analyze(&both);
    let conflict = "WEIR0018 Warning DestinationRule tea/kettle-sticky hash.yaml:6:3: kettle.tea.svc.cluster.local has 2 DestinationRules in this namespace (DestinationRule tea/kettle-load, too): they are merged, the oldest first; of this one is not in force: its trafficPolicy";
    assert!(found.iter().any(|one| one.starts_with(conflict)), "{found:#?}");
    let kept = "WEIR0018 Info DestinationRule tea/kettle-load random.yaml:5:3: ";
    assert!(found.iter().any(|one| one.starts_with(kept)), "{found:#?}");
    let told = explain(&both, &FROM, "http://kettle/");
    told.has(&["loadBalancer: RANDOM (DestinationRule tea/kettle-load at random.yaml:7:5)"]);
    assert!(!told.said.contains("consistentHash on"), "{}", told.said);
}

#[test]
fn a_block_that_is_indented_below_a_value_is_refused_with_where_it_belongs() {
    let reason = "outlier-misindented.yaml:6:21: Error [WEIR0001]: no YAML: mapping values are not allowed in this context; `outlierDetection` is indented under `host`, which already has a value: move it out to spec.trafficPolicy.outlierDetection";
    assert_eq!(refuses("outlier-misindented.yaml"), [reason]);
    // Whose document it is can be read all the same, and no other file suffers.
    assert_found(
        &analyze(&["kettle.yaml", "outlier-misindented.yaml", "random.yaml"]),
        &["WEIR0001 Error DestinationRule default/kettle-load outlier-misindented.yaml:6:21: no YAML: "],
    );
    let told = explain(&["kettle.yaml", "outlier-misindented.yaml", "random.yaml"], &FROM, "http://kettle/");
    told.has(&["loadBalancer: RANDOM (DestinationRule tea/kettle-load at random.yaml:7:5)"]);
}

#[test]
fn ejection_grows_with_each_time_and_one_of_two_can_always_be_ejected() {
    let never = "WEIR0025 Info DestinationRule tea/kettle-load outlier.yaml:8:5: 10 % of the 2 pods of kettle.tea.svc.cluster.local is less than one: Istio ejects nothing, weir ejects one as long as two are healthy";
    let setting = "outlierDetection: 7 consecutive 5xx: ejected for 900s × times ejected, at most 10% of the endpoints and one always, looked at every 300s (DestinationRule tea/kettle-load at outlier.yaml:8:5)";
    holds("outlier.yaml", &[never], setting);
    // Without its namespace it is for a host that is not there.
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifests/outlier.yaml");
    let homeless = std::fs::read_to_string(manifest).unwrap().replace(", namespace: tea", "");
    let found = analyze_with(&["kettle.yaml", "-"], &homeless);
    let unknown = "IST0174 Warning DestinationRule kettle-load -:6:3: kettle.default.svc.cluster.local is no service here: the rule has no effect";
    assert!(found.iter().any(|one| one.starts_with(unknown)), "{found:#?}");
}

#[test]
fn limits_of_connections_and_requests_are_shown_with_their_place() {
    holds("pool-http.yaml", &[], "(DestinationRule tea/kettle-load at pool-http.yaml:7:5)");
    told("pool-http.yaml").has(&["connectionPool.http"]);
    holds("pool-tcp.yaml", &[], "(DestinationRule tea/kettle-load at pool-tcp.yaml:7:5)");
    told("pool-tcp.yaml").has(&["connectionPool.tcp.maxConnections"]);
    accepts(&["breaker.yaml"]);
    assert_eq!(analyze(&["kettle.yaml", "breaker.yaml"]), [""; 0]);
    let setting = "outlierDetection: 1 consecutive 5xx: ejected for 180s × times ejected, at most 100% of the endpoints and one always, looked at every 1s (DestinationRule tea/kettle-load at breaker.yaml:11:5)";
    told("breaker.yaml").has(&["connectionPool.tcp.maxConnections", "connectionPool.http", setting]);
}

#[test]
fn what_is_applied_under_a_name_replaces_what_was_there() {
    holds("subsets.yaml", &[], "loadBalancer: ");
    let told = told("subsets.yaml");
    assert!(!told.said.contains("RANDOM"), "{}", told.said);
    // In files both would stand: the first holds, and the second is told of.
    let found = analyze(&["kettle.yaml", "random.yaml", "subsets.yaml"]);
    assert!(found.iter().any(|one| one.contains(" Error DestinationRule tea/kettle-load subsets.yaml:")), "{found:#?}");
}

#[test]
fn load_and_regions_that_are_asked_for_are_shown() {
    let least = "loadBalancer: LEAST_REQUEST (DestinationRule tea/kettle-load at least-request.yaml:7:5)";
    holds("least-request.yaml", &[], least);
    accepts(&["regions.yaml"]);
    assert_eq!(analyze(&["kettle.yaml", "regions.yaml"]), [""; 0]);
    told("regions.yaml")
        .has(&["(DestinationRule tea/kettle-load at regions.yaml:8:5)", "outlierDetection: 5 consecutive 5xx"]);
}

#[test]
fn where_endpoints_are_and_what_share_that_gives_them_is_shown() {
    accepts(&["north-south.yaml"]);
    let both = ["kettle.yaml", "north-south.yaml"];
    assert_eq!(analyze(&[&both[..], &["regions.yaml"]].concat()), [""; 0]);
    let told = explain(&[&both[..], &["regions.yaml"]].concat(), &FROM, "http://kettle/");
    told.has(&[
        "locality: shares of the localities; the client is in north/hill (DestinationRule tea/kettle-load)",
        "✔ 10.8.0.1:80 tea/kettle-v1-1, north/hill: priority 0, 80% while none fails",
        "✔ 10.8.0.2:80 tea/kettle-v2-1, south/shore: priority 0, 20% while none fails",
    ]);
    let from_south = explain(&[&both[..], &["outlier.yaml"]].concat(), &["--from", "tea/kettle-v2"], "http://kettle/");
    from_south.has(&[
        "locality: near endpoints first, the next nearest as they fail; the client is in south/shore",
        "north/hill: priority 1, 0% while none fails",
        "south/shore: priority 0, 100% while none fails",
    ]);
}
