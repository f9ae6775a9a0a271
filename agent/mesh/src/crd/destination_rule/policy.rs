//! Traffic policies and their levels.

use std::sync::Arc;

use super::balancing::load_balancing;
use super::pool::{connection_pool, outlier_detection};
use super::tls::{client_tls, proxy_protocol, retry_budget, tunnel};
use crate::crd::Notes;
use crate::crd::fields::{Fault, Fields, Marked};
use crate::crd::node::Mark;
use crate::program::{ClientTls, ConnectionPool, LoadBalancing, OutlierDetection, RetryBudget, Tunnel};

/// A traffic policy.
#[derive(Clone, Debug, Default)]
pub struct TrafficPolicy {
    /// Where it stands.
    pub mark: Mark,
    /// The blocks that settings of a port replace.
    pub blocks: Blocks,
    /// `tunnel`
    pub tunnel: Option<Marked<Arc<Tunnel>>>,
    /// `proxyProtocol`: version 1 or 2.
    pub proxy_protocol: Option<Marked<Arc<u8>>>,
    /// `retryBudget`
    pub retry_budget: Option<Marked<Arc<RetryBudget>>>,
    /// `portLevelSettings`
    pub ports: Box<[PortPolicy]>,
}

/// The settings of one service port. They replace all [`Blocks`] of their level: one that is not given is as if no rule
/// gave it.
#[derive(Clone, Debug)]
pub struct PortPolicy {
    /// Where they stand.
    pub mark: Mark,
    /// The service port.
    pub port: u16,
    /// What holds.
    pub blocks: Blocks,
}

/// The blocks that a port's settings can have too. Each replaces the whole block of the level above.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each field is Istio's block of the same name")]
pub struct Blocks {
    pub load_balancer: Option<Marked<Arc<LoadBalancing>>>,
    pub connection_pool: Option<Marked<Arc<ConnectionPool>>>,
    pub outlier_detection: Option<Marked<Arc<OutlierDetection>>>,
    pub tls: Option<Marked<Arc<ClientTls>>>,
}

impl TrafficPolicy {
    /// The settings of a service port.
    pub fn port(&self, port: u16) -> Option<&PortPolicy> {
        self.ports.iter().find(|settings| settings.port == port)
    }

    pub(super) fn all_tls(&self) -> impl Iterator<Item = &ClientTls> {
        let ports = self.ports.iter().filter_map(|settings| settings.blocks.tls.as_ref());
        self.blocks.tls.iter().chain(ports).map(|tls| &***tls)
    }

    pub(super) fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let blocks = Blocks::decode(&mut fields, notes)?;
        let tunnel = block(&mut fields, "tunnel", notes, tunnel)?;
        let proxy_protocol = block(&mut fields, "proxyProtocol", notes, proxy_protocol)?;
        let retry_budget = block(&mut fields, "retryBudget", notes, retry_budget)?;
        let mut ports = Vec::new();
        for mut settings in fields.maps("portLevelSettings")? {
            let number = match settings.map("port")? {
                Some(mut port) => port.port("number")?,
                None => None,
            };
            let blocks = Blocks::decode(&mut settings, notes)?;
            // Settings of no port are for none.
            ports.extend(number.map(|port| PortPolicy { mark: settings.mark, port, blocks }));
        }
        Ok(Self { mark: fields.mark, blocks, tunnel, proxy_protocol, retry_budget, ports: ports.into() })
    }
}

impl Blocks {
    fn decode(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        Ok(Self {
            load_balancer: block(fields, "loadBalancer", notes, load_balancing)?,
            connection_pool: block(fields, "connectionPool", notes, connection_pool)?,
            outlier_detection: block(fields, "outlierDetection", notes, outlier_detection)?,
            tls: block(fields, "tls", notes, client_tls)?,
        })
    }
}

/// A block that is there, and where; what it has beyond what is decoded is noted.
fn block<T>(
    fields: &mut Fields<'_>,
    key: &str,
    notes: &mut Notes<'_>,
    decode: impl FnOnce(&mut Fields<'_>, &mut Notes<'_>) -> Result<T, Fault>,
) -> Result<Option<Marked<Arc<T>>>, Fault> {
    let Some(entry) = fields.entry(key) else {
        return Ok(None);
    };
    let mut block = Fields::of(&entry.node, fields.path_of(key))?;
    let value = decode(&mut block, notes)?;
    Ok(Some(Marked::new(entry.mark, Arc::new(value))))
}
