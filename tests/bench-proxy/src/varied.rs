//! A host with HTTP rules of every sort, and requests that meet them: training with nothing but what the bench asks for
//! would make everything else slow. What is not here is laid out as seldom used: upgrades, SNI, HTTP/2.
//! Used by `training`.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::{mesh, origin};

/// The number of the host, beside those of [`mesh::manifests`], and of one whose pods are spoken to in TLS.
const NUMBER: usize = mesh::HOSTS;
const SECURE: usize = NUMBER + 1;
/// Bytes of the bodies that requests have.
const BODY: usize = 4096;

/// What clients dial.
pub fn destination() -> SocketAddr {
    mesh::destination_of(NUMBER, false)
}

/// Manifests with this host; endpoints are those of every other at `origin_port`, and those of TLS.
pub fn manifests(origin_port: u16, tls_port: u16) -> String {
    let mut text = mesh::manifests(mesh::FEW_ROUTES, origin_port);
    text.push_str("---\n");
    mesh::service(&mut text, NUMBER, origin_port).expect("a String takes everything");
    text.push_str("---\n");
    mesh::service(&mut text, SECURE, tls_port).expect("a String takes everything");
    let (host, secure, namespace, flaky) = (mesh::host(NUMBER), mesh::host(SECURE), mesh::NAMESPACE, origin::FLAKY);
    write!(
        text,
        r#"---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {host}, namespace: {namespace}}}
spec:
  host: {host}
  trafficPolicy:
    loadBalancer: {{simple: LEAST_REQUEST}}
    connectionPool: {{tcp: {{maxConnections: 10000}}, http: {{http1MaxPendingRequests: 10000, maxRetries: 1000}}}}
    outlierDetection: {{consecutive5xxErrors: 50, interval: 10s, baseEjectionTime: 30s}}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
  - {{name: random, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}}
  - {{name: by-user, trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: x-user}}}}}}}}
  - name: by-cookie
    trafficPolicy: {{loadBalancer: {{consistentHash: {{httpCookie: {{name: seen, ttl: 60s}}, maglev: {{tableSize: 65537}}}}}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {secure}, namespace: {namespace}}}
spec:
  host: {secure}
  trafficPolicy: {{tls: {{mode: SIMPLE, insecureSkipVerify: true}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {host}, namespace: {namespace}}}
spec:
  hosts: [{host}]
  http:
  - name: rewritten
    match: [{{uri: {{prefix: /old/}}}}]
    rewrite: {{uri: /new/, authority: new.example}}
    headers:
      request: {{set: {{x-set: a}}, add: {{x-added: b}}, remove: [x-request-source]}}
      response: {{set: {{x-answered: c}}, remove: [server]}}
    route: [{{destination: {{port: {{number: 80}}, host: {host}, subset: v1}}, weight: 50}}, {{destination: {{port: {{number: 80}}, host: {host}, subset: v2}}, weight: 50}}]
  - name: items
    match: [{{uri: {{regex: "/items/[0-9]+/.*"}}}}, {{queryParams: {{item: {{regex: "[0-9]+"}}}}}}]
    route: [{{destination: {{port: {{number: 80}}, host: {host}, subset: random}}}}]
  - name: user
    match: [{{uri: {{prefix: /user/}}, headers: {{x-user: {{regex: ".+"}}}}, withoutHeaders: {{x-robot: {{}}}}}}]
    route: [{{destination: {{port: {{number: 80}}, host: {host}, subset: by-user}}}}]
  - name: cookie
    match: [{{uri: {{prefix: /cookie/}}}}]
    route: [{{destination: {{port: {{number: 80}}, host: {host}, subset: by-cookie}}}}]
  - name: retried
    match: [{{uri: {{prefix: /{flaky}}}}}]
    timeout: 5s
    retries: {{attempts: 5, perTryTimeout: 2s, retryOn: "5xx,reset,connect-failure", backoff: 1ms}}
    route: [{{destination: {{port: {{number: 80}}, host: {host}}}}}]
  - name: moved
    match: [{{uri: {{exact: /moved}}}}]
    redirect: {{uri: /here, authority: new.example, redirectCode: 302}}
  - name: direct
    match: [{{uri: {{exact: /direct}}}}]
    directResponse: {{status: 200, body: {{string: pong}}}}
  - name: faulty
    match: [{{uri: {{prefix: /faulty/}}}}]
    fault: {{abort: {{httpStatus: 503, percentage: {{value: 20}}}}, delay: {{fixedDelay: 1ms, percentage: {{value: 5}}}}}}
    route: [{{destination: {{port: {{number: 80}}, host: {host}}}}}]
  - name: mirrored
    match: [{{uri: {{prefix: /mirrored/}}}}]
    mirrors: [{{destination: {{port: {{number: 80}}, host: {host}, subset: v2}}, percentage: {{value: 50}}}}]
    route: [{{destination: {{port: {{number: 80}}, host: {host}, subset: v1}}}}]
  - name: cors
    match: [{{uri: {{prefix: /cors/}}}}]
    corsPolicy: {{allowOrigins: [{{exact: "http://page.example"}}], allowMethods: [GET, POST], maxAge: 1h}}
    route: [{{destination: {{port: {{number: 80}}, host: {host}}}}}]
  - name: secure
    match: [{{uri: {{prefix: /secure/}}}}]
    route: [{{destination: {{port: {{number: 80}}, host: {secure}}}}}]
  - name: patient
    match: [{{method: {{exact: POST}}}}, {{method: {{exact: PUT}}}}]
    timeout: 10s
    route: [{{destination: {{port: {{number: 80}}, host: {host}, subset: v1}}, weight: 99}}, {{destination: {{port: {{number: 80}}, host: {host}, subset: v2}}, weight: 1}}]
  - route: [{{destination: {{port: {{number: 80}}, host: {host}}}}}]
"#
    )
    .expect("a String takes everything");
    text
}

/// A request that gets 1 KiB.
pub fn request() -> Vec<u8> {
    format!("GET /nothing/in/particular HTTP/1.1\r\nhost: {}\r\n\r\n", mesh::host(NUMBER)).into_bytes()
}

/// Requests, at least one for each rule.
pub fn requests() -> Vec<Vec<u8>> {
    let common = "user-agent: Mozilla/5.0 (X11; Linux x86_64) weir-train\r\naccept: text/html,*/*;q=0.8\r\n\
                  accept-encoding: gzip, br\r\ncookie: session=abcdef; theme=dark\r\nx-request-source: training\r\n\
                  traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let host = mesh::host(NUMBER);
    let get = |path: &str, headers: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: {host}.{}\r\n{common}{headers}\r\n", mesh::NAMESPACE)
    };
    let body = "b".repeat(BODY);
    let sized = format!("content-type: text/plain\r\ncontent-length: {BODY}\r\n");
    let chunked = format!("{BODY:x}\r\n{body}\r\n0\r\n\r\n");
    let flaky = origin::FLAKY;
    [
        get("/old/page?a=b", ""),
        get("/items/42/parts", ""),
        get("/search?item=17&sort=up", ""),
        get("/user/home", "x-user: maria\r\n"),
        get("/user/home", "x-user: john\r\n"),
        get("/cookie/8k", ""),
        get("/cookie/1k", "x-other: 1\r\n"),
        get(&format!("/{flaky}"), ""),
        get("/moved", ""),
        get("/direct", ""),
        get("/faulty/a", ""),
        get("/mirrored/a", ""),
        get("/cors/a", "origin: http://page.example\r\n"),
        format!(
            "OPTIONS /cors/a HTTP/1.1\r\nhost: {host}\r\n{common}origin: http://page.example\r\n\
             access-control-request-method: POST\r\n\r\n"
        ),
        format!("POST /form HTTP/1.1\r\nhost: {host}\r\n{common}{sized}\r\n{body}"),
        format!("PUT /file HTTP/1.1\r\nhost: {host}\r\n{common}transfer-encoding: chunked\r\n\r\n{chunked}"),
        format!("POST /{flaky} HTTP/1.1\r\nhost: {host}\r\n{common}{sized}\r\n{body}"),
        format!("HEAD /page HTTP/1.1\r\nhost: {host}\r\n{common}\r\n"),
        get("/secure/1k", ""),
        get("/secure/16k", ""),
        get("/16k", ""),
        get("/64k", ""),
        get("/nothing/in/particular", ""),
    ]
    .map(String::into_bytes)
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_can_be_carried_out() {
        mesh::program(&manifests(80, 443)).expect("it compiles without an error");
    }
}
