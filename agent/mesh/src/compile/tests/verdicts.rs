//! What the kernel does with each port, and why.

use super::*;
use crate::finding::code;
use crate::plan::OnFailure;

#[test]
fn tcp_routes_are_weights_in_the_kernel() {
    let spec = "{hosts: [b], tcp: [
        {match: [{port: 9000}], route: [{destination: {host: b, subset: v2}}]},
        {route: [{destination: {host: b, subset: v1}, weight: 70}, {destination: {host: b, subset: v2}, weight: 30}]}],
      http: [{route: [{destination: {host: b, subset: v2}}]}]}";
    let compiled = compiled(&[shop("{name: tcp-db, port: 80, targetPort: 5432}"), vs("shop", "b", spec)].concat());
    assert_eq!(
        compiled.verdict("10.96.0.2"),
        (Verdict::Balance, "the kernel keeps the TCP weights of VirtualService shop/b"),
        "HTTP rules are not for a TCP port"
    );
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v1:70:10.0.0.1:5432,10.0.0.2:5432", "v2:30:10.0.0.3:5432"]);
}

#[test]
fn an_undeclared_port_with_both_kinds_of_routes_keeps_them_apart() {
    let spec = "{hosts: [b], tcp: [{route: [{destination: {host: b, subset: v1}}]}], http: [{route: [{destination: {host: b, subset: v2}}]}]}";
    let compiled = compiled(&[shop("{name: web, port: 80}"), vs("shop", "b", spec)].concat());
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Proxy);
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "b", "/"), "default: b-v2/1=1");
    let port = compiled.program.port(compiled.port(0, "10.96.0.2", 80).expect("known"));
    assert_eq!(&*port.tcp[0].destinations[0].name, "outbound|80|v1|b.shop.svc.cluster.local");
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), ["v2:1:10.0.0.3:80"]);
}

#[test]
fn telemetry_of_requests_is_asked_for_by_namespace() {
    let namespace =
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {weir.mesh/telemetry: http}}\n";
    let with = |port: &str| compiled(&[&*shop(port), namespace].concat()).verdict("10.96.0.2").0;
    assert_eq!(with(HTTP), Verdict::Proxy);
    assert_eq!(with("{name: web, port: 80}"), Verdict::Proxy);
    assert_eq!(with("{name: tcp, port: 80}"), Verdict::Balance);
}

#[test]
fn what_the_kernel_does_without_is_told() {
    let settings = |lb: &str, more: &str| {
        format!("{{loadBalancer: {{simple: {lb}}}, connectionPool: {{tcp: {{connectTimeout: 250ms}}}}{more}}}")
    };
    let rule =
        |policy: &str, subsets: &str| dr("shop", "a-lb", &format!("{{host: b, trafficPolicy: {policy}{subsets}}}"));
    let tcp = "{name: tcp, port: 80}";
    for lb in ["ROUND_ROBIN", "LEAST_REQUEST"] {
        let found = compiled(&[shop(tcp), rule(&settings(lb, ""), "")].concat()).found(code::NO_EFFECT);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("Info DestinationRule shop/a-lb 33: port 80 of b.shop.svc.cluster.local: "),
            "{found:?}"
        );
        assert!(found[0].contains(&format!("{lb} is not kept: the kernel")), "{found:?}");
        assert!(found[1].contains("connectTimeout is not in force"), "{found:?}");
    }
    let random = dr("shop", "a-lb", "{host: b, trafficPolicy: {loadBalancer: {simple: RANDOM}}}");
    assert_eq!(compiled(&[shop(tcp), random].concat()).found(code::NO_EFFECT), [""; 0], "the kernel's is random");
    // The proxy keeps both.
    assert_eq!(
        compiled(&[shop(HTTP), rule(&settings("ROUND_ROBIN", ""), "")].concat()).found(code::NO_EFFECT),
        [""; 0]
    );
    // A subset's settings count where a route leads to it.
    let subset =
        "{host: b, subsets: [{name: v9, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]}";
    let to_subset = vs("shop", "b", "{hosts: [b], tcp: [{route: [{destination: {host: b, subset: v9}}]}]}");
    let with = |route: &str| {
        compiled(&[&*shop(tcp), &dr("shop", "a-lb", subset), route].concat()).found(code::NO_EFFECT).len()
    };
    assert_eq!((with(""), with(&to_subset)), (0, 1));
}

#[test]
fn a_load_balancer_on_a_tcp_port_stays_in_the_kernel() {
    let lb = dr(
        "shop",
        "lb",
        "{host: b, trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {connectTimeout: 250ms}}}}",
    );
    let compiled = compiled(&[shop("{name: tcp, port: 80}"), lb].concat());
    assert_eq!(compiled.verdict("10.96.0.2").0, Verdict::Balance);
    let port = compiled.program.port(compiled.port(0, "10.96.0.2", 80).expect("known"));
    assert_eq!(compiled.program.cluster(port.plain).policy.connect_timeout(), std::time::Duration::from_millis(250));
}

#[test]
fn what_the_kernel_cannot_keep_of_connections_is_the_proxys() {
    let with = |balancer: &str| {
        let rule = dr("shop", "lb", &format!("{{host: b, trafficPolicy: {{loadBalancer: {{{balancer}}}}}}}"));
        let compiled = compiled(&[shop("{name: tcp, port: 80}"), rule].concat());
        let (verdict, why) = compiled.verdict("10.96.0.2");
        (verdict, why.to_owned(), compiled.found(code::NO_EFFECT).len())
    };
    for (balancer, name) in [
        ("consistentHash: {useSourceIp: true}", "consistentHash by source IP"),
        ("simple: ROUND_ROBIN, warmup: {duration: 1m}", "warmup"),
        ("simple: PASSTHROUGH", "PASSTHROUGH"),
    ] {
        let why = format!("DestinationRule shop/lb asks for {name}, which the kernel does not keep");
        assert_eq!(with(balancer), (Verdict::Proxy, why, 0));
    }
    let outliers = dr("shop", "o", "{host: b, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 7}}}");
    for port in ["tcp", "http", "any"] {
        let compiled = compiled(&[&*shop(&format!("{{name: {port}, port: 80}}")), &outliers].concat());
        assert_eq!(
            compiled.verdict("10.96.0.2"),
            (Verdict::Proxy, "DestinationRule shop/o asks for outlierDetection, which the kernel does not keep")
        );
        assert_eq!(compiled.groups(0, "10.96.0.2", 80).len(), 1, "and the kernel balances while no proxy is alive");
    }
    for (port, pool, wanted) in [
        ("tcp", "tcp: {maxConnections: 2}", Verdict::Proxy),
        ("tcp", "tcp: {idleTimeout: 1m}", Verdict::Proxy),
        ("tcp", "tcp: {tcpKeepalive: {time: 1m}}", Verdict::Proxy),
        ("tcp", "tcp: {maxConnectionDuration: 1m}", Verdict::Proxy),
        ("tcp", "tcp: {connectTimeout: 1m}", Verdict::Balance),
        ("tcp", "http: {http1MaxPendingRequests: 1}", Verdict::Balance),
        ("http", "http: {http1MaxPendingRequests: 1}", Verdict::Proxy),
        ("http", "tcp: {maxConnections: 2}", Verdict::Proxy),
        ("any", "http: {maxRequestsPerConnection: 1}", Verdict::Proxy),
    ] {
        let rule = dr("shop", "p", &format!("{{host: b, trafficPolicy: {{connectionPool: {{{pool}}}}}}}"));
        let compiled = compiled(&[shop(&format!("{{name: {port}, port: 80}}")), rule].concat());
        let (verdict, why) = compiled.verdict("10.96.0.2");
        assert_eq!(verdict, wanted, "{port} {pool}: {why}");
        assert!(
            verdict == Verdict::Balance || why.starts_with("DestinationRule shop/p asks for connectionPool"),
            "{why}"
        );
    }
    // Nobody reads a header there: every connection goes anywhere, which the kernel does as well.
    let (verdict, _, told) = with("consistentHash: {httpHeaderName: x-user}");
    assert_eq!((verdict, told), (Verdict::Balance, 1));
}

#[test]
fn without_a_catch_all_or_by_choice_a_port_refuses_while_the_proxy_is_away() {
    let only_x =
        vs("shop", "b", "{hosts: [b], http: [{match: [{uri: {prefix: /x}}], route: [{destination: {host: b}}]}]}");
    let compiled_x = compiled(&[&*shop(HTTP), &only_x].concat());
    let entry = compiled_x.entry(0, "10.96.0.2", 80).expect("planned");
    assert_eq!((entry.verdict, entry.on_failure), (Verdict::Proxy, OnFailure::Refuse));
    assert!(entry.why.ends_with("as no rule takes everything") && entry.fallback.is_empty(), "{}", entry.why);

    let all = vs("shop", "b", "{hosts: [b], http: [{route: [{destination: {host: b}}]}]}");
    for (value, wanted, complaints) in
        [("balance", OnFailure::Balance, 0), ("refuse", OnFailure::Refuse, 0), ("perhaps", OnFailure::Refuse, 1)]
    {
        let annotated = shop(HTTP).replacen(
            "{name: b, namespace: shop}",
            &format!("{{name: b, namespace: shop, annotations: {{weir.mesh/on-failure: {value}}}}}"),
            1,
        );
        let compiled = compiled(&[&*annotated, &all].concat());
        assert_eq!(compiled.entry(0, "10.96.0.2", 80).expect("planned").on_failure, wanted, "{value}");
        assert_eq!(compiled.found(code::BAD_SETTING).len(), complaints);
    }
}

#[test]
fn what_is_not_weirs_passes_with_its_reason() {
    let udp = compiled(&service("a", "dns", "10.96.0.10", "{name: dns, port: 53, protocol: UDP}"));
    let key = PlanKey { view: 0, address: Some(ip("10.96.0.10")), port: 53, udp: true };
    assert_eq!(udp.plan.services[&key].verdict, Verdict::Pass);
    assert!(udp.port(0, "10.96.0.10", 53).is_none());

    let sticky = shop(HTTP).replacen("clusterIP:", "sessionAffinity: ClientIP, clusterIP:", 1);
    let passed = compiled(&sticky);
    assert_eq!(passed.verdict("10.96.0.2"), (Verdict::Pass, "sessionAffinity ClientIP is kept by kube-proxy"));
    assert_eq!(passed.found(code::LEFT_ALONE).len(), 1);
    let ruled =
        compiled(&[sticky, vs("shop", "b", "{hosts: [b], http: [{route: [{destination: {host: b}}]}]}")].concat());
    assert_eq!(ruled.verdict("10.96.0.2").0, Verdict::Proxy, "rules are not given up for affinity");
    assert_eq!(ruled.found(code::LEFT_ALONE).len(), 1);
}

#[test]
fn local_traffic_stays_on_a_known_node() {
    let local = shop(HTTP).replacen("clusterIP:", "internalTrafficPolicy: Local, clusterIP:", 1);
    let local = local.replacen("{nodeName: n1}", "{nodeName: n2}", 1);
    assert_eq!(compiled(&local).verdict("10.96.0.2").0, Verdict::Pass);
    let node = CompileOptions { node: Some("n2".into()), ..CompileOptions::default() };
    let (compiled, _) = with_store(&[("t", &local)], &node);
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), [":1:10.0.0.1:8080"]);
}

#[test]
fn external_names_have_neither_names_nor_entries() {
    let text = [
        shop(HTTP),
        service("shop", "e", "", HTTP).replace("clusterIP: \"\"", "type: ExternalName, externalName: example.com"),
    ]
    .concat();
    let compiled = compiled(&text);
    assert_eq!(compiled.plan.services.len(), 1);
    assert_eq!(compiled.ask(0, "shop", "10.96.0.2", "e", "/"), "unknown host");
}

#[test]
fn each_family_gets_the_endpoints_that_it_can_reach() {
    let dual = service("shop", "d", "10.96.0.4", HTTP)
        .replace("clusterIP: \"10.96.0.4\"", "clusterIPs: [10.96.0.4, \"fd00::4\"]");
    let pod = pod("shop", "d-1", "10.0.0.1", "app: d")
        .replace("[{ip: \"10.0.0.1\"}]", "[{ip: 10.0.0.1}, {ip: \"fd00:1::1\"}]");
    let compiled = compiled(&[dual, pod].concat());
    assert_eq!(compiled.groups(0, "10.96.0.4", 80), [":1:10.0.0.1:8080"]);
    assert_eq!(compiled.groups(0, "fd00::4", 80), [":1:[fd00:1::1]:8080"]);
}

#[test]
fn endpoint_slices_win_over_selectors_and_only_ready_endpoints_serve() {
    let slice = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: b-x, namespace: shop, labels: {kubernetes.io/service-name: b}}
addressType: IPv4
ports: [{name: other, port: 1}, {name: http, port: 9090}]
endpoints:
- {addresses: [10.0.0.1], targetRef: {kind: Pod, name: b-1}}
- {addresses: [10.0.0.3], conditions: {ready: true}}
- {addresses: [10.0.0.4], conditions: {ready: false}}
- {addresses: [10.0.0.5], conditions: {serving: true}, targetRef: {kind: Pod, name: gone}}
";
    let split = vs(
        "shop",
        "b",
        "{hosts: [b], http: [{route: [{destination: {host: b, subset: v1}, weight: 1}, {destination: {host: b, subset: v2}, weight: 1}, {destination: {host: b}, weight: 1}]}]}",
    );
    let compiled = compiled(&[&*shop(HTTP), slice, &split].concat());
    assert_eq!(
        compiled.groups(0, "10.96.0.2", 80),
        ["v1:1:10.0.0.1:9090", "v2:1:10.0.0.3:9090", ":1:10.0.0.1:9090,10.0.0.3:9090,10.0.0.5:9090"],
        "pods are known by name or by address"
    );
}

#[test]
fn pods_without_slices_serve_when_ready() {
    let not_ready = pod("shop", "b-9", "10.0.0.9", "app: b")
        .replace("phase: Running", "phase: Running, conditions: [{type: Ready, status: \"False\"}]");
    let pending = pod("shop", "b-8", "10.0.0.8", "app: b").replace("Running", "Pending");
    let done = pod("shop", "b-7", "10.0.0.7", "app: b").replace("Running", "Failed");
    let elsewhere = pod("other", "b-6", "10.0.0.6", "app: b");
    let compiled = compiled(&[shop(HTTP), not_ready, pending, done, elsewhere].concat());
    assert_eq!(compiled.groups(0, "10.96.0.2", 80), [":1:10.0.0.1:8080,10.0.0.2:8080,10.0.0.3:8080"]);
}

fn protection(kind: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

#[test]
fn what_protects_and_is_not_enforced_refuses() {
    for (kind, namespace, spec, refuses) in [
        ("AuthorizationPolicy", "shop", "{}", true),
        ("AuthorizationPolicy", "istio-system", "{}", true),
        ("AuthorizationPolicy", "other", "{}", false),
        ("AuthorizationPolicy", "shop", "{selector: {matchLabels: {version: v2}}}", true),
        ("AuthorizationPolicy", "shop", "{selector: {matchLabels: {version: v3}}}", false),
        ("AuthorizationPolicy", "shop", "{action: AUDIT}", false),
        ("AuthorizationPolicy", "shop", "{rules: [{}]}", false),
        ("AuthorizationPolicy", "shop", "{action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}, {}]}", false),
        ("AuthorizationPolicy", "shop", "{action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}", true),
        ("AuthorizationPolicy", "shop", "{action: ALLOW, rules: []}", true),
        ("AuthorizationPolicy", "shop", "{action: DENY, rules: [{}]}", true),
        ("AuthorizationPolicy", "shop", "{action: CUSTOM, provider: {name: x}, rules: [{}]}", true),
        ("AuthorizationPolicy", "shop", "{targetRefs: [{kind: Service, name: b}]}", true),
        ("AuthorizationPolicy", "shop", "{targetRefs: [{kind: Service, name: c}]}", false),
        (
            "AuthorizationPolicy",
            "shop",
            "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]}",
            false,
        ),
        ("PeerAuthentication", "shop", "{mtls: {mode: STRICT}}", true),
        ("PeerAuthentication", "istio-system", "{mtls: {mode: STRICT}}", true),
        ("PeerAuthentication", "shop", "{mtls: {mode: PERMISSIVE}}", false),
        (
            "PeerAuthentication",
            "shop",
            "{selector: {matchLabels: {app: b}}, portLevelMtls: {8080: {mode: STRICT}}}",
            true,
        ),
        ("RequestAuthentication", "shop", "{jwtRules: [{issuer: x}]}", true),
    ] {
        let text = [shop(HTTP), protection(kind, namespace, spec)].concat();
        let compiled = compiled(&text);
        let (verdict, why) = compiled.verdict("10.96.0.2");
        assert_eq!(verdict == Verdict::Reject, refuses, "{kind} {namespace} {spec}: {why}");
        // It is told whatever it selects here.
        let restricts = refuses || namespace == "other" || spec.contains("v3") || spec.contains("name: c");
        assert_eq!(compiled.found(code::NOT_ENFORCED).len(), usize::from(restricts), "{kind} {spec}");
    }
}

#[test]
fn what_should_be_encrypted_by_a_backend_tls_policy_refuses() {
    let ports = "{name: http, port: 80, targetPort: 8080}, {name: http-2, port: 81, targetPort: 8080}";
    let both = [true, true];
    for (namespace, spec, refuses) in [
        ("shop", "{targetRefs: [{group: '', kind: Service, name: b}]}", both),
        ("shop", "{targetRefs: [{group: '', kind: Service, name: b, sectionName: http-2}]}", [false, true]),
        ("shop", "{targetRefs: [{group: '', kind: Service, name: b, sectionName: other}]}", [false, false]),
        ("shop", "{targetRefs: [{group: '', kind: Service, name: c}]}", [false, false]),
        ("shop", "{targetRefs: [{group: x.example, kind: Bucket, name: b}]}", [false, false]),
        ("shop", "{targetRef: {group: '', kind: Service, name: b}}", both),
        // It never reaches beyond its namespace, the root namespace included.
        ("istio-system", "{targetRefs: [{group: '', kind: Service, name: b}]}", [false, false]),
    ] {
        let policy = format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {spec}\n"
        );
        let compiled = compiled(&[shop(ports), policy].concat());
        for (port, refuses) in [80, 81].into_iter().zip(refuses) {
            let entry = compiled.entry(0, "10.96.0.2", port).expect("the entry exists");
            assert_eq!(entry.verdict == Verdict::Reject, refuses, "{spec} {port}: {}", entry.why);
            let why = "BackendTLSPolicy shop/p asks for TLS toward its pods, and this version would send plain text";
            assert_eq!(entry.why == why, refuses, "{}", entry.why);
        }
        let told = compiled.found(code::NOT_ENFORCED);
        assert_eq!(told.len(), usize::from(!spec.contains("Bucket")), "{spec}: {told:?}");
    }
}

#[test]
fn a_backend_tls_policy_of_the_root_namespace_that_cannot_be_read_protects_nothing_beyond_it() {
    let policy = |namespace: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {{}}\n"
        )
    };
    for (namespace, refuses) in [("shop", true), ("istio-system", false)] {
        let text = [shop(HTTP), policy(namespace)].concat();
        let (compiled, _) = with_store(&[("t", &text)], &CompileOptions::default());
        assert_eq!(compiled.verdict("10.96.0.2").0 == Verdict::Reject, refuses, "{namespace}");
    }
}

#[test]
fn of_peer_authentications_the_nearest_and_oldest_is_in_force_for_the_ports_that_it_is_about() {
    let of = |namespace: &str, name: &str, year: &str, spec: &str| {
        let created =
            if year.is_empty() { String::new() } else { format!(", creationTimestamp: \"{year}-01-01T00:00:00Z\"") };
        protection("PeerAuthentication", namespace, spec).replacen(
            "metadata: {name: p,",
            &format!("metadata: {{name: {name}{created},"),
            1,
        )
    };
    let (strict, permissive) = ("{mtls: {mode: STRICT}}", "{mtls: {mode: PERMISSIVE}}");
    let of_b = |mode: &str| format!("{{selector: {{matchLabels: {{app: b}}}}, mtls: {{mode: {mode}}}}}");
    let port = |port: u16, mode: &str| {
        format!(
            "{{selector: {{matchLabels: {{app: b}}}}, mtls: {{mode: {mode}}}, portLevelMtls: {{{port}: {{mode: STRICT}}}}}}"
        )
    };
    // The policies, the one for which port 80 of b refuses, and how many are told as not enforced.
    for (policies, refuses, told) in [
        (vec![of("istio-system", "m", "", strict), of("shop", "ns", "", permissive)], None, 1),
        (vec![of("istio-system", "m", "", permissive), of("shop", "ns", "", strict)], Some("ns"), 1),
        (vec![of("istio-system", "m", "", strict), of("shop", "ns", "", "{mtls: {mode: UNSET}}")], Some("m"), 1),
        (vec![of("istio-system", "m", "", strict), of("shop", "ns", "", "{}")], Some("m"), 1),
        (vec![of("shop", "ns", "", strict), of("shop", "w", "", &of_b("DISABLE"))], None, 1),
        (vec![of("shop", "ns", "", permissive), of("shop", "w", "", &of_b("STRICT"))], Some("w"), 1),
        (vec![of("shop", "a", "2021", strict), of("shop", "z", "2020", permissive)], None, 0),
        (vec![of("shop", "a", "2021", permissive), of("shop", "z", "2020", strict)], Some("z"), 1),
        (vec![of("shop", "a", "2021", &of_b("STRICT")), of("shop", "z", "2020", &of_b("DISABLE"))], None, 1),
        (vec![of("istio-system", "m", "", &of_b("STRICT"))], None, 0),
        (vec![of("shop", "w", "", &port(8080, "PERMISSIVE"))], Some("w"), 1),
        (vec![of("shop", "w", "", &port(9999, "PERMISSIVE"))], None, 1),
        (vec![of("shop", "w", "", &port(9999, "UNSET")), of("shop", "ns", "", strict)], Some("ns"), 2),
    ] {
        let (compiled, _) = with_store(&[("t", &[shop(HTTP), policies.concat()].concat())], &CompileOptions::default());
        let (verdict, why) = compiled.verdict("10.96.0.2");
        assert_eq!(verdict == Verdict::Reject, refuses.is_some(), "{policies:?}: {why}");
        let name = refuses.map(|name| format!("/{name} protects"));
        assert!(name.is_none_or(|name| why.contains(&name)), "{policies:?}: {why}");
        assert_eq!(compiled.found(code::NOT_ENFORCED).len(), told, "{policies:?}");
    }
    // One port is protected, the other is not.
    let ports = "{name: http, port: 80, targetPort: 8080}, {name: http-2, port: 81, targetPort: 8081}";
    let compiled = compiled(&[shop(ports), of("shop", "w", "", &port(8081, "DISABLE"))].concat());
    let verdict = |port| compiled.entry(0, "10.96.0.2", port).expect("planned").verdict;
    assert_eq!([verdict(80), verdict(81)], [Verdict::Balance, Verdict::Reject]);
}

#[test]
fn nobody_gets_to_protected_endpoints_through_another_service() {
    let text = [
        shop(HTTP),
        service("shop", "open", "10.96.0.9", HTTP),
        pod("shop", "open-1", "10.0.9.1", "app: open"),
        vs("shop", "open", "{hosts: [open], http: [{match: [{uri: {prefix: /b}}], route: [{destination: {host: b}}]}, {route: [{destination: {host: open}}]}]}"),
        protection("AuthorizationPolicy", "shop", "{selector: {matchLabels: {app: b}}}"),
    ]
    .concat();
    let compiled = compiled(&text);
    assert_eq!(compiled.verdict("10.96.0.9").0, Verdict::Proxy);
    assert_eq!(compiled.ask(0, "shop", "10.96.0.9", "open", "/b"), "default: b/0=1");
    assert_eq!(compiled.ask(0, "shop", "10.96.0.9", "b", "/"), "default: b/0=1");
}

#[test]
fn an_endpoint_of_two_slices_counts_once_and_their_order_does_not_show() {
    let slice = |name: &str, addresses: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: b}}}}\nports: [{{name: http, port: 80}}]\nendpoints: [{{addresses: [{addresses}]}}]\n"
        )
    };
    let text = [shop(HTTP), slice("one", "10.0.0.2, 10.0.0.1"), slice("two", "10.0.0.3, 10.0.0.2")].concat();
    assert_eq!(compiled(&text).groups(0, "10.96.0.2", 80), [":1:10.0.0.1:80,10.0.0.2:80,10.0.0.3:80"]);
}

#[test]
fn a_policy_that_cannot_be_read_refuses_what_it_could_protect() {
    let broken = |namespace: &str, selector: &str| {
        let spec = format!("{{selector: {{matchLabels: {selector}}}, mtls: STRICT}}");
        let text = [shop(HTTP), protection("PeerAuthentication", namespace, &spec)].concat();
        let (compiled, findings) = with_store(&[("t", &text)], &CompileOptions::default());
        assert!(findings.iter().all(|f| f.code == code::INVALID) && !findings.is_empty(), "{findings:?}");
        assert_eq!(compiled.found(code::NOT_ENFORCED), [""; 0], "once is enough");
        let (verdict, why) = compiled.verdict("10.96.0.2");
        assert!(verdict != Verdict::Reject || why.contains("may protect its pods and cannot be read"), "{why}");
        verdict
    };
    assert_eq!(broken("shop", "{app: b}"), Verdict::Reject);
    assert_eq!(broken("shop", "{app: c}"), Verdict::Balance, "its selector can be read");
    assert_eq!(broken("shop", "{app: [c]}"), Verdict::Reject, "its selector cannot");
    assert_eq!(broken("istio-system", "{app: [c]}"), Verdict::Reject);
    assert_eq!(broken("other", "{app: [c]}"), Verdict::Balance);
}

#[test]
fn tls_rules_need_the_proxy_which_reads_the_name() {
    let spec = "{hosts: [b], tls: [{match: [{sniHosts: [b]}], route: [{destination: {host: b, subset: v2}}]}]}";
    let of = |port: &str, spec: &str| {
        let ports = format!("{{name: {port}, port: 80, targetPort: 8080}}");
        let compiled = compiled(&[shop(&ports), vs("shop", "b", spec)].concat());
        let (verdict, why) = compiled.verdict("10.96.0.2");
        let on_failure = compiled.entry(0, "10.96.0.2", 80).expect("there is one").on_failure;
        (verdict, why.to_owned(), on_failure)
    };
    let why = "VirtualService shop/b has TLS rules for the host";
    let refused = format!("{why}; refused while no proxy is alive, as the kernel does not read names");
    for port in ["tls", "https", "any"] {
        assert_eq!(of(port, spec), (Verdict::Proxy, refused.clone(), OnFailure::Refuse), "{port}");
    }
    let with_tcp = spec.replace("hosts: [b],", "hosts: [b], tcp: [{route: [{destination: {host: b}}]}],");
    assert_eq!(of("tls", &with_tcp), (Verdict::Proxy, why.to_owned(), OnFailure::Balance));
    assert_eq!(of("tcp", spec).0, Verdict::Balance, "bytes that are declared to be no TLS");
}
