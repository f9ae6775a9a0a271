//! What is told of traffic: Istio's metrics over real sockets.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_mesh::program::Workload;

use super::harness::{Mesh, Service, eventually, named, nobody, serve, soon};
use crate::proxy::Identity;
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
