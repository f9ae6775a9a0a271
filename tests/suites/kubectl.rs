//! The harness's API server as people and programs use it: through kubectl, with users and their roles, with TLS, as a
//! process of its own, inside a network namespace, and with a cluster's worth of objects.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use weir_tests::apiserver::{ApiServer, Fault, Population};
use weir_tests::netns::{self, NetNs};
use weir_tests::require::{Need, wish_kubectl};
use weir_tests::{eventually, proved, require};

/// kubectl asks for discovery first, which takes it a moment.
const SOON: Duration = Duration::from_secs(20);
/// What the server may take for a large cluster.
const MAX_RSS_KIB: u64 = 3 << 19;

/// Runs kubectl and gives what it printed; an error has what it complained about.
fn kubectl(kubeconfig: &Path, arguments: &str) -> Result<String> {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments.split(' '));
    // Discovery is cached by address, and addresses come again.
    let cache = kubeconfig.with_extension("cache");
    command.arg("--cache-dir").arg(cache).stdin(Stdio::null());
    let output = command.output().context("running kubectl")?;
    if !output.status.success() {
        bail!("kubectl {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn refused<T: std::fmt::Debug>(result: Result<T>, with: &str) -> Result<()> {
    match result {
        Ok(said) => bail!("it was not refused: {said:?}"),
        Err(e) => {
            ensure!(format!("{e:#}").contains(with), "{e:#}");
            Ok(())
        }
    }
}

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: cart}}
  template:
    metadata: {labels: {app: cart}}
    spec: {containers: [{name: cart, image: example.invalid/cart:1}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec: {hosts: [cart], http: [{route: [{destination: {host: cart}}]}]}
";

#[test]
fn kubectl_gets_applies_labels_patches_and_deletes() -> Result<()> {
    if !wish_kubectl("kubectl_gets_applies_labels_patches_and_deletes") {
        return Ok(());
    }
    let api = ApiServer::start()?;
    api.install_istio_crds()?;
    let config = api.kubeconfig();
    let kubectl = |arguments: &str| kubectl(&config, arguments);
    let file = config.with_file_name("shop.yaml");
    fs::write(&file, SHOP)?;
    let apply = format!("apply --validate=false -f {}", file.display());
    let made = kubectl(&apply)?;
    for what in ["namespace/shop", "service/cart", "deployment.apps/cart", "virtualservice.networking.istio.io/cart"] {
        ensure!(made.contains(&format!("{what} created")), "{made}");
    }
    ensure!(kubectl(&apply)?.matches("unchanged").count() == 4, "applied twice, nothing changes");
    fs::write(
        &file,
        SHOP.replace("port: 80", "port: 81").replace("cart:1", "cart:2").replace("hosts: [cart]", "hosts: [a, cart]"),
    )?;
    let changed = kubectl(&apply)?;
    ensure!(changed.matches("configured").count() == 3, "{changed}");
    ensure!(kubectl("get svc cart -n shop -o jsonpath={.spec.ports[*].port}")? == "81");
    let hosts =
        kubectl("get virtualservices.v1beta1.networking.istio.io cart -n shop -o jsonpath={.apiVersion}{.spec.hosts}")?;
    ensure!(hosts == "networking.istio.io/v1beta1[\"a\",\"cart\"]", "{hosts}");
    kubectl("label namespace shop weir.mesh/mode=disabled --overwrite")?;
    kubectl("annotate service cart -n shop weir.mesh/on-failure=refuse")?;
    let namespace = api.get("namespaces", "", "shop")?.context("the namespace")?;
    ensure!(namespace["metadata"]["labels"]["weir.mesh/mode"] == "disabled");
    ensure!(kubectl("get ns -l weir.mesh/mode=disabled -o name")? == "namespace/shop");
    ensure!(kubectl("get deploy,vs -A -o name")?.lines().count() == 2);
    kubectl(
        "patch deployment cart -n shop --type=json -p=[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":5}]",
    )?;
    ensure!(kubectl("get deploy cart -n shop -o jsonpath={.spec.replicas}")? == "5");
    kubectl("delete service cart -n shop --timeout=10s")?;
    refused(kubectl("get service cart -n shop"), "not found")?;
    kubectl("delete namespace shop --timeout=10s")?;
    ensure!(api.list("virtualservices.networking.istio.io")?.is_empty(), "what was in the namespace went with it");
    Ok(())
}

const ROLES: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: weir-system}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: weir}
rules:
- {apiGroups: [''], resources: [pods, services], verbs: [get, list, watch]}
- {apiGroups: [''], resources: [nodes], resourceNames: [node-1], verbs: [get]}
- {apiGroups: [networking.istio.io], resources: [virtualservices/status], verbs: [get, patch]}
- {nonResourceURLs: [/metrics], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: weir}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: weir}
subjects: [{kind: ServiceAccount, name: weir, namespace: weir-system}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: weir, namespace: weir-system}
rules: [{apiGroups: [coordination.k8s.io], resources: [leases], verbs: ['*']}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: weir, namespace: weir-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: weir}
subjects: [{kind: Group, name: 'system:serviceaccounts:weir-system'}]
---
{apiVersion: v1, kind: Node, metadata: {name: node-1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: default}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a, namespace: default}, spec: {hosts: [a]}}
";

#[test]
fn a_user_may_do_what_its_roles_say_and_nothing_more() -> Result<()> {
    if !wish_kubectl("a_user_may_do_what_its_roles_say_and_nothing_more") {
        return Ok(());
    }
    let api = ApiServer::builder().rbac().tls().start()?;
    api.install_istio_crds()?;
    api.apply(ROLES)?;
    let account = api.kubeconfig_for("system:serviceaccount:weir-system:weir")?;
    let agent = |arguments: &str| kubectl(&account, arguments);
    for allowed in [
        "get pods -A -o name",
        "get services -n default -o name",
        "get node node-1 -o name",
        "get leases -n weir-system -o name",
        "patch vs a --subresource=status --type=merge -p={\"status\":{\"x\":1}}",
    ] {
        agent(allowed)?;
    }
    for beyond in [
        "get secrets -A",
        "get nodes",
        "get node node-2",
        "get leases -n default",
        "label pod a b=c",
        "delete namespace default",
        "patch vs a --type=merge -p={\"spec\":{}}",
        "get --raw /debug",
    ] {
        refused(agent(beyond), "orbidden").with_context(|| beyond.to_owned())?;
    }
    let admin = api.kubeconfig();
    let as_agent = "--as=system:serviceaccount:weir-system:weir";
    // Not by `kubectl auth can-i`, which speaks protobuf only.
    for (resource, allowed) in [("pods", true), ("secrets", false)] {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                            "spec": {"resourceAttributes": {"verb": "list", "resource": resource}}});
        let file = admin.with_file_name("review.json");
        fs::write(&file, review.to_string())?;
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = kubectl(&admin, &format!("create --raw {path} -f {} {as_agent}", file.display()))?;
        let answer: Value = serde_json::from_str(&answer)?;
        ensure!(answer["status"]["allowed"] == allowed, "{answer}");
    }
    refused(kubectl(&admin, &format!("get secrets {as_agent}")), "orbidden")?;
    refused(agent("get pods --as=admin"), "orbidden")?;
    // A right that is taken away is gone at once; a user that is not known is nobody.
    api.delete("clusterrolebindings.rbac.authorization.k8s.io", "", "weir")?;
    refused(agent("get pods -A"), "orbidden")?;
    let token = fs::read_to_string(&account)?;
    let token: Value = serde_json::from_str(&token)?;
    api.remove_user(token["users"][0]["user"]["token"].as_str().context("the token")?)?;
    refused(agent("get pods -A"), "nauthorized")
}

#[test]
fn a_process_inside_a_namespace_obeys_like_a_thread() -> Result<()> {
    if !require("a_process_inside_a_namespace_obeys_like_a_thread", &[Need::Namespaces])
        || !wish_kubectl("a_process_inside_a_namespace_obeys_like_a_thread")
    {
        return Ok(());
    }
    let name = format!("weir-api-{}", std::process::id());
    let netns = NetNs::create(&name)?;
    let done = obeys(&netns);
    netns::remove(&name);
    done
}

fn obeys(netns: &NetNs) -> Result<()> {
    let api = ApiServer::builder().inside(netns).tls().spawn()?;
    let get = || netns.run(|| kubectl(&api.kubeconfig(), "get ns default -o name"))?;
    ensure!(get()? == "namespace/default");
    ensure!(std::net::TcpStream::connect(api.address()).is_err(), "it listens inside only");
    api.stop()?;
    refused(get(), "refused")?;
    api.resume()?;
    ensure!(get()? == "namespace/default", "it is back on its port");
    api.faults().inject(Fault::answer(503).resource("namespaces"))?;
    refused(get(), "chosen to fail")?;
    api.faults().clear()?;
    api.reset_counters()?;
    get()?;
    ensure!(api.counters()?.requests("get", "namespaces") == 1);
    refused(api.apply("{apiVersion: v9, kind: Nothing, metadata: {name: a}}"), "no matches for kind")
}

#[test]
fn a_large_cluster_is_made_and_listed_within_its_memory() -> Result<()> {
    if !require("a_large_cluster_is_made_and_listed_within_its_memory", &[Need::Program("curl")])
        || !wish_kubectl("a_large_cluster_is_made_and_listed_within_its_memory")
    {
        return Ok(());
    }
    let api = ApiServer::builder().spawn()?;
    let pid = api.pid().context("it is a process")?;
    api.install_istio_crds()?;
    let started = Instant::now();
    let bytes = api.populate(&Population::LARGE)?;
    let filled = started.elapsed();
    let started = Instant::now();
    let url = format!("{}/api/v1/pods?resourceVersion=0", api.url());
    let curl = Command::new("curl").args(["-sS", "-o", "/dev/null", "-w", "%{size_download}", &url]).output()?;
    let listed = started.elapsed();
    let size: u64 = String::from_utf8_lossy(&curl.stdout).parse()?;
    ensure!(size > 100_000 * 1000, "{size} bytes of pods");
    let started = Instant::now();
    let (mut pages, mut token, mut pods) = (0, String::new(), 0);
    while pages == 0 || !token.is_empty() {
        let url = format!("{}/api/v1/pods?limit=10000&continue={token}", api.url());
        let page = Command::new("curl").args(["-sS", &url]).output()?;
        // Read as text: parsing would take longer than everything that is measured.
        let page = String::from_utf8(page.stdout)?;
        pods += page.matches("\"hostIP\":").count();
        let rest = page.split_once("\"continue\":\"").map(|(_, rest)| rest);
        token = rest.and_then(|r| r.split_once('"')).map(|(token, _)| token.to_owned()).unwrap_or_default();
        pages += 1;
    }
    let paged = started.elapsed();
    ensure!((pages, pods) == (10, 100_000), "{pods} pods on {pages} pages");
    let own = kubectl(&api.kubeconfig(), "get pods -A --field-selector spec.nodeName=node-7 -o name")?;
    ensure!(own.lines().count() == 100, "{}", own.lines().count());
    let rss = || -> Result<Option<u64>> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("the kernel tells it")?;
        Ok(Some(line.trim().trim_end_matches(" kB").parse()?))
    };
    let (rss, _) = eventually("its memory", SOON, rss)?;
    proved!(
        "10,000 services, 50,000 endpoints, 100,000 pods, 5,000 VirtualServices: {} MiB made in {filled:.1?}, {} MiB of \
         pods listed in {listed:.1?}, paged in {paged:.1?}, at most {} MiB resident",
        bytes >> 20,
        size >> 20,
        rss >> 10
    );
    ensure!(rss < MAX_RSS_KIB, "{rss} KiB");
    Ok(())
}
