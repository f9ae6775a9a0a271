//! `tls` of DestinationRules: what is encrypted, for which server, and what is refused instead of sent as plain text.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ::http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::authority::{Authority, Saw, Wanted};
use super::harness::{Mesh, at_each_level, eventually, named, object, rules, serve, soon};
use crate::proxy::Flag;

pub(super) const B: Wanted<'static> = Wanted { names: &["b.example.com"], expired: false, revoked: false };

fn tls(spec: &str) -> String {
    object("DestinationRule", &format!("host: b, trafficPolicy: {{tls: {{{spec}}}}}"))
}

/// Status and body of a request for this host, and what the access log says of the upstream's transport.
pub(super) async fn ask(mesh: &mut Mesh, host: &str) -> (u16, String, String) {
    let request = Request::get("/").header("host", host).body(Full::default()).unwrap();
    let response = mesh.client().await.send(request).await;
    let status = response.status().as_u16();
    let body = soon(response.into_body().collect()).await.unwrap().to_bytes();
    let line = soon(mesh.log.recv()).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap(), line)
}

/// It is refused, with this in the log, and the server has got nothing of the request.
pub(super) async fn refused(mesh: &mut Mesh, host: &str, why: &str) {
    let (status, _, line) = ask(mesh, host).await;
    assert_eq!(status, 503, "{line}");
    assert!(line.contains(" 503 UF") && line.contains("TLS_error: ") && line.contains(why), "{why}: {line}");
}

pub(super) fn seen(saw: &Arc<Mutex<Vec<Saw>>>) -> Vec<Saw> {
    std::mem::take(&mut *saw.lock().unwrap())
}

#[tokio::test]
async fn a_good_server_gets_requests_over_one_connection_that_was_asked_for_by_its_name() {
    let authority = Authority::new();
    let (address, saw) = authority.http(B, false, "sealed").await;
    let ca = authority.ca();
    let mut mesh =
        Mesh::ruled(&[("b", &[address])], &tls(&format!("mode: SIMPLE, caCertificates: {ca}, sni: b.example.com")));
    let mut client = mesh.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await, (200, "sealed".into()));
    }
    let one =
        Saw { sni: Some("b.example.com".into()), alpn: Some("http/1.1".into()), certificate: false, resumed: false };
    assert_eq!(seen(&saw), [one], "one handshake for ten requests");
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains(" 200 - via_upstream "), "{line}");
}

#[tokio::test]
async fn without_a_name_of_the_rule_the_request_says_for_whom_and_no_connection_serves_two_names() {
    let authority = Authority::new();
    let wanted = Wanted { names: &["b", "b.example.com", "127.0.0.1"], ..B };
    let (address, saw) = authority.http(wanted, false, "sealed").await;
    let services: [(&str, &[SocketAddr]); 1] = [("b", &[address])];
    let rule = tls(&format!("mode: SIMPLE, caCertificates: {}", authority.ca()));
    let hosts =
        rules("http: [{route: [{destination: {host: b}}]}]").replace("hosts: [b]", "hosts: [b, '*.example.com']");
    let mut mesh = Mesh::ruled(&services, &format!("{rule}{hosts}"));
    for host in ["b", "b.example.com:80", "b", "b.example.com"] {
        assert_eq!(ask(&mut mesh, host).await.0, 200, "{host}");
    }
    let names: Vec<_> = seen(&saw).into_iter().map(|saw| saw.sni.unwrap()).collect();
    // Two workers have a pool each.
    assert!((2..=4).contains(&names.len()), "{names:?}");
    assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 2, "{names:?}");
    refused(&mut mesh, "other.example.com", "not for other.example.com").await;
    let rewritten = rules("http: [{rewrite: {authority: b.example.com}, route: [{destination: {host: b}}]}]");
    let mut mesh = Mesh::ruled(&services, &format!("{rule}{rewritten}"));
    assert_eq!(ask(&mut mesh, "b").await.0, 200);
    assert_eq!(seen(&saw).pop().unwrap().sni.as_deref(), Some("b.example.com"), "as the server reads it");
}

#[tokio::test]
async fn mutual_presents_the_clients_certificate_and_without_one_the_server_hangs_up() {
    let authority = Authority::new();
    let (certificate, key) = authority.put("client", &authority.issue(Wanted { names: &["client"], ..B }));
    let ca = authority.ca();
    let mutual = format!(
        "tls: {{mode: MUTUAL, caCertificates: {ca}, sni: b.example.com, clientCertificate: {certificate}, privateKey: {key}}}"
    );
    at_each_level(&mutual, async |rule| {
        let (address, saw) = authority.http(B, true, "mutual").await;
        let mut mesh = Mesh::ruled(&[("b", &[address])], &rule);
        assert_eq!(ask(&mut mesh, "b").await.1, "mutual");
        let saw = seen(&saw);
        assert!(!saw.is_empty() && saw.iter().all(|saw| saw.certificate), "{saw:?}");
    })
    .await;
    at_each_level(&format!("tls: {{mode: SIMPLE, caCertificates: {ca}, sni: b.example.com}}"), async |rule| {
        let (address, saw) = authority.http(B, true, "mutual").await;
        let mut mesh = Mesh::ruled(&[("b", &[address])], &rule);
        let (status, _, line) = ask(&mut mesh, "b").await;
        assert_eq!(status, 503, "{line}");
        assert!(line.contains("CertificateRequired"), "{line}");
        assert_eq!(seen(&saw), []);
    })
    .await;
}

#[tokio::test]
async fn replaced_files_take_effect_and_while_they_are_no_good_the_last_ones_stay() {
    let (first, second) = (Authority::new(), Authority::new());
    let one = first.http(B, false, "one").await.0;
    let two = second.http(B, false, "two").await.0;
    let rule = |address: SocketAddr| {
        let spec = format!("mode: SIMPLE, caCertificates: {}, sni: b.example.com", first.ca());
        Mesh::ruled(&[("b", &[address])], &tls(&spec))
    };
    let (mut to_one, mut to_two) = (rule(one), rule(two));
    assert_eq!(ask(&mut to_one, "b").await.1, "one");
    refused(&mut to_two, "b", "UnknownIssuer").await;
    assert_eq!(to_two.programs.tls_problems(), []);
    assert!(!to_two.programs.refresh_tls(), "nothing has changed");

    first.write("ca.pem", "nothing of use");
    assert!(to_one.programs.refresh_tls());
    let problems = to_one.programs.tls_problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].1.ends_with("has no certificate; what was read before stays in force"), "{}", problems[0].1);
    assert_eq!(ask(&mut to_one, "b").await.1, "one");

    first.write("ca.pem", &second.pem());
    for mesh in [&mut to_one, &mut to_two] {
        assert!(mesh.programs.refresh_tls());
        assert_eq!(mesh.programs.tls_problems(), []);
    }
    assert_eq!(ask(&mut to_two, "b").await.1, "two");
    let mut to_one = rule(one);
    refused(&mut to_one, "b", "UnknownIssuer").await;
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_refused_and_comes_into_force_once_it_is_there() {
    let authority = Authority::new();
    let (address, saw) = authority.http(B, false, "sealed").await;
    let path = authority.path("later.pem");
    let mut mesh =
        Mesh::ruled(&[("b", &[address])], &tls(&format!("mode: SIMPLE, caCertificates: {path}, sni: b.example.com")));
    let (origin, problem) = mesh.programs.tls_problems().pop().unwrap();
    assert_eq!(origin.object.to_string(), "DestinationRule default/b");
    assert!(problem.contains("later.pem cannot be read") && problem.ends_with("are refused"), "{problem}");
    refused(&mut mesh, "b", "later.pem cannot be read").await;
    assert_eq!((seen(&saw).len(), mesh.proxy.counters().upstream_connects), (0, 0), "nobody was connected to");
    authority.write("later.pem", &authority.pem());
    assert!(mesh.programs.refresh_tls());
    assert_eq!(ask(&mut mesh, "b").await.1, "sealed");

    let (certificate, _) = authority.put("one", &authority.issue(B));
    let (_, key) = authority.put("two", &authority.issue(B));
    let spec = format!("mode: MUTUAL, caCertificates: {path}, clientCertificate: {certificate}, privateKey: {key}");
    let mut mesh = Mesh::ruled(&[("b", &[address])], &tls(&spec));
    refused(&mut mesh, "b", "cannot be used").await;
}

#[tokio::test]
async fn a_port_and_a_subset_have_their_own() {
    let authority = Authority::new();
    let (sealed, _) = authority.http(B, false, "sealed").await;
    let plain = named("plain").await;
    let simple = format!("tls: {{mode: SIMPLE, caCertificates: {}, sni: b.example.com}}", authority.ca());
    for (address, policy, says) in [
        (sealed, format!("portLevelSettings: [{{port: {{number: 80}}, {simple}}}]"), "sealed"),
        (plain, format!("portLevelSettings: [{{port: {{number: 443}}, {simple}}}]"), "plain"),
        (plain, format!("{simple}, portLevelSettings: [{{port: {{number: 80}}, tls: {{mode: DISABLE}}}}]"), "plain"),
    ] {
        let rule = object("DestinationRule", &format!("host: b, trafficPolicy: {{{policy}}}"));
        let mut mesh = Mesh::ruled(&[("b", &[address])], &rule);
        assert_eq!(ask(&mut mesh, "b").await.1, says, "{policy}");
    }
    // Of two subsets with the same endpoint one is encrypted: their connections are never taken for one another.
    let (both, saw) = authority.http(B, false, "sealed").await;
    let rule = object(
        "DestinationRule",
        &format!("host: b, subsets: [{{name: v1, trafficPolicy: {{{simple}}}}}, {{name: v2}}]"),
    );
    let routes = rules(
        "http: [{match: [{uri: {prefix: /v1}}], route: [{destination: {host: b, subset: v1}}]}, {route: [{destination: {host: b, subset: v2}}]}]",
    );
    let mesh = Mesh::ruled(&[("b", &[both])], &format!("{rule}{routes}"));
    let mut client = mesh.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/v1").await, (200, "sealed".into()));
        let (status, _) = client.get("/v2").await;
        assert!(status >= 400, "plain text to a server of TLS");
    }
    assert_eq!(seen(&saw).len(), 1);
}

#[tokio::test]
async fn failed_handshakes_eject_and_the_good_ones_serve() {
    let authority = Authority::new();
    let good = authority.http(B, false, "good").await.0;
    let bad = authority.http(Wanted { names: &["c.example.com"], ..B }, false, "bad").await.0;
    let policy = format!(
        "tls: {{mode: SIMPLE, caCertificates: {}, sni: b.example.com}}, loadBalancer: {{simple: ROUND_ROBIN}}, outlierDetection: {{splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2, interval: 5m, baseEjectionTime: 5m}}",
        authority.ca()
    );
    let rule = object("DestinationRule", &format!("host: b, trafficPolicy: {{{policy}}}"));
    let mesh = Mesh::ruled(&[("b", &[good, bad])], &rule);
    let mut client = mesh.client().await;
    for _ in 0..20 {
        client.get("/").await;
    }
    assert_eq!(mesh.proxy.counters().ejections, 1);
    for _ in 0..10 {
        assert_eq!(client.get("/").await, (200, "good".into()));
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_takes_no_longer_than_a_connect_may() {
    let silent = serve(|mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let policy = "tls: {mode: SIMPLE, insecureSkipVerify: true}, connectionPool: {tcp: {connectTimeout: 200ms}}";
    let rule = object("DestinationRule", &format!("host: b, trafficPolicy: {{{policy}}}"));
    let once = rules("http: [{retries: {attempts: 0}, route: [{destination: {host: b}}]}]");
    let mut mesh = Mesh::ruled(&[("b", &[silent])], &format!("{rule}{once}"));
    let started = std::time::Instant::now();
    refused(&mut mesh, "b", "no end of the handshake in time").await;
    let took = started.elapsed().as_millis();
    assert!((200..2000).contains(&took), "{took} ms");
}

#[tokio::test]
async fn sessions_are_resumed() {
    let authority = Authority::new();
    let (address, saw) = authority.http(B, false, "sealed").await;
    let policy = format!(
        "tls: {{mode: SIMPLE, caCertificates: {}, sni: b.example.com}}, connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}",
        authority.ca()
    );
    let rule = object("DestinationRule", &format!("host: b, trafficPolicy: {{{policy}}}"));
    let mesh = Mesh::ruled(&[("b", &[address])], &rule);
    let mut client = mesh.client().await;
    for _ in 0..4 {
        assert_eq!(client.get("/").await.0, 200);
    }
    let resumed: Vec<bool> = seen(&saw).into_iter().map(|saw| saw.resumed).collect();
    assert_eq!(resumed, [false, true, true, true]);
}

/// Reads to the end, then answers with everything backwards: works only if ends pass in both directions.
async fn backwards(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all.reverse();
    stream.write_all(&all).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_http_are_encrypted_too() {
    let authority = Authority::new();
    let names = Wanted { names: &["b.default.svc.cluster.local"], ..B };
    let (address, saw) = authority.server(&authority.issue(names), false, backwards).await;
    for (port, spec) in [("tcp", ""), ("unnamed", ", sni: b.default.svc.cluster.local"), ("tls", ""), ("grpc", "")] {
        let rule = tls(&format!("mode: SIMPLE, caCertificates: {}{spec}", authority.ca()));
        let mut mesh = Mesh::ruled_on(port, &[("b", &[address])], &rule);
        for len in [1, 100_000, 3_000_000] {
            let sent: Vec<u8> = (0..len).map(|n: usize| 128 | (n * 31 + n / 251) as u8).collect();
            let mut stream = mesh.connect().await;
            let (mut read, mut write) = stream.split();
            let mut got = Vec::new();
            tokio::join!(
                async {
                    write.write_all(&sent).await.unwrap();
                    write.shutdown().await.unwrap();
                },
                async {
                    soon(read.read_to_end(&mut got)).await.unwrap();
                }
            );
            got.reverse();
            assert!(got == sent, "{port}, {len} bytes");
            let line = soon(mesh.log.recv()).await.unwrap();
            assert!(line.contains(&format!(" - - - \"-\" {len} {len} ")), "{line}");
        }
        let alpn = (port == "grpc").then(|| "h2".to_owned());
        let saw = seen(&saw);
        assert_eq!(saw.len(), 3, "{port}");
        assert!(saw.iter().all(|saw| saw.sni.as_deref() == Some("b.default.svc.cluster.local") && saw.alpn == alpn));
        assert_eq!(mesh.proxy.counters().tcp_spliced, 0);
    }
}

#[tokio::test]
async fn bytes_for_a_server_that_proves_nothing_are_reset() {
    let authority = Authority::new();
    let (address, _) = authority.server(&authority.issue(B), false, backwards).await;
    let mut mesh =
        Mesh::ruled_on("tcp", &[("b", &[address])], &tls(&format!("mode: SIMPLE, caCertificates: {}", authority.ca())));
    let mut stream = mesh.connect().await;
    let read = async {
        stream.write_all(b"secret").await?;
        stream.read(&mut [0]).await
    };
    assert_eq!(soon(read).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains(" 0 UF ") && line.contains("not for b.default.svc.cluster.local"), "{line}");
}

#[tokio::test]
async fn a_stream_that_is_cut_off_does_not_look_like_one_that_ended() {
    let authority = Authority::new();
    let names = Wanted { names: &["b.default.svc.cluster.local"], ..B };
    let (address, _) = authority
        .server(&authority.issue(names), false, |mut stream| async move {
            stream.write_all(b"half of it").await.unwrap();
            stream.flush().await.unwrap();
            // The socket ends, and nothing was said of it within the encryption.
            stream.get_mut().0.shutdown().await.unwrap();
            let _ = stream.read(&mut [0]).await;
        })
        .await;
    let rule = tls(&format!("mode: SIMPLE, caCertificates: {}", authority.ca()));
    let mut mesh = Mesh::ruled_on("tcp", &[("b", &[address])], &rule);
    let mut stream = mesh.connect().await;
    assert!(soon(stream.read_to_end(&mut Vec::new())).await.is_err());
    let line = soon(mesh.log.recv()).await.unwrap();
    assert!(line.contains(" 0 UC ") && line.contains("TLS_error: "), "{line}");
    eventually("counted", || mesh.proxy.counters().flag(Flag::UpstreamClosed) == 1).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_through_tls() {
    let authority = Authority::new();
    let names = Wanted { names: &["b.default.svc.cluster.local"], ..B };
    let (address, _) = authority
        .server(&authority.issue(names), false, |mut stream| async move {
            stream.write_all(b"220 hello\r\n").await.unwrap();
            stream.flush().await.unwrap();
            let mut line = [0; 6];
            stream.read_exact(&mut line).await.unwrap();
            stream.write_all(&line).await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .await;
    let rule = tls(&format!("mode: SIMPLE, caCertificates: {}", authority.ca()));
    let mesh = Mesh::ruled_on("unnamed", &[("b", &[address])], &rule);
    let mut stream = mesh.connect().await;
    let mut greeting = [0; 11];
    soon(stream.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 hello\r\n");
    stream.write_all(b"QUIT\r\n").await.unwrap();
    let mut echo = Vec::new();
    soon(stream.read_to_end(&mut echo)).await.unwrap();
    assert_eq!(echo, b"QUIT\r\n");
}

#[tokio::test]
async fn large_bodies_pass_both_ways_and_upgrades_too() {
    let authority = Authority::new();
    let (address, _) = authority
        .server(&authority.issue(B), false, |mut stream| async move {
            let mut read = Vec::new();
            let mut byte = [0];
            while !read.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).await.unwrap();
                read.push(byte[0]);
            }
            if read.starts_with(b"GET") {
                stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
                    .await
                    .unwrap();
                return backwards(stream).await;
            }
            let mut body = vec![0; 2_000_000];
            stream.read_exact(&mut body).await.unwrap();
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes())
                .await
                .unwrap();
            stream.write_all(&body).await.unwrap();
            stream.flush().await.unwrap();
            let _ = stream.read(&mut byte).await;
        })
        .await;
    let rule = tls(&format!("mode: SIMPLE, caCertificates: {}, sni: b.example.com", authority.ca()));
    let mesh = Mesh::ruled(&[("b", &[address])], &rule);
    let sent: Vec<u8> = (0..2_000_000_usize).map(|n| (n * 31 + n / 251) as u8).collect();
    let request = Request::post("/").header("host", "b").body(Full::from(sent.clone())).unwrap();
    let response = mesh.client().await.send(request).await;
    let got = soon(response.into_body().collect()).await.unwrap().to_bytes();
    assert!(got == sent);

    let mut stream = mesh.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: b\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nabc").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\ncba"), "{answer}");
}

#[tokio::test]
async fn a_client_of_plain_http_reaches_a_host_beyond_the_mesh_by_tls() {
    let authority = Authority::new();
    let (address, saw) = authority.http(Wanted { names: &["api.example.com"], ..B }, false, "beyond").await;
    let entry = format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api, namespace: default}}\n\
         spec: {{hosts: [api.example.com], addresses: [10.96.0.1], resolution: STATIC, \
         ports: [{{number: 80, targetPort: {}, name: http, protocol: HTTP}}], endpoints: [{{address: {}}}]}}\n",
        address.port(),
        address.ip()
    );
    let rule = object(
        "DestinationRule",
        &format!("host: api.example.com, trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {}}}}}", authority.ca()),
    );
    let mut mesh = Mesh::ruled(&[], &format!("{entry}{rule}"));
    assert_eq!(ask(&mut mesh, "api.example.com").await.1, "beyond");
    assert_eq!(seen(&saw)[0].sni.as_deref(), Some("api.example.com"));
    // Names that the entry gives hold where the rule gives none.
    let named = entry.replace("resolution:", "subjectAltNames: [other.example.com], resolution:");
    let mut mesh = Mesh::ruled(&[], &format!("{named}{rule}"));
    refused(&mut mesh, "api.example.com", "not for other.example.com").await;
}
