//! The Gateway API: what routes refer to, and definitions that are too old. Besides, definitions of kinds of Istio's that
//! are gone.

use super::findings::Findings;
use super::input::{GATEWAY_API, Input};
use super::sources::Resource;
use super::tree::Tree;
use crate::crd::{Node, RESOURCES};
use crate::finding::code;

/// The bundle that first serves the version of a kind that Istio and weir read first.
const MINIMUM: [(&str, [u64; 3]); 3] = [
    ("grpcroutes.gateway.networking.k8s.io", [1, 1, 0]),
    ("backendtlspolicies.gateway.networking.k8s.io", [1, 4, 0]),
    ("tlsroutes.gateway.networking.k8s.io", [1, 5, 0]),
];
const BUNDLE: &str = "gateway.networking.k8s.io/bundle-version";
/// Kinds that release 1.0 serves at v1.
const SETTLED: [&str; 3] = ["GatewayClass", "Gateway", "HTTPRoute"];
/// Kinds of `rbac.istio.io`, which AuthorizationPolicy replaced.
const GONE: [&str; 4] = ["ClusterRbacConfig", "RbacConfig", "ServiceRole", "ServiceRoleBinding"];

/// Kinds of routes.
const ROUTES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    for kind in ROUTES {
        for route in input.all(GATEWAY_API, kind) {
            parents(route, input, findings);
            backends(route, input, findings);
        }
    }
    definitions(input, findings);
}

/// The group and kind of a reference, with the defaults of its field.
fn target<'n>(reference: &'n Node, group: &'n str, kind: &'n str) -> (&'n str, &'n str) {
    let given = |field: &str, default: &'n str| reference.at(field).and_then(Node::text).unwrap_or(default);
    (given("group", group), given("kind", kind))
}

fn namespace_of<'n>(reference: &'n Node, route: &'n Resource) -> &'n str {
    match reference.text_at("namespace") {
        "" => route.namespace(),
        other => other,
    }
}

fn parents(route: &Resource, input: &Input<'_>, findings: &mut Findings) {
    for (i, parent) in route.node.items("spec.parentRefs").iter().enumerate() {
        let (group, kind) = target(parent, GATEWAY_API, "Gateway");
        let known = matches!((group, kind), (GATEWAY_API, "Gateway") | ("", "Service"));
        let (namespace, name) = (namespace_of(parent, route), parent.text_at("name"));
        if known && input.sources.is_read(kind) && input.find(group, kind, namespace, name).is_none() {
            findings.add(
                code::REFERENCE,
                route,
                parent.mark_of("name"),
                format!("parentRef not found: {kind} \"{namespace}/{name}\" (parentRefs[{i}]); no request comes to these rules through it"),
                "mend the name, or the namespace",
            );
        }
        if let Some(service) = input.find(group, kind, namespace, name).filter(|_| route.kind() == "TCPRoute") {
            not_looked_into(route, parent, service, findings);
        }
    }
}

/// Rules for connections, on a port of a Service whose connections are read as requests.
fn not_looked_into(route: &Resource, parent: &Node, service: &Resource, findings: &mut Findings) {
    let wanted = parent.int_at("port");
    for port in service.node.items("spec.ports") {
        let number = port.int_at("port");
        let declared = match port.text_at("appProtocol") {
            "" => port.text_at("name"),
            protocol => protocol,
        };
        let protocol = declared.split('-').next().unwrap_or_default().to_ascii_lowercase();
        if !matches!(&*protocol, "http" | "http2" | "grpc") || wanted.is_some() && wanted != number {
            continue;
        }
        let (number, object) = (number.unwrap_or_default(), &service.meta.object);
        findings.add(
            code::NO_EFFECT,
            route,
            parent.mark_of("name"),
            format!("the rules change nothing on port {number} of {object}, which carries {protocol}"),
            "write an HTTPRoute, or call the port tcp-…",
        );
    }
}

fn backends(route: &Resource, input: &Input<'_>, findings: &mut Findings) {
    if !input.sources.is_read("Service") {
        return;
    }
    for (i, rule) in route.node.items("spec.rules").iter().enumerate() {
        for (j, backend) in rule.items("backendRefs").iter().enumerate() {
            if target(backend, "", "Service") != ("", "Service") {
                continue;
            }
            let (namespace, name) = (namespace_of(backend, route), backend.text_at("name"));
            let place = format!("rules[{i}].backendRefs[{j}]");
            let mut add = |message: String, help: &str| {
                let message = format!("{message} ({place}); its share of the requests gets 500");
                findings.add(code::REFERENCE, route, backend.mark_of("name"), message, help);
            };
            let Some(service) = input.find("", "Service", namespace, name) else {
                add(format!("backendRef not found: Service \"{namespace}/{name}\""), "mend the name, or the namespace");
                continue;
            };
            let readable = input.sources.is_read("ReferenceGrant");
            if namespace != &**route.namespace() && readable && !is_granted(route, namespace, name, input) {
                add(
                    format!("backendRef not permitted: Service \"{namespace}/{name}\" is of another namespace"),
                    &format!(
                        "a ReferenceGrant in namespace {namespace} from {} in {}",
                        route.kind(),
                        route.namespace()
                    ),
                );
            }
            let port = backend.int_at("port");
            let ports = || service.node.items("spec.ports").iter().any(|one| one.int_at("port") == port);
            if port.is_some() && !ports() {
                add(
                    format!(
                        "backendRef not found: \"{namespace}/{name}:{}\" is no port of the Service",
                        port.unwrap_or(0)
                    ),
                    "",
                );
            }
        }
    }
}

/// Whether the namespace of a Service lets routes of this kind and namespace refer to it.
fn is_granted(route: &Resource, namespace: &str, name: &str, input: &Input<'_>) -> bool {
    let grants = input.all(GATEWAY_API, "ReferenceGrant").iter().filter(|grant| &**grant.namespace() == namespace);
    grants.into_iter().any(|grant| {
        let from = grant.node.items("spec.from").iter().any(|from| {
            from.text_at("group") == route.group()
                && from.text_at("kind") == route.kind()
                && from.text_at("namespace") == &**route.namespace()
        });
        let to = grant.node.items("spec.to").iter().any(|to| {
            to.text_at("group").is_empty()
                && to.text_at("kind") == "Service"
                && to.at("name").and_then(Node::text).is_none_or(|only| only == name)
        });
        from && to
    })
}

fn definitions(input: &Input<'_>, findings: &mut Findings) {
    for definition in input.all("apiextensions.k8s.io", "CustomResourceDefinition") {
        let (group, kind) = (definition.node.text_at("spec.group"), definition.node.text_at("spec.names.kind"));
        if group == "rbac.istio.io" && GONE.contains(&kind) {
            findings.add(
                code::DEPRECATED,
                definition,
                definition.node.mark_of("spec.names.kind"),
                format!("{kind} of {group} no longer exists: its objects protect nothing"),
                "write AuthorizationPolicies",
            );
        }
        if group == GATEWAY_API {
            versions(definition, kind, findings);
        }
        let Some((_, minimum)) = MINIMUM.iter().find(|(name, _)| *name == &**definition.name()) else { continue };
        let written = definition.meta.annotation(BUNDLE).unwrap_or_default();
        if version(written).is_some_and(|installed| installed < *minimum) {
            let [major, minor, patch] = minimum;
            findings.add(
                code::OLD_GATEWAY_API,
                definition,
                definition.node.mark_of("metadata.annotations"),
                format!(
                    "it is of version {written} of the Gateway API; {major}.{minor}.{patch} is the first that serves the version of this kind that is read: its objects have no effect"
                ),
                "install a newer release of the Gateway API's definitions",
            );
        }
    }
}

/// That a definition serves a version that is read, and of what is settled the settled one.
fn versions(definition: &Resource, kind: &str, findings: &mut Findings) {
    let known = RESOURCES.iter().find(|resource| resource.group == GATEWAY_API && resource.kind == kind);
    let listed = definition.node.items("spec.versions").iter().filter(|version| version.flag_at("served"));
    let served: Vec<&str> = listed.map(|version| version.text_at("name")).collect();
    let Some(known) = known.filter(|_| !served.is_empty()) else { return };
    let code = if !known.versions.iter().any(|version| served.contains(version)) {
        code::UNREAD_GATEWAY_API
    } else if SETTLED.contains(&kind) && !served.contains(&known.versions[0]) {
        code::ENDING_GATEWAY_API
    } else {
        return;
    };
    let (served, read) = (served.join(" and "), known.versions.join(" and "));
    let message = match code {
        code::UNREAD_GATEWAY_API => {
            format!("it serves {served}, and {kind} is read at {read}: its objects have no effect")
        }
        _ => format!("it serves {served}, of before release 1.0 of the Gateway API, and not {}", known.versions[0]),
    };
    let help = "install a newer release of the Gateway API's definitions";
    findings.add(code, definition, definition.node.mark_of("spec.versions"), message, help);
}

/// `v1.4.0-rc.1` as 1.4.0.
fn version(text: &str) -> Option<[u64; 3]> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let release = text.split(['-', '+']).next()?;
    let mut parts = release.split('.').map(|part| part.parse().ok());
    let found = [parts.next()??, parts.next().unwrap_or(Some(0))?, parts.next().unwrap_or(Some(0))?];
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_compared_without_their_suffix() {
        assert_eq!(version("v1.4.0-rc.1"), Some([1, 4, 0]));
        assert_eq!(version("1.5"), Some([1, 5, 0]));
        assert_eq!(version("main"), None);
    }
}
