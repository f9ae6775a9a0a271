//! Which protocol a port speaks.

use super::*;
use crate::program::Protocol;

#[test]
fn the_application_protocol_wins_over_the_name_and_the_name_over_custom() {
    let ports = [
        ("name: http-web", Protocol::Http),
        ("name: HTTP", Protocol::Http),
        ("name: grpc-web-x", Protocol::Http),
        ("name: grpc", Protocol::Http2),
        ("name: http2-x", Protocol::Http2),
        ("name: https", Protocol::Tls),
        ("name: tls-x", Protocol::Tls),
        ("name: tcp-db", Protocol::Tcp),
        ("name: mongo", Protocol::Tcp),
        ("name: redis", Protocol::Tcp),
        ("name: apache", Protocol::Detect),
        ("name: httpx", Protocol::Detect),
        ("name: tcp-x, appProtocol: http", Protocol::Http),
        ("name: http-x, appProtocol: kubernetes.io/h2c", Protocol::Http2),
        ("name: x, appProtocol: kubernetes.io/ws", Protocol::Http),
        ("name: x2, appProtocol: kubernetes.io/wss", Protocol::Tls),
        ("name: http-y, appProtocol: example.com/own", Protocol::Detect),
    ];
    let list: Vec<String> = (1000..).zip(&ports).map(|(n, (port, _))| format!("{{{port}, port: {n}}}")).collect();
    let custom = ", {name: db, port: 3306}, {name: smtp, port: 25}, {name: http-odd, port: 53}";
    let compiled = compiled(&service("a", "a", "10.96.0.1", &[&*list.join(", "), custom].concat()));
    let protocol = |n| compiled.entry(0, "10.96.0.1", n).expect("planned").protocol;
    for (number, (port, wanted)) in (1000..).zip(&ports) {
        assert_eq!(protocol(number), *wanted, "{port}");
    }
    assert_eq!([protocol(3306), protocol(25), protocol(53)], [Protocol::Tcp, Protocol::Tcp, Protocol::Http]);
}
