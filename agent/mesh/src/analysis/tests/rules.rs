//! Single rules where they are easily got wrong.

use super::super::{Options, Sources, analyze};
use super::{NOW, codes, found, of, one};
use crate::finding::Severity;

pub(super) const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
";

pub(super) fn virtual_service(http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web, namespace: shop}}\nspec:\n  hosts: [web]\n  http:\n{http}"
    )
}

#[test]
fn a_short_name_is_of_the_objects_namespace_and_a_dotted_one_is_taken_as_it_is() {
    let to = |host: &str| {
        let rule = virtual_service(&format!("  - route: [{{destination: {{host: {host}}}}}]\n"));
        codes(&format!("{rule}---{SERVICE}")).contains("IST0101")
    };
    assert!(!to("web") && !to("web.shop.svc.cluster.local"));
    assert!(to("web.shop") && to("web.other.svc.cluster.local"));
}

#[test]
fn what_is_not_exported_is_not_there() {
    let hidden =
        SERVICE.replace("namespace: shop", "namespace: db, annotations: {networking.istio.io/exportTo: \".\"}");
    let rule = virtual_service("  - route: [{destination: {host: web.db.svc.cluster.local}}]\n");
    let finding = one("IST0101", &format!("{rule}---{hidden}"));
    assert!(finding.message.contains("exportTo"), "{finding}");
    let shown = hidden.replace("\".\"", "\"., shop\"");
    assert!(!codes(&format!("{rule}---{shown}")).contains("IST0101"));
}

#[test]
fn both_subsets_of_a_split_are_told_of() {
    let rule = virtual_service(
        "  - route:\n    - {destination: {host: web, subset: v1}, weight: 90}\n    - {destination: {host: web, subset: v2}, weight: 10}\n  - mirror: {host: web, subset: v3}\n    match: [{uri: {exact: /}}]\n    route: [{destination: {host: web}}]\n",
    );
    let found = of("IST0101", &format!("{rule}---{SERVICE}"));
    let messages: Vec<&str> = found.iter().map(|finding| finding.message.split(';').next().unwrap()).collect();
    assert_eq!(
        messages,
        [
            "host+subset in destinationrule not found: \"web+v1\"",
            "host+subset in destinationrule not found: \"web+v2\"",
            "mirror+subset in destinationrule not found: \"web+v3\"",
        ]
    );
}

#[test]
fn templates_count_as_pods_and_the_label_that_is_missing_is_named() {
    let text = format!(
        "{SERVICE}---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: shop}}
spec: {{template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: []}}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web-2, namespace: shop}}
spec: {{template: {{metadata: {{labels: {{app: web, version: v2}}}}, spec: {{containers: []}}}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: shop}}
spec: {{host: web, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}
"
    );
    let finding = one("IST0173", &text);
    assert!(finding.message.starts_with("subset v1 selects no pod: no pod of web has version=v1"), "{finding}");
    assert!(finding.message.contains("app=web,version=v2"), "{finding}");
}

#[test]
fn pods_count_as_labelled_with_the_zone_of_their_node() {
    let text = format!(
        "{SERVICE}---
apiVersion: v1
kind: Node
metadata: {{name: n1, labels: {{topology.kubernetes.io/zone: a}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: shop, labels: {{app: web}}}}
spec: {{nodeName: n1, containers: []}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: shop}}
spec: {{host: web, subsets: [{{name: a, labels: {{topology.kubernetes.io/zone: a}}}}]}}
"
    );
    assert!(!codes(&text).contains("IST0173"));
    assert!(codes(&text.replace("zone: a}}]", "zone: b}}]")).contains("IST0173"));
}

#[test]
fn a_rule_for_many_hosts_needs_one_of_them() {
    let rule = |host: &str| {
        format!(
            "{SERVICE}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: all, namespace: shop}}\nspec: {{host: \"{host}\", trafficPolicy: {{tls: {{mode: DISABLE}}}}}}\n"
        )
    };
    assert!(!codes(&rule("*.shop.svc.cluster.local")).contains("IST0174"));
    assert!(!codes(&rule("*.local")).contains("IST0174"));
    assert!(codes(&rule("*.example.com")).contains("IST0174"));
}

#[test]
fn shadowing_is_told_only_where_it_can_be_proved() {
    let pair = |first: &str, second: &str| {
        let rule = |text: &str| format!("  - match: [{text}]\n    route: [{{destination: {{host: web}}}}]\n");
        let text = virtual_service(&format!("{}{}", rule(first), rule(second)));
        let codes = codes(&text);
        (codes.contains("WEIR0017"), codes.contains("IST0131"))
    };
    for (first, second, shadowed, repeated) in [
        ("{uri: {prefix: /a}}", "{uri: {exact: /a/b}}", true, false),
        ("{uri: {regex: \"/a.\"}}", "{uri: {exact: /ab}}", true, false),
        ("{uri: {regex: \"/a\"}}", "{uri: {exact: /ab}}", false, false),
        ("{uri: {regex: \"/a.*\"}}", "{uri: {prefix: /ab}}", true, false),
        ("{uri: {regex: \"/a.*\"}}", "{uri: {regex: \"/a.*\"}, port: 80}", true, false),
        ("{uri: {prefix: /}}", "{headers: {x: {exact: \"1\"}}}", true, false),
        ("{uri: {prefix: /a}}", "{uri: {prefix: /a/b}, headers: {x: {exact: \"1\"}}}", true, false),
        ("{uri: {prefix: /a}, headers: {x: {exact: \"1\"}}}", "{uri: {prefix: /a/b}}", false, false),
        ("{uri: {prefix: /a}}", "{uri: {prefix: /a/b}}", false, true),
        ("{uri: {exact: /a}}", "{uri: {exact: /a}, name: x}", false, true),
        ("{uri: {prefix: /A}, ignoreUriCase: true}", "{uri: {exact: /a/b}}", true, false),
        ("{uri: {prefix: /a}}", "{uri: {exact: /a}, ignoreUriCase: true}", false, false),
        ("{uri: {prefix: /a}, sourceLabels: {app: x}}", "{uri: {exact: /a}}", false, false),
        ("{uri: {prefix: /a}, gateways: [front]}", "{uri: {exact: /a}}", false, false),
        ("{uri: {prefix: /a}, unknown: 1}", "{uri: {exact: /a}}", false, false),
    ] {
        assert_eq!(pair(first, second), (shadowed, repeated), "{first} then {second}");
    }
}

#[test]
fn the_oldest_destination_rule_holds_and_the_others_say_what_they_lose() {
    let rule = |name: &str, created: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: shop, creationTimestamp: \"{created}\"}}\nspec: {{host: web, {spec}}}\n---\n"
        )
    };
    let random = "trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let text = rule("a", "2030-01-02T00:00:00Z", random) + &rule("b", "2030-01-01T00:00:00Z", random);
    let all = of("WEIR0018", &text);
    let by = |name: &str| all.iter().find(|f| &*f.object.as_ref().unwrap().name == name).unwrap();
    assert_eq!((by("a").severity, by("b").severity), (Severity::Warning, Severity::Info));
    assert!(by("a").message.contains("its trafficPolicy, as DestinationRule shop/b has one"), "{}", by("a"));
    // Clients of other namespaces, or other clients, follow other rules.
    assert!(
        !codes(&(rule("a", "", random) + &rule("b", "", &format!("exportTo: [\".\"], {random}")))).contains("WEIR0018")
    );
}

#[test]
fn rules_for_one_host_name_a_few_of_each_other() {
    let rule = |n: usize| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web-{n:04}, namespace: shop}}\nspec: {{host: web, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}}\n"
        )
    };
    let told = |count: usize| {
        let found = of("WEIR0018", &(0..count).map(rule).collect::<String>());
        assert_eq!(found.len(), count);
        found.into_iter().map(|finding| finding.message.len()).sum::<usize>()
    };
    let (half, whole) = (told(400), told(800));
    assert!(whole <= half * 3, "{whole} characters of 800 rules, {half} of 400");
    let first = of("WEIR0018", &(0..7).map(rule).collect::<String>()).remove(0).message;
    assert!(first.contains("DestinationRule shop/web-0005 and 1 more, too)"), "{first}");
}

#[test]
fn a_prefix_is_greedy_where_a_later_rule_is_for_what_it_takes() {
    let greedy = |first: &str, second: &str| {
        let rule =
            |uri: &str| format!("  - match: [{{uri: {{{uri}}}}}]\n    route: [{{destination: {{host: web}}}}]\n");
        codes(&virtual_service(&(rule(first) + &rule(second)))).contains("WEIR0021")
    };
    for path in ["/v20", "/v2-x", "/v2_x", "/v2Foo", "/v2foo/x"] {
        assert!(greedy("prefix: /v2", &format!("exact: {path}")), "{path}");
        assert!(!greedy(&format!("exact: {path}"), "prefix: /v2"), "{path} comes first");
    }
    for path in ["/v2", "/v2/x", "/v2.x", "/v1x", "/v3"] {
        assert!(!greedy("prefix: /v2", &format!("exact: {path}")), "{path}");
    }
}

#[test]
fn a_rule_of_the_clients_hides_the_owners_where_it_matters() {
    let to_v1 = virtual_service("  - route: [{destination: {host: web, subset: v1}}]\n");
    let rule = |namespace: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
        )
    };
    let owner = rule("shop", "web", "host: web, subsets: [{name: v1, labels: {app: web}}]");
    let random = "trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let all = |namespace: &str| rule(namespace, "all", &format!("host: \"*\", {random}"));
    let text = format!("{to_v1}---{SERVICE}{owner}");
    let told =
        |more: &str| of("WEIR0030", &format!("{text}{more}")).into_iter().map(|f| f.severity).collect::<Vec<_>>();
    assert_eq!(told(""), []);
    let found = one("WEIR0030", &format!("{text}{}", all("client")));
    assert!(found.message.contains("and not DestinationRule shop/web (0.yaml:"), "{found}");
    assert!(
        found.message.ends_with("subset v1, to which VirtualService shop/web sends, is not there for them: 503 (NC)"),
        "{found}"
    );
    // Of the root namespace, of the owner's, or for others, it hides nothing.
    assert_eq!([told(&all("istio-system")), told(&all("shop"))], [[], []]);
    assert_eq!(told(&rule("client", "all", &format!("host: \"*\", exportTo: [x], {random}"))), []);
    // A closer one of its own namespace defines what is needed.
    let full = "web.shop.svc.cluster.local";
    let closer = rule("client", "web", &format!("host: {full}, subsets: [{{name: v1, labels: {{app: web}}}}]"));
    assert_eq!(told(&(all("client") + &closer)), []);
    assert_eq!(told(&rule("client", "web", &format!("host: {full}, {random}"))), [Severity::Warning]);
    // Nobody names the subset: a rule for the host alone is meant so, one for everything perhaps not.
    let unused = text.replace(", subset: v1", "");
    let quiet =
        |more: &str| of("WEIR0030", &format!("{unused}{more}")).into_iter().map(|f| f.severity).collect::<Vec<_>>();
    assert_eq!(quiet(&all("client")), [Severity::Info]);
    assert_eq!(quiet(&rule("client", "web", &format!("host: {full}, {random}"))), []);
    // Those who do not see the owner's rule lose nothing.
    let kept = text.replace("spec: {host: web,", "spec: {host: web, exportTo: [\".\"],");
    assert_eq!(of("WEIR0030", &format!("{kept}{}", all("client"))), []);
}

#[test]
fn hosts_that_no_address_stands_for_are_told_of() {
    let of_hosts = |hosts: &str| virtual_service("  - route: [{destination: {host: web}}]\n").replace("[web]", hosts);
    let told = |hosts: &str| of("WEIR0010", &format!("{}---{SERVICE}", of_hosts(hosts))).len();
    assert_eq!(told("[web]"), 0);
    assert_eq!(told("[\"*.shop.svc.cluster.local\"]"), 0);
    assert_eq!(told("[\"*.wild.io\"]"), 1);
    assert_eq!(told("[web, ext.example.com, \"*.wild.io\"]"), 2);
    let entry = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: ext, namespace: shop}\nspec: {hosts: [a.wild.io], addresses: [10.9.0.1], ports: [{name: http, number: 80, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.9.1.1}]}\n";
    assert_eq!(of("WEIR0010", &format!("{}---{SERVICE}{entry}", of_hosts("[a.wild.io, \"*.wild.io\"]"))), []);
    let alias = SERVICE
        .replace("web", "alias")
        .replace("selector: {app: alias}", "type: ExternalName, externalName: web.shop.svc.cluster.local");
    let finding = one("WEIR0010", &format!("{}---{SERVICE}---{alias}", of_hosts("[alias]")));
    assert!(finding.message.contains("an alias (type ExternalName)"), "{finding}");
    assert!(finding.message.contains("as they would in Istio"), "{finding}");
}

#[test]
fn a_gateway_that_is_not_there_is_one_fault() {
    let at =
        virtual_service("  - route: [{destination: {host: web}}]\n").replace("hosts:", "gateways: [front]\n  hosts:");
    assert_eq!(one("IST0101", &format!("{at}---{SERVICE}")).severity, Severity::Error);
    assert_eq!(one("IST0132", &format!("{at}---{SERVICE}")).severity, Severity::Info);
}

#[test]
fn an_object_can_say_that_it_is_meant_so() {
    let port = |annotations: &str| {
        codes(
            &SERVICE
                .replace("namespace: shop", &format!("namespace: shop, annotations: {{{annotations}}}"))
                .replace("name: http, ", ""),
        )
        .contains("IST0118")
    };
    assert!(port(""));
    assert!(!port("weir.mesh/analyze-suppress: \"IST0101, IST0118\""));
    assert!(!port("galley.istio.io/analyze-suppress: \"*\""));
    assert!(port("galley.istio.io/analyze-suppress: IST0101"));
}

#[test]
fn what_kubernetes_runs_for_itself_is_left_alone() {
    assert!(
        found(&[&SERVICE.replace("namespace: shop", "namespace: kube-system").replace("name: http, ", "")]).is_empty()
    );
}

#[test]
fn a_broken_document_hides_none_of_the_others() {
    let text = format!("kind: [\n---{}", SERVICE.replace("name: http, ", ""));
    assert!(codes(&text).contains("WEIR0001") && codes(&text).contains("IST0118"));
}

#[test]
fn lists_and_the_mesh_configuration_are_understood() {
    let list = format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{}]}}",
        r#"{"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry", "metadata": {"name": "t", "namespace": "shop"}, "spec": {"accessLogging": [{}]}}"#
    );
    let mesh = "defaultProviders: {accessLogging: [envoy]}";
    let with = |mesh: Option<&str>| {
        let mut sources = Sources::new(Options { now: NOW, ..Options::default() });
        sources.add_file("a.json", &list);
        if let Some(mesh) = mesh {
            sources.set_mesh_config("mesh.yaml", mesh).unwrap();
        }
        analyze(&mut sources).iter().any(|finding| finding.code == "IST0157")
    };
    assert!(with(None) && !with(Some(mesh)));
    assert!(!found(&[&list, mesh]).iter().any(|finding| finding.code == "IST0157"));
    let map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata: {{mesh: \"{mesh}\"}}\n"
    );
    assert!(!found(&[&list, &map]).iter().any(|finding| finding.code == "IST0157"));
}

#[test]
fn certificates_end() {
    let text = super::catalog::all().find(|entry| entry.code == "IST0161").unwrap().example.as_ref().unwrap().silent;
    let at = |now: u64| {
        let mut sources = Sources::new(Options { now, ..Options::default() });
        sources.add_file("a.yaml", text);
        let found = analyze(&mut sources).into_iter().find(|finding| finding.code == "IST0161");
        found.map(|finding| finding.message)
    };
    assert_eq!(at(NOW), None);
    // A hundred years from when it was made, and before.
    assert!(at(6_000_000_000).unwrap().contains("has expired"));
    assert!(at(0).unwrap().contains("is not valid yet"));
}

#[test]
fn routes_of_the_gateway_api_name_what_is_there_and_permitted() {
    let route = |backend: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, namespace: front}}\nspec:\n  parentRefs: [{{kind: Service, group: \"\", name: web, namespace: shop}}]\n  rules: [{{backendRefs: [{backend}]}}]\n---{SERVICE}"
        )
    };
    let grant = "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: front, namespace: shop}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: front}]\n  to: [{group: \"\", kind: Service}]\n";
    let good = route("{name: web, namespace: shop, port: 80}");
    assert!(!codes(&(good.clone() + grant)).contains("IST0101"));
    assert!(one("IST0101", &good).message.contains("not permitted"));
    assert!(one("IST0101", &route("{name: web, port: 80}")).message.contains("\"front/web\""));
    assert!(one("IST0101", &(route("{name: web, namespace: shop, port: 81}") + grant)).message.contains("shop/web:81"));
    let parent = good.replace("name: web, namespace: shop}]\n  rules", "name: wbe, namespace: shop}]\n  rules") + grant;
    assert!(one("IST0101", &parent).message.starts_with("parentRef not found"));
}

#[test]
fn delegates_are_looked_for() {
    let root = virtual_service("  - delegate: {name: rest, namespace: other}\n");
    assert!(one("IST0101", &root).message.starts_with("delegate not found: \"other/rest\""));
    let delegate = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: rest, namespace: other}\nspec: {http: [{directResponse: {status: 200}}]}\n";
    assert!(!codes(&(root + delegate)).contains("IST0101"));
}

#[test]
fn a_client_override_is_told_as_one() {
    let rule = |namespace: &str, export: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web, namespace: {namespace}}}\nspec: {{hosts: [web.shop.svc.cluster.local], {export}http: [{{route: [{{destination: {{host: web.shop.svc.cluster.local}}}}]}}]}}\n---\n"
        )
    };
    let both = rule("shop", "") + &rule("client", "exportTo: [\".\"], ");
    let found = of("IST0109", &both);
    assert_eq!(found.len(), 2);
    assert!(
        found.iter().all(|f| f.message.contains("clients of namespace client follow VirtualService client/web where"))
    );
    assert!(found.iter().all(|f| !f.message.contains("Istio takes the oldest")), "there they do, too");
    // What is for many hosts is merged with nothing that is for one.
    let wild = rule("shop", "").replace("[web.shop", "[\"*.shop").replace("name: web", "name: wild");
    assert!(of("IST0109", &(rule("shop", "") + &wild)).is_empty());
    let many: String = (0..40).map(|n| rule("shop", "").replace("name: web", &format!("name: web-{n:02}"))).collect();
    let found = of("IST0109", &many);
    assert_eq!(found.len(), 40);
    let named = |f: &crate::finding::Finding| f.message.matches("shop/web-").count();
    assert!(found.iter().all(|f| named(f) == 10 && f.message.contains("then 35 more")), "{found:?}");
    // Nobody sees both.
    let apart = rule("shop", "exportTo: [\".\"], ") + &rule("client", "exportTo: [\".\"], ");
    assert!(of("IST0109", &apart).is_empty());
}

#[test]
fn a_list_whose_items_are_none_is_told() {
    let finding = one("IST0106", "apiVersion: v1\nkind: List\nitems: {a: b}\n");
    assert_eq!(finding.message, "`items`: must be a list, is a map; it is left out");
}

#[test]
fn a_policy_that_cannot_be_read_refuses_and_says_so() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {weir.mesh/mode: enabled}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, labels: {app: web}}\nspec: {}\nstatus: {podIP: 10.1.0.1, phase: Running}\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: web, namespace: shop}\nspec: {mtls: {mode: STRIKT}}\n";
    let codes = codes(text);
    assert!(codes.contains("IST0106") && codes.contains("WEIR0003"), "{codes:?}");
}

#[test]
fn a_policy_that_only_watches_is_told_to_watch_nothing() {
    let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: web, namespace: shop}\nspec: {action: AUDIT, rules: [{}]}\n";
    assert!(one("WEIR0002", text).message.contains("AUDIT"));
    let dry = text.replace("namespace: shop", "namespace: shop, annotations: {istio.io/dry-run: 'true'}");
    assert!(one("WEIR0002", &dry.replace("AUDIT", "DENY")).message.contains("dry run"));
}

#[test]
fn rules_for_connections_of_a_port_of_requests_change_nothing() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{name: http, port: 80}, {name: tcp, port: 81}]}\n---\napiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\nmetadata: {name: web, namespace: shop}\nspec: {parentRefs: [{kind: Service, group: '', name: web}], rules: [{backendRefs: [{name: web, port: 81}]}]}\n";
    assert!(one("WEIR0008", text).message.contains("port 80 of Service shop/web, which carries http"));
    assert_eq!(of("WEIR0008", &text.replace("name: web}]", "name: web, port: 81}]")), []);
}

#[test]
fn rules_that_all_agents_would_leave_out_are_told() {
    let rule = |name: &str| {
        let items =
            (0..4).map(|n| format!(r"{{uri: {{regex: '/{name}{n}\pL{{18}}'}}}}")).collect::<Vec<_>>().join(", ");
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{hosts: [{name}.example.com], http: [{{match: [{items}], route: [{{destination: {{host: web}}}}]}}]}}\n---\n"
        )
    };
    let beyond = |names: &[&str]| of("IST0106", &names.iter().map(|name| rule(name)).collect::<String>());
    assert_eq!(beyond(&["a", "b"]), []);
    let found = beyond(&["a", "b", "c"]);
    assert!(
        found.len() == 1 && found[0].message.starts_with("left out: the regular expressions of its namespace"),
        "{found:?}"
    );
    assert_eq!(found[0].object.as_ref().map(ToString::to_string).as_deref(), Some("VirtualService shop/c"));
}
