//! ServiceEntries: ports that need an address, and entries that call one port by different protocols.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::findings::Findings;
use super::input::{Input, NETWORKING, scopes};
use super::sources::Resource;
use super::tree::Tree;
use crate::crd::Node;
use crate::finding::code;

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    let allocates = allocates(input);
    let entries = input.all(NETWORKING, "ServiceEntry");
    for entry in entries {
        let node = &entry.node;
        if allocates || node.at("spec.addresses").is_some() || !node.items("status.addresses").is_empty() {
            continue;
        }
        for (i, port) in node.items("spec.ports").iter().enumerate() {
            let protocol = port.text_at("protocol");
            if protocol.is_empty() || protocol.eq_ignore_ascii_case("TCP") {
                findings.add(
                    code::ADDRESSES_MISSING,
                    entry,
                    port.mark,
                    format!(
                        "ports[{i}] ({}) carries TCP and the entry has no addresses: all connections to that port, whatever their host, are taken for it",
                        port.int_at("number").unwrap_or(0)
                    ),
                    "add spec.addresses, or give the port a protocol that names its host (HTTP, HTTPS, TLS)",
                );
            }
        }
    }
    rivals(entries, findings);
}

/// The mesh configuration lets the mesh make up addresses.
fn allocates(input: &Input<'_>) -> bool {
    let Some(mesh) = input.sources.mesh() else { return false };
    let metadata = mesh.labels("defaultConfig.proxyMetadata");
    let is_true = |key: &str| metadata.get(key).is_some_and(|value| &**value == "true");
    is_true("ISTIO_META_DNS_CAPTURE")
        && (is_true("ISTIO_META_DNS_AUTO_ALLOCATE") || is_true("PILOT_ENABLE_IP_AUTOALLOCATE"))
}

/// A port of a host as one entry has it.
type Claims<'s> = BTreeMap<(String, &'s str, i64), Vec<(String, &'s Resource, &'s Node)>>;

fn rivals(entries: &[&Resource], findings: &mut Findings) {
    let mut claims = Claims::new();
    for entry in entries {
        let node = &entry.node;
        let named: Vec<Arc<str>> = node.texts("spec.exportTo").filter_map(Node::text).map(Arc::from).collect();
        let seen_in = scopes(&named, entry.namespace());
        let seen_in = if seen_in.is_empty() { vec!["*"] } else { seen_in };
        for host in node.texts("spec.hosts").filter_map(Node::text) {
            for port in node.items("spec.ports") {
                let protocol = port.text_at("protocol").to_ascii_uppercase();
                for scope in &seen_in {
                    let key = ((*scope).to_owned(), host, port.int_at("number").unwrap_or(0));
                    claims.entry(key).or_default().push((protocol.clone(), entry, port));
                }
            }
        }
    }
    let mut told: BTreeSet<*const Resource> = BTreeSet::new();
    for ((scope, host, port), own) in &claims {
        let mut all = own.clone();
        if scope != "*" {
            all.extend(claims.get(&("*".to_owned(), *host, *port)).into_iter().flatten().cloned());
        }
        let protocols: BTreeSet<&str> = all.iter().map(|(protocol, ..)| &**protocol).collect();
        if protocols.len() < 2 {
            continue;
        }
        let names: BTreeSet<String> = all.iter().map(|(_, entry, _)| entry.meta.object.to_string()).collect();
        for (_, entry, node) in &all {
            if told.insert(std::ptr::from_ref(*entry)) {
                findings.add(
                    code::RIVAL_PROTOCOLS,
                    entry,
                    node.mark_of("protocol"),
                    format!(
                        "port {port} of {host} is {} in {}: which of them holds depends on their age",
                        protocols.iter().copied().collect::<Vec<_>>().join(" and "),
                        names.iter().cloned().collect::<Vec<_>>().join(" and ")
                    ),
                    "use one protocol, or other ports",
                );
            }
        }
    }
}
