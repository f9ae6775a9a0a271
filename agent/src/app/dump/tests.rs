//! Everything in force is told, by the names that users know, and an answer stays small in a large mesh.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::store::Store;

use super::*;
use crate::datapath::monotonic_ns;
use crate::proxy::{Ejections, Programs, TlsFiles};

/// Endpoints that a former agent has ejected, for a minute.
#[derive(Debug)]
struct Ejected(Vec<SocketAddr>);

impl Ejections for Ejected {
    fn ejected(&self, _: SocketAddr, _: u64, _: u32) {}

    fn restored(&self, _: SocketAddr) {}

    fn known(&self) -> Vec<(SocketAddr, u64, u32)> {
        self.0.iter().map(|endpoint| (*endpoint, monotonic_ns() + 60_000_000_000, 2)).collect()
    }
}

type Services = BTreeMap<PlanKey, Arc<PlannedService>>;

fn mesh(text: &str, ejected: Vec<SocketAddr>) -> (Arc<Programs>, Services) {
    let mut store = Store::new();
    store.set_file("mesh.yaml", text);
    let (snapshot, findings) = store.assemble();
    assert_eq!(findings, []);
    let compiled = compile(&snapshot, &CompileOptions::default());
    let programs = Programs::beside(compiled.program, TlsFiles::Any, Some(Arc::new(Ejected(ejected))));
    (programs, compiled.plan.services)
}

/// A service with so many pods.
fn service(name: &str, address: u16, pods: u32) -> String {
    let [high, low] = address.to_be_bytes();
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: 10.96.{high}.{low}, selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]}}\n"
    );
    for pod in 1..=pods {
        let (address, version) = (endpoint(pod).ip(), if pod == 1 { "v1" } else { "v2" });
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-{pod}, namespace: shop, \
             labels: {{app: {name}, version: {version}}}}}\nspec: {{nodeName: n1}}\n\
             status: {{phase: Running, podIP: {address}, conditions: [{{type: Ready, status: \"True\"}}]}}"
        );
    }
    text
}

fn endpoint(pod: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from_bits(0x0a00_0000 + pod).into(), 80)
}

const RULES: &str = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
    metadata: {name: b, namespace: shop}\nspec: {host: b, subsets: [{name: v1, labels: {version: v1}}], \
    trafficPolicy: {outlierDetection: {}, tls: {mode: SIMPLE, sni: b.example.com}, \
    connectionPool: {tcp: {maxConnections: 7}}}}\n\
    ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: shop}\n\
    spec: {hosts: [b], http: [{name: canary, match: [{uri: {prefix: /new}}], route: [\
    {destination: {host: b, subset: v1}, weight: 30}, {destination: {host: b}, weight: 70}]}, \
    {name: rest, timeout: 3s, route: [{destination: {host: c}}]}]}\n";

fn told(mesh: &(Arc<Programs>, Services), query: &str) -> Option<Value> {
    let wanted = Wanted::of_query(query).expect(query);
    let now = mesh.0.inspect();
    let (entries, next) = entries(&mesh.1, &wanted, now.program());
    match wanted {
        Wanted::Page(..) => Some(json!(page(7, &entries, next, &now))),
        _ => detail(7, entries, &wanted, &now).map(|detail| json!(detail)),
    }
}

#[test]
fn a_service_is_told_with_its_rules_its_policy_and_its_endpoints() {
    let text = service("b", 1, 3) + &service("c", 2, 0) + &service("bc", 3, 0) + RULES;
    let mesh = mesh(&text, vec![endpoint(2)]);
    let told = |query: &str| told(&mesh, query);
    let all = told("service=shop/b").expect("it is there");
    for same in
        ["service=shop%2Fb%3A80", "host=b.shop", "host=B.shop.svc.", "host=b.shop.svc", "host=b.shop.svc.cluster.local"]
    {
        let mut same = told(same).unwrap_or_else(|| panic!("{same}"));
        // Time goes on in between.
        let mut all = all.clone();
        for detail in [&mut same, &mut all] {
            for cluster in detail["clusters"]["items"].as_array_mut().expect("a list") {
                for endpoint in cluster["endpoints"]["items"].as_array_mut().expect("a list") {
                    endpoint["ejected_for_ms"].take();
                }
            }
        }
        assert_eq!(same, all);
    }
    for nobody in
        ["service=shop/a", "service=shop/b:81", "host=b", "host=b.sho", "service=b", "host=nobody.example.com"]
    {
        assert_eq!(told(nobody), None, "{nobody}");
    }
    assert_eq!(all["generation"], 7);
    let entry = &all["services"]["items"][0];
    assert_eq!(all["services"]["total"], 1);
    assert_eq!((&entry["service"], &entry["verdict"]), (&json!("shop/b:80"), &json!("proxy")));
    assert_eq!((&entry["address"], &entry["host"]), (&json!("10.96.0.1:80"), &json!("b.shop.svc.cluster.local")));
    assert_eq!(entry["because"], "VirtualService shop/b");
    let routes = &all["routes"];
    assert_eq!((&routes["total"], &routes["items"][0]["name"]), (&json!(2), &json!("canary")));
    let to = json!([
        {"cluster": "outbound|80|v1|b.shop.svc.cluster.local", "weight": 30, "exists": true},
        {"cluster": "outbound|80||b.shop.svc.cluster.local", "weight": 70, "exists": true}
    ]);
    assert_eq!(routes["items"][0]["destinations"], to);
    let settings = routes["items"][1]["settings"].as_array().expect("a list");
    assert!(settings.iter().any(|one| one["field"] == "timeout" && one["value"] == "3s"), "{settings:?}");
    let clusters = all["clusters"]["items"].as_array().expect("a list");
    let named =
        |name: &str| clusters.iter().find(|cluster| cluster["name"] == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(clusters.len(), 3, "its own, its subset, and where a rule sends to");
    assert_eq!(named("outbound|80||c.shop.svc.cluster.local")["endpoints"], json!({"total": 0, "items": []}));
    let plain = named("outbound|80||b.shop.svc.cluster.local");
    assert_eq!(plain["in_use"]["maxConnections"], json!({"active": 0, "limit": 7}));
    assert_eq!((&plain["tls"]["mode"], &plain["tls"]["refused"]), (&json!("SIMPLE"), &json!(false)));
    assert_eq!((&plain["ejected"], &plain["endpoints"]["total"]), (&json!(1), &json!(3)));
    let out = &plain["endpoints"]["items"][0];
    assert_eq!((&out["address"], &out["times_ejected"]), (&json!("10.0.0.2:80"), &json!(2)), "the first of all");
    let left = out["ejected_for_ms"].as_u64().expect("a time");
    assert!((30_000..=60_000).contains(&left), "{left}");
    assert_eq!(plain["endpoints"]["items"][1], json!({"address": "10.0.0.1:80", "weight": 1}));
    let subset = named("outbound|80|v1|b.shop.svc.cluster.local");
    assert_eq!((&subset["ejected"], &subset["endpoints"]["total"]), (&json!(0), &json!(1)));
}

#[test]
fn a_list_is_told_page_by_page_and_each_name_once() {
    let names: Vec<String> = (0..25).map(|n| format!("s{n:02}")).collect();
    let text = names.iter().zip(1..).fold(String::new(), |text, (name, n)| text + &service(name, n, 0));
    let mesh = mesh(&format!("{text}{}{RULES}", service("b", 99, 3)), vec![endpoint(3)]);
    let (mut seen, mut query, mut pages) = (Vec::new(), "limit=10".to_owned(), Vec::new());
    loop {
        let page = told(&mesh, &query).expect("a page");
        let services = page["services"].as_array().expect("a list").clone();
        pages.push(services.len());
        seen.extend(services);
        let Some(next) = page["continue"].as_str() else { break };
        query = format!("limit=10&continue={next}");
    }
    assert_eq!(pages, [10, 10, 6]);
    let all = std::iter::once("shop/b:80".to_owned()).chain(names.iter().map(|name| format!("shop/{name}:80")));
    let told_of: Vec<&str> = seen.iter().filter_map(|one| one["service"].as_str()).collect();
    assert_eq!(told_of, all.collect::<Vec<_>>());
    let b = json!({
        "service": "shop/b:80", "host": "b.shop.svc.cluster.local", "verdicts": ["proxy"], "addresses": 1,
        "clusters": 2, "endpoints": 3, "ejected": 1, "routes": 2
    });
    assert_eq!(seen[0], b);
    assert_eq!(told(&mesh, "limit=26").expect("a page")["continue"], Value::Null, "nothing follows");
    assert_eq!(told(&mesh, "continue=zzz").expect("a page")["services"], json!([]));
}

#[test]
fn a_large_answer_is_cut_and_says_so() {
    let mesh = mesh(&(service("b", 1, 2_500) + RULES), vec![endpoint(2_400)]);
    let all = told(&mesh, "service=shop/b").expect("it is there");
    let clusters = all["clusters"]["items"].as_array().expect("a list");
    let plain = clusters.iter().find(|cluster| cluster["subset"] == "").expect("the service");
    assert_eq!(plain["endpoints"]["total"], 2_500);
    assert_eq!(plain["endpoints"]["items"].as_array().map(Vec::len), Some(MAX_LISTED));
    assert_eq!(plain["endpoints"]["items"][0]["address"], "10.0.9.96:80", "what is out of use is told all the same");
    let mut room = Room(3);
    let cut = room.part(vec![1, 2], |room, _| room.part(vec!["a", "b"], |_, one| one).items);
    assert_eq!((cut.total, cut.items), (2, vec![vec!["a", "b"]]), "three in all");
}

#[test]
fn what_is_no_question_is_said() {
    for wrong in
        ["limit=0", "limit=1001", "limit=x", "host=", "pods=1", "service=a/b&host=b", "host=b&limit=3", "host=%f"]
    {
        assert!(Wanted::of_query(wrong).is_err(), "{wrong}");
    }
    assert_eq!(Wanted::of_query(""), Ok(Wanted::Page(String::new(), DEFAULT_LIMIT)));
}
