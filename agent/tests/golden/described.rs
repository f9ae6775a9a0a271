//! What people do next: a canary behind a port whose name is no protocol, premium users, mirrors, faults, patience, and
//! what asks for more than routes.

use super::*;

fn ask(rules: &str, more: &[&str]) -> Told {
    let who = [&["--from", "tea/kettle-v1"], more].concat();
    explain(&["kettle.yaml", "subsets.yaml", rules], &who, "http://kettle/")
}

/// That it is accepted, and nothing is found about it.
fn is_clean(rules: &str) {
    accepts(&[rules]);
    assert_eq!(analyze(&["kettle.yaml", "subsets.yaml", rules]), [""; 0]);
}

const TO_V1: &str = "✔ proxy: 100% to v1 of kettle.tea.svc.cluster.local:80";
const TO_V2: &str = "✔ proxy: 100% to v2 of kettle.tea.svc.cluster.local:80";

#[test]
fn a_port_named_as_no_protocol_is_split_for_the_short_and_the_full_name() {
    let example = "../../../../deploy/examples/named-port/app-1.yaml";
    let pods: String = [("v1", 8080), ("v2", 8081)]
        .map(|(version, port)| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: app-1-{version}, namespace: shop, labels: {{app: app-1, version: {version}}}}}\nspec: {{containers: [{{name: c, ports: [{{name: apache, containerPort: {port}}}]}}]}}\nstatus: {{podIP: 10.9.0.{port}, conditions: [{{type: Ready, status: 'True'}}]}}\n"
            )
            .replace("10.9.0.8080", "10.9.0.1")
            .replace("10.9.0.8081", "10.9.0.2")
        })
        .concat();
    accepts(&[example]);
    let named = "IST0118 Info Service shop/app-1 ";
    assert_found(&analyze_with(&[example, "-"], &pods), &[named]);
    for host in ["app-1", "app-1.shop.svc.cluster.local"] {
        let url = format!("http://{host}/");
        let arguments = ["explain", "--from", "shop/app-1-v1", &url, "-f", example, "-f", "-", "--color", "never"];
        let (said, code) = weir(&arguments, &pods);
        let told = Told { said, answered: code == 0 };
        told.has(&["port 80, detected", "✔ 10.9.0.1:8080 shop/app-1-v1", "✔ 10.9.0.2:8081 shop/app-1-v2"]);
        told.ends(
            "✔ proxy: 90% to v1 of app-1.shop.svc.cluster.local:80; 10% to v2 of app-1.shop.svc.cluster.local:80",
            true,
        );
    }
}

#[test]
fn premium_users_are_known_by_a_header_or_a_cookie() {
    is_clean("premium.yaml");
    for (header, verdict) in [
        ("x-plan: premium", TO_V2),
        ("x-plan: basic", TO_V1),
        ("cookie: plan=premium", TO_V2),
        ("cookie: a=b; plan=premium; c=d", TO_V2),
        ("cookie: a=b; plan=basic", TO_V1),
        ("cookie: plan=premiumless", TO_V1),
    ] {
        ask("premium.yaml", &["-H", header]).ends(verdict, true);
    }
}

#[test]
fn a_shift_goes_from_half_to_whole() {
    is_clean("half.yaml");
    is_clean("whole.yaml");
    let half = "✔ proxy: 50% to v1 of kettle.tea.svc.cluster.local:80; 50% to v2 of kettle.tea.svc.cluster.local:80";
    ask("half.yaml", &[]).ends(half, true);
    ask("whole.yaml", &[]).ends(TO_V2, true);
    for roll in ["0", "9223372036854775807", "18446744073709551615"] {
        ask("whole.yaml", &["--roll", roll]).ends(TO_V2, true);
    }
}

#[test]
fn clients_are_told_apart_by_their_labels() {
    is_clean("by-source.yaml");
    let files = ["kettle.yaml", "subsets.yaml", "by-source.yaml"];
    explain(&files, &["--from", "tea/kettle-v1"], "http://kettle/").ends(TO_V1, true);
    explain(&files, &["--from", "tea/kettle-v2"], "http://kettle/").ends(TO_V2, true);
}

#[test]
fn mirrors_faults_timeouts_and_retries_are_shown() {
    for rules in ["mirror.yaml", "faults.yaml", "patience.yaml"] {
        is_clean(rules);
    }
    let mirrored = ask("mirror.yaml", &[]);
    mirrored.has(&["mirror: outbound|80|v2|kettle.tea.svc.cluster.local of 25%"]).ends(TO_V1, true);
    let faults = ask("faults.yaml", &[]);
    faults.has(&["  fault.delay: 3s for 20%", "  fault.abort: HTTP 418 for 10%"]);
    ask("patience.yaml", &[]).has(&["  timeout: 4s", "  retries: 3 on 5xx,reset, 1s each"]);
}

#[test]
fn policies_protect_or_what_they_protect_refuses() {
    accepts(&["identity.yaml"]);
    let found = analyze(&["kettle.yaml", "identity.yaml"]);
    let denies = "WEIR0029 Info AuthorizationPolicy tea/only-the-till identity.yaml:14:3: as soon as one ALLOW policy selects a pod, what no policy allows is refused";
    assert_found(&found, &[denies]);
    let told = explain(&["kettle.yaml", "identity.yaml"], &["--from", "tea/kettle-v1"], "http://kettle/");
    assert!(!told.answered, "somebody without that identity gets there: {}", told.said);
    told.has(&["AuthorizationPolicy tea/only-the-till"]);
}

#[test]
fn what_is_envoys_own_says_that_nothing_comes_of_it() {
    accepts(&["rate-limit.yaml", "telemetry.yaml"]);
    let found = all_findings(&["kettle.yaml", "rate-limit.yaml"], "");
    assert_found(
        &found,
        &["WEIR0002 Warning EnvoyFilter tea/kettle-limit rate-limit.yaml:2:1: EnvoyFilter is not supported"],
    );
    assert_eq!(analyze(&["kettle.yaml", "telemetry.yaml"]), [""; 0]);
}
