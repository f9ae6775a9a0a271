//! ServiceEntries: ports that need an address, and entries that call one port by different protocols.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::findings::{Findings, MAX_NAMED, few};
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
    let in_force: Vec<&Resource> = entries.iter().copied().filter(|entry| !input.is_refused(entry)).collect();
    rivals(&in_force, findings);
}

/// The mesh configuration lets the mesh make up addresses.
fn allocates(input: &Input<'_>) -> bool {
    let Some(mesh) = input.sources.mesh() else { return false };
    let metadata = mesh.labels("defaultConfig.proxyMetadata");
    let is_true = |key: &str| metadata.get(key).is_some_and(|value| &**value == "true");
    is_true("ISTIO_META_DNS_CAPTURE")
        && (is_true("ISTIO_META_DNS_AUTO_ALLOCATE") || is_true("PILOT_ENABLE_IP_AUTOALLOCATE"))
}

/// A port of a host, by who sees it (`*` = all).
type Claims<'s> = BTreeMap<(&'s str, &'s str, i64), Claim<'s>>;

/// The entries that have it, each once, and what they call it.
#[derive(Default)]
struct Claim<'s> {
    entries: Vec<(&'s Resource, &'s Node)>,
    protocols: BTreeSet<String>,
}

fn rivals(entries: &[&Resource], findings: &mut Findings) {
    let exported: Vec<Vec<Arc<str>>> = entries
        .iter()
        .map(|entry| entry.node.texts("spec.exportTo").filter_map(Node::text).map(Arc::from).collect())
        .collect();
    let mut claims = Claims::new();
    for (entry, named) in entries.iter().zip(&exported) {
        let node = &entry.node;
        let seen_in = scopes(named, entry.namespace());
        let seen_in = if seen_in.is_empty() { vec!["*"] } else { seen_in };
        for host in node.texts("spec.hosts").filter_map(Node::text) {
            for port in node.items("spec.ports") {
                for scope in &seen_in {
                    let claim = claims.entry((*scope, host, port.int_at("number").unwrap_or(0))).or_default();
                    claim.protocols.insert(port.text_at("protocol").to_ascii_uppercase());
                    if !claim.entries.last().is_some_and(|(last, _)| std::ptr::eq(*last, *entry)) {
                        claim.entries.push((entry, port));
                    }
                }
            }
        }
    }
    let mut told: BTreeSet<*const Resource> = BTreeSet::new();
    // Those for everybody meet those of each namespace, and are told once.
    let mut public_told: BTreeSet<(&str, i64)> = BTreeSet::new();
    let nothing = Claim::default();
    for ((scope, host, port), own) in &claims {
        let public = if *scope == "*" { None } else { claims.get(&("*", *host, *port)) }.unwrap_or(&nothing);
        let protocols: BTreeSet<&String> = own.protocols.union(&public.protocols).collect();
        if protocols.len() < 2 {
            continue;
        }
        let first = own.entries.iter().take(MAX_NAMED).chain(public.entries.iter().take(MAX_NAMED));
        let mut named: Vec<String> = first.map(|(entry, _)| entry.meta.object.to_string()).collect();
        named.sort_unstable();
        let message = format!(
            "port {port} of {host} is {} in {}: which of them holds depends on their age",
            few(&protocols, protocols.len(), " and "),
            few(named, own.entries.len() + public.entries.len(), " and ")
        );
        let public_is_new = *scope == "*" || public_told.insert((*host, *port));
        let public = if public_is_new { &public.entries[..] } else { &[] };
        for (entry, node) in own.entries.iter().chain(public) {
            if told.insert(std::ptr::from_ref(*entry)) {
                findings.add(
                    code::RIVAL_PROTOCOLS,
                    entry,
                    node.mark_of("protocol"),
                    message.clone(),
                    "use one protocol, or other ports",
                );
            }
        }
    }
}
