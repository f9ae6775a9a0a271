//! Istio's ServiceEntry: hosts that Kubernetes has no Service for. Each host is made into a [`Service`], so that
//! everything that is done for Services is done for it, too.

use std::net::IpAddr;
use std::sync::Arc;

use super::Notes;
use super::cluster::{Port, Service, ServiceType, TargetPort};
use super::fields::{Fault, Fields};
use super::meta::{Labels, Metadata, labels};
use super::node::Mark;
use super::workload_entry::Workload;
use crate::finding::Severity;

/// A ServiceEntry.
#[derive(Clone, Debug)]
pub struct ServiceEntry {
    /// Name, age.
    pub meta: Metadata,
    /// `hosts`, each with the Service that it comes to.
    pub hosts: Box<[EntryHost]>,
    /// `location: MESH_INTERNAL`
    pub internal: bool,
    /// `resolution`
    pub resolution: Resolution,
    /// `endpoints`
    pub endpoints: Box<[Workload]>,
    /// `workloadSelector.labels`
    pub selector: Option<Labels>,
    /// `exportTo`; empty = everybody.
    pub export_to: Box<[Arc<str>]>,
    /// `subjectAltNames`
    pub subject_alt_names: Box<[Arc<str>]>,
}

/// One host of a ServiceEntry.
#[derive(Clone, Debug)]
pub struct EntryHost {
    /// Where it stands.
    pub mark: Mark,
    /// In lower case; `*.` and a name, or a name.
    pub name: Arc<str>,
    /// Its ports and addresses; under the ServiceEntry's own name.
    pub service: Service,
}

/// How endpoints are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The address that the client dialled.
    #[default]
    None,
    /// `endpoints`, or what `workloadSelector` selects.
    Static,
    /// All that DNS says.
    Dns,
    /// The first that DNS says.
    DnsRoundRobin,
    /// What DNS says of the name that the client asked for.
    DynamicDns,
}

impl Resolution {
    fn named(text: &str) -> Self {
        match text {
            "STATIC" => Self::Static,
            "DNS" => Self::Dns,
            "DNS_ROUND_ROBIN" => Self::DnsRoundRobin,
            "DYNAMIC_DNS" => Self::DynamicDns,
            _ => Self::None,
        }
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Static => "STATIC",
            Self::Dns => "DNS",
            Self::DnsRoundRobin => "DNS_ROUND_ROBIN",
            Self::DynamicDns => "DYNAMIC_DNS",
        }
    }
}

impl ServiceEntry {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mut spec = root.required_map("spec")?;
        let resolution = spec.entry("resolution").map(|entry| entry.mark);
        let resolution_mark = resolution.unwrap_or(spec.mark);
        let resolution = Resolution::named(spec.text("resolution")?.unwrap_or_default());
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (address, mark) in spec.texts("addresses")? {
            match whole_address(address) {
                Some(ip) => addresses.push(ip),
                None => notes.unsupported(
                    Severity::Warning,
                    mark,
                    "spec.addresses",
                    &format!("connections to the range {address} pass as without weir"),
                ),
            }
        }
        let mut ports = Vec::new();
        for port in spec.maps("ports")? {
            ports.push(decode_port(port)?);
        }
        let mut hosts = Vec::new();
        for (host, mark) in spec.texts("hosts")? {
            let name: Arc<str> = host.to_ascii_lowercase().into();
            let service = Service {
                meta: meta.clone(),
                kind: ServiceType::ClusterIp,
                addresses: addresses.clone().into(),
                ports: ports.clone(),
                selector: Labels::new(),
                client_ip_affinity: false,
                local_only: false,
                distribution: None,
            };
            hosts.push(EntryHost { mark, name, service });
        }
        let endpoints = spec.maps("endpoints")?.into_iter().map(|endpoint| Workload::decode(endpoint, notes));
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        let selector = match spec.map("workloadSelector")? {
            None => None,
            Some(mut selector) => Some(labels(&mut selector, "labels")?),
        };
        let texts = |spec: &mut Fields<'_>, key| {
            Ok::<_, Fault>(spec.texts(key)?.into_iter().map(|(text, _)| Arc::from(text)).collect::<Box<[Arc<str>]>>())
        };
        let export_to = texts(&mut spec, "exportTo")?;
        let subject_alt_names = texts(&mut spec, "subjectAltNames")?;
        if resolution != Resolution::Static {
            notes.unsupported(
                Severity::Warning,
                resolution_mark,
                &format!("spec.resolution: {}", resolution.as_str()),
                "connections to its hosts pass as without weir, and what rules send to them finds no endpoint",
            );
        }
        let internal = spec.text("location")? == Some("MESH_INTERNAL");
        Ok(Self { meta, hosts: hosts.into(), internal, resolution, endpoints, selector, export_to, subject_alt_names })
    }
}

/// An address, or a range that holds one alone.
fn whole_address(text: &str) -> Option<IpAddr> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv6() { "128" } else { "32" };
    prefix.is_none_or(|prefix| prefix == whole).then_some(address)
}

fn decode_port(mut fields: Fields<'_>) -> Result<Port, Fault> {
    let number = fields.port("number")?;
    let number = number.ok_or_else(|| Fault::new(fields.mark, fields.path_of("number"), "must be given"))?;
    let protocol = fields.text("protocol")?.unwrap_or_default().to_ascii_lowercase();
    Ok(Port {
        mark: fields.mark,
        name: fields.text("name")?.unwrap_or_default().into(),
        number,
        udp: protocol == "udp",
        sctp: false,
        // As Istio, TCP where nothing is said.
        app_protocol: Some(if protocol.is_empty() { "tcp".into() } else { protocol.into() }),
        target: TargetPort::Number(
            fields.integer("targetPort", 0..=65535)?.filter(|n| *n > 0).map_or(number, |n| n as u16),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_one_address_is_that_address() {
        for (text, whole) in [
            ("10.0.0.1", true),
            ("10.0.0.1/32", true),
            ("10.0.0.0/24", false),
            ("fd00::1/128", true),
            ("fd00::/64", false),
            ("example.com", false),
        ] {
            assert_eq!(whole_address(text).is_some(), whole, "{text}");
        }
    }
}
