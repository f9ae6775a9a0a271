//! What users' mistakes look like.

use super::super::*;
use crate::compile::compile;
use crate::explain::findings::MAX_REFUSED;
use crate::store::Store;

/// The canary of many a text: the pods of version 1 have no label that says so.
const CANARY: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {replicas: 2, template: {metadata: {labels: {app: web}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v2, namespace: shop}
spec: {template: {metadata: {labels: {app: web, version: v2}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /beta}, headers: {x-user: {exact: jason}}}]
    route: [{destination: {host: web, subset: v3}}]
  - timeout: 3s
    route: [{destination: {host: web, subset: v1}, weight: 90}, {destination: {host: web, subset: v2}, weight: 10}]
";

fn asked(text: &str, from: &str, url: &str, headers: &[&str]) -> Explanation {
    let mut store = Store::new();
    store.set_file("mesh.yaml", text);
    let (mut snapshot, mut findings) = store.assemble();
    let assumptions = assume::cluster(&mut snapshot);
    let from = From::client(from, "shop").expect("a client");
    if let From::Labels { namespace, labels } = &from {
        assume::client(&mut snapshot, namespace, labels);
    }
    let options = CompileOptions::default();
    let compiled = compile(&snapshot, &options);
    findings.extend(compiled.findings.clone());
    let mut mesh = Mesh::new(&snapshot, &options, &compiled.program, &compiled.plan, &compiled.views, &findings);
    mesh.assumptions = assumptions;
    let headers: Vec<String> = headers.iter().map(|&header| header.to_owned()).collect();
    let question = Question::new(from, "GET", url, &headers, None, false).expect("a request");
    Explainer::new(&mesh).explain(&question).expect("there is such a client")
}

#[test]
fn an_empty_subset_says_which_label_is_missing() {
    let told = asked(CANARY, "web", "http://web/", &[]);
    assert_eq!(told.client.name, "pod shop/web-assumed-1");
    assert_eq!((&*told.outcome.way, told.outcome.answered), ("proxy", 10.0), "{:?}", told.outcome);
    let [v1, v2] = &*told.destinations else { panic!("two destinations") };
    let dead = v1.dead.as_ref().expect("nobody is behind it");
    assert_eq!((dead.status, dead.flag.as_deref()), (Some(503), Some("UH")));
    assert_eq!(dead.why, "no ready endpoint of web.shop.svc.cluster.local has the label version=v1");
    let subset = v1.subset.as_ref().expect("it is one");
    assert_eq!(subset.origin.as_ref().and_then(|origin| origin.at.as_deref()), Some("mesh.yaml:27:5"));
    let lacking: Vec<(&str, Option<&str>)> =
        subset.lacking.iter().map(|one| (&*one.pod, one.labels["version"].as_deref())).collect();
    let wanted = [("shop/web-assumed-1", None), ("shop/web-assumed-2", None), ("shop/web-v2-assumed-1", Some("v2"))];
    assert_eq!(lacking, wanted);
    assert!(v2.dead.is_none() && v2.endpoints.len() == 1 && (v2.share - 10.0).abs() < 0.001);
    assert_eq!(told.assumptions.len(), 2);
    assert!(told.findings.iter().any(|finding| finding.contains("IST0173")), "{:?}", told.findings);
}

#[test]
fn without_the_label_no_rule_decides_who_answers() {
    let plain = CANARY.replace(", labels: {weir.mesh/mode: enabled}", "");
    let (head, _) = plain.split_once("  http:\n").expect("a rule");
    for rules in [
        "  - match: [{uri: {exact: /other}}]\n    route: [{destination: {host: web}}]\n",
        "  - redirect: {uri: /elsewhere}\n",
        "  - route: [{destination: {host: web, subset: v3}}]\n",
        "  - route: [{destination: {host: web}}]\n",
    ] {
        let told = asked(&format!("{head}  http:\n{rules}"), "web", "http://web/", &[]);
        assert_eq!((&*told.outcome.way, told.outcome.answered), ("pass", 100.0), "{rules}: {:?}", told.outcome);
        assert!(told.outcome.summary.ends_with("kube-proxy chooses an endpoint of the Service"), "{:?}", told.outcome);
        // A rule that leads to pods of another service makes none for this one.
        let nobody = head.replace("selector: {app: web}", "selector: {app: gone}");
        let told = asked(&format!("{nobody}  http:\n{rules}"), "web", "http://web/", &[]);
        assert_eq!((&*told.outcome.way, told.outcome.answered), ("pass", 0.0), "{rules}: {:?}", told.outcome);
        assert!(told.outcome.summary.ends_with("the Service has no ready endpoint"), "{:?}", told.outcome);
    }
}

#[test]
fn a_rule_says_of_each_condition_what_it_found() {
    let told = asked(CANARY, "web", "http://web/beta/x?y", &["x-user: ann"]);
    let conditions: Vec<(&str, &str, Option<&str>, bool)> = told.rules[0].items[0]
        .conditions
        .iter()
        .map(|one| (&*one.on, &*one.wanted, one.found.as_deref(), one.fits))
        .collect();
    let wanted =
        [("path", "prefix /beta", Some("/beta/x"), true), ("header x-user", "exact jason", Some("ann"), false)];
    assert_eq!(conditions, wanted);
    assert_eq!(told.rules.iter().map(|rule| rule.takes).collect::<Vec<_>>(), [false, true]);
    let settings = &told.route.as_ref().expect("there is one").settings;
    let timeout = settings.iter().find(|setting| setting.field == "timeout").expect("it is given");
    assert_eq!(timeout.value, "3s");
    assert_eq!(timeout.instead.is_some(), told.not_enforced.iter().any(|one| one.field == "timeout"));
    let retries = settings.iter().find(|setting| setting.field == "retries").expect("there are some always");
    assert_eq!(retries.value, "2 on reset-before-request,connect-failure,refused-stream, not on an answer of 503");
    assert_eq!(retries.origin, None, "nobody wrote it");
}

/// A setting of the rule that takes what is left.
fn setting_of(rule: &str, field: &str) -> model::Setting {
    let told = asked(&CANARY.replace("  - timeout: 3s\n", &format!("  - {rule}\n")), "web", "http://web/", &[]);
    let mut settings = told.route.expect("a rule takes it").settings.into_iter();
    settings.find(|setting| setting.field == field).expect("it has the setting")
}

#[test]
fn without_attempts_nothing_is_sent_again() {
    for rule in ["retries: {attempts: 0}", "retries: {}"] {
        let retries = setting_of(rule, "retries");
        assert_eq!((&*retries.value, retries.instead), ("none", None), "{rule}");
        assert!(retries.origin.is_some(), "{rule}");
    }
}

#[test]
fn a_copy_is_asked_for_by_the_host_of_the_request() {
    let mirror = setting_of("mirror: {host: web, subset: v2}\n    mirrorPercentage: {value: 5}", "mirror");
    assert_eq!(
        mirror.value,
        "outbound|80|v2|web.shop.svc.cluster.local of 5%, by the Host that the destination is asked by, without `-shadow`"
    );
}

#[test]
fn a_mirror_that_is_not_there_costs_copies_and_one_of_nothing_is_none() {
    let rules = "mirror: {host: nobody}\n    mirrorPercentage: {value: 5}";
    let told = asked(&CANARY.replace("  - timeout: 3s\n", &format!("  - {rules}\n")), "web", "http://web/", &[]);
    let said: Vec<&String> = told.findings.iter().filter(|said| said.contains("nobody")).collect();
    assert!(
        said.len() == 1 && said[0].contains("its copies are not sent, and the requests themselves go on"),
        "{said:?}"
    );
    let none = setting_of("mirror: {host: web, subset: v2}\n    mirrorPercentage: {value: 0}", "mirror");
    assert_eq!(none.value, "no copy is sent: 0% to outbound|80|v2|web.shop.svc.cluster.local");
}

/// The outcome of a rule with this abort, of all requests and of one.
fn aborted(percentage: &str) -> [model::Outcome; 2] {
    let rule = format!("  - fault: {{abort: {{httpStatus: 503{percentage}}}}}\n");
    let text = CANARY.replace("  - timeout: 3s\n", &rule).replace("version: v1", "app: web");
    [None, Some(1)].map(|roll| {
        let mut store = Store::new();
        store.set_file("mesh.yaml", &text);
        let (mut snapshot, _) = store.assemble();
        assume::cluster(&mut snapshot);
        let options = CompileOptions::default();
        let compiled = compile(&snapshot, &options);
        let mesh = Mesh::new(&snapshot, &options, &compiled.program, &compiled.plan, &compiled.views, &[]);
        let from = From::client("shop/", "shop").expect("a namespace");
        let question = Question::new(from, "GET", "http://web/", &[], roll, false).expect("a request");
        Explainer::new(&mesh).explain(&question).expect("there is such a client").outcome
    })
}

#[test]
fn what_a_fault_aborts_is_answered_by_nobody_whether_one_request_is_asked_for_or_all() {
    for outcome in aborted(", percentage: {value: 100}") {
        assert_eq!((outcome.answered, outcome.status, outcome.flag.as_deref()), (0.0, Some(503), Some("FI")));
        assert_eq!(outcome.summary, "503 (FI): the rule's fault aborts it");
    }
    let [all, _] = aborted(", percentage: {value: 40}");
    assert_eq!((all.answered, all.status), (60.0, None));
    let host = "web.shop.svc.cluster.local:80";
    let expected = format!("40% 503 (FI): the rule's fault aborts it; 54% to v1 of {host}; 6% to v2 of {host}");
    assert_eq!(all.summary, expected);
    let [all, _] = aborted(", percentage: {value: 0}");
    assert!(all.summary.starts_with("90% to v1"), "{}", all.summary);
}

#[test]
fn faults_come_before_retries_and_a_prefix_is_text() {
    let delay = setting_of("fault: {delay: {fixedDelay: 2s, percentage: {value: 50}}}", "fault.delay");
    assert_eq!(delay.value, "2s for 50%, before timeout and retries, which do not see it");
    let retries = setting_of("retries: {attempts: 3}", "retries");
    assert!(retries.value.ends_with(", not on an answer of 503"), "{}", retries.value);
    let retries = setting_of("retries: {attempts: 3, retryOn: '503'}", "retries");
    assert!(!retries.value.contains("not on"), "{}", retries.value);
    for (path, noted) in [("/beta", false), ("/beta/x", false), ("/betamax", true)] {
        let told = asked(CANARY, "web", &format!("http://web{path}"), &["x-user: jason"]);
        let condition = &told.rules[0].items[0].conditions;
        let note = condition.iter().find(|one| one.on == "path").and_then(|one| one.note.clone());
        let said = format!("a prefix is text, not a directory: `{path}` is not below `/beta`");
        assert_eq!(note, noted.then_some(said));
    }
}

#[test]
fn one_endpoint_may_always_be_ejected() {
    let rule = |percent: &str| {
        let policy =
            format!("  host: web\n  trafficPolicy: {{outlierDetection: {{consecutive5xxErrors: 3{percent}}}}}\n");
        let told = asked(&CANARY.replace("  host: web\n", &policy), "web", "http://web/", &[]);
        let settings = told.destinations.into_iter().flat_map(|one| one.settings);
        let mut outlier = settings.filter(|setting| setting.field == "outlierDetection");
        outlier.next().expect("it is given").value
    };
    let value = rule(", maxEjectionPercent: 30");
    assert!(value.contains("at most 30% of the endpoints and one always"), "{value}");
    // Where Istio ejects none of so few, too.
    let value = rule("");
    assert!(value.contains("at most 10% of the endpoints and one always"), "{value}");
}

#[test]
fn a_rewrite_says_what_becomes_of_the_path() {
    let rewritten = |path: &str| {
        let text = CANARY.replace("  - timeout: 3s\n", "  - match: [{uri: {prefix: /v2}}]\n    rewrite: {uri: /}\n");
        let told = asked(&text, "web", &format!("http://web{path}"), &[]);
        told.route.and_then(|route| route.rewritten)
    };
    assert_eq!(rewritten("/v2/x").as_deref(), Some("//x"));
    assert_eq!(rewritten("/v2foo?q").as_deref(), Some("/foo"));
    assert_eq!(rewritten("/other"), None, "no rule takes it");
}

#[test]
fn a_subset_that_nobody_defines_is_503_nc() {
    let told = asked(CANARY, "web", "http://web/beta", &["x-user: jason"]);
    assert_eq!(
        (told.outcome.answered, told.outcome.status, told.outcome.flag.as_deref()),
        (0.0, Some(503), Some("NC"))
    );
    let dead = told.destinations[0].dead.as_ref().expect("nobody is behind it");
    assert_eq!(dead.why, "no DestinationRule defines subset v3 of web.shop.svc.cluster.local");
}

#[test]
fn a_rule_for_some_clients_hides_a_subset_for_being_theirs() {
    let chosen = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: chosen, namespace: shop}
spec: {host: web, workloadSelector: {matchLabels: {app: x}}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
";
    let told = asked(&format!("{CANARY}{chosen}"), "shop/app=x", "http://web.shop/", &[]);
    let why = &told.destinations[0].dead.as_ref().expect("nobody is behind it").why;
    assert!(
        why.contains("DestinationRule shop/chosen") && why.contains("(host web) hides it from this client"),
        "{why}"
    );
    assert!(why.contains("workloadSelector") && !why.contains("client's namespace come before"), "{why}");
}

#[test]
fn a_rule_of_the_clients_namespace_that_hides_a_subset_is_named() {
    let hiding = "---
apiVersion: v1
kind: Namespace
metadata: {name: client, labels: {weir.mesh/mode: enabled}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: client}
spec:
  host: \"*\"
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
";
    let text = format!("{CANARY}{hiding}");
    let line = text.lines().position(|line| line.contains("host: \"*\"")).expect("there") + 1;
    let told = asked(&text, "client/app=x", "http://web.shop/", &[]);
    assert_eq!((told.outcome.status, told.outcome.flag.as_deref()), (Some(503), Some("NC")));
    let why = &told.destinations[0].dead.as_ref().expect("nobody is behind it").why;
    assert!(
        why.contains(&format!("DestinationRule client/all at mesh.yaml:{line}:9 (host *) hides it from this client")),
        "{why}"
    );
    assert!(why.starts_with("DestinationRule shop/web at mesh.yaml:"), "{why}");
    // A subset that nobody has is hidden by nobody.
    let told = asked(&text, "client/app=x", "http://web.shop/beta", &["x-user: jason"]);
    assert!(told.destinations[0].dead.as_ref().expect("nobody").why.starts_with("no DestinationRule defines"));
}

#[test]
fn who_does_not_take_part_passes_as_without_weir() {
    let told = asked(&CANARY.replace("enabled", "disabled"), "web", "http://web", &[]);
    assert!(!told.client.takes_part);
    assert_eq!((&*told.outcome.way, told.outcome.answered), ("pass", 100.0));
}

#[test]
fn names_are_resolved_as_in_a_pod() {
    let text = format!("{CANARY}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: other}}\n");
    let address = |from: &str, host: &str| asked(&text, from, &format!("http://{host}"), &[]).dialled.address;
    let web = Some("240.0.0.1:80".to_owned());
    for host in ["web", "WEB", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "web.shop.svc.cluster.local."]
    {
        assert_eq!(address("shop/", host), web, "{host}");
    }
    assert_eq!(address("other/", "web"), None);
    assert_eq!(address("other/", "web.shop"), web);
    assert_eq!(address("shop/", "web."), None, "nothing is added to a name that ends");
    let told = asked(CANARY, "shop/", "http://web:81", &[]);
    assert_eq!((&*told.outcome.way, told.outcome.answered), ("pass", 0.0), "{}", told.outcome.summary);
    let told = asked(CANARY, "shop/", "http://example.com", &[]);
    assert_eq!((&*told.outcome.way, told.outcome.answered), ("pass", 100.0), "{}", told.outcome.summary);
}

#[test]
fn what_protects_is_told_and_refuses() {
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: closed, namespace: shop}\nspec: {selector: {matchLabels: {app: web}}}\n";
    let told = asked(&format!("{CANARY}{policy}"), "shop/", "http://web", &[]);
    assert_eq!((&*told.outcome.way, told.outcome.answered, told.policy.allowed), ("reject", 0.0, false));
    assert_eq!(told.policy.origin.expect("somebody did").object, "AuthorizationPolicy shop/closed");
}

#[test]
fn the_kernel_and_the_policy_give_one_reason() {
    let policies = [
        (
            "kind: BackendTLSPolicy\napiVersion: gateway.networking.k8s.io/v1\nmetadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: Service, group: '', name: web}]}\n",
            "asks for TLS toward HOST, and this version would send plain text",
        ),
        (
            "kind: PeerAuthentication\napiVersion: security.istio.io/v1\nmetadata: {name: p, namespace: shop}\nspec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRIKT}}\n",
            "may protect HOST and cannot be read",
        ),
    ];
    for (policy, said) in policies {
        let told = asked(&format!("{CANARY}---\n{policy}"), "shop/", "http://web/", &[]);
        let kernel = told.kernel.expect("there is an entry");
        assert_eq!((&*kernel.verdict, told.outcome.answered), ("reject", 0.0));
        assert!(kernel.why.ends_with(&said.replace("HOST", "its pods")), "{}", kernel.why);
        let host = "web.shop.svc.cluster.local";
        let said = format!("{}: {host} refuses", said.replace("HOST", host));
        assert!(!told.policy.allowed && told.policy.why.ends_with(&said), "{}", told.policy.why);
    }
}

#[test]
fn rules_for_others_say_for_whom() {
    let vs = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: outside, namespace: shop}\nspec: {hosts: [web], gateways: [public], http: [{route: [{destination: {host: web}}]}]}\n";
    let only = CANARY.replace("match: [{uri", "match: [{sourceLabels: {app: other}}, {uri");
    let told = asked(&format!("{only}{vs}"), "shop/app=web", "http://web", &[]);
    let why: Vec<&str> = told.left_out.iter().map(|one| &*one.why).collect();
    let wanted =
        ["`sourceLabels`: it is for clients with app=other", "it is for public alone, and not for clients in the mesh"];
    assert_eq!(why, wanted);
    let told = asked(&only, "shop/app=other", "http://web", &[]);
    assert!(told.left_out.is_empty() && told.destinations[0].name.contains("|v3|"), "{told:?}");
}

#[test]
fn gateways_of_either_kind_are_found_by_their_name() {
    let api = "---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: shop}
spec: {gatewayClassName: weir, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{name: gw}], hostnames: [x.example.com], rules: [{matches: [{path: {type: PathPrefix, value: /a}}], backendRefs: [{name: web, port: 80}]}]}
";
    let mut store = Store::new();
    store.set_file("mesh.yaml", &format!("{CANARY}{api}"));
    let (mut snapshot, _) = store.assemble();
    assume::cluster(&mut snapshot);
    let options = CompileOptions::default();
    let compiled = compile(&snapshot, &options);
    let mesh = Mesh::new(&snapshot, &options, &compiled.program, &compiled.plan, &compiled.views, &[]);
    let mut explainer = Explainer::new(&mesh);
    let mut ask = |gateway: &str, url: &str| {
        let from = From::gateway(gateway, "shop", None).expect("a name");
        explainer.explain(&Question::new(from, "GET", url, &[], None, false).expect("a request"))
    };
    let told = ask("gw", "http://x.example.com/a/b").expect("there is one");
    assert!(told.outcome.answered > 99.0, "{told:?}");
    assert_eq!(told.dialled.object.expect("it is one").object, "Gateway shop/gw");
    let told = ask("gw", "http://x.example.com/b").expect("there is one");
    assert_eq!(told.outcome.status, Some(404), "{told:?}");
    assert!(ask("gw", "http://x.example.com:81/").is_err() && ask("g", "http://x.example.com/").is_err());
}

const PLAIN: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {template: {metadata: {labels: {app: web}}}}
";

#[test]
fn the_kernel_balances_whatever_is_spoken() {
    let told = asked(PLAIN, "shop/", "https://web:80/", &[]);
    assert_eq!((&*told.outcome.way, told.outcome.answered), ("balance", 100.0), "{:?}", told.outcome);
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec: {hosts: [web], http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: web}}]}]}\n";
    let told = asked(&format!("{PLAIN}{rule}"), "shop/", "https://web:80/", &[]);
    assert_eq!((&*told.outcome.way, told.outcome.status), ("proxy", Some(400)), "{:?}", told.outcome);
}

#[test]
fn refused_objects_are_told_of() {
    let refused = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad, namespace: NAMESPACE}\nspec: {hosts: [web], http: [{route: 7, redirect: {uri: /}}]}\n";
    let told = asked(&format!("{PLAIN}{}", refused.replace("NAMESPACE", "shop")), "shop/", "http://web/", &[]);
    let [finding] = &*told.findings else { panic!("{:?}", told.findings) };
    assert!(finding.starts_with("Error [IST0106]") && finding.contains("VirtualService shop/bad"), "{finding}");
    let far: String = (0..MAX_REFUSED + 2)
        .map(|number| refused.replace("NAMESPACE", &format!("far-{number}")))
        .chain([refused.replace("NAMESPACE", "shop")])
        .collect();
    let told = asked(&format!("{PLAIN}{far}"), "shop/", "http://web/", &[]);
    assert_eq!(told.findings.len(), MAX_REFUSED + 1);
    assert!(told.findings[0].contains("shop/bad"), "{:?}", told.findings);
    assert_eq!(told.findings[MAX_REFUSED], "3 more of objects that are refused");
}

#[test]
fn a_delegate_that_is_left_out_is_told_of() {
    let vs = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: NAME, namespace: shop}\nspec: ";
    let rules = [
        (
            "root",
            "{hosts: [web], http: [{match: [{uri: {prefix: /a}}], delegate: {name: inside}}, {match: [{uri: {prefix: /b}}], delegate: {name: outside}}, {match: [{uri: {prefix: /c}}], delegate: {name: nowhere}}]}\n",
        ),
        ("inside", "{http: [{route: [{destination: {host: web}}]}]}\n"),
        ("outside", "{http: [{match: [{uri: {prefix: /c}}], route: [{destination: {host: web}}]}]}\n"),
    ];
    let rules: String = rules.iter().flat_map(|(name, spec)| [vs.replace("NAME", name), (*spec).to_owned()]).collect();
    let told = asked(&format!("{PLAIN}{rules}"), "shop/", "http://web/b", &[]);
    assert_eq!(told.outcome.status, Some(404));
    for wanted in ["shop/outside", "nowhere"] {
        assert!(told.findings.iter().any(|one| one.contains(wanted)), "{wanted}: {:?}", told.findings);
    }
}

#[test]
fn nobody_asks_from_nowhere() {
    let (snapshot, compiled) = super::in_force(PLAIN);
    let options = CompileOptions::default();
    let mesh = Mesh::new(&snapshot, &options, &compiled.program, &compiled.plan, &compiled.views, &compiled.findings);
    let from = From::client("nowhere/app=web", "shop").expect("a client");
    let question = Question::new(from, "GET", "http://web/", &[], None, false).expect("a request");
    assert_eq!(Explainer::new(&mesh).explain(&question), Err("there is no namespace nowhere".to_owned()));
}
