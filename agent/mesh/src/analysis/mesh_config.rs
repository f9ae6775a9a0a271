//! The mesh configuration that somebody gave as a file: keys that Istio has not, and those that nothing comes of here.

use std::sync::Arc;

use super::findings::Findings;
use super::sources::Sources;
use crate::crd::{Mark, Node, Value};
use crate::finding::{Finding, Severity, code};
use crate::schema::nearest;

/// What comes of a key.
enum Use {
    /// The analysis looks at it.
    Read,
    /// What it asks for is not done; what holds instead.
    NotDone(&'static str),
    /// It is for parts of Istio that are not here.
    Nothing,
}
use Use::{NotDone, Nothing, Read};

const BY_RULE: &str = "only what a DestinationRule says counts";
const ACCESS_LOG: &str = "the agent's --access-log says what is logged";
const PLAIN: &str = "no mutual TLS is spoken";
const NO_IDENTITY: &str = "no identity is looked at";
const FOR_ALL: &str = "what has no exportTo is for everybody";

/// The keys of Istio's MeshConfig, in the order of the alphabet.
const KEYS: &[(&str, Use)] = &[
    ("accessLogEncoding", NotDone(ACCESS_LOG)),
    ("accessLogFile", NotDone(ACCESS_LOG)),
    ("accessLogFormat", NotDone(ACCESS_LOG)),
    ("ca", Nothing),
    ("caCertificates", NotDone(NO_IDENTITY)),
    ("certificates", Nothing),
    ("configSources", Nothing),
    ("connectTimeout", NotDone(BY_RULE)),
    ("defaultConfig", Read),
    ("defaultDestinationRuleExportTo", NotDone(FOR_ALL)),
    ("defaultHttpRetryPolicy", NotDone("only what a VirtualService says counts")),
    ("defaultProviders", Read),
    ("defaultServiceExportTo", NotDone(FOR_ALL)),
    ("defaultVirtualServiceExportTo", NotDone(FOR_ALL)),
    ("disableEnvoyListenerLog", Nothing),
    ("discoverySelectors", NotDone("objects of all namespaces are read")),
    ("dnsRefreshRate", Nothing),
    ("enableAutoMtls", NotDone(PLAIN)),
    ("enableEnvoyAccessLogService", Nothing),
    ("enablePrometheusMerge", Nothing),
    ("enableTracing", NotDone("no spans are reported")),
    ("extensionProviders", Read),
    ("h2UpgradePolicy", NotDone(BY_RULE)),
    ("inboundClusterStatName", Nothing),
    ("inboundTrafficPolicy", NotDone("connections go to the address that was dialled")),
    ("ingressClass", Nothing),
    ("ingressControllerMode", Nothing),
    ("ingressSelector", Nothing),
    ("ingressService", Nothing),
    ("localityLbSetting", NotDone(BY_RULE)),
    ("meshMTLS", NotDone(PLAIN)),
    ("outboundClusterStatName", Nothing),
    ("outboundTrafficPolicy", NotDone("connections to hosts that nobody knows pass as without weir")),
    ("pathNormalization", NotDone("paths are compared as they are sent")),
    ("proxyHttpPort", Nothing),
    ("proxyInboundListenPort", Nothing),
    ("proxyListenPort", Nothing),
    ("rootNamespace", Read),
    ("serviceScopeConfigs", Nothing),
    ("serviceSettings", Nothing),
    ("tcpKeepalive", NotDone(BY_RULE)),
    ("tlsDefaults", NotDone(PLAIN)),
    ("trustDomain", NotDone(NO_IDENTITY)),
    ("trustDomainAliases", NotDone(NO_IDENTITY)),
    ("verifyCertificateAtClient", Nothing),
];

pub(super) fn analyze(sources: &Sources, findings: &mut Findings) {
    let Some((node, file)) = sources.mesh_file() else { return };
    let tell = |severity, code, mark: Mark, message, help: Option<String>| Finding {
        severity,
        code,
        object: None,
        at: Some(mark.in_file(file)),
        message,
        help,
    };
    let Value::Map(entries) = &node.value else {
        let message = "a mesh configuration must be a map".to_owned();
        findings.extend([tell(Severity::Error, code::INVALID, node.mark, message, None)]);
        return;
    };
    if node.get("kind").and_then(Node::text).is_some() {
        let message = "this is an object, and no mesh configuration".to_owned();
        let help = "give the text that the ConfigMap `istio` has under `data.mesh`".to_owned();
        findings.extend([tell(Severity::Error, code::INVALID, node.mark, message, Some(help))]);
        return;
    }
    findings.extend(entries.iter().filter_map(|entry| {
        let key = &*entry.key;
        let known = KEYS.binary_search_by_key(&key, |(name, _)| name).ok().map(|at| &KEYS[at].1);
        match known {
            Some(Read) => None,
            Some(NotDone(_)) if is_as_here(entry.key.as_ref(), &entry.node) => None,
            Some(NotDone(instead)) => {
                let message = format!("`{key}` of the mesh configuration is not supported yet: {instead}");
                Some(tell(Severity::Warning, code::NOT_SUPPORTED, entry.mark, message, None))
            }
            Some(Nothing) => {
                let message = format!("`{key}` of the mesh configuration changes nothing: it is for Istio's own parts");
                Some(tell(Severity::Info, code::NOT_SUPPORTED, entry.mark, message, None))
            }
            None => {
                let message = format!("`{key}`: a mesh configuration has no such key");
                let help = nearest(key, KEYS.iter().map(|(name, _)| *name)).map(|name| format!("did you mean {name}?"));
                Some(tell(Severity::Warning, code::UNKNOWN_FIELD, entry.mark, message, help))
            }
        }
    }));
}

/// Whether what it asks for is how it is without it.
fn is_as_here(key: &str, value: &Node) -> bool {
    match key {
        "outboundTrafficPolicy" => value.get("mode").and_then(Node::text) == Some("ALLOW_ANY"),
        "enableAutoMtls" | "enableTracing" => matches!(value.value, Value::Bool(false)),
        "accessLogFile" => value.text() == Some(""),
        _ => matches!(value.value, Value::Null),
    }
}

impl Sources {
    /// The mesh configuration, where it is from a file.
    fn mesh_file(&self) -> Option<(&Node, &Arc<str>)> {
        let (node, file) = self.mesh.as_ref()?;
        Some((node, file.as_ref()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Options;

    fn told(text: &str) -> Vec<String> {
        let mut sources = Sources::new(Options::default());
        sources.set_mesh_config("mesh.yaml", text).expect("it is YAML");
        let found = crate::analysis::analyze(&mut sources);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn keys_can_be_searched() {
        assert!(KEYS.is_sorted_by_key(|(name, _)| name));
    }

    #[test]
    fn what_nobody_knows_is_told_with_its_place_and_what_was_meant() {
        assert_eq!(told("rootNamespace: mesh\ndefaultProviders: {accessLogging: [envoy]}\n"), [""; 0]);
        assert_eq!(
            told("rootNamespace: mesh\nrootNamspace: other\n"),
            [
                "Warning [WEIR0013] mesh.yaml:2:1: `rootNamspace`: a mesh configuration has no such key; did you mean rootNamespace?"
            ]
        );
        let found = told("something: else\n");
        assert!(found.len() == 1 && !found[0].contains("did you mean"), "{found:?}");
    }

    #[test]
    fn what_nothing_comes_of_is_told() {
        let found =
            told("trustDomain: example.com\nproxyListenPort: 1\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("Warning [WEIR0002] mesh.yaml:1:1: `trustDomain` of the mesh"), "{found:?}");
        assert!(found[1].starts_with("Info [WEIR0002] mesh.yaml:2:1: `proxyListenPort`"), "{found:?}");
        assert!(found[2].contains("pass as without weir"), "{found:?}");
        assert_eq!(told("outboundTrafficPolicy: {mode: ALLOW_ANY}\nenableAutoMtls: false\ntrustDomain:\n"), [""; 0]);
    }

    #[test]
    fn what_is_no_mesh_configuration_is_told() {
        assert!(told("- a\n")[0].contains("mesh.yaml:1:1: a mesh configuration must be a map"));
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata: {mesh: 'rootNamespace: a'}\n";
        let found = told(map);
        assert!(found.len() == 1 && found[0].contains("under `data.mesh`"), "{found:?}");
    }
}
