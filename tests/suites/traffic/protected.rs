//! Policies that protect pods or Services and that this version does not enforce: the service ports in front of what
//! they protect refuse clients that take part, and no other port does.

use anyhow::{Result, bail, ensure};
use weir_tests::require::Need;
use weir_tests::{PodSpec, Service, require};

use super::stage::Stage;

/// Service ports, by a name of this test's: where clients dial, and whether HTTP is spoken there. `web`, `raw` and
/// `stable` lead to pods of service-b, `stable` to those of v1 alone; `stable` is port 8000 in front of the pods' 80.
const DOORS: [(&str, &str, bool); 5] = [
    ("web", "10.96.0.2:80", true),
    ("raw", "10.96.0.3:9000", false),
    ("stable", "10.96.0.11:8000", true),
    ("other", "10.96.0.21:80", true),
    ("partner", "10.96.0.31:80", true),
];
const NEEDS: &[Need] = &[Need::Agent, Need::Program("curl"), Need::Program("socat")];

/// The scene with these doors, all open.
fn stage() -> Result<Stage> {
    let stage = Stage::furnished("", |scene| {
        scene.mesh.add_pod(PodSpec::new("other").label("app", "other").port("", 80))?;
        scene.mesh.add_pod(PodSpec::new("partner").namespace("partner").label("app", "partner").port("", 80))?;
        scene.mesh.serve("other", "--http 80")?;
        scene.mesh.serve("partner", "--http 80")?;
        let mut stable = Service::new("stable", 11).selects("service-b").port("http", 8000, "80");
        stable.selector.push(("version".into(), "v1".into()));
        scene.manifests.service(&stable)?;
        scene.manifests.service(&Service::new("other", 21).port("http", 80, "80"))?;
        scene.manifests.service(&Service::new("partner", 31).namespace("partner").port("http", 80, "80"))?;
        scene.manifests.namespaces(&[("default", true), ("partner", true)])
    })?;
    ensure!(closed(&stage)?.is_empty(), "nothing is protected yet");
    Ok(stage)
}

fn policy(kind: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: policy, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// The doors that refuse the client: curl knocks where HTTP is spoken, socat elsewhere.
fn closed(stage: &Stage) -> Result<Vec<&'static str>> {
    let knock = DOORS.map(|(_, address, http)| {
        if http {
            format!("curl -s -o /dev/null -w '%{{http_code}} ' --max-time 10 http://{address}/; echo $?")
        } else {
            format!("echo hello | socat -t 5 - TCP:{address} 2>&1 | tail -n 1")
        }
    });
    let said = stage.run("client", "sh", &["-c", &knock.join("\n")])?;
    let mut closed = Vec::new();
    ensure!(said.lines().count() == DOORS.len(), "{said}");
    for ((door, ..), line) in DOORS.iter().zip(said.lines()) {
        match line {
            "200 0" | "hello" => {}
            // curl ends with 7 when it cannot connect.
            "000 7" => closed.push(*door),
            refused if refused.ends_with("Connection refused") => closed.push(*door),
            other => bail!("{door}: {other}"),
        }
    }
    Ok(closed)
}

/// Puts each policy in force by itself, and looks which doors it closes.
fn holds(stage: &Stage, kind: &str, cases: &[(&str, &str, &[&str])]) -> Result<()> {
    for (namespace, spec, expected) in cases {
        stage.rules(&policy(kind, namespace, spec))?;
        let found = closed(stage)?;
        ensure!(found == *expected, "{kind} {namespace} {spec} closes {found:?}, not {expected:?}");
        let told = stage.agent.findings()?;
        let told = told.iter().any(|finding| finding.contains(&format!("{kind} is not enforced by this version")));
        ensure!(told || expected.is_empty(), "{kind} {spec}: nobody is told");
    }
    Ok(())
}

#[test]
fn what_an_authorization_policy_protects_refuses_and_nothing_else_does() -> Result<()> {
    if !require("what_an_authorization_policy_protects_refuses_and_nothing_else_does", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    let target = |kind: &str, name: &str| format!("{{kind: {kind}, name: {name}}}");
    holds(
        &stage,
        "AuthorizationPolicy",
        &[
            ("default", "{}", &["web", "raw", "stable", "other"]),
            ("partner", "{}", &["partner"]),
            ("istio-system", "{}", &["web", "raw", "stable", "other", "partner"]),
            ("default", "{selector: {matchLabels: {app: service-b}}}", &["web", "raw", "stable"]),
            ("default", "{selector: {matchLabels: {app: service-b, version: v2}}}", &["web", "raw"]),
            ("default", "{selector: {matchLabels: {app: nobody}}}", &[]),
            ("default", &format!("{{targetRefs: [{}]}}", target("Service", "service-b")), &["web"]),
            (
                "default",
                &format!("{{targetRefs: [{}, {}]}}", target("Service", "stable"), target("Service", "other")),
                &["stable", "other"],
            ),
            ("default", "{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: service-b}]}", &[]),
        ],
    )?;
    // What they say, of pods of service-b.
    let of = |rest: &str| format!("{{selector: {{matchLabels: {{app: service-b}}}}, {rest}}}");
    let every = &["web", "raw", "stable"][..];
    let some = "{to: [{operation: {methods: [GET]}}]}";
    for (rest, expected) in [
        ("action: AUDIT, rules: [{}]", &[][..]),
        ("action: ALLOW", every),
        ("action: ALLOW, rules: [{}]", &[]),
        (&format!("action: ALLOW, rules: [{some}]"), every),
        (&format!("action: ALLOW, rules: [{some}, {{}}]"), &[]),
        (&format!("rules: [{some}]"), every),
        ("action: DENY, rules: [{}]", every),
        (&format!("action: DENY, rules: [{some}]"), every),
        (&format!("action: CUSTOM, provider: {{name: somebody}}, rules: [{some}]"), every),
    ] {
        holds(&stage, "AuthorizationPolicy", &[("default", &of(rest), expected)])?;
    }
    // It is not valid: what cannot be taken over may mean anything for what it selects.
    stage.rules("")?;
    stage.rules(&policy("AuthorizationPolicy", "default", &of("action: DENY")))?;
    let found = closed(&stage)?;
    ensure!(found == every, "DENY without rules closes {found:?}");
    // Whoever dials a pod itself does not come by the Service that is closed.
    let address = stage.scene.mesh.pod("b-v1-0").at(80);
    ensure!(stage.curl_in("client", &format!("http://{address}/"), &[])?.status == 200, "the pod's own address");
    stage.rules("")?;
    ensure!(closed(&stage)?.is_empty(), "without the policy everything is open again");
    Ok(())
}

#[test]
fn what_asks_for_strict_mutual_tls_refuses_by_pod_and_port() -> Result<()> {
    if !require("what_asks_for_strict_mutual_tls_refuses_by_pod_and_port", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    let own = &["web", "raw", "stable", "other"][..];
    for (mode, expected) in [("STRICT", own), ("PERMISSIVE", &[]), ("DISABLE", &[]), ("UNSET", &[])] {
        holds(&stage, "PeerAuthentication", &[("default", &format!("{{mtls: {{mode: {mode}}}}}"), expected)])?;
    }
    let strict = "mtls: {mode: STRICT}";
    let of_mesh = &["web", "raw", "stable", "other", "partner"];
    holds(&stage, "PeerAuthentication", &[("istio-system", &format!("{{{strict}}}"), of_mesh)])?;
    // Numbers are those of the pods' ports, whichever the Service has in front of them.
    let of = |app: &str, rest: &str| format!("{{selector: {{matchLabels: {{app: {app}}}}}, {rest}}}");
    for (app, rest, expected) in [
        ("other", strict, &["other"][..]),
        ("service-b", strict, &["web", "raw", "stable"]),
        ("service-b", "mtls: {mode: PERMISSIVE}, portLevelMtls: {9000: {mode: STRICT}}", &["raw"]),
        ("service-b", "portLevelMtls: {80: {mode: STRICT}}", &["web", "stable"]),
        ("service-b", "portLevelMtls: {80: {mode: STRICT}, 9000: {mode: STRICT}}", &["web", "raw", "stable"]),
        ("service-b", "portLevelMtls: {8000: {mode: STRICT}}", &[]),
        ("service-b", "mtls: {mode: STRICT}, portLevelMtls: {9000: {mode: DISABLE}}", &["web", "stable"]),
        ("service-b", "mtls: {mode: STRICT}, portLevelMtls: {80: {mode: PERMISSIVE}}", &["raw"]),
        ("service-b", "mtls: {mode: STRICT}, portLevelMtls: {80: {mode: UNSET}}", &["web", "raw", "stable"]),
        ("service-b", "mtls: {mode: DISABLE}, portLevelMtls: {80: {mode: PERMISSIVE}}", &[]),
    ] {
        holds(&stage, "PeerAuthentication", &[("default", &of(app, rest), expected)])?;
    }
    // What selects a pod comes before what its namespace says.
    let namespace = policy("PeerAuthentication", "default", &format!("{{{strict}}}"));
    let exempt = policy("PeerAuthentication", "default", &of("service-b", "mtls: {mode: DISABLE}"));
    stage.rules(&(namespace + &exempt.replace("name: policy", "name: exempt")))?;
    let found = closed(&stage)?;
    ensure!(found == ["other"], "{found:?}");
    Ok(())
}

#[test]
fn what_asks_for_tokens_refuses_where_it_selects_or_targets() -> Result<()> {
    if !require("what_asks_for_tokens_refuses_where_it_selects_or_targets", NEEDS) {
        return Ok(());
    }
    let stage = stage()?;
    let rules = "jwtRules: [{issuer: somebody, jwks: '{\"keys\": []}'}]";
    for (scope, expected) in [
        ("selector: {matchLabels: {app: other}}", &["other"][..]),
        ("selector: {matchLabels: {app: service-b, version: v1}}", &["web", "raw", "stable"]),
        ("selector: {matchLabels: {app: nobody}}", &[]),
        ("targetRefs: [{kind: Service, group: '', name: service-b}]", &["web"]),
        ("targetRefs: [{kind: Service, group: '', name: stable}, {kind: Service, name: other}]", &["stable", "other"]),
        ("targetRef: {kind: Service, group: '', name: stable}", &["stable"]),
        ("targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: service-b}]", &[]),
    ] {
        holds(&stage, "RequestAuthentication", &[("default", &format!("{{{scope}, {rules}}}"), expected)])?;
    }
    Ok(())
}
