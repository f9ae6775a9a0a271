//! `weir explain` and `weir diff` as they are called: arguments, exit codes, every output, on files and from an agent. No
//! root needed.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn weir(arguments: &[&str]) -> Output {
    weir_with(arguments, "")
}

fn weir_with(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(arguments).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that does not read it may be gone.
    let _gone = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

fn example(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    root.join(name).to_str().unwrap().to_owned()
}

/// Asks the canary of the examples, with the files whose names begin so.
fn canary(files: &[&str], more: &[&str]) -> Output {
    let files: Vec<String> = files.iter().map(|file| example(&format!("canary/{file}"))).collect();
    let mut arguments = vec!["explain", "--from", "app=service-a", "--color", "never"];
    for file in &files {
        arguments.extend(["-f", file]);
    }
    arguments.extend(more);
    weir(&arguments)
}

const SERVICES: &str = "01-services.yaml";
const ROUND_ROBIN: &str = "02-round-robin.yaml";
const VERSION_2: &str = "03-version-2.yaml";
const CANARY: &str = "04-canary.yaml";

#[test]
fn the_canary_is_explained_step_by_step() {
    let output = canary(&[SERVICES], &["http://service-b/", "-o", "json"]);
    let told = json(&output);
    assert_eq!((output.status.code(), &told["outcome"]["way"]), (Some(0), &Value::from("balance")), "{told:#}");

    let output = canary(&[SERVICES, ROUND_ROBIN], &["http://service-b/", "-o", "json"]);
    let told = json(&output);
    assert_eq!(told["outcome"]["way"], "proxy");
    let settings = told["destinations"][0]["settings"].as_array().unwrap();
    assert!(settings.iter().any(|one| one["value"] == "ROUND_ROBIN" && one["origin"]["at"].is_string()), "{told:#}");

    // Without the second version its share is refused, and the first one's is not.
    let output = canary(&[SERVICES, CANARY], &["http://service-b/", "-o", "json"]);
    let told = json(&output);
    assert_eq!((output.status.code(), told["outcome"]["answered"].as_f64()), (Some(0), Some(90.0)), "{told:#}");
    assert_eq!(told["destinations"][1]["dead"]["flag"], "UH");
    let lacking = &told["destinations"][1]["subset"]["lacking"][0];
    assert_eq!(
        (&lacking["pod"], &lacking["labels"]["version"]),
        (&"default/service-b-v1-assumed-1".into(), &"v1".into())
    );

    let output = canary(&[SERVICES, VERSION_2, CANARY], &["http://service-b/"]);
    let said = text(&output.stdout);
    assert!(said.contains("  ✔ 1. default: takes everything (VirtualService default/service-b at "), "{said}");
    assert!(said.contains("  ✔ 90% outbound|80|v1|service-b.default.svc.cluster.local (weight 90)\n"), "{said}");
    assert!(said.contains("    subset v2: version=v2 (DestinationRule default/service-b at "), "{said}");
    assert!(said.ends_with("✔ proxy: 90% to v1 of service-b.default.svc.cluster.local:80; 10% to v2 of service-b.default.svc.cluster.local:80\n"), "{said}");
}

#[test]
fn a_roll_chooses_and_decides_the_exit_code() {
    let dead = (u64::MAX / 100 * 95).to_string();
    let output = canary(&[SERVICES, CANARY], &["http://service-b/", "--roll", &dead]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("✘ proxy: 100% 503 (UH): no ready endpoint"), "{}", text(&output.stdout));
    let output = canary(&[SERVICES, CANARY], &["http://service-b/", "--roll", "0"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn yaml_is_the_same_as_json() {
    let of = |output: &str| canary(&[SERVICES, CANARY], &["GET", "http://service-b/", "-H", "x-a: b", "-o", output]);
    let yaml: Value = serde_saphyr::from_str(text(&of("yaml").stdout)).unwrap();
    assert_eq!(yaml, json(&of("json")));
    assert_eq!(yaml["request"]["headers"][0], "x-a: b");
    let coloured = canary(&[SERVICES, CANARY], &["http://service-b/"]);
    assert!(!text(&coloured.stdout).contains('\x1b'));
}

#[test]
fn a_port_that_is_a_name_is_found_in_each_pod() {
    let file = example("named-port/app-1.yaml");
    let without = json(&weir(&["explain", "--from", "shop/", "http://app-1/", "-o", "json", "-f", &file]));
    assert_eq!((&without["outcome"]["way"], without["outcome"]["answered"].as_f64()), (&"reject".into(), Some(0.0)));
    assert_eq!(without["destinations"][0]["dead"]["status"], Value::Null, "refused, and not answered: {without:#}");
    let deployment = |version: &str, port: u16| {
        format!(
            "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: app-1-{version}, namespace: shop}}\nspec: {{template: {{metadata: {{labels: {{app: app-1, version: {version}}}}}, spec: {{containers: [{{name: a, ports: [{{name: apache, containerPort: {port}}}]}}]}}}}}}\n"
        )
    };
    let pods = [deployment("v1", 8081), deployment("v2", 8082)].concat();
    let output =
        weir_with(&["explain", "--from", "shop/", "http://app-1/", "-o", "json", "-f", &file, "-f", "-"], &pods);
    let told = json(&output);
    assert_eq!(told["outcome"]["answered"], 100.0, "{told:#}");
    for (position, port) in [(0, ":8081"), (1, ":8082")] {
        let address = told["destinations"][position]["endpoints"][0]["address"].as_str().unwrap();
        assert!(address.ends_with(port), "{address}");
    }
}

#[test]
fn what_is_no_question_is_2() {
    let file = example("canary/01-services.yaml");
    for arguments in [
        &["explain", "http://service-b/", "-f", &file][..],
        &["explain", "--from", "nobody", "http://service-b/", "-f", &file],
        &["explain", "--from", "service-a", "ftp://service-b/", "-f", &file],
        &["explain", "--from", "service-a", "http://service-b/", "-f", "absent.yaml"],
        &["explain", "--from", "service-a", "--gateway", "a/b", "http://service-b/", "-f", &file],
        &["explain", "--gateway", "a/b", "http://service-b/", "-f", &file],
        &["explain", "--from", "service-a", "http://service-b/", "-H", "none", "-f", &file],
        &["explain", "--from", "service-a", "-f", &file],
        &["explain", "--from", "a", "http://b/", "--admin", "127.0.0.1:1"],
    ] {
        let output = weir(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stdout));
        assert!(!output.stderr.is_empty());
    }
    let unknown = weir(&["explain", "--from", "service-a", "http://service-c/", "-f", &file]);
    assert_eq!(unknown.status.code(), Some(1), "nobody would answer: {}", text(&unknown.stdout));
    let standard_input = std::fs::read_to_string(&file).unwrap();
    let output = weir_with(&["explain", "--from", "service-a", "http://service-b/", "-f", "-"], &standard_input);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn what_could_not_be_read_is_told_where_something_is_missing() {
    let broken = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: [shop\n  labels: {}\n";
    let output = weir_with(&["explain", "-f", "-", "--from=app=a", "-n", "shop", "http://b/"], broken);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("no namespace shop; Error [WEIR0001]") && said.contains("close the `[`"), "{said}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let file = example("canary/01-services.yaml");
    let explain = ["explain", "--from", "service-a", "http://service-b/", "-f", &file];
    for arguments in [
        &explain[..],
        &["analyze", &file],
        &["analyze", "--list-analyzers"],
        &["diff", &file, &file, "-o", "json"],
        &["validate", &file, "-o", "json"],
        &["crds", "--print"],
        &["completion", "bash"],
        &["version"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(arguments).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn texts_of_users_steer_no_terminal() {
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: default}\nspec: {hosts: [service-b], http: [{match: [{headers: {x: {exact: \"\\e[2J\\u009b\"}}}], route: [{destination: {host: \"\\e[31mred\"}}]}]}\n";
    let file = example("canary/01-services.yaml");
    let explain = ["explain", "--from", "service-a", "http://service-b/", "-f", &file, "-f", "-", "--color", "never"];
    let valid = rule.replace("\\e[31mred", "service-b");
    for (arguments, input) in [
        (&explain[..], &*valid),
        (&explain, rule),
        (&["validate", "-"], rule),
        (&["analyze", "-", "--color", "never"], rule),
        (&["diff", &file, "-", "--color", "never"], rule),
    ] {
        let output = weir_with(arguments, input);
        let said = text(&output.stdout);
        assert!(!said.is_empty() && !said.contains(|c: char| c.is_control() && c != '\n'), "{arguments:?}: {said:?}");
    }
    let output = weir_with(&explain, &valid);
    assert!(text(&output.stdout).contains(r"exact \u{1b}[2J\u{9b}"), "{}", text(&output.stdout));
}

#[test]
fn standard_input_is_read_once() {
    for arguments in [&["diff", "-", "-"][..], &["validate", "-", "-"], &["analyze", "-", "-"]] {
        assert_eq!(weir_with(arguments, "kind: x\n").status.code(), Some(2), "{arguments:?}");
    }
}

/// Answers one question, and returns it.
fn agent(status: &'static str, body: String) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            asked.push(byte[0]);
        }
        write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}").unwrap();
        String::from_utf8(asked).unwrap()
    });
    (address, asked)
}

#[test]
fn the_agent_is_asked_the_same() {
    let told = json(&canary(&[SERVICES, VERSION_2, CANARY], &["http://service-b/", "-o", "json"]));
    let (address, asked) = agent("200 OK", told.to_string());
    let arguments = ["explain", "--admin", &address, "--from", "shop/web", "POST", "http://service-b/a?b=c"];
    let output = weir(&[&arguments[..], &["-H", "x-user: jo", "--roll", "7", "-o", "json"]].concat());
    let asked = asked.join().unwrap();
    let path = "GET /explain?from=shop/web&namespace=default&method=POST&url=http%3A//service-b/a%3Fb%3Dc&header=x-user%3A%20jo&roll=7 HTTP/1.";
    assert!(asked.starts_with(path), "{asked}");
    assert_eq!((output.status.code(), json(&output)), (Some(0), told));
    let (address, asked) = agent("400 Bad Request", "there is no pod shop/web\n".to_owned());
    let output = weir(&["explain", "--admin", &address, "--from", "shop/web", "http://b/"]);
    asked.join().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no pod shop/web"), "{}", text(&output.stderr));
}

/// Copies of some files of the canary.
fn directory(files: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::copy(example(&format!("canary/{file}")), directory.path().join(file)).unwrap();
    }
    directory
}

fn diff(old: &Path, new: &Path, more: &[&str]) -> Output {
    let arguments = ["diff", old.to_str().unwrap(), new.to_str().unwrap(), "--color", "never"];
    weir(&[&arguments[..], more].concat())
}

#[test]
fn diff_tells_what_would_change() {
    let (old, new) = (directory(&[SERVICES, ROUND_ROBIN, VERSION_2]), directory(&[SERVICES, VERSION_2, CANARY]));
    let output = diff(old.path(), new.path(), &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let name = "service-b.default.svc.cluster.local:80";
    let shares = format!("    destinations: 100% {name} → 90% v1 of {name}, 10% v2 of {name}\n");
    let title = format!("~ route {name}, rule for everything (VirtualService default/service-b)\n");
    assert!(said.contains(&format!("{title}{shares}")), "{said}");
    assert_eq!(text(&diff(old.path(), new.path(), &[]).stdout), said, "in the same order");
    let told = json(&diff(old.path(), new.path(), &["-o", "json"]));
    assert!(told["changes"].as_array().unwrap().iter().any(|one| one["area"] == "route" && one["how"] == "changed"));

    let same = diff(old.path(), old.path(), &[]);
    assert_eq!((same.status.code(), text(&same.stdout)), (Some(0), ""));
    assert_eq!(diff(old.path(), Path::new("/nonexistent"), &[]).status.code(), Some(2));
    assert_eq!(weir(&["diff", old.path().to_str().unwrap()]).status.code(), Some(2));
}

#[test]
fn diff_tells_of_new_mistakes() {
    let (old, new) = (directory(&[SERVICES, VERSION_2, CANARY]), directory(&[SERVICES, CANARY]));
    let told = json(&diff(old.path(), new.path(), &["-o", "json"]));
    let new_findings = told["new_findings"].as_array().unwrap();
    assert!(new_findings.iter().any(|one| one.as_str().unwrap().contains("IST0173")), "{told:#}");
    let pods: Vec<&Value> = told["changes"].as_array().unwrap().iter().filter(|one| one["area"] == "pod").collect();
    assert!(pods.iter().all(|one| one["how"] == "removed") && !pods.is_empty(), "{told:#}");
}

/// The shop of a cluster, with what its API server has added.
const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec: {hosts: [web], http: [{timeout: 3s, route: [{destination: {host: web}}]}]}
";

#[test]
fn diff_compares_with_what_a_cluster_holds() {
    let api = weir_tests::ApiServer::start().unwrap();
    api.install_istio_crds().unwrap();
    api.apply(SHOP).unwrap();
    let kubeconfig = api.kubeconfig();
    let compared = |text: &str| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("applied.yaml");
        std::fs::write(&file, text).unwrap();
        weir(&["diff", "--kubeconfig", kubeconfig.to_str().unwrap(), file.to_str().unwrap(), "-o", "json"])
    };
    let rule = SHOP.rsplit("---").next().unwrap();
    let same = compared(rule);
    assert_eq!(same.status.code(), Some(0), "{}{}", text(&same.stdout), text(&same.stderr));
    let output = compared(&rule.replace("3s", "5s"));
    let told = json(&output);
    assert_eq!(output.status.code(), Some(1));
    let changes = told["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{told:#}");
    assert_eq!((&changes[0]["fields"][0]["old"], &changes[0]["fields"][0]["new"]), (&"3s".into(), &"5s".into()));
    // Who asks for a pod that is not there learns it before any agent is looked for.
    let arguments = ["explain", "--kubeconfig", kubeconfig.to_str().unwrap(), "--from", "shop/nobody", "http://web/"];
    let output = weir(&arguments);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("pod shop/nobody"), "{}", text(&output.stderr));
}

/// A client on each of two nodes, and an agent there whose admin endpoint is at this port.
fn nodes(ports: [u16; 2]) -> String {
    let of = |(node, port): (usize, u16)| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{node}, namespace: shop, labels: {{app: web-{node}}}}}\nspec: {{nodeName: node-{node}, containers: [{{name: web, image: web}}]}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: weir-{node}, namespace: weir-system, labels: {{app.kubernetes.io/name: weir, app.kubernetes.io/component: agent}}}}\nspec: {{nodeName: node-{node}, containers: [{{name: agent, image: weir, args: [run, --kubernetes, \"--admin=127.0.0.1:{port}\"]}}]}}\n"
        )
    };
    let namespaces = ["shop", "weir-system"];
    let namespaces =
        namespaces.map(|name| format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"));
    namespaces.into_iter().chain(ports.into_iter().enumerate().map(of)).collect()
}

#[test]
fn the_agent_of_the_pods_node_is_asked_through_the_api_server() {
    let told = json(&canary(&[SERVICES, VERSION_2, CANARY], &["http://service-b/", "-o", "json"]));
    let (address, asked) = agent("200 OK", told.to_string());
    let port = |address: &str| address.rsplit(':').next().unwrap().parse().unwrap();
    // Bound and let go of: nobody listens there.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let api = weir_tests::ApiServer::start().unwrap();
    api.apply(&nodes([silent, port(&address)])).unwrap();
    let kubeconfig = api.kubeconfig();
    let explain = |from: &str| {
        let arguments = ["explain", "--kubeconfig", kubeconfig.to_str().unwrap(), "--from", from];
        weir(&[&arguments[..], &["http://service-b/", "-o", "json"]].concat())
    };
    let output = explain("shop/web-0");
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("the agent on node node-0: error forwarding port"), "{said}");
    assert!(said.contains("Connection refused"), "{said}");

    let output = explain("shop/web-1");
    assert_eq!((output.status.code(), json(&output)), (Some(0), told), "{}", text(&output.stderr));
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("GET /explain?from=shop/web-1&namespace=default&method=GET&url="), "{asked}");

    // Who has only labels is answered by the agent where some pod has them.
    let (address, asked) = agent("400 Bad Request", "there is no service-b\n".to_owned());
    api.apply(&nodes([silent, port(&address)])).unwrap();
    let output = explain("shop/app=web-1");
    asked.join().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("400 Bad Request: there is no service-b"), "{}", text(&output.stderr));
}
