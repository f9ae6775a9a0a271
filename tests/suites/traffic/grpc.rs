//! GRPCRoutes with PyPI's `grpcio` as client and server: whole connections go where the rule for everything says, and
//! over HTTP/1.1 each request goes where its method does.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_tests::require::Need;
use weir_tests::{PodSpec, Process, Service, eventually, proved, require};

use super::pip;
use super::stage::Stage;

/// Answers every method with its pod's name.
const SERVER: &str = r#"
import grpc, sys
from concurrent import futures
class Every(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: sys.argv[1].encode())
server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(Every(),))
server.add_insecure_port("0.0.0.0:50051")
server.start()
print("listening", flush=True)
server.wait_for_termination()
"#;

/// Connections of two calls each. Prints how many connections met v1 and v2, how many met two pods, how many failed.
const CLIENT: &str = r#"
import grpc, sys
from concurrent import futures
def talk(n):
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(sys.argv[1], options=options) as channel:
        call = lambda path: channel.unary_unary(path)(b"", timeout=10, metadata=(("x-tier", "gold"),)).decode()
        try:
            return {call("/shop.Cart/Add"), call("/shop.Cart/List")}
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            return set()
with futures.ThreadPoolExecutor(8) as pool:
    met = list(pool.map(talk, range(int(sys.argv[2]))))
of = lambda version: sum(len(pods) == 1 and min(pods).startswith("b-" + version) for pods in met)
print(of("v1"), of("v2"), sum(len(pods) > 1 for pods in met), sum(not pods for pods in met))
"#;

/// At 90 % five standard deviations are 7.5 points.
const CONNECTIONS: u64 = 400;

/// Port 50051 of service-b's pods, declared as gRPC and to be detected, and of each version alone.
struct Carts {
    stage: Stage,
    python: std::path::PathBuf,
    _servers: Vec<Process>,
}

const DECLARED: &str = "10.96.0.4:50051";
const DETECTED: &str = "10.96.0.5:7000";

impl Carts {
    fn new(python: &Path) -> Result<Self> {
        let stage = Stage::furnished("", |scene| {
            let all = |name: &str, host| Service::new(name, host).selects("service-b");
            scene.manifests.service(&all("carts", 4).port("grpc", 50051, "50051"))?;
            scene.manifests.service(&all("any", 5).port("", 7000, "50051"))?;
            for (version, host) in [("v1", 11), ("v2", 12)] {
                let mut service = all(&format!("carts-{version}"), host).port("grpc", 50051, "50051");
                service.selector.push(("version".into(), version.into()));
                scene.manifests.service(&service)?;
            }
            scene.mesh.add_pod(PodSpec::new("partner").namespace("partner"))?;
            scene.manifests.namespaces(&[("default", true), ("partner", true)])
        })?;
        stage.agent.await_enrolled("partner/partner", true)?;
        let mut servers = Vec::new();
        for pod in ["b-v1-0", "b-v1-1", "b-v2-0"] {
            let (place, log) = (&stage.scene.mesh.pod(pod).place, stage.scene.mesh.log(&format!("{pod}-grpc")));
            let mut command = Command::new(python);
            command.args(["-c", SERVER, pod]);
            servers.push(Process::spawn(place, command, &log)?);
            eventually("the server listens", Duration::from_secs(20), || {
                Ok(std::fs::read_to_string(&log)?.contains("listening").then_some(()))
            })?;
        }
        Ok(Self { stage, python: python.into(), _servers: servers })
    }

    /// Routes for both Services.
    fn routes(&self, rules: &str) -> Result<()> {
        let parents = "{group: '', kind: Service, name: carts}, {group: '', kind: Service, name: any, port: 7000}";
        self.stage.rules(&route("default", parents, rules))
    }

    /// How many connections of a pod met v1 and v2, how many met two pods, how many failed.
    fn connect(&self, pod: &str, address: &str, count: u64) -> Result<[u64; 4]> {
        let said = self.stage.run(pod, &self.python, &["-c", CLIENT, address, &count.to_string()])?;
        let numbers = said.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        numbers.try_into().ok().with_context(|| format!("the client said {said}"))
    }
}

fn route(namespace: &str, parents: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: carts, namespace: {namespace}}}\n\
         spec: {{parentRefs: [{parents}], rules: [{rules}]}}\n"
    )
}

/// Backends with their weights, and what else is said of each.
fn backends(v1: (u32, &str), v2: (u32, &str)) -> String {
    let one = |version: &str, (weight, more): (u32, &str)| {
        format!("{{name: carts-{version}, port: 50051, weight: {weight}{more}}}")
    };
    format!("backendRefs: [{}, {}]", one("v1", v1), one("v2", v2))
}

const ADD: &str = "matches: [{method: {service: shop.Cart, method: Add}}]";
const TO_V2: &str = "backendRefs: [{name: carts-v2, port: 50051}]";

#[test]
fn grpc_connections_follow_the_rule_that_takes_everything() -> Result<()> {
    let name = "grpc_connections_follow_the_rule_that_takes_everything";
    if !require(name, &[Need::Agent, Need::Program("python3")]) {
        return Ok(());
    }
    let Some(python) = pip::python(name)? else {
        return Ok(());
    };
    let carts = Carts::new(&python)?;
    let few = CONNECTIONS / 20;
    let explicit = ", group: '', kind: Service, namespace: default";
    carts.routes(&format!("{{{}}}", backends((1, ""), (9, explicit))))?;
    carts.stage.agent.await_verdict("default/carts:50051", "balance")?;
    carts.stage.agent.await_verdict("default/any:7000", "proxy")?;
    for address in [DECLARED, DETECTED] {
        let [v1, v2, split, failed] = carts.connect("client", address, CONNECTIONS)?;
        let share = 100.0 * v2 as f64 / CONNECTIONS as f64;
        ensure!((share - 90.0).abs() < 7.5 && split + failed == 0, "{address}: {v1} {v2} {split} {failed}");
        proved!("{address}: {share:.1} % of {CONNECTIONS} gRPC connections where the route says 90 %");
    }
    // A rule for a method is not looked at where there is one for everything, and alone it lets nothing pass.
    for (rules, [to_v1, to_v2, failed]) in [
        (format!("{{{ADD}, {TO_V2}}}, {{{}}}", backends((1, ""), (0, ""))), [few, 0, 0]),
        (
            format!(
                "{{matches: [{{headers: [{{name: x-tier, value: gold}}]}}], {}}}, {{{TO_V2}}}",
                backends((1, ""), (0, ""))
            ),
            [0, few, 0],
        ),
        (format!("{{name: add, {ADD}, {TO_V2}}}"), [0, 0, few]),
        (format!("{{{TO_V2}}}").replace("port: 50051", "group: example.com, kind: Bucket"), [0, 0, few]),
    ] {
        carts.routes(&rules)?;
        for address in [DECLARED, DETECTED] {
            let found = carts.connect("client", address, few)?;
            ensure!(found == [to_v1, to_v2, 0, failed], "{rules}, {address}: {found:?}");
        }
    }
    // To whom a route is not attached has the plain Service.
    let service = "group: '', kind: Service, name: carts";
    for (parents, attached) in [
        (format!("{{{service}, port: 50051}}"), true),
        (format!("{{{service}, port: 50052}}"), false),
        ("{name: carts}".to_owned(), false),
        ("{group: example.com, kind: Service, name: carts}".to_owned(), false),
        ("{group: '', kind: Service, name: any}".to_owned(), false),
    ] {
        carts.stage.rules(&route("default", &parents, &format!("{{{TO_V2}}}")))?;
        let [v1, v2, split, failed] = carts.connect("client", DECLARED, 40)?;
        ensure!((v1 == 0) == attached && v2 > 0 && split + failed == 0, "{parents}: {v1} {v2} {split} {failed}");
    }
    Ok(())
}

#[test]
fn a_consumers_grpc_route_needs_a_grant_of_its_own_kind() -> Result<()> {
    let name = "a_consumers_grpc_route_needs_a_grant_of_its_own_kind";
    if !require(name, &[Need::Agent, Need::Program("python3")]) {
        return Ok(());
    }
    let Some(python) = pip::python(name)? else {
        return Ok(());
    };
    let carts = Carts::new(&python)?;
    let parent = "{group: '', kind: Service, name: carts, namespace: default}";
    let rules = format!("{{{}}}", TO_V2.replace("port:", "namespace: default, port:"));
    for (kind, [to_v2, failed]) in [("GRPCRoute", [20, 0]), ("HTTPRoute", [0, 20])] {
        let grant = format!(
            "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: carts, namespace: default}}\n\
             spec: {{from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: partner}}], to: [{{group: '', kind: Service}}]}}\n"
        );
        carts.stage.rules(&(route("partner", parent, &rules) + &grant))?;
        let found = carts.connect("partner", DECLARED, 20)?;
        ensure!(found == [0, to_v2, 0, failed], "granted to {kind}: {found:?}");
        let [v1, v2, ..] = carts.connect("client", DECLARED, 40)?;
        ensure!(v1 > 0 && v2 > 0 && v1 + v2 == 40, "clients of other namespaces: {v1} {v2}");
    }
    Ok(())
}

#[test]
fn over_http_1_the_method_of_a_grpc_route_chooses() -> Result<()> {
    if !require("over_http_1_the_method_of_a_grpc_route_chooses", &[Need::Agent, Need::Program("curl")]) {
        return Ok(());
    }
    let stage = Stage::furnished("", |scene| {
        for (version, host) in [("v1", 11), ("v2", 12)] {
            let mut service =
                Service::new(&format!("carts-{version}"), host).selects("service-b").port("http", 80, "80");
            service.selector.push(("version".into(), version.into()));
            scene.manifests.service(&service)?;
        }
        Ok(())
    })?;
    let to = |version: &str| format!("backendRefs: [{{name: carts-{version}, port: 80}}]");
    let matches = "{method: {service: shop.Cart, method: Add}}, {method: {service: shop.Stock}}, \
                   {method: {type: RegularExpression, service: 'shop[.]V[0-9]', method: 'Get.*'}}, \
                   {headers: [{name: x-tier, value: gold}]}, {headers: [{name: x-build, type: RegularExpression, value: 'beta-.*'}]}";
    let rules = format!("{{name: canary, matches: [{matches}], {}}}, {{name: stable, {}}}", to("v2"), to("v1"));
    stage.rules(&route("default", "{group: '', kind: Service, name: service-b}", &rules))?;
    for (path, header, version) in [
        ("/shop.Cart/Add", "x-tier: silver", "v2"),
        ("/shop.Cart/List", "x-tier: silver", "v1"),
        ("/shop.Cart/List", "x-tier: gold", "v2"),
        ("/shop.Cart/List", "x-build: beta-7", "v2"),
        ("/shop.Cart/List", "x-build: stable", "v1"),
        ("/shop.Stock/Any", "x-tier: silver", "v2"),
        ("/shop.Stocks/Any", "x-tier: silver", "v1"),
        ("/shop.V2/GetAll", "x-tier: silver", "v2"),
        ("/shop.V22/GetAll", "x-tier: silver", "v1"),
    ] {
        let met = stage.version(path, &["-X", "POST", "-H", header])?;
        ensure!(met == version, "{path} {header} met {met}, not {version}");
    }
    let line = stage.logged("/shop.V2/GetAll")?;
    ensure!(line.ends_with(" default.carts.canary"), "the rule has a name: {line}");
    Ok(())
}
