//! Hosts of servers and of VirtualServices: which are within which, and what is left of both.

use std::sync::Arc;

use crate::crd::{Server, VirtualService};

/// Whether every name that fits `inner` fits `outer`. `*.example.com` is not for `example.com` itself.
pub(in crate::compile) fn within(inner: &str, outer: &str) -> bool {
    match (inner.strip_prefix('*'), outer.strip_prefix('*')) {
        (_, Some("")) => true,
        (None, None) => inner == outer,
        (None, Some(suffix)) => inner.len() > suffix.len() && inner.ends_with(suffix),
        (Some(inner), Some(outer)) => inner.ends_with(outer),
        (Some(_), None) => false,
    }
}

/// What two hosts have in common: the narrower of them, if any.
pub(in crate::compile) fn common<'h>(one: &'h Arc<str>, other: &'h Arc<str>) -> Option<&'h Arc<str>> {
    if within(one, other) {
        Some(one)
    } else if within(other, one) {
        Some(other)
    } else {
        None
    }
}

/// The hosts that a server serves by the rules of a VirtualService, each once.
pub(super) fn served<'h>(server: &'h Server, vs: &'h VirtualService) -> Vec<&'h Arc<str>> {
    let mut served: Vec<&Arc<str>> = Vec::new();
    for host in server.hosts.iter().filter(|host| host.is_for(vs.meta.namespace())) {
        for (wanted, _) in &vs.hosts {
            if let Some(host) = common(&host.name, wanted)
                && !served.contains(&host)
            {
                served.push(host);
            }
        }
    }
    served
}

/// The names by which TLS connections to a server are told from others; empty = all.
pub(super) fn sni_of(server: &Server) -> Box<[Arc<str>]> {
    sni(server.hosts.iter().map(|host| &host.name))
}

pub(super) fn sni<'h>(hosts: impl Iterator<Item = &'h Arc<str>> + Clone) -> Box<[Arc<str>]> {
    if hosts.clone().any(|host| **host == *"*") { Box::default() } else { hosts.cloned().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_of_two_hosts_is_what_they_have_in_common() {
        for (one, other, found) in [
            ("*", "a.example.com", Some("a.example.com")),
            ("*", "*", Some("*")),
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "*.a.example.com", Some("*.a.example.com")),
            ("*.example.com", "*.example.org", None),
            ("a.example.com", "a.example.com", Some("a.example.com")),
            ("a.example.com", "b.example.com", None),
            ("*.com", "badexample.com", Some("badexample.com")),
        ] {
            let (one, other) = (Arc::from(one), Arc::from(other));
            assert_eq!(common(&one, &other).map(|host| &**host), found, "{one} and {other}");
            assert_eq!(common(&other, &one).map(|host| &**host), found, "{other} and {one}");
        }
    }
}
