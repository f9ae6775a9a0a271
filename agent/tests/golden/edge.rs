//! What comes in through a Gateway: one that is written wrong, its rules, and rewrites of paths.

use super::*;

const THROUGH: [&str; 2] = ["--gateway", "tea/door"];

fn through(rules: &str, url: &str) -> Told {
    explain(&["kettle.yaml", "gateway.yaml", "subsets.yaml", rules], &THROUGH, url)
}

fn found(rules: &str) -> Vec<String> {
    analyze(&["kettle.yaml", "gateway.yaml", "subsets.yaml", rules])
}

#[test]
fn hosts_outside_their_server_are_refused_with_where_they_belong() {
    let file = "gateway-misplaced-hosts.yaml";
    let of = "Error [IST0106] (Gateway tea/door)";
    assert_eq!(
        refuses(file),
        [
            format!("{file}:8:5: {of}: `spec.servers[0].hosts`: must be given"),
            format!("{file}:12:3: {of}: `spec.hosts`: there is no such field; did you mean spec.servers[0].hosts?"),
        ]
    );
    assert_found(
        &analyze(&["kettle.yaml", file]),
        &[
            "IST0106 Error Gateway tea/door gateway-misplaced-hosts.yaml:8:5: `spec.servers[0].hosts`: must be given",
            "IST0162 Warning Gateway tea/door gateway-misplaced-hosts.yaml:9:7: servers[0] is on port 8080, which no Service leads to",
            "IST0106 Error Gateway tea/door gateway-misplaced-hosts.yaml:12:3: `spec.hosts`: there is no such field",
        ],
    );
    // Other Gateways are served.
    let files = ["kettle.yaml", file, "-"];
    let other = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: back, namespace: tea}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [tea.example.net]}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: tea}\nspec: {hosts: [tea.example.net], gateways: [back], http: [{route: [{destination: {host: kettle}}]}]}\n";
    let files: Vec<&str> = files.iter().flat_map(|file| ["-f", file]).collect();
    let ask = [&["explain", "--gateway", "tea/back", "http://tea.example.net/"], &files[..]].concat();
    let (said, code) = weir(&ask, other);
    assert!(code == 0 && said.contains("✔ gateway: 100% to kettle.tea.svc.cluster.local:80"), "{said}");
}

#[test]
fn rules_of_a_gateway_want_one_that_is_there_and_valid() {
    accepts(&["from-outside.yaml"]);
    let lost = "; no request comes to these rules through it";
    let missing = "IST0101 Error VirtualService tea/kettle-routes from-outside.yaml:7:14: gateway not found: \"door\"";
    let serves_none = "IST0132 Info VirtualService tea/kettle-routes from-outside.yaml:7:14: Gateway tea/door is not there, so it serves no host";
    assert_found(&analyze(&["kettle.yaml", "from-outside.yaml"]), &[&format!("{missing}{lost}"), serves_none]);
    let refused = analyze(&["kettle.yaml", "gateway-misplaced-hosts.yaml", "from-outside.yaml"]);
    let why = format!("{missing}; Gateway tea/door is refused as it stands");
    assert!(refused.iter().any(|one| one.starts_with(&why)), "{refused:#?}");
    assert_eq!(found("from-outside.yaml"), [""; 0]);
    through("from-outside.yaml", "http://tea.example.net/")
        .ends("✔ gateway: 100% to kettle.tea.svc.cluster.local:80", true);
    let stranger = through("from-outside.yaml", "http://coffee.example.net/");
    stranger.ends("✘ gateway: 404 (NR): no host of the gateway has this name", false);
    // Clients in the mesh have no such host, and the Service stays as it was.
    let files = ["kettle.yaml", "gateway.yaml", "from-outside.yaml"];
    let from = ["--from", "tea/kettle-v1"];
    explain(&files, &from, "http://kettle/").ends("✔ balance: 100% to kettle.tea.svc.cluster.local:80", true);
    explain(&files, &from, "http://tea.example.net/").has(&["no Service or ServiceEntry has this name"]);
}

#[test]
fn a_gateway_wants_pods_that_its_selector_finds() {
    accepts(&["gateway.yaml"]);
    assert_eq!(analyze(&["kettle.yaml", "gateway.yaml"]), [""; 0]);
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifests/gateway.yaml");
    let lost = std::fs::read_to_string(manifest).unwrap().replace("ingressgateway", "nobody");
    assert_found(
        &analyze_with(&["kettle.yaml", "-"], &lost),
        &["IST0101 Error Gateway tea/door -:5:3: selector not found: \"istio=nobody\""],
    );
}

#[test]
fn a_prefix_is_letters_and_a_rewrite_replaces_just_them() {
    accepts(&["prefix-rewrite.yaml", "prefix-rewrite-clean.yaml"]);
    assert_found(
        &found("prefix-rewrite.yaml"),
        &[
            "WEIR0021 Info VirtualService tea/kettle-routes prefix-rewrite.yaml:13:9: http[0].match[0] compares letters, not path segments: prefix `/green` takes `/greenfoo`, too",
            "WEIR0020 Warning VirtualService tea/kettle-routes prefix-rewrite.yaml:15:7: http[0] replaces the text `/green`: `/green/x` becomes `//x`, with two slashes",
        ],
    );
    for (path, becomes) in [("/green", "/"), ("/green/x", "//x"), ("/greenfoo", "/foo"), ("/green?a=b", "/")] {
        let told = through("prefix-rewrite.yaml", &format!("http://tea.example.net{path}"));
        told.has(&[&format!("  the path becomes {becomes}\n")]);
        told.ends("✔ gateway: 100% to v2 of kettle.tea.svc.cluster.local:80", true);
    }
    through("prefix-rewrite.yaml", "http://tea.example.net/black").ends("✔ gateway: 100% to v1 of kettle.", true);
    assert_eq!(found("prefix-rewrite-clean.yaml"), [""; 0]);
    for (path, version) in [("/green", "v2"), ("/green/x", "v2"), ("/greenfoo", "v1"), ("/", "v1")] {
        let told = through("prefix-rewrite-clean.yaml", &format!("http://tea.example.net{path}"));
        told.ends(&format!("✔ gateway: 100% to {version} of kettle."), true);
    }
}

#[test]
fn of_two_rules_that_take_everything_the_first_does_and_the_merged_form_splits() {
    accepts(&["two-catch-alls.yaml", "two-catch-alls-merged.yaml"]);
    assert_found(
        &found("two-catch-alls.yaml"),
        &[
            "WEIR0015 Warning VirtualService tea/kettle-routes two-catch-alls.yaml:11:7: weight 80 of http[0] has no effect",
            "IST0130 Warning VirtualService tea/kettle-routes two-catch-alls.yaml:12:5: http[1] is never used: http[0] before it has no match",
            "WEIR0015 Warning VirtualService tea/kettle-routes two-catch-alls.yaml:14:7: weight 20 of http[1] has no effect",
        ],
    );
    let (said, _) = weir(&["analyze", "two-catch-alls.yaml"], "");
    assert!(said.contains("help: only the last rule can be without matches: to split traffic, list the destinations with their weights under one `route`"), "{said}");
    let url = "http://tea.example.net/";
    through("two-catch-alls.yaml", url).ends("✔ gateway: 100% to v2 of kettle.tea.svc.cluster.local:80", true);
    assert_eq!(found("two-catch-alls-merged.yaml"), [""; 0]);
    let both = "✔ gateway: 80% to v1 of kettle.tea.svc.cluster.local:80; 20% to v2 of kettle.tea.svc.cluster.local:80";
    through("two-catch-alls-merged.yaml", url).ends(both, true);
}
