//! `weir analyze` as it is called: arguments, exit codes, every output, standard input. No root needed.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

mod cluster;

/// What `analyze` exits with when it has found something.
const FOUND: i32 = 79;

/// A Service whose port has no name (Info), and a rule for a host that is not there (Error).
const SHOP: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
spec:
  ports:
  - port: 80
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - route:
    - destination:
        host: wbe
";

fn weir(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("analyze").args(arguments).env_remove("KUBECONFIG").stdin(Stdio::null());
    command
}

/// Runs it in a directory with the shop in `shop.yaml`.
fn on_shop(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("shop.yaml"), SHOP).unwrap();
    run_in(directory.path(), arguments)
}

fn run_in(directory: &Path, arguments: &[&str]) -> Output {
    weir(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn codes(output: &Output) -> Vec<String> {
    let records: Value = serde_json::from_slice(&output.stdout).unwrap();
    records.as_array().unwrap().iter().map(|record| record["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn text_shows_the_line_with_a_caret_and_what_to_write_instead() {
    let output = on_shop(&["shop.yaml"]);
    assert_eq!(output.status.code(), Some(FOUND));
    let expected = "\
Info [IST0118] (Service shop/web shop.yaml:8) port 80 has no name, which declares no protocol: it is detected from the first bytes
     8 |   - port: 80
       |     ^
       = help: name it http, or http-SOMETHING, or give appProtocol
Error [IST0101] (VirtualService shop/web shop.yaml:18) host not found: \"wbe\"; wbe.shop.svc.cluster.local is no service here, so its requests (http[0].route[0]) are refused with 503
    18 |         host: wbe
       |         ^
1 error, 1 note in 2 objects. `weir analyze --list-analyzers` explains the codes.
";
    assert_eq!(text(&output.stdout), expected);
    let coloured = on_shop(&["shop.yaml", "--color", "always"]);
    assert!(text(&coloured.stdout).contains("\x1b[31mError\x1b[0m"), "{}", text(&coloured.stdout));
}

#[test]
fn the_exit_code_follows_the_threshold() {
    for (arguments, code) in [
        (&["--failure-threshold", "Error"][..], FOUND),
        (&["--failure-threshold", "error", "-S", "IST0101=VirtualService *.shop"], 0),
        (&["--failure-threshold", "Info", "-S", "IST0101=VirtualService *.shop"], FOUND),
        (&["--output-threshold", "Warning", "--suppress", "IST0101=*"], 0),
        (&["--namespace", "other"], 0),
        (&["--namespace", "shop"], FOUND),
        (&["--failure-threshold", "never"], 2),
        (&["absent.yaml"], 2),
    ] {
        let arguments: Vec<&str> = ["shop.yaml"].iter().chain(arguments).copied().collect();
        let output = on_shop(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    }
    assert_eq!(on_shop(&[]).status.code(), Some(2));
}

#[test]
fn json_and_yaml_are_those_of_istioctl() {
    let output = on_shop(&["shop.yaml", "-o", "json"]);
    let records: Value = serde_json::from_slice(&output.stdout).unwrap();
    let record = &records[1];
    assert_eq!(record["code"], "IST0101");
    assert_eq!(record["level"], "Error");
    assert_eq!(record["origin"], "VirtualService shop/web");
    assert_eq!(record["reference"], "shop.yaml:18");
    assert_eq!(record["column"], 9);
    assert_eq!(record["documentationUrl"], "https://istio.io/latest/docs/reference/config/analysis/ist0101/");
    let yaml = on_shop(&["shop.yaml", "-o", "yaml"]);
    let same: Value = serde_saphyr::from_str(text(&yaml.stdout)).unwrap();
    assert_eq!(same, records);
    let nothing = on_shop(&["shop.yaml", "-n", "other", "-o", "json"]);
    assert_eq!(text(&nothing.stdout), "[]\n");
}

#[test]
fn sarif_has_rules_places_and_levels() {
    let output = on_shop(&["shop.yaml", "-o", "sarif"]);
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(rules[index]["helpUri"].as_str().unwrap().starts_with("https://"));
        let place = &result["locations"][0];
        assert_eq!(place["physicalLocation"]["artifactLocation"]["uri"], "shop.yaml");
        assert!(place["physicalLocation"]["region"]["startLine"].as_u64().unwrap() > 0);
        assert!(!place["logicalLocations"][0]["fullyQualifiedName"].as_str().unwrap().is_empty());
    }
    let levels: Vec<&str> = results.iter().map(|result| result["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["note", "error"]);
}

#[test]
fn standard_input_directories_and_the_mesh_configuration_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir(at("below")).unwrap();
    let service = SHOP.split("---\n").next().unwrap();
    std::fs::write(at("below/web.yaml"), service).unwrap();
    std::fs::write(at("mesh"), "defaultProviders: {accessLogging: [envoy]}").unwrap();
    let telemetry = "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: t, namespace: shop}\nspec: {accessLogging: [{}]}\n";
    std::fs::write(at("telemetry.yaml"), telemetry).unwrap();
    let found = |arguments: &[&str]| codes(&run_in(directory.path(), &[arguments, &["-o", "json"]].concat()));
    assert!(found(&["."]).contains(&"IST0157".to_owned()) && found(&["."]).contains(&"IST0118".to_owned()));
    assert!(found(&["-R", "."]).contains(&"IST0118".to_owned()));
    assert!(!found(&[".", "--mesh-config", "mesh"]).contains(&"IST0157".to_owned()));

    let mut child = weir(&["-", "-o", "json"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(SHOP.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(codes(&output), ["IST0118", "IST0101"]);
}

#[test]
fn a_mesh_configuration_is_looked_at_too() {
    let directory = tempfile::tempdir().unwrap();
    let with = |mesh: &str| {
        std::fs::write(directory.path().join("shop.yaml"), SHOP.split("---\n").next().unwrap()).unwrap();
        std::fs::write(directory.path().join("mesh.yaml"), mesh).unwrap();
        run_in(directory.path(), &["shop.yaml", "--mesh-config", "mesh.yaml"])
    };
    let output = with("# ours\ntrustDomian: example.com\n");
    let expected = "\
Warning [WEIR0013] (mesh.yaml:2) `trustDomian`: a mesh configuration has no such key
     2 | trustDomian: example.com
       | ^
       = help: did you mean trustDomain?
";
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with(expected), "{}", text(&output.stdout));
    let output = with("rootNamespace: a\ntrustDomain: b: c\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("mesh.yaml:2:15: no YAML: "), "{}", text(&output.stderr));
}

#[test]
fn every_code_is_listed_once() {
    let output = weir(&["--list-analyzers"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let (ours, others) = text(&output.stdout).split_once("\n\n").unwrap();
    assert!(others.contains("IST0103: ") && others.contains("IST0143: needs to look at the sockets"), "{others}");
    for code in ["IST0141", "IST0142", "IST0156", "IST0172", "IST0176"] {
        assert!(ours.contains(code) && !others.contains(code), "{code}");
    }
    let listed: Vec<&str> = ours.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(listed.contains(&"IST0101") && listed.contains(&"WEIR0015"));
    assert!(listed.is_sorted() && listed.len() > 60, "{}", listed.len());
}
