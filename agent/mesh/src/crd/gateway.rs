//! Istio's Gateway: ports, the hosts that each serves, and how TLS is treated there. Compiled by `compile/gateways`.

use std::sync::Arc;

use super::Notes;
use super::fields::{Fault, Fields};
use super::meta::{Labels, Metadata, labels};
use super::node::Mark;
use crate::finding::Severity;

/// A Gateway of `networking.istio.io`.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Name, age, annotations.
    pub meta: Metadata,
    /// Labels of the pods that serve it; empty = every gateway.
    pub selector: Labels,
    /// `spec.servers`
    pub servers: Box<[Server]>,
}

/// One entry of `servers[]`.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it stands.
    pub mark: Mark,
    /// `port.number`; 0 is for what is bound to a path.
    pub port: u16,
    /// `port.name`
    pub port_name: Arc<str>,
    /// `port.protocol`
    pub protocol: ServerProtocol,
    /// `bind`; empty = every address.
    pub bind: Arc<str>,
    /// `hosts`
    pub hosts: Box<[ServerHost]>,
    /// `tls`
    pub tls: Option<ServerTls>,
}

/// What is spoken on a port of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerProtocol {
    /// HTTP in any version, gRPC too, as plain text.
    Http,
    /// HTTP within TLS.
    Https,
    /// Anything within TLS.
    Tls,
    /// Bytes.
    Tcp,
}

/// A host of a server: `[namespace/]name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerHost {
    /// Whose rules may serve it; empty = those of every namespace. `.` is the Gateway's own by now.
    pub namespace: Arc<str>,
    /// In lower case; `*`, or `*.` and a name, or a name.
    pub name: Arc<str>,
}

/// `tls` of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// Plain requests are sent to `https`.
    pub https_redirect: bool,
    /// `mode`
    pub mode: TlsMode,
    /// `credentialName` and `credentialNames`: Secrets in the namespace of the pods that serve. They are named, not read.
    pub credentials: Box<[Arc<str>]>,
}

/// `tls.mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// What is inside is not looked at; the SNI decides.
    #[default]
    Passthrough,
    /// The gateway has a certificate.
    Simple,
    /// The client has to have one, too.
    Mutual,
    /// The client may have one.
    OptionalMutual,
    /// Both have one of the mesh.
    IstioMutual,
    /// The SNI names a cluster: from gateway to gateway.
    AutoPassthrough,
}

impl TlsMode {
    /// True when TLS ends at the gateway.
    pub fn terminates(self) -> bool {
        !matches!(self, Self::Passthrough | Self::AutoPassthrough)
    }
}

impl Gateway {
    pub(super) fn decode(meta: Metadata, root: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mark = root.mark;
        let mut spec = root.required_map("spec")?;
        let selector = labels(&mut spec, "selector")?;
        let own: Arc<str> = Arc::clone(meta.namespace());
        let servers = spec.maps("servers")?.into_iter().map(|server| Server::decode(server, &own));
        let servers = servers.collect::<Result<_, _>>()?;
        notes.unserved(Severity::Warning, mark, "Gateway", "no port is opened for it");
        Ok(Self { meta, selector, servers })
    }
}

impl Server {
    fn decode(mut fields: Fields<'_>, own: &Arc<str>) -> Result<Self, Fault> {
        let mark = fields.mark;
        let mut port = fields.required_map("port")?;
        let number = port.integer("number", 0..=65535)?;
        let number = number.ok_or_else(|| Fault::new(port.mark, port.path_of("number"), "must be given"))? as u16;
        let port_name = port.text("name")?.unwrap_or_default().into();
        let protocol = ServerProtocol::named(port.required_text("protocol")?);
        let mut hosts = Vec::new();
        for (host, _) in fields.texts("hosts")? {
            let host = ServerHost::parse(host, own);
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        let tls = match fields.map("tls")? {
            None => None,
            Some(mut tls) => Some(ServerTls::decode(&mut tls)?),
        };
        let bind = fields.text("bind")?.unwrap_or_default().into();
        Ok(Self { mark, port: number, port_name, protocol, bind, hosts: hosts.into(), tls })
    }

    /// True when TLS ends here, or plain HTTP comes.
    pub fn is_http(&self) -> bool {
        match self.protocol {
            ServerProtocol::Http => true,
            ServerProtocol::Https => self.terminates(),
            ServerProtocol::Tls | ServerProtocol::Tcp => false,
        }
    }

    /// True when the first bytes are those of TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.protocol, ServerProtocol::Https | ServerProtocol::Tls)
            || (self.protocol == ServerProtocol::Tcp && self.tls.is_some())
    }

    /// True when TLS ends here.
    pub fn terminates(&self) -> bool {
        self.is_tls() && self.tls.as_ref().is_some_and(|tls| tls.mode.terminates())
    }

    /// `tls.httpsRedirect`
    pub fn redirects(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }
}

impl ServerProtocol {
    fn named(text: &str) -> Self {
        match &*text.to_ascii_uppercase() {
            "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTP_PROXY" => Self::Http,
            "HTTPS" => Self::Https,
            "TLS" => Self::Tls,
            _ => Self::Tcp,
        }
    }
}

impl ServerHost {
    fn parse(text: &str, own: &Arc<str>) -> Self {
        let (namespace, name) = text.split_once('/').unwrap_or(("*", text));
        let namespace = match namespace {
            "*" => Arc::default(),
            "." => Arc::clone(own),
            other => other.into(),
        };
        Self { namespace, name: name.to_ascii_lowercase().into() }
    }

    /// Whether rules of this namespace may serve it.
    pub fn is_for(&self, namespace: &str) -> bool {
        self.namespace.is_empty() || *self.namespace == *namespace
    }
}

impl ServerTls {
    fn decode(tls: &mut Fields<'_>) -> Result<Self, Fault> {
        let mode = match tls.text("mode")? {
            Some("SIMPLE") => TlsMode::Simple,
            Some("MUTUAL") => TlsMode::Mutual,
            Some("OPTIONAL_MUTUAL") => TlsMode::OptionalMutual,
            Some("ISTIO_MUTUAL") => TlsMode::IstioMutual,
            Some("AUTO_PASSTHROUGH") => TlsMode::AutoPassthrough,
            _ => TlsMode::Passthrough,
        };
        let one = tls.text("credentialName")?.filter(|name| !name.is_empty());
        let several = tls.texts("credentialNames")?.into_iter().map(|(name, _)| name);
        Ok(Self {
            https_redirect: tls.boolean("httpsRedirect")?.unwrap_or(false),
            mode,
            credentials: one.into_iter().chain(several).map(Arc::from).collect(),
        })
    }
}
