//! A proxy in front of origins on the loopback. The listener's port stands for the connect hook: it says where a
//! connection was going.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::http::{Request, Response};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::finding::Severity;
use weir_mesh::matching::{HttpMatch, StringMatch};
use weir_mesh::program::{
    Cluster, ClusterId, ClusterPolicy, HostTableId, LoadBalancer, PortId, Program, Protocol, Route, ServicePort,
    TcpRule, WeightedCluster,
};
use weir_mesh::route::{HostTable, Rule, VirtualHost};
use weir_mesh::store::Store;

use crate::netns::NetNs;
use crate::proxy::worker::monotonic;
use crate::proxy::{
    Ejections, Limits, OriginalDestinations, Programs, Proxy, ProxyConfig, SourcePod, TlsFiles, Tracing,
};

pub(super) const HOST: &str = "b.default.svc.cluster.local";
pub(super) const VIP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), 80);
/// Nothing in these tests takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Waits until `done`, as counters are written a moment after what they count.
pub(super) async fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Default)]
struct Destinations(Mutex<HashMap<u16, SocketAddr>>);

impl OriginalDestinations for Destinations {
    fn take(&self, _: u64, _: SocketAddr, listener_port: u16) -> Option<SocketAddr> {
        self.0.lock().unwrap().get(&listener_port).copied()
    }
}

/// Weight and endpoints; `None` = a subset that does not exist.
type Destination = (u32, Option<Vec<SocketAddr>>);

/// A service with one port at [`VIP`]. Destinations of its routes are groups of endpoints.
pub(super) struct Service {
    pub(super) protocol: Protocol,
    pub(super) plain: Vec<SocketAddr>,
    /// A pod of it that clients dial, beside [`VIP`].
    pub(super) headless: Option<SocketAddr>,
    /// Path prefix → destinations.
    pub(super) rules: Vec<(&'static str, Vec<Destination>)>,
    /// Where HTTP/2 goes; `None` = as the rules that take everything, of which there are none here.
    pub(super) http2: Option<Vec<SocketAddr>>,
}

impl Service {
    pub(super) fn new(protocol: Protocol, plain: Vec<SocketAddr>) -> Self {
        Self { protocol, headless: None, http2: Some(plain.clone()), plain, rules: Vec::new() }
    }

    pub(super) fn program(self) -> Program {
        let mut program = Program::default();
        let mut clusters = Vec::new();
        let mut cluster = |subset: String, addresses: Vec<SocketAddr>| {
            clusters.push(Arc::new(Cluster {
                name: format!("outbound|80|{subset}|{HOST}").into(),
                host: HOST.into(),
                subset: subset.into(),
                port: 80,
                policy: ClusterPolicy::new(LoadBalancer::RoundRobin, Duration::from_secs(1)),
                shares_ejections: false,
                endpoints4: addresses.into(),
                localities: None,
                endpoints6: Arc::default(),
            }));
            ClusterId(clusters.len() as u32 - 1)
        };
        let plain = cluster(String::new(), self.plain);
        let http2 = self.http2.map(|addresses| cluster("h2".to_owned(), addresses));
        let mut rules = Vec::new();
        for (prefix, destinations) in self.rules {
            let destinations = destinations.into_iter().enumerate().map(|(n, (weight, addresses))| {
                let cluster = addresses.map(|addresses| cluster(format!("v{n}"), addresses));
                WeightedCluster::new(cluster, weight, format!("outbound|80|v{n}|{HOST}").into())
            });
            let destinations = destinations.collect();
            let uri = Some(StringMatch::Prefix(prefix.into()));
            let matches = Box::new([HttpMatch { uri, ..HttpMatch::default() }]);
            rules.push(Rule { matches, route: Route { name: "r".into(), destinations, ..Route::default() } });
        }
        let mut table = HostTable::default();
        if !rules.is_empty() {
            table.hosts = Box::new([Arc::new(VirtualHost::new(HOST.into(), rules))]);
            Arc::make_mut(&mut table.names).insert("b".into(), 0);
        }
        program.ports = Arc::new([Arc::new(ServicePort {
            host: HOST.into(),
            number: 80,
            protocol: self.protocol,
            headless: self.headless.is_some(),
            plain,
            hosts: HostTableId(0),
            tcp: Box::new([TcpRule::all([WeightedCluster::new(Some(plain), 1, "plain".into())].into())]),
            tls: Box::default(),
            http2: http2.map(|id| WeightedCluster::new(Some(id), 1, "h2".into())).into_iter().collect(),
        })]);
        let destinations = Arc::make_mut(&mut program.destinations);
        destinations.insert((0, VIP.ip(), VIP.port()), PortId(0));
        destinations.extend(self.headless.map(|pod| ((0, pod.ip(), pod.port()), PortId(0))));
        program.host_tables = Arc::new([Arc::new(table)]);
        program.clusters = clusters.into_iter().collect();
        program
    }
}

/// The program of services on port 80, of which the first is at [`VIP`], with endpoints that listen on ports of their
/// own, and of rules in YAML, where an endpoint is the pod NAME-POSITION on a node of that name.
pub(super) fn compiled(services: &[(&str, &[SocketAddr])], port: &str, rules: &str) -> Program {
    let mut text = String::new();
    for (n, (name, endpoints)) in services.iter().enumerate() {
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{clusterIP: 10.96.0.{}, ports: [{{name: {port}, port: 80}}]}}",
            n + 1
        )
        .unwrap();
        for (position, endpoint) in endpoints.iter().enumerate() {
            writeln!(
                text,
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{position}, \
                 namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\n\
                 endpoints: [{{addresses: [\"{}\"], conditions: {{ready: true}}, \
                 targetRef: {{kind: Pod, name: {name}-{position}}}, nodeName: {name}-{position}}}]\n\
                 ports: [{{name: {port}, port: {}}}]",
                endpoint.ip(),
                endpoint.port()
            )
            .unwrap();
        }
    }
    let mut store = Store::new();
    store.set_file("test.yaml", &format!("{text}{rules}"));
    let (snapshot, findings) = store.assemble();
    assert_eq!(findings, []);
    let compiled = compile(&snapshot, &CompileOptions::default());
    let told: Vec<_> = compiled.findings.iter().filter(|f| f.severity == Severity::Error).collect();
    assert!(told.is_empty(), "{told:?}");
    compiled.program
}

/// A VirtualService for `b` with this spec beside its hosts, in flow style.
pub(super) fn rules(spec: &str) -> String {
    object("VirtualService", &format!("hosts: [b], {spec}"))
}

/// An object of Istio's with this spec, in flow style.
pub(super) fn object(kind: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: b, namespace: default}}\n\
         spec: {{{spec}}}\n"
    )
}

/// The access log, line by line.
pub(super) struct Log {
    chunks: tokio::sync::mpsc::Receiver<String>,
    lines: VecDeque<String>,
}

impl Log {
    /// The next line; waits until a worker hands it over.
    pub(super) async fn recv(&mut self) -> Option<String> {
        while self.lines.is_empty() {
            self.lines.extend(self.chunks.recv().await?.split_inclusive('\n').map(str::to_owned));
        }
        self.lines.pop_front()
    }
}

/// Checks rules for `b` that have this policy and nothing else, at each level where one can stand: the rule's, a port's,
/// a subset's, a port's of a subset. Everything goes to that subset, once.
pub(super) async fn at_each_level(policy: &str, check: impl AsyncFn(String)) {
    let route = "route: [{destination: {host: b, subset: all}}]";
    let routes = rules(&format!("http: [{{retries: {{attempts: 0}}, {route}}}], tcp: [{{{route}}}]"));
    routed_at_each_level(policy, &routes, check).await;
}

/// The same with routes of its own, which lead to the subset `all`.
pub(super) async fn routed_at_each_level(policy: &str, routes: &str, check: impl AsyncFn(String)) {
    let own = |settings: &str| format!(", trafficPolicy: {{{settings}}}");
    let of_port = format!("portLevelSettings: [{{port: {{number: 80}}, {policy}}}]");
    let (policy, port, none) = (own(policy), own(&of_port), String::new());
    let levels = [
        ("rule", &policy, &none),
        ("port", &port, &none),
        ("subset", &none, &policy),
        ("port of the subset", &none, &port),
    ];
    let check = &check;
    let checks = levels.map(|(level, whole, subset)| {
        let rule = object("DestinationRule", &format!("host: b{whole}, subsets: [{{name: all{subset}}}]"));
        let rules = format!("{rule}{routes}");
        // What failed has said so; this adds where.
        async move {
            assert!(AssertUnwindSafe(check(rules)).catch_unwind().await.is_ok(), "at the level of the {level}");
        }
    });
    join_all(checks).await;
}

/// A proxy with one pod, whose listener is at `address`.
pub(super) struct Mesh {
    pub(super) proxy: Proxy,
    pub(super) programs: Arc<Programs>,
    pub(super) address: SocketAddr,
    pub(super) log: Log,
    pub(super) cookie: u64,
    pub(super) pod: Arc<SourcePod>,
}

impl Mesh {
    pub(super) fn new(service: Service) -> Self {
        Self::with(service, Limits::default(), Some(VIP))
    }

    pub(super) fn with(service: Service, limits: Limits, destination: Option<SocketAddr>) -> Self {
        Self::of_pod(service, limits, destination, None)
    }

    /// Of a pod in another namespace than this one; the listener is in this one all the same.
    pub(super) fn of_pod(
        service: Service,
        limits: Limits,
        destination: Option<SocketAddr>,
        netns: Option<NetNs>,
    ) -> Self {
        Self::running(service.program(), limits, destination, netns)
    }

    /// Of what users write: the client dials the first of the services.
    pub(super) fn ruled(services: &[(&str, &[SocketAddr])], rules: &str) -> Self {
        Self::ruled_within(Limits::default(), services, rules)
    }

    pub(super) fn ruled_within(limits: Limits, services: &[(&str, &[SocketAddr])], rules: &str) -> Self {
        Self::running(compiled(services, "http", rules), limits, Some(VIP), None)
    }

    /// As [`Self::ruled`], on a port of another name, which says what it carries.
    pub(super) fn ruled_on(port: &str, services: &[(&str, &[SocketAddr])], rules: &str) -> Self {
        Self::running(compiled(services, port, rules), Limits::default(), Some(VIP), None)
    }

    /// Of what users write, with tracing on.
    pub(super) fn traced(services: &[(&str, &[SocketAddr])], tracing: Tracing) -> Self {
        let programs = Programs::new(compiled(services, "http", ""));
        Self::started(programs, Limits::default(), Some(VIP), None, Some(tracing))
    }

    /// As [`Self::ruled`], in a node where others know of ejections too.
    pub(super) fn among(ejections: Arc<dyn Ejections>, services: &[(&str, &[SocketAddr])], rules: &str) -> Self {
        let programs = Programs::beside(compiled(services, "http", rules), TlsFiles::Any, Some(ejections));
        Self::started(programs, Limits::default(), Some(VIP), None, None)
    }

    pub(super) fn running(
        program: Program,
        limits: Limits,
        destination: Option<SocketAddr>,
        netns: Option<NetNs>,
    ) -> Self {
        Self::started(Programs::new(program), limits, destination, netns, None)
    }

    fn started(
        programs: Arc<Programs>,
        limits: Limits,
        destination: Option<SocketAddr>,
        netns: Option<NetNs>,
        tracing: Option<Tracing>,
    ) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let destinations = Destinations::default();
        if let Some(destination) = destination {
            destinations.0.lock().unwrap().insert(address.port(), destination);
        }
        let (sender, chunks) = tokio::sync::mpsc::channel(4096);
        // Two workers on one listening socket: each connection is served by one of them.
        let config = ProxyConfig { workers: 2, limits, access_log: Some(sender), tracing, ..ProxyConfig::default() };
        let proxy = Proxy::start(config, Arc::clone(&programs), Arc::new(destinations)).unwrap();
        let netns = netns.unwrap_or_else(|| NetNs::own().unwrap());
        let cookie = netns.cookie();
        let pod = SourcePod {
            name: "default/a".into(),
            namespace: "default".into(),
            view: 0.into(),
            netns,
            identity: ArcSwap::default(),
        };
        let pod = Arc::new(pod);
        proxy.add_pod(&pod, vec![vec![listener.try_clone().unwrap()], vec![listener]]);
        let log = Log { chunks, lines: VecDeque::new() };
        Self { proxy, programs, address, log, cookie, pod }
    }

    /// Waits until every worker has done what it was told, and what is due.
    pub(super) async fn ticks(&self) {
        // The first tick may not be over, or come before a command in the same turn.
        for _ in 0..2 {
            let now = monotonic();
            eventually("every worker ticks", || self.proxy.oldest_tick() > now).await;
        }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(super) async fn client(&self) -> Client {
        Client::new(self.connect().await).await
    }

    /// Sends bytes on a connection of their own and reads until the other side closes.
    pub(super) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good an end as any.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A keep-alive client.
pub(super) struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn new(stream: TcpStream) -> Self {
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        Self(sender)
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        soon(async {
            self.0.ready().await.unwrap();
            self.0.send_request(request).await.unwrap()
        })
        .await
    }

    /// Status and body.
    pub(super) async fn get(&mut self, path: &str) -> (u16, String) {
        let request = Request::get(path).header("host", "b").body(Full::default()).unwrap();
        let response = self.send(request).await;
        let status = response.status().as_u16();
        let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// Waits for the other side to close.
    pub(super) async fn closed(&self) {
        eventually("the connection is closed", || self.0.is_closed()).await;
    }
}

/// An address where nobody listens, nor ever will: a socket that is kept has it, and other tests get other ports.
pub(super) fn nobody() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// An origin: what each connection gets.
pub(super) async fn serve<F>(connection: impl Fn(TcpStream, usize) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    // By default it is 128, which some tests fill: a connect that finds the queue full takes a second or fails.
    let listener = socket.listen(1024).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for n in 0.. {
            let Ok((stream, _)) = listener.accept().await else {
                return;
            };
            tokio::spawn(connection(stream, n));
        }
    });
    address
}

/// An HTTP origin.
pub(super) async fn origin<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    serve(move |stream, _| {
        let answer = answer.clone();
        async move {
            let service = service_fn(|request| {
                let response = answer(request);
                async { Ok::<_, std::convert::Infallible>(response.await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

/// An HTTP origin that tells the request that it got: a line with method, path and host, then the headers.
pub(super) async fn mirroring() -> SocketAddr {
    origin(|request| async move {
        let headers = request.headers();
        let host = headers["host"].to_str().unwrap();
        let mut told = format!("{} {} {host}\n", request.method(), request.uri());
        for (name, value) in headers {
            writeln!(told, "{name}: {}", String::from_utf8_lossy(value.as_bytes())).unwrap();
        }
        Response::builder().header("x-origin", "yes").header("server", "origin").body(Full::from(told)).unwrap()
    })
    .await
}

/// An HTTP origin that says its name.
pub(super) async fn named(name: &'static str) -> SocketAddr {
    origin(move |_| async move { Response::new(Full::from(name)) }).await
}
