//! DestinationRule, Gateway, ServiceEntry, WorkloadEntry, WorkloadGroup, Sidecar.

use super::{NETWORKING, lines, table};

fn policy(rows: &[(&str, &str)]) {
    for (policy, wanted) in rows {
        table(NETWORKING, "DestinationRule", &[(&format!("{{host: a, trafficPolicy: {policy}}}"), wanted)]);
    }
}

#[test]
fn hosts_and_subsets_of_a_destination_rule() {
    table(
        NETWORKING,
        "DestinationRule",
        &[
            ("{host: '*.a.b', subsets: [{name: v1, labels: {version: v1}}, {name: v2}]}", ""),
            ("{host: a, workloadSelector: {matchLabels: {app: a}}, exportTo: [.]}", ""),
            ("{subsets: []}", "!spec.host: must be given"),
            ("{host: a_b}", "!spec.host: a_b is no host name"),
            ("{host: a, subsets: [{name: v1}, {name: v1}]}", "!spec.subsets[1].name: v1 is there twice"),
            ("{host: a, subsets: [{labels: {a: b}}]}", "!spec.subsets[0].name: must be given"),
            ("{host: a, subsets: [{name: v.1}]}", "!spec.subsets[0].name: v.1 must be letters, digits and -"),
            (
                "{host: a, subsets: [{name: v1, labels: {a: 'b c'}}]}",
                "!spec.subsets[0].labels.a: b c is no value of a label",
            ),
            ("{host: a, workloadSelector: {matchLabels: {}}}", "?spec.workloadSelector: selects every workload"),
            (
                "{host: a, workloadSelector: {matchLabels: {app: 'a*'}}}",
                "!spec.workloadSelector.matchLabels.app: a selector takes no *",
            ),
            (
                "{host: a, workloadSelector: {matchLabels: {app: a}}, exportTo: [other]}",
                "!spec.exportTo[0]: a rule with a workloadSelector",
            ),
        ],
    );
}

#[test]
fn connection_pools_and_outlier_detection() {
    policy(&[
        (
            "{connectionPool: {http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}, tcp: {maxConnections: 2}}}",
            "",
        ),
        ("{}", "!spec.trafficPolicy: must have one of connectionPool"),
        ("{connectionPool: {}}", "!spec.trafficPolicy.connectionPool: must have one of http and tcp"),
        (
            "{connectionPool: {tcp: {maxConnections: -1}}}",
            "!spec.trafficPolicy.connectionPool.tcp.maxConnections: must not be negative",
        ),
        (
            "{connectionPool: {tcp: {connectTimeout: 0s}}}",
            "!spec.trafficPolicy.connectionPool.tcp.connectTimeout: 0s must be a duration",
        ),
        (
            "{connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}}",
            "!spec.trafficPolicy.connectionPool.http.useClientProtocol: cannot be true",
        ),
        (
            "{connectionPool: {http: {http2KeepAlive: {timeout: 1s}}}}",
            "!spec.trafficPolicy.connectionPool.http.http2KeepAlive.interval: must be given",
        ),
        ("{outlierDetection: {consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 15m, minHealthPercent: 0}}", ""),
        (
            "{outlierDetection: {maxEjectionPercent: 101}}",
            "!spec.trafficPolicy.outlierDetection.maxEjectionPercent: must be between 0 and 100",
        ),
        (
            "{outlierDetection: {consecutiveErrors: 5}}",
            "?spec.trafficPolicy.outlierDetection.consecutiveErrors: is outdated; write consecutive5xxErrors",
        ),
        (
            "{outlierDetection: {consecutiveLocalOriginFailures: 5}}",
            "!spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures: counts nothing of its own otherwise; add splitExternalLocalOriginErrors: true",
        ),
        ("{portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}", ""),
        ("{portLevelSettings: [{port: {number: 80}}]}", "!spec.trafficPolicy.portLevelSettings[0]: must have one of"),
        (
            "{portLevelSettings: [{loadBalancer: {simple: RANDOM}}]}",
            "!spec.trafficPolicy.portLevelSettings[0].port: must be given",
        ),
        ("{retryBudget: {percent: 120}}", "!spec.trafficPolicy.retryBudget.percent: must be between 0 and 100"),
    ]);
}

#[test]
fn load_balancers() {
    policy(&[
        ("{loadBalancer: {simple: LEAST_REQUEST, warmup: {duration: 1m, minimumPercent: 20, aggression: 2}}}", ""),
        ("{loadBalancer: {consistentHash: {httpCookie: {name: u, ttl: 0s}}}}", ""),
        ("{loadBalancer: {consistentHash: {httpHeaderName: x, maglev: {tableSize: 65537}}}}", ""),
        (
            "{loadBalancer: {simple: RANDON}}",
            "!spec.trafficPolicy.loadBalancer.simple: RANDON must be one of UNSPECIFIED, LEAST_CONN, RANDOM, PASSTHROUGH, ROUND_ROBIN and LEAST_REQUEST; did you mean RANDOM?",
        ),
        (
            "{loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}",
            "!spec.trafficPolicy.loadBalancer: only one of simple and consistentHash",
        ),
        (
            "{loadBalancer: {consistentHash: {httpHeaderName: x, useSourceIp: true}}}",
            "!spec.trafficPolicy.loadBalancer.consistentHash: only one of",
        ),
        (
            "{loadBalancer: {consistentHash: {httpCookie: {name: ''}}}}",
            "!spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.name: must not be empty",
        ),
        (
            "{loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 5, ringHash: {}}}}",
            "!spec.trafficPolicy.loadBalancer.consistentHash: only one of minimumRingSize",
        ),
        (
            "{loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 5}}}",
            "?spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize: is outdated",
        ),
        (
            "{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65536}}}}",
            "!spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize: must be a prime number",
        ),
        (
            "{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 5000011}}}}",
            "!spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize: must be less than",
        ),
        (
            "{loadBalancer: {warmup: {aggression: 1}}}",
            "!spec.trafficPolicy.loadBalancer.warmup.duration: must be given",
        ),
        (
            "{loadBalancer: {warmup: {duration: 1m, aggression: 0}}}",
            "!spec.trafficPolicy.loadBalancer.warmup.aggression: must be greater than 0",
        ),
        ("{loadBalancer: {localityLbSetting: {distribute: [{from: a/b/*, to: {a/b/*: 80, c/d: 20}}]}}}", ""),
        (
            "{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 80, c: 30}}]}}}",
            "!spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to: the weights must add up to 100, and add up to 110",
        ),
        (
            "{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 50, a/b: 50}}]}}}",
            "!spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to.a/b: a/b and a overlap",
        ),
        (
            "{loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {'*/b': 100}}]}}}",
            "!spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to.*/b: */b: * may only be at its end",
        ),
        // Without outlier detection nothing ever fails over.
        (
            "{loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}}",
            "?spec.trafficPolicy.loadBalancer.localityLbSetting: nothing fails over",
        ),
        ("{outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}}", ""),
        (
            "{outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}}",
            "!spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0]: from and to must be different",
        ),
        (
            "{outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: a/b, to: c}]}}}",
            "!spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].from: a/b must be a region",
        ),
        (
            "{loadBalancer: {localityLbSetting: {enabled: true}, zoneAwareLbSetting: {enabled: true}}}",
            "!spec.trafficPolicy.loadBalancer: only one of localityLbSetting and zoneAwareLbSetting",
        ),
    ]);
}

#[test]
fn tls_to_a_destination_and_tunnels() {
    policy(&[
        ("{tls: {mode: SIMPLE, sni: a.b}}", ""),
        ("{tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k}}", ""),
        ("{tls: {mode: MUTUAL, credentialName: c}}", ""),
        ("{tls: {mode: ISTIO_MUTUAL, sni: a.b}}", ""),
        (
            "{tls: {mode: MUTUAL, privateKey: /k}}",
            "!spec.trafficPolicy.tls.clientCertificate: must be given for MUTUAL",
        ),
        (
            "{tls: {mode: MUTUAL, credentialName: c, privateKey: /k}}",
            "!spec.trafficPolicy.tls.privateKey: cannot be given together with credentialName",
        ),
        (
            "{tls: {mode: ISTIO_MUTUAL, caCertificates: /c}}",
            "!spec.trafficPolicy.tls.caCertificates: ISTIO_MUTUAL uses",
        ),
        (
            "{tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: /c}}",
            "!spec.trafficPolicy.tls.caCertificates: is for verifying",
        ),
        (
            "{tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}}",
            "!spec.trafficPolicy.tls.subjectAltNames: is for verifying",
        ),
        (
            "{tls: {mode: simple}}",
            "!spec.trafficPolicy.tls.mode: simple must be one of DISABLE, SIMPLE, MUTUAL and ISTIO_MUTUAL; did you mean SIMPLE?",
        ),
        ("{tunnel: {targetHost: a.b, targetPort: 443, protocol: CONNECT}}", ""),
        (
            "{tunnel: {targetHost: a.b, targetPort: 443, protocol: GET}}",
            "!spec.trafficPolicy.tunnel.protocol: GET must be CONNECT or POST",
        ),
        (
            "{tunnel: {targetHost: '*.b', targetPort: 443}}",
            "!spec.trafficPolicy.tunnel.targetHost: *.b is no host name",
        ),
        (
            "{tunnel: {targetHost: a.b, targetPort: 443}, proxyProtocol: {version: V1}}",
            "!spec.trafficPolicy: only one of tunnel and proxyProtocol",
        ),
    ]);
}

fn servers(rows: &[(&str, &str)]) {
    for (fields, wanted) in rows {
        table(NETWORKING, "Gateway", &[(&format!("{{selector: {{istio: x}}, servers: [{{{fields}}}]}}"), wanted)]);
    }
}

#[test]
fn servers_of_a_gateway() {
    let http = "port: {number: 80, name: http, protocol: HTTP}";
    let https = "port: {number: 443, name: https, protocol: HTTPS}";
    servers(&[
        (&format!("{http}, hosts: [a.b, '*.c.d', ns/e.f, ./g.h, '*/*', '*']"), ""),
        (&format!("{http}, hosts: [a.b], tls: {{httpsRedirect: true}}"), ""),
        (&format!("{https}, hosts: [a.b], tls: {{mode: SIMPLE, credentialName: c}}"), ""),
        (
            &format!(
                "{https}, hosts: [a.b], tls: {{mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /a}}"
            ),
            "",
        ),
        (&format!("{https}, hosts: [a.b], tls: {{mode: ISTIO_MUTUAL}}"), ""),
        (&format!("{https}, hosts: [a.b], tls: {{}}"), ""),
        ("port: {number: 0, name: u, protocol: HTTP}, bind: unix:///run/x, hosts: [a.b]", ""),
        (&format!("{http}, hosts: []"), "!spec.servers[0].hosts: must name a host"),
        (http, "!spec.servers[0].hosts: must be given"),
        (&format!("{http}, hosts: [a]"), "!spec.servers[0].hosts[0]: a is a short name"),
        (&format!("{http}, hosts: ['*bar.com']"), "!spec.servers[0].hosts[0]: *bar.com: * must be a whole label"),
        (&format!("{http}, hosts: ['~/a.b']"), "!spec.servers[0].hosts[0]: ~ must be a namespace"),
        (&format!("{http}, hosts: [a.b], bind: here"), "!spec.servers[0].bind: here must be an IP address"),
        (
            &format!("{http}, hosts: [a.b], bind: unix:///run/x"),
            "!spec.servers[0].bind: a Unix socket has the port number 0",
        ),
        (&format!("{https}, hosts: [a.b]"), "!spec.servers[0].tls: must be given for HTTPS"),
        (
            &format!("{http}, hosts: [a.b], tls: {{mode: SIMPLE, credentialName: c}}"),
            "!spec.servers[0].tls: HTTP is plain text",
        ),
        (
            "port: {number: 80, name: t, protocol: TCP}, hosts: [a.b], tls: {mode: SIMPLE, credentialName: c}",
            "!spec.servers[0].tls: cannot be given for TCP; write protocol: TLS",
        ),
        (
            "port: {number: 80, name: x, protocol: HTPP}, hosts: [a.b]",
            "!spec.servers[0].port.protocol: HTPP must be one of",
        ),
        ("port: {number: 80, protocol: HTTP}, hosts: [a.b]", "!spec.servers[0].port.name: must be given"),
        (
            "port: {number: 80, name: x, protocol: HTTP, targetPort: 8080}, hosts: [a.b]",
            "?spec.servers[0].port.targetPort: does nothing",
        ),
        (
            &format!("{https}, hosts: [a.b], tls: {{mode: SIMPLE}}, name: x, bind: ''")
                .replace("mode: SIMPLE", "mode: SIMPLE, serverCertificate: /c"),
            "!spec.servers[0].tls.privateKey: SIMPLE needs a private key",
        ),
        (
            &format!("{https}, hosts: [a.b], tls: {{mode: MUTUAL, serverCertificate: /c, privateKey: /k}}"),
            "!spec.servers[0].tls.caCertificates: MUTUAL needs",
        ),
        (
            &format!("{https}, hosts: [a.b], tls: {{mode: SIMPLE, credentialName: c, credentialNames: [d]}}"),
            "!spec.servers[0].tls: only one source",
        ),
        (
            &format!("{https}, hosts: [a.b], tls: {{mode: ISTIO_MUTUAL, credentialName: c}}"),
            "!spec.servers[0].tls.credentialName: ISTIO_MUTUAL",
        ),
        (
            &format!("{https}, hosts: [a.b], tls: {{mode: PASSTHROUGH, credentialName: c}}"),
            "?spec.servers[0].tls: PASSTHROUGH uses no certificate",
        ),
        (
            &format!("{https}, hosts: [a.b], tls: {{mode: SIMPLE, credentialName: c, httpsRedirect: true}}"),
            "?spec.servers[0].tls.httpsRedirect: does something",
        ),
        (
            &format!(
                "{https}, hosts: [a.b], tls: {{mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}}"
            ),
            "!spec.servers[0].tls.minProtocolVersion: must not be greater",
        ),
        (
            &format!("{https}, hosts: [a.b], tls: {{mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_0}}"),
            "?spec.servers[0].tls.minProtocolVersion: versions before",
        ),
        (
            &format!(
                "{https}, hosts: [a.b], tls: {{mode: SIMPLE, credentialName: c, cipherSuites: [AES128-SHA, nonsense]}}"
            ),
            "?spec.servers[0].tls.cipherSuites[1]: nonsense is no cipher",
        ),
    ]);
    table(
        NETWORKING,
        "Gateway",
        &[
            ("{selector: {a: b}}", "!spec.servers: must have a server"),
            (
                &format!("{{servers: [{{{http}, hosts: [a.b]}}, {{{http}, hosts: [c.d]}}]}}"),
                "!spec.servers[1]: the port's name http is there twice",
            ),
        ],
    );
    let dotted = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: a.b}}\nspec: {{servers: [{{{http}, hosts: [a.b]}}]}}"
    );
    assert!(lines(&dotted)[0].starts_with("!metadata.name: a.b: the name of a Gateway"), "{:?}", lines(&dotted));
}

#[test]
fn hosts_ports_and_endpoints_of_a_service_entry() {
    let http = "ports: [{number: 80, name: http, protocol: HTTP}]";
    let row = |fields: &str| format!("{{{fields}, {http}}}");
    for (fields, wanted) in [
        ("hosts: [a.b], resolution: DNS", ""),
        ("hosts: ['*.a.b'], resolution: DYNAMIC_DNS", ""),
        ("hosts: [a.b], resolution: STATIC, endpoints: [{address: 10.0.0.1, ports: {http: 8080}}]", ""),
        ("hosts: [a.b], resolution: STATIC, workloadSelector: {labels: {a: b}}", ""),
        ("hosts: [a.b], addresses: [10.0.0.0/8], exportTo: ['~']", ""),
        ("hosts: [a.b], resolution: DNS, endpoints: [{address: c.d}]", ""),
        ("hosts: []", "!spec.hosts: must not be empty"),
        ("hosts: ['*']", "!spec.hosts[0]: * cannot be a service's host"),
        ("hosts: ['*a.b']", "?spec.hosts[0]: *a.b: * should be a whole label"),
        (
            "hosts: [a.b], resolution: DNS, addresses: [10.0.0.0/8]",
            "!spec.addresses[0]: a range is for NONE and STATIC only",
        ),
        ("hosts: ['*.a.b'], resolution: DNS", "!spec.hosts[0]: DNS cannot look up *.a.b without endpoints"),
        (
            "hosts: [a.b], resolution: DNS_ROUND_ROBIN, endpoints: [{address: c.d}, {address: e.f}]",
            "!spec.endpoints: DNS_ROUND_ROBIN takes one",
        ),
        ("hosts: [a.b], endpoints: [{address: 10.0.0.1}]", "!spec.endpoints: cannot be given with resolution: NONE"),
        (
            "hosts: [a.b], resolution: STATIC, endpoints: [{address: c.d}]",
            "!spec.endpoints[0].address: c.d must be an IP address",
        ),
        (
            "hosts: [a.b], resolution: STATIC, endpoints: [{address: 10.0.0.1, ports: {web: 1}}]",
            "!spec.endpoints[0].ports.web: the service has no port",
        ),
        (
            "hosts: [a.b], resolution: STATIC, endpoints: [{labels: {a: b}}]",
            "!spec.endpoints[0].address: must be given",
        ),
        (
            "hosts: [a.b], resolution: STATIC, endpoints: [{address: 'unix:///x', ports: {http: 1}}]",
            "!spec.endpoints[0].ports: a Unix socket has no ports",
        ),
        (
            "hosts: [a.b], resolution: STATIC, endpoints: [], workloadSelector: {labels: {a: b}}",
            "!spec: only one of workloadSelector and endpoints",
        ),
        ("hosts: [a.b], resolution: DYNAMIC_DNS", "!spec.hosts[0]: DYNAMIC_DNS is for hosts such as"),
        (
            "hosts: [a.b], workloadSelector: {labels: {a: b}}",
            "?spec.workloadSelector: selects nothing with resolution: NONE",
        ),
    ] {
        table(NETWORKING, "ServiceEntry", &[(&row(fields), wanted)]);
    }
    let ports = |ports: &str| format!("{{hosts: [a.b], addresses: [10.0.0.1], resolution: STATIC, ports: {ports}}}");
    for (list, wanted) in [
        ("[{number: 80, name: a}, {number: 81, name: b, protocol: TLS}]", ""),
        ("[{number: 80, name: a}, {number: 80, name: b}]", "!spec.ports[1].number: 80 is there twice"),
        ("[{number: 80, name: a}, {number: 81, name: a}]", "!spec.ports[1]: name a is there twice"),
        ("[{number: 0, name: a}]", "!spec.ports[0].number: must be between 1 and 65535"),
        ("[{number: 80, name: a_b}]", "!spec.ports[0].name: a_b is no name of a port"),
        ("[{number: 80, name: a, protocol: HTPP}]", "!spec.ports[0].protocol: HTPP must be one of"),
    ] {
        table(NETWORKING, "ServiceEntry", &[(&ports(list), wanted)]);
    }
    table(
        NETWORKING,
        "ServiceEntry",
        &[
            ("{hosts: [a.b], ports: [{number: 80, name: t, protocol: TCP}]}", "?spec.ports[0]: without spec.addresses"),
            (
                "{hosts: [a.b, c.d], addresses: [10.0.0.1], resolution: STATIC, ports: [{number: 80, name: t, protocol: TCP}]}",
                "!spec.ports[0]: with several hosts",
            ),
        ],
    );
}

#[test]
fn workloads_and_sidecars() {
    table(
        NETWORKING,
        "WorkloadEntry",
        &[
            ("{address: 10.0.0.1, ports: {http: 80}}", ""),
            ("{address: vm.example.com}", ""),
            ("{network: net}", "?spec: has no address in the network net"),
            ("{labels: {a: b}}", "!spec.address: must be given"),
            ("{address: 'unix://x'}", "!spec.address: x must be the absolute path"),
        ],
    );
    table(
        NETWORKING,
        "WorkloadGroup",
        &[
            ("{template: {serviceAccount: a}, probe: {httpGet: {port: 80}}}", ""),
            ("{template: {}, probe: {}}", "!spec.probe: one of httpGet"),
            ("{probe: {tcpSocket: {port: 1}}}", "!spec.template: must be given"),
        ],
    );
    table(
        NETWORKING,
        "Sidecar",
        &[
            ("{egress: [{hosts: ['./*', istio-system/*, '~/*']}]}", ""),
            ("{}", "!spec: must have one of"),
            ("{egress: [{hosts: [a.b]}]}", "!spec.egress[0].hosts[0]: a.b must be namespace/host; write ./a.b"),
            (
                "{egress: [{hosts: ['./*']}, {hosts: ['./*'], port: {number: 80, protocol: HTTP, name: x}}]}",
                "!spec.egress[0]: a listener without a port",
            ),
        ],
    );
}
