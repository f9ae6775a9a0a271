//! Istio's WorkloadEntry: an endpoint that is no pod, by itself or written into a ServiceEntry.

use std::net::IpAddr;
use std::sync::Arc;

use super::Notes;
use super::fields::{Fault, Fields};
use super::meta::{Labels, Metadata, labels};
use super::node::{Mark, Value};
use crate::finding::Severity;

/// A WorkloadEntry.
#[derive(Clone, Debug)]
pub struct WorkloadEntry {
    /// Name, labels: those of the object and of its spec together, the spec's first.
    pub meta: Metadata,
    /// What it says of itself.
    pub workload: Workload,
}

/// An endpoint.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Where it stands.
    pub mark: Mark,
    /// `address`: an IP address, a name, or a `unix://` path.
    pub address: Arc<str>,
    /// `ports`: by the name of the service port.
    pub ports: Box<[(Arc<str>, u16)]>,
    /// `labels`
    pub labels: Labels,
    /// `weight`; 0 and absent are 1.
    pub weight: u32,
    /// `serviceAccount`; empty when it is not given.
    pub service_account: Arc<str>,
    /// `locality`; empty when it is not given.
    pub locality: Arc<str>,
}

impl WorkloadEntry {
    pub(super) fn decode(mut meta: Metadata, root: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let workload = Workload::decode(root.required_map("spec")?, notes)?;
        let own = workload.labels.iter().map(|(key, value)| (Arc::clone(key), Arc::clone(value)));
        meta.labels = Arc::new(meta.labels.with(own));
        Ok(Self { meta, workload })
    }
}

impl Workload {
    pub(super) fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mut ports = Vec::new();
        if let Some(given) = fields.map("ports")? {
            for entry in given.entries() {
                if let Value::Int(number) = entry.node.value
                    && let Ok(number @ 1..) = u16::try_from(number)
                {
                    ports.push((Arc::from(&*entry.key), number));
                }
            }
        }
        if let Some(network) =
            fields.entry("network").filter(|entry| entry.node.text().is_some_and(|name| !name.is_empty()))
        {
            let path = fields.path_of("network");
            notes.unsupported(Severity::Warning, network.mark, &path, "its address is dialled wherever it is");
        }
        Ok(Self {
            mark: fields.mark,
            address: fields.text("address")?.unwrap_or_default().into(),
            ports: ports.into(),
            labels: labels(&mut fields, "labels")?,
            weight: fields.integer("weight", 0..=i64::from(u32::MAX))?.map_or(1, |weight| (weight as u32).max(1)),
            service_account: fields.text("serviceAccount")?.unwrap_or_default().into(),
            locality: fields.text("locality")?.unwrap_or_default().into(),
        })
    }

    /// Its address, unless that is a name or a path.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.parse().ok()
    }

    /// Where it listens for a service port of this name.
    pub fn port(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|(own, _)| **own == *name).map(|(_, number)| *number)
    }
}
