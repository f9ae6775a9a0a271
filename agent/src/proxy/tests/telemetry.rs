//! What is told of traffic over real sockets: Istio's metrics and traces.

use std::sync::Arc;

use ::http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_mesh::program::{Share, Workload};

use super::harness::{Mesh, Service, eventually, mirroring, named, nobody, serve, soon};
use crate::proxy::{Collector, Identity, Tracing, export};
use weir_mesh::program::Protocol;

/// The value of the one sample of this name whose labels have all of these.
fn sample(mesh: &Mesh, name: &str, labels: &[&str]) -> Option<u64> {
    let text: String = mesh.proxy.istio_metrics().collect();
    let start = format!("{name}{{");
    let fits = |line: &&str| line.starts_with(&start) && labels.iter().all(|label| line.contains(label));
    let found: Vec<&str> = text.lines().filter(fits).collect();
    assert!(found.len() <= 1, "{labels:?} are of several: {found:?}");
    found.first().and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.parse().expect("a number"))
}

const SERVICE: &str = "destination_service=\"b.default.svc.cluster.local\"";

#[tokio::test]
async fn requests_are_told_of_by_who_asked_whom_and_how_it_ended() {
    let mesh = Mesh::ruled(
        &[("b", &[named("v1").await]), ("c", &[nobody()])],
        &super::harness::rules(
            "http: [{match: [{uri: {prefix: /c}}], route: [{destination: {host: c}}]}, \
                {match: [{uri: {prefix: /own}}], directResponse: {status: 418}}, \
                {match: [{uri: {prefix: /b}}], route: [{destination: {host: b}}]}]",
        ),
    );
    let mut client = mesh.client().await;
    for path in ["/b", "/b", "/b", "/c", "/own", "/none"] {
        client.get(path).await;
    }
    let requests = |labels: &[&str]| sample(&mesh, "istio_requests_total", labels);
    let answered = [SERVICE, "response_code=\"200\"", "response_flags=\"-\"", "reporter=\"source\""];
    assert_eq!(requests(&answered), Some(3));
    assert_eq!(requests(&["destination_service_name=\"c\"", "response_code=\"503\"", "UF"]), Some(1));
    assert_eq!(requests(&[SERVICE, "response_code=\"418\""]), Some(1));
    assert_eq!(requests(&[SERVICE, "response_code=\"404\"", "response_flags=\"NR\""]), Some(1));
    assert_eq!(sample(&mesh, "istio_response_bytes_sum", &answered), Some(6));
    assert_eq!(sample(&mesh, "istio_request_duration_milliseconds_count", &answered), Some(3));
    // From now on the pod has a name.
    let workload = Arc::new(Workload { name: "web".into(), ..Workload::default() });
    mesh.pod.identity.store(Arc::new(Identity { workload, addresses: vec![] }));
    mesh.proxy.renamed();
    let told = async {
        loop {
            client.get("/b").await;
            if requests(&["source_workload=\"web\"", "response_code=\"200\""]).is_some() {
                return;
            }
        }
    };
    soon(told).await;
}

#[tokio::test]
async fn connections_are_told_of_while_they_last() {
    let echo = serve(|mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let mesh = Mesh::new(Service::new(Protocol::Tcp, vec![echo]));
    let mut stream = mesh.connect().await;
    stream.write_all(b"hello").await.unwrap();
    soon(stream.read_exact(&mut [0; 5])).await.unwrap();
    let tcp = ["request_protocol=\"tcp\"", "response_flags=\"-\""];
    eventually("bytes are told", || sample(&mesh, "istio_tcp_sent_bytes_total", &tcp) == Some(5)).await;
    assert_eq!(sample(&mesh, "istio_tcp_received_bytes_total", &tcp), Some(5));
    assert_eq!(sample(&mesh, "istio_tcp_connections_opened_total", &tcp), Some(1));
    assert_eq!(sample(&mesh, "istio_tcp_connections_closed_total", &tcp), Some(0));
    drop(stream);
    eventually("the end is told", || sample(&mesh, "istio_tcp_connections_closed_total", &tcp) == Some(1)).await;
}

/// A collector that passes on the messages that it gets.
async fn collector() -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<bytes::Bytes>) {
    let (sender, received) = tokio::sync::mpsc::unbounded_channel();
    let address = super::harness::origin(move |request| {
        let sender = sender.clone();
        async move {
            assert_eq!(request.uri(), "/v1/traces");
            assert_eq!(request.headers()["content-type"], "application/x-protobuf");
            let message = request.into_body().collect().await.unwrap().to_bytes();
            sender.send(message).unwrap();
            Response::new(Full::default())
        }
    })
    .await;
    (address, received)
}

#[tokio::test]
async fn a_trace_is_told_onwards_and_its_span_exported() {
    let (address, mut messages) = collector().await;
    let (tracing, spans) = Tracing::new(Share::NONE);
    tokio::spawn(export(Collector::parse(&format!("http://{address}")).unwrap(), spans));
    let mesh = Mesh::traced(&[("b", &[mirroring().await])], tracing);
    let mut client = mesh.client().await;
    let mut ask = async |name: &str, value: &str| {
        let request = Request::get("/x").header("host", "b").header(name, value).body(Full::default()).unwrap();
        let body = client.send(request).await.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    };
    let told = |answer: &str, name: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.map(ToOwned::to_owned)
    };
    let trace = "0af7651916cd43dd8448eb211c80319c";
    // Nobody has decided, and the share is nothing.
    let answer = ask("x-request-id", "mine").await;
    assert!(told(&answer, "traceparent").is_some_and(|parent| parent.ends_with("-00")), "{answer}");
    assert_eq!(told(&answer, "x-request-id").as_deref(), Some("mine"));
    // Somebody has.
    let answer = ask("traceparent", &format!("00-{trace}-b7ad6b7169203331-01")).await;
    let parent = told(&answer, "traceparent").expect("told onwards");
    let (start, end) = (format!("00-{trace}-"), "-01");
    let span = parent.strip_prefix(&start).and_then(|rest| rest.strip_suffix(end)).expect("the same trace");
    assert!(span.len() == 16 && span != "b7ad6b7169203331", "a span of its own: {parent}");
    let id = told(&answer, "x-request-id").expect("made");
    assert!(id.len() == 36 && id.as_bytes()[14] == b'4', "{id}");
    let message = soon(messages.recv()).await.expect("exported");
    let holds = |bytes: &[u8]| message.windows(bytes.len()).any(|window| window == bytes);
    let raw = |hex: &str| u128::from_str_radix(hex, 16).unwrap().to_be_bytes();
    assert!(holds(&raw(trace)) && holds(&raw(span)[8..]) && holds(&raw("b7ad6b7169203331")[8..]));
    for text in ["b.default.svc.cluster.local:80/*", "http://b/x", &id, "outbound|80||b.default.svc.cluster.local"] {
        assert!(holds(text.as_bytes()), "{text}");
    }
    assert!(!holds(b"mine"), "what is not sampled is not exported");
}

/// Who is behind the loopback.
const POD: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: d-0, namespace: default, labels: {app: d}}\n\
    spec: {nodeName: n1}\nstatus: {phase: Running, podIP: 127.0.0.1}\n";

/// From now on the pod that all endpoints are takes part on this node.
fn is_served(mesh: &Mesh) {
    let addresses = vec!["127.0.0.1".parse().unwrap()];
    mesh.pod.identity.store(Arc::new(Identity { workload: Arc::default(), addresses }));
    mesh.proxy.renamed();
}

#[tokio::test]
async fn who_gave_no_answer_is_told_of_by_this_side_alone() {
    let breaking = serve(|mut stream, _| async move { drop(stream.read(&mut [0; 1024]).await) }).await;
    let silent = serve(|mut stream, _| async move { drop(stream.read_to_end(&mut Vec::new()).await) }).await;
    let rule = super::harness::rules(
        "http: [{match: [{uri: {prefix: /broken}}], route: [{destination: {host: c}}]}, \
            {match: [{uri: {prefix: /late}}], timeout: 50ms, route: [{destination: {host: e}}]}, \
            {match: [{uri: {prefix: /slow}}], retries: {attempts: 1, perTryTimeout: 50ms, retryOn: 5xx}, \
             route: [{destination: {host: e}}]}, \
            {match: [{uri: {prefix: /empty}}], route: [{destination: {host: f}}]}, \
            {match: [{uri: {prefix: /good}}], route: [{destination: {host: g}}]}, \
            {route: [{destination: {host: b}}]}]",
    );
    let (dead, good) = (nobody(), named("good").await);
    let services: [(&str, &[_]); 5] =
        [("b", &[dead]), ("c", &[breaking]), ("e", &[silent]), ("f", &[]), ("g", &[good])];
    let mut mesh = Mesh::ruled(&services, &format!("{rule}{POD}"));
    is_served(&mesh);
    let mut client = mesh.client().await;
    for (path, service, status, flags, tried) in [
        ("/dead", "b", 503, "UF,URX", Some(dead)),
        ("/broken", "c", 503, "UC", Some(breaking)),
        ("/late", "e", 504, "UT", Some(silent)),
        ("/slow", "e", 504, "UT,URX", Some(silent)),
        ("/empty", "f", 503, "UH", None),
        ("/good", "g", 200, "-", Some(good)),
    ] {
        assert_eq!(client.get(path).await.0, status, "{path}");
        let line = soon(mesh.log.recv()).await.unwrap();
        let host = tried.map_or_else(|| " \"-\" outbound".to_owned(), |endpoint| format!("\"{endpoint}\""));
        assert!(line.contains(&host), "{path}: {line}");
        let (service, flags) =
            (format!("destination_service_name=\"{service}\""), format!("response_flags=\"{flags}\""));
        let workload =
            if tried.is_some() { "destination_workload=\"d-0\"" } else { "destination_workload=\"unknown\"" };
        let told = |reporter| sample(&mesh, "istio_requests_total", &[&service, &flags, workload, reporter]);
        assert_eq!(told("reporter=\"source\""), Some(1), "{path}");
        // The other side has seen nothing of what it did not answer.
        assert_eq!(told("reporter=\"destination\""), (status == 200).then_some(1), "{path}");
    }
}

#[tokio::test]
async fn connections_that_nobody_took_are_told_of_with_whom_they_were_for() {
    let dead = nobody();
    let mut mesh = Mesh::ruled_on("tcp", &[("b", &[dead])], POD);
    is_served(&mesh);
    // It may be over before the client has noticed that it began.
    if let Ok(mut stream) = soon(TcpStream::connect(mesh.address)).await {
        soon(stream.read_to_end(&mut Vec::new())).await.ok();
    }
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains(&format!("\"{dead}\"")), "{line}");
    let told = |reporter| {
        let labels = [SERVICE, "response_flags=\"UF\"", "destination_workload=\"d-0\"", reporter];
        sample(&mesh, "istio_tcp_connections_closed_total", &labels)
    };
    assert_eq!((told("reporter=\"source\""), told("reporter=\"destination\"")), (Some(1), None));
}
