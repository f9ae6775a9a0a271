//! The installation as `kubectl` renders it: what it contains, what it never contains, and every right that it asks for.
//! A right that is added to deploy/daemonset must be added here, where somebody reads why. Needs no root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_tests::require::wish_kubectl;

/// The directories that can be applied, relative to `deploy/daemonset`.
const INSTALLATIONS: [&str; 4] = [".", "overlays/kind", "overlays/minikube", "overlays/hybrid-cgroup"];

/// Everything that is installed, as `Kind/name`.
const OBJECTS: [&str; 8] = [
    "ClusterRole/weir-agent",
    "ClusterRoleBinding/weir-agent",
    "DaemonSet/weir",
    "Namespace/weir-system",
    "Role/weir-agent",
    "RoleBinding/weir-agent",
    "Service/weir-metrics",
    "ServiceAccount/weir",
];

const READ: &str = "get list watch";

/// Group, resource, verbs; `resource/name` where the rule is for one object. In the order of the alphabet.
const CLUSTER_RIGHTS: &[(&str, &str, &str)] = &[
    ("", "namespaces", READ),
    ("", "nodes", READ),
    ("", "pods", READ),
    ("", "services", READ),
    ("apiextensions.k8s.io", "customresourcedefinitions", "create get list watch"),
    ("discovery.k8s.io", "endpointslices", READ),
    ("events.k8s.io", "events", "create"),
    ("extensions.istio.io", "wasmplugins", READ),
    ("extensions.istio.io", "wasmplugins/status", "patch"),
    ("gateway.networking.k8s.io", "backendtlspolicies", READ),
    ("gateway.networking.k8s.io", "gatewayclasses", READ),
    ("gateway.networking.k8s.io", "gateways", READ),
    ("gateway.networking.k8s.io", "grpcroutes", READ),
    ("gateway.networking.k8s.io", "httproutes", READ),
    ("gateway.networking.k8s.io", "referencegrants", READ),
    ("gateway.networking.k8s.io", "tcproutes", READ),
    ("gateway.networking.k8s.io", "tlsroutes", READ),
    ("gateway.networking.k8s.io", "udproutes", READ),
    ("networking.istio.io", "destinationrules", READ),
    ("networking.istio.io", "destinationrules/status", "patch"),
    ("networking.istio.io", "envoyfilters", READ),
    ("networking.istio.io", "envoyfilters/status", "patch"),
    ("networking.istio.io", "gateways", READ),
    ("networking.istio.io", "gateways/status", "patch"),
    ("networking.istio.io", "proxyconfigs", READ),
    ("networking.istio.io", "proxyconfigs/status", "patch"),
    ("networking.istio.io", "serviceentries", READ),
    ("networking.istio.io", "serviceentries/status", "patch"),
    ("networking.istio.io", "sidecars", READ),
    ("networking.istio.io", "sidecars/status", "patch"),
    ("networking.istio.io", "virtualservices", READ),
    ("networking.istio.io", "virtualservices/status", "patch"),
    ("networking.istio.io", "workloadentries", READ),
    ("networking.istio.io", "workloadentries/status", "patch"),
    ("networking.istio.io", "workloadgroups", READ),
    ("networking.istio.io", "workloadgroups/status", "patch"),
    ("security.istio.io", "authorizationpolicies", READ),
    ("security.istio.io", "authorizationpolicies/status", "patch"),
    ("security.istio.io", "peerauthentications", READ),
    ("security.istio.io", "peerauthentications/status", "patch"),
    ("security.istio.io", "requestauthentications", READ),
    ("security.istio.io", "requestauthentications/status", "patch"),
    ("telemetry.istio.io", "telemetries", READ),
    ("telemetry.istio.io", "telemetries/status", "patch"),
];
const NAMESPACE_RIGHTS: &[(&str, &str, &str)] = &[
    ("", "serviceaccounts", "watch"),
    ("apps", "daemonsets", "get"),
    ("coordination.k8s.io", "leases", "create"),
    ("coordination.k8s.io", "leases/weir-leader", "get update"),
];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/daemonset")
}

fn render(directory: &Path) -> Result<Vec<Value>> {
    let output = Command::new("kubectl").arg("kustomize").arg(directory).output().context("running kubectl")?;
    let said = String::from_utf8(output.stdout)?;
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && complained.trim().is_empty(), "{}: {complained}", directory.display());
    Ok(serde_saphyr::from_multiple(&said)?)
}

fn find<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    objects.iter().find(|o| o["kind"] == kind).with_context(|| format!("no {kind}"))
}

/// Each right by itself, however the rules are grouped.
fn rights(role: &Value) -> Result<BTreeMap<(String, String), BTreeSet<String>>> {
    let strings = |value: &Value| -> Result<Vec<String>> {
        let list = value.as_array().context("a list is missing")?;
        list.iter().map(|v| Ok(v.as_str().context("no string")?.to_owned())).collect()
    };
    let mut rights: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for rule in role["rules"].as_array().context("no rules")? {
        let keys = rule.as_object().context("no rule")?.keys();
        let known = ["apiGroups", "resources", "resourceNames", "verbs"];
        ensure!(keys.clone().all(|k| known.contains(&k.as_str())), "a rule of another form: {rule}");
        for group in strings(&rule["apiGroups"])? {
            for resource in strings(&rule["resources"])? {
                let names = if rule["resourceNames"].is_null() {
                    vec![resource]
                } else {
                    strings(&rule["resourceNames"])?.iter().map(|name| format!("{resource}/{name}")).collect()
                };
                for name in names {
                    rights.entry((group.clone(), name)).or_default().extend(strings(&rule["verbs"])?);
                }
            }
        }
    }
    Ok(rights)
}

fn listed(rights: &[(&str, &str, &str)]) -> BTreeMap<(String, String), BTreeSet<String>> {
    let verbs = |text: &str| text.split(' ').map(str::to_owned).collect();
    rights.iter().map(|(group, resource, v)| ((group.to_string(), resource.to_string()), verbs(v))).collect()
}

#[test]
fn every_installation_has_these_objects_and_no_definition_of_others() -> Result<()> {
    let name = "every_installation_has_these_objects_and_no_definition_of_others";
    if !wish_kubectl(name) {
        return Ok(());
    }
    for installation in INSTALLATIONS {
        let objects = render(&directory().join(installation))?;
        let mut names: Vec<String> = objects
            .iter()
            .map(|o| format!("{}/{}", o["kind"].as_str().unwrap_or("?"), o["metadata"]["name"].as_str().unwrap_or("?")))
            .collect();
        names.sort();
        ensure!(names == OBJECTS, "{installation}: {names:?}");
        let labels = &find(&objects, "Namespace")?["metadata"]["labels"];
        ensure!(labels["pod-security.kubernetes.io/enforce"] == "privileged", "{installation}: {labels}");
    }
    Ok(())
}

#[test]
fn the_rights_are_these_and_no_others() -> Result<()> {
    if !wish_kubectl("the_rights_are_these_and_no_others") {
        return Ok(());
    }
    for installation in INSTALLATIONS {
        let objects = render(&directory().join(installation))?;
        for (kind, wanted) in [("ClusterRole", CLUSTER_RIGHTS), ("Role", NAMESPACE_RIGHTS)] {
            let found = rights(find(&objects, kind)?)?;
            ensure!(found == listed(wanted), "{installation}: the {kind} asks for {found:#?}");
        }
        for kind in ["ClusterRoleBinding", "RoleBinding"] {
            let subjects = &find(&objects, kind)?["subjects"];
            let account = json!([{"kind": "ServiceAccount", "name": "weir", "namespace": "weir-system"}]);
            ensure!(*subjects == account, "{installation}: {kind} is for {subjects}");
        }
    }
    Ok(())
}

/// The comments are for people, so the file is read as text: every rule has one right above it.
#[test]
fn every_rule_has_its_reason() -> Result<()> {
    let text = fs::read_to_string(directory().join("base/rbac.yaml"))?;
    let lines: Vec<&str> = text.lines().collect();
    let mut rules = 0;
    let mut explained = false;
    for (at, line) in lines.iter().enumerate() {
        if !line.starts_with("  - apiGroups:") {
            continue;
        }
        rules += 1;
        // Kinds of one list: a rule that follows another one is under the same comment.
        let above = lines[at - 1].trim_start();
        explained = above.starts_with('#') || (above.starts_with("verbs:") && explained);
        ensure!(explained, "line {}: a rule without a reason", at + 1);
    }
    ensure!(rules > 5, "that is not the file: {rules} rules");
    Ok(())
}

#[test]
fn the_agent_is_bound_to_its_node_and_not_to_ports() -> Result<()> {
    if !wish_kubectl("the_agent_is_bound_to_its_node_and_not_to_ports") {
        return Ok(());
    }
    for installation in INSTALLATIONS {
        let objects = render(&directory().join(installation))?;
        let set = &find(&objects, "DaemonSet")?["spec"];
        let update = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        ensure!(set["updateStrategy"] == update, "{installation}: {}", set["updateStrategy"]);
        let pod = &set["template"]["spec"];
        for (field, wanted) in [
            ("hostPID", json!(true)),
            ("hostNetwork", json!(true)),
            ("dnsPolicy", json!("ClusterFirstWithHostNet")),
            ("priorityClassName", json!("system-node-critical")),
            ("serviceAccountName", json!("weir")),
            ("tolerations", json!([{"operator": "Exists"}])),
        ] {
            ensure!(pod[field] == wanted, "{installation}: {field} is {}", pod[field]);
        }
        let containers = pod["containers"].as_array().context("no containers")?;
        let init = pod["initContainers"].as_array().context("no init containers")?;
        ensure!(containers.len() == 1 && init.len() == 1, "{installation}: {containers:?} {init:?}");
        for container in containers.iter().chain(init) {
            // A declared port is a host port, and the second agent of an upgrade could not be scheduled.
            ensure!(container["ports"].is_null(), "{installation}: {}", container["ports"]);
            ensure!(container["securityContext"]["readOnlyRootFilesystem"] == true, "{installation}: {container}");
            ensure!(container["resources"]["limits"]["cpu"].is_null(), "{installation}: a CPU limit stalls the node");
            ensure!(container["resources"]["requests"]["cpu"].is_string(), "{installation}: no CPU request");
        }
        let agent = &containers[0];
        for (probe, path) in
            [("startupProbe", "/healthz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")]
        {
            let wanted = json!({"host": "127.0.0.1", "port": 15000, "path": path});
            ensure!(agent[probe]["httpGet"] == wanted, "{installation}: {probe} is {}", agent[probe]);
        }
        let security = &agent["securityContext"];
        let capabilities = json!({"drop": ["ALL"], "add": ["SYS_ADMIN", "SYS_PTRACE"]});
        ensure!(security["capabilities"] == capabilities, "{installation}: {}", security["capabilities"]);
        ensure!(security["privileged"].is_null(), "{installation}: the agent is privileged");
    }
    Ok(())
}

/// The drain and the question at its end fit into the time that the kubelet gives.
#[test]
fn the_agent_has_time_to_leave() -> Result<()> {
    if !wish_kubectl("the_agent_has_time_to_leave") {
        return Ok(());
    }
    let objects = render(&directory())?;
    let grace = find(&objects, "DaemonSet")?["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
    let config = fs::read_to_string(directory().join("../../agent/src/config.rs"))?;
    let drain = config.split("DEFAULT_DRAIN: Duration = Duration::from_secs(").nth(1).and_then(|s| s.split(')').next());
    let drain: u64 = drain.context("no DEFAULT_DRAIN in config.rs")?.parse()?;
    ensure!(grace >= Some(drain + 20), "{grace:?} s for a drain of {drain} s");
    Ok(())
}

/// A kustomization of somebody's own, with these lines and the base as its resource.
fn overlay(lines: &str) -> Result<Vec<Value>> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let scratch = std::env::temp_dir().join(format!("weir-kustomize-{}-{number}", std::process::id()));
    fs::create_dir_all(&scratch)?;
    // Kustomize takes relative paths only.
    let up = "../".repeat(scratch.components().count() - 1);
    let base = directory().canonicalize()?;
    let base = format!("{up}{}", base.strip_prefix("/")?.display());
    fs::write(scratch.join("kustomization.yaml"), format!("resources: [{base}]\n{}", lines.replace("BASE", &base)))?;
    let objects = render(&scratch);
    fs::remove_dir_all(&scratch)?;
    objects
}

#[test]
fn the_image_can_be_anybodys() -> Result<()> {
    if !wish_kubectl("the_image_can_be_anybodys") {
        return Ok(());
    }
    let objects = overlay("images: [{name: weir, newName: registry.example/mesh/weir, newTag: 9.9.9}]\n")?;
    let pod = &find(&objects, "DaemonSet")?["spec"]["template"]["spec"];
    for container in ["containers", "initContainers"] {
        let image = &pod[container][0]["image"];
        ensure!(image == "registry.example/mesh/weir:9.9.9", "{container}: {image}");
    }
    let plain = render(&directory())?;
    let image = &find(&plain, "DaemonSet")?["spec"]["template"]["spec"]["containers"][0]["image"];
    let version = format!("weir:{}", env!("CARGO_PKG_VERSION"));
    ensure!(*image == version, "the manifests are of {image}, the sources of {version}");
    Ok(())
}

/// Another namespace, other names: everything that refers to them follows, and the agents are told their own.
#[test]
fn the_names_can_be_anybodys() -> Result<()> {
    if !wish_kubectl("the_names_can_be_anybodys") {
        return Ok(());
    }
    let objects = overlay("namespace: mesh\nnamePrefix: my-\nnameSuffix: -x\n")?;
    ensure!(find(&objects, "Namespace")?["metadata"]["name"] == "mesh");
    let set = find(&objects, "DaemonSet")?;
    ensure!(set["metadata"]["name"] == "my-weir-x" && set["metadata"]["namespace"] == "mesh", "{set}");
    let pod = &set["spec"]["template"]["spec"];
    ensure!(pod["serviceAccountName"] == "my-weir-x", "{}", pod["serviceAccountName"]);
    for (binding, role) in [("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")] {
        let binding = find(&objects, binding)?;
        let account = json!([{"kind": "ServiceAccount", "name": "my-weir-x", "namespace": "mesh"}]);
        ensure!(binding["subjects"] == account, "{}", binding["subjects"]);
        ensure!(binding["roleRef"]["name"] == find(&objects, role)?["metadata"]["name"], "{}", binding["roleRef"]);
    }
    // What kustomize does not rename must not be asked for by name; the Lease is the agents' own.
    let role = rights(find(&objects, "Role")?)?;
    ensure!(role == listed(NAMESPACE_RIGHTS), "{role:#?}");
    let environment = pod["containers"][0]["env"].as_array().context("no environment")?;
    for (variable, field) in [
        ("NODE_NAME", "spec.nodeName"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_NAME", "metadata.name"),
        ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
    ] {
        let told = environment.iter().find(|e| e["name"] == variable).with_context(|| format!("no {variable}"))?;
        ensure!(told["valueFrom"]["fieldRef"]["fieldPath"] == field, "{told}");
    }
    Ok(())
}

/// The components add what they are for, and change nothing else.
#[test]
fn components_only_add() -> Result<()> {
    if !wish_kubectl("components_only_add") {
        return Ok(());
    }
    let plain = render(&directory())?;
    let all = ["podmonitor", "grafana-dashboard", "gateway-service"].map(|name| format!("BASE/components/{name}"));
    let objects = overlay(&format!("components: [{}]\n", all.join(", ")))?;
    let added: Vec<&Value> = objects.iter().filter(|object| !plain.contains(object)).collect();
    ensure!(objects.len() == plain.len() + 3 && added.len() == 3, "{added:#?}");
    let gateway = added.iter().find(|object| object["kind"] == "Service").context("no Service")?;
    let spec = &gateway["spec"];
    ensure!(spec["type"] == "LoadBalancer" && gateway["metadata"]["labels"]["istio"] == "ingressgateway", "{gateway}");
    ensure!(spec["selector"] == find(&objects, "DaemonSet")?["spec"]["selector"]["matchLabels"], "{gateway}");
    let monitor = find(&objects, "PodMonitor")?;
    let endpoints = monitor["spec"]["podMetricsEndpoints"].as_array().context("no endpoints")?;
    ensure!(endpoints.len() == 1 && endpoints[0]["path"] == "/stats/prometheus", "{monitor}");
    let selected = &monitor["spec"]["selector"]["matchLabels"];
    let pods = &find(&objects, "DaemonSet")?["spec"]["template"]["metadata"]["labels"];
    ensure!(selected == pods, "the PodMonitor selects {selected}, the pods are {pods}");
    // Host network, no declared port: the address is made from the pod's, of either family.
    let rules = endpoints[0]["relabelings"].as_array().context("no relabelings")?;
    for (address, target) in [("10.0.0.7", "10.0.0.7:15020"), ("fd00::7", "[fd00::7]:15020")] {
        let made = rules.iter().filter(|rule| rule["targetLabel"] == "__address__").find_map(|rule| {
            let matches = match rule["regex"].as_str()? {
                "([^:]+)" => !address.contains(':'),
                "(.+:.+)" => address.contains(':'),
                other => panic!("{other}: a pattern that this test does not know"),
            };
            matches.then(|| rule["replacement"].as_str().map(|text| text.replace("$1", address)))?
        });
        ensure!(made.as_deref() == Some(target), "{address} becomes {made:?}");
    }
    let dashboard = find(&objects, "ConfigMap")?;
    ensure!(dashboard["metadata"]["labels"]["grafana_dashboard"] == "1", "{}", dashboard["metadata"]);
    let parsed: Value = serde_json::from_str(dashboard["data"]["weir.json"].as_str().context("no weir.json")?)?;
    ensure!(parsed["panels"].as_array().is_some_and(|panels| panels.len() >= 6), "{parsed}");
    Ok(())
}

/// The pod's spec of the DaemonSet, and what it has of the files for TLS taken out of it: volumes and mounts.
fn without_tls_files(objects: &[Value]) -> Result<(Value, Vec<Value>, Vec<Value>)> {
    let mut pod = find(objects, "DaemonSet")?["spec"]["template"]["spec"].clone();
    let taken = |list: &mut Value| -> Result<Vec<Value>> {
        let list = list.as_array_mut().context("no list")?;
        let (taken, rest) = std::mem::take(list).into_iter().partition(|entry| entry["name"] == "tls-files");
        *list = rest;
        Ok(taken)
    };
    let volumes = taken(&mut pod["volumes"])?;
    let mounts = taken(&mut pod["containers"][0]["volumeMounts"])?;
    Ok((pod, volumes, mounts))
}

/// The agent alone sees the files of TLS, and cannot write them; with Secrets in their place it sees those.
#[test]
fn files_of_tls_are_mounted_read_only_where_somebody_wants_them() -> Result<()> {
    if !wish_kubectl("files_of_tls_are_mounted_read_only_where_somebody_wants_them") {
        return Ok(());
    }
    let plain = render(&directory())?;
    let (bare, none, _) = without_tls_files(&plain)?;
    ensure!(none.is_empty(), "the base has them: {none:?}");
    let component = "components: [BASE/components/tls-files]\n";
    let mounted = json!([{"name": "tls-files", "mountPath": "/etc/weir/tls", "readOnly": true}]);
    let directory = json!({"path": "/etc/weir/tls", "type": "DirectoryOrCreate"});
    let objects = overlay(component)?;
    let others = |objects: &[Value]| objects.iter().filter(|o| o["kind"] != "DaemonSet").cloned().collect::<Vec<_>>();
    ensure!(others(&objects) == others(&plain), "more than the DaemonSet changes");
    let (pod, volumes, mounts) = without_tls_files(&objects)?;
    ensure!(pod == bare, "more than that changes: {pod}");
    ensure!(volumes == [json!({"name": "tls-files", "hostPath": directory})], "{volumes:?}");
    ensure!(json!(mounts) == mounted, "{mounts:?}");
    // As the documentation has it, with Secrets.
    let text = fs::read_to_string(self::directory().join("../../docs/tls.md"))?;
    let (_, patches) = text.split_once("\npatches:").context("no patches in docs/tls.md")?;
    let (patches, _) = patches.split_once("```").context("no end of the example")?;
    let (pod, volumes, mounts) = without_tls_files(&overlay(&format!("{component}patches:{patches}"))?)?;
    ensure!(pod == bare && json!(mounts) == mounted, "{pod} {mounts:?}");
    let [volume] = &volumes[..] else { anyhow::bail!("{volumes:?}") };
    ensure!(volume["hostPath"].is_null() && volume["projected"]["defaultMode"] == 0o400, "{volume}");
    let items = &volume["projected"]["sources"][0]["secret"]["items"];
    ensure!(items[0] == json!({"key": "tls.key", "path": "shop/client.key"}), "{volume}");
    Ok(())
}

/// `weir crds --print` is what `kubectl create -f -` takes: whole, typed, with nothing pruned.
#[test]
fn printed_definitions_can_be_read_back() -> Result<()> {
    let weir = weir_tests::mesh::binary("weir");
    if !weir.exists() {
        weir_tests::require::skip("printed_definitions_can_be_read_back", "weir is not built");
        return Ok(());
    }
    let output = Command::new(weir).args(["crds", "--print"]).output()?;
    ensure!(output.status.success(), "{output:?}");
    let printed: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8(output.stdout)?)?;
    let read: BTreeSet<String> =
        CLUSTER_RIGHTS.iter().map(|(group, resource, _)| format!("{resource}.{group}")).collect();
    ensure!(printed.len() >= 10, "{} definitions", printed.len());
    let limit = fs::read_to_string(directory().join("examples/limit-definitions.yaml"))?;
    for definition in &printed {
        ensure!(definition["kind"] == "CustomResourceDefinition", "{definition}");
        let name = definition["metadata"]["name"].as_str().context("no name")?;
        ensure!(read.contains(name), "{name} is created and not read");
        let group = &definition["spec"]["group"];
        ensure!(limit.contains(&group.to_string()), "{group}: the example of a limit would refuse {name}");
        ensure!(definition["spec"]["conversion"].is_null(), "{name} is converted");
        for version in definition["spec"]["versions"].as_array().context("no versions")? {
            let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
            ensure!(spec["x-kubernetes-preserve-unknown-fields"] == true, "{name} {version}");
        }
    }
    Ok(())
}
