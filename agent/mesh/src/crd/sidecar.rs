//! Istio's Sidecar, of which only the hosts that its clients may see are read. Nothing is limited by it.

use std::sync::Arc;

use super::Notes;
use super::fields::{Fault, Fields};
use super::meta::{Labels, Metadata, labels};
use crate::finding::Severity;

/// A Sidecar.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// Name, namespace, age.
    pub meta: Metadata,
    /// `workloadSelector.labels`; `None` = every pod of the namespace, or of the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// The hosts of `egress`; `None` = every host.
    pub egress: Option<Box<[EgressHost]>>,
}

/// `namespace/host` of `egress[].hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressHost {
    /// `*` = any; `~` = none. `.` is the Sidecar's own by now.
    pub namespace: Arc<str>,
    /// In lower case; `*`, or `*.` and a name, or a name.
    pub name: Arc<str>,
}

impl Sidecar {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mark = root.mark;
        let mut sidecar = Self { meta, selector: None, egress: None };
        let Some(mut spec) = root.map("spec")? else {
            return Ok(sidecar);
        };
        if let Some(mut selector) = spec.map("workloadSelector")? {
            sidecar.selector = Some(labels(&mut selector, "labels")?);
        }
        if spec.node("egress").is_some() {
            let mut hosts = Vec::new();
            for mut listener in spec.maps("egress")? {
                for (host, _) in listener.texts("hosts")? {
                    let (namespace, name) = host.split_once('/').unwrap_or(("*", host));
                    let own = Arc::clone(sidecar.meta.namespace());
                    let namespace = if namespace == "." { own } else { namespace.into() };
                    hosts.push(EgressHost { namespace, name: name.to_ascii_lowercase().into() });
                }
            }
            sidecar.egress = Some(hosts.into());
        }
        let instead =
            "it limits nothing: its clients reach what its egress hosts leave out, and a finding names what that is";
        notes.unserved(Severity::Warning, mark, "Sidecar", instead);
        Ok(sidecar)
    }

    /// Whether clients that it is for may see a host of a namespace.
    pub fn shows(&self, namespace: &str, host: &str) -> bool {
        self.egress.as_ref().is_none_or(|egress| egress.iter().any(|one| one.shows(namespace, host)))
    }
}

impl EgressHost {
    fn shows(&self, namespace: &str, host: &str) -> bool {
        if *self.namespace != *"*" && *self.namespace != *namespace {
            return false;
        }
        match self.name.strip_prefix('*') {
            Some(suffix) => host.ends_with(suffix),
            None => *self.name == *host,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::Store;

    #[test]
    fn egress_hosts_are_what_clients_may_see() {
        let shows = |spec: &str, namespace: &str, host: &str| {
            let mut store = Store::new();
            let text = format!(
                "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n"
            );
            store.set_file("f.yaml", &text);
            assert!(store.findings()[0].message.contains("it limits nothing"), "{:?}", store.findings());
            let sidecars = store.snapshot().sidecars;
            sidecars.values().next().expect("it is in force").shows(namespace, host)
        };
        let some = "{egress: [{hosts: ['./*', 'edge/*.example.com', '*/db.example.org', '~/never.example.org']}]}";
        for (namespace, host, shown) in [
            ("shop", "b.shop.svc.cluster.local", true),
            ("edge", "b.edge.svc.cluster.local", false),
            ("edge", "a.example.com", true),
            ("edge", "example.com", false),
            ("other", "db.example.org", true),
            ("other", "never.example.org", false),
        ] {
            assert_eq!(shows(some, namespace, host), shown, "{namespace} {host}");
        }
        assert!(shows("{outboundTrafficPolicy: {mode: ALLOW_ANY}}", "other", "anything"), "without egress all is seen");
    }
}
