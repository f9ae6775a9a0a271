//! Services of one namespace: as they are before any mesh, balanced, in two versions, and split.

use super::*;

const FROM_TILL: [&str; 2] = ["--from", "till"];
/// Of each of the two Services of `plain.yaml`.
const UNNAMED: [&str; 2] = [
    "IST0118 Info Service till plain.yaml:17:5: port 80 has no name, which declares no protocol: it is detected from the first bytes",
    "IST0118 Info Service oven plain.yaml:35:5: port 80 has no name",
];

#[test]
fn services_without_names_of_ports_are_balanced_and_their_protocol_is_detected() {
    accepts(&["plain.yaml"]);
    assert_found(&analyze(&["plain.yaml"]), &UNNAMED);
    let told = explain(&["plain.yaml"], &FROM_TILL, "http://oven/");
    told.has(&["to oven, port 80, detected: oven.default.svc.cluster.local", "default/oven-assumed-1"]);
    told.ends("✔ balance: 100% to oven.default.svc.cluster.local:80", true);
}

#[test]
fn short_hosts_are_of_the_objects_namespace_and_endpoints_take_turns() {
    accepts(&["round-robin.yaml"]);
    assert_found(&analyze(&["plain.yaml", "round-robin.yaml"]), &UNNAMED);
    let told = explain(&["plain.yaml", "round-robin.yaml"], &FROM_TILL, "http://oven/");
    told.has(&[
        "kernel: proxy: VirtualService default/oven-routes has HTTP rules for the host",
        "loadBalancer: ROUND_ROBIN (DestinationRule default/oven-in-turn at round-robin.yaml:8:5)",
    ]);
    told.ends("✔ proxy: 100% to oven.default.svc.cluster.local:80", true);
    // Applied elsewhere, they are for a host that is not there.
    let elsewhere = analyze(&["-n", "cellar", "round-robin.yaml"]);
    assert_found(
        &elsewhere,
        &[
            "IST0174 Warning DestinationRule cellar/oven-in-turn round-robin.yaml:6:3: oven.cellar.svc.cluster.local is no service here",
            "WEIR0010 Warning VirtualService cellar/oven-routes round-robin.yaml:14:11: oven.cellar.svc.cluster.local is no service here",
            "IST0101 Error VirtualService cellar/oven-routes round-robin.yaml:17:21: host not found: \"oven\"",
        ],
    );
}

#[test]
fn a_second_version_gets_its_share_by_pods_before_any_rule() {
    accepts(&["second-version.yaml"]);
    assert_found(&analyze(&["plain.yaml", "second-version.yaml"]), &UNNAMED);
    let told = explain(&["plain.yaml", "second-version.yaml"], &FROM_TILL, "http://oven/");
    told.has(&["default/oven-assumed-1", "default/oven-v2-assumed-1"]);
    told.ends("✔ balance: 100% to oven.default.svc.cluster.local:80", true);
}

#[test]
fn a_subset_without_pods_is_told_of_with_the_label_and_the_rest_of_the_split_stays() {
    let files = ["plain.yaml", "second-version.yaml", "canary.yaml"];
    accepts(&files);
    let missing = "IST0173 Error DestinationRule oven-versions canary.yaml:8:5: subset v1 selects no pod: no pod of oven has version=v1 (they have app=oven and app=oven,version=v2); its share of the traffic is refused with 503";
    assert_found(&analyze(&files), &[missing, UNNAMED[0], UNNAMED[1]]);
    let told = explain(&files, &FROM_TILL, "http://oven/");
    told.has(&[
        "✘ 90% outbound|80|v1|oven.default.svc.cluster.local (weight 90)\n    503 (UH): no ready endpoint of oven.default.svc.cluster.local has the label version=v1",
        "✘ default/oven-assumed-1 lacks version",
        "✔ 10% outbound|80|v2|oven.default.svc.cluster.local (weight 10)",
        "✔ 198.18.0.2:8080 default/oven-v2-assumed-1",
    ]);
    told.ends("✔ proxy: 10% to v2 of oven.default.svc.cluster.local:80; 90% 503 (UH): ", true);
}

#[test]
fn subsets_that_nobody_defines_are_told_of_each_and_work_once_somebody_does() {
    let files = ["kettle.yaml", "no-rule-for-subsets.yaml"];
    accepts(&files);
    assert_found(
        &analyze(&files),
        &[
            "IST0101 Error VirtualService tea/kettle-routes no-rule-for-subsets.yaml:9:21: host+subset in destinationrule not found: \"kettle+v1\"",
            "IST0101 Error VirtualService tea/kettle-routes no-rule-for-subsets.yaml:11:21: host+subset in destinationrule not found: \"kettle+v2\"",
        ],
    );
    let from = ["--from", "tea/kettle-v1"];
    let told = explain(&files, &from, "http://kettle/");
    told.has(&[
        "✘ 90% outbound|80|v1|",
        "503 (NC): no DestinationRule defines subset v1 of kettle.tea.svc.cluster.local",
    ]);
    told.ends("✘ proxy: 90% 503 (NC)", false);
    // Another host does not notice.
    let other = explain(&["plain.yaml", files[0], files[1]], &from, "http://oven.default/");
    other.ends("✔ balance: 100% to oven.default.svc.cluster.local:80", true);
    // The order in which they come does not matter.
    for files in [["kettle.yaml", "no-rule-for-subsets.yaml", "subsets.yaml"], ["subsets.yaml", files[1], files[0]]] {
        assert_eq!(analyze(&files), [""; 0]);
        explain(&files, &from, "http://kettle/").ends(
            "✔ proxy: 90% to v1 of kettle.tea.svc.cluster.local:80; 10% to v2 of kettle.tea.svc.cluster.local:80",
            true,
        );
    }
}
