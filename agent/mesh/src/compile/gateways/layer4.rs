//! Chains of servers whose bytes are not looked into: TCP, TLS that ends at the gateway, and TLS that is passed through
//! by its SNI.

use std::sync::Arc;

use super::super::destinations::Router;
use super::{Bindings, Bound, names};
use crate::crd::{Mark, TlsMode, VirtualService};
use crate::finding::{Severity, code};
use crate::program::{FilterChain, Handler};

/// Adds the chains of a server; `taken` are the names of those before it that are passed through.
pub(super) fn chains<'s>(
    bound: &Bound<'_>,
    bindings: &Bindings<'s>,
    router: &mut Router<'_, 's, '_>,
    taken: &mut Vec<Arc<str>>,
    chains: &mut Vec<FilterChain>,
) {
    let server = bound.server;
    let mode = server.tls.as_ref().map(|tls| tls.mode).unwrap_or_default();
    if server.is_tls() && mode == TlsMode::AutoPassthrough {
        let message = "tls.mode AUTO_PASSTHROUGH is not supported yet: nothing of this server is served".to_owned();
        router.findings.push(Severity::Warning, code::NOT_SUPPORTED, &bound.gateway.meta, server.mark, message);
        return;
    }
    let gateway = bound.name();
    let mut router = router.through(&gateway);
    for vs in bindings.of(bound.gateway).filter(|vs| !names::served(server, vs).is_empty()) {
        if server.is_tls() && !server.terminates() {
            passed_through(bound, vs, &mut router, taken, chains);
            continue;
        }
        let Some(tcp) = router.tcp(&[vs], server.port) else {
            continue;
        };
        // Of several rules the first is taken: here nobody has dialled an address that could tell them apart.
        if let Some(destinations) = tcp.destinations().next() {
            let sni = if server.is_tls() { names::sni_of(server) } else { Box::default() };
            chains.push(bound.chain(sni, Handler::Tcp(destinations.into())));
            return;
        }
    }
}

fn passed_through<'s>(
    bound: &Bound<'_>,
    vs: &'s VirtualService,
    router: &mut Router<'_, 's, '_>,
    taken: &mut Vec<Arc<str>>,
    chains: &mut Vec<FilterChain>,
) {
    for rule in router.tls(&[vs], bound.server.port).map(|tls| tls.rules).unwrap_or_default() {
        if let Some(twice) = rule.sni_hosts.iter().find(|host| taken.contains(host)) {
            let message = format!(
                "the TLS rule for {twice} has no effect at Gateway {}: an older one has this name on port {}",
                bound.name(),
                bound.port
            );
            router.findings.push(Severity::Warning, code::NO_EFFECT, &vs.meta, Mark::default(), message);
            continue;
        }
        taken.extend(rule.sni_hosts.iter().cloned());
        chains.push(bound.chain(names::sni(rule.sni_hosts.iter()), Handler::Tcp(rule.destinations)));
    }
}
