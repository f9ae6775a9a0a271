//! GatewayClass, and Gateway with its listeners.

use super::{Arc, Fault, Fields, LabelSelector, Mark, Metadata, Notes, group, hostname, text};
use crate::finding::Severity;

/// A GatewayClass.
#[derive(Clone, Debug)]
pub struct GatewayClass {
    /// Name; it belongs to no namespace.
    pub meta: Metadata,
    /// `spec.controllerName`
    pub controller: Arc<str>,
}

/// A Gateway of the Gateway API.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Name, age.
    pub meta: Metadata,
    /// `spec.gatewayClassName`
    pub class: Arc<str>,
    /// `spec.listeners`
    pub listeners: Box<[Listener]>,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where it stands.
    pub mark: Mark,
    /// `name`: what `sectionName` of a route names.
    pub name: Arc<str>,
    /// `hostname` in lower case; empty = all.
    pub hostname: Arc<str>,
    /// `port`
    pub port: u16,
    /// `protocol`: `HTTP`, `HTTPS`, `TLS`, `TCP`, or another.
    pub protocol: Arc<str>,
    /// `tls`
    pub tls: Option<ListenerTls>,
    /// `allowedRoutes.namespaces`
    pub namespaces: AllowedNamespaces,
    /// `allowedRoutes.kinds`; empty = those of the protocol.
    pub kinds: Box<[(Arc<str>, Arc<str>)]>,
}

/// `tls` of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerTls {
    /// `mode: Passthrough`
    pub passthrough: bool,
    /// `certificateRefs`: namespace (empty = the Gateway's) and name of Secrets; other kinds are left out.
    pub certificates: Box<[(Arc<str>, Arc<str>)]>,
}

/// Whose routes may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// Those of the Gateway's namespace.
    #[default]
    Same,
    /// All.
    All,
    /// Those of namespaces with these labels.
    Selected(LabelSelector),
}

impl GatewayClass {
    pub(in crate::crd) fn decode(meta: Metadata, root: &mut Fields<'_>) -> Result<Self, Fault> {
        let controller = root.required_map("spec")?.required_text("controllerName")?.into();
        Ok(Self { meta, controller })
    }
}

impl Gateway {
    pub(in crate::crd) fn decode(meta: Metadata, root: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mark = root.mark;
        let mut spec = root.required_map("spec")?;
        let class = text(&mut spec, "gatewayClassName")?;
        let listeners = spec.maps("listeners")?.into_iter().map(Listener::decode).collect::<Result<_, _>>()?;
        notes.unserved(Severity::Warning, mark, "Gateway", "no port is opened for it");
        Ok(Self { meta, class, listeners })
    }
}

impl Listener {
    fn decode(mut fields: Fields<'_>) -> Result<Self, Fault> {
        let port = fields.port("port")?;
        let port = port.ok_or_else(|| Fault::new(fields.mark, fields.path_of("port"), "must be given"))?;
        let mut listener = Self {
            mark: fields.mark,
            name: text(&mut fields, "name")?,
            hostname: hostname(&mut fields, "hostname")?,
            port,
            protocol: text(&mut fields, "protocol")?,
            tls: None,
            namespaces: AllowedNamespaces::Same,
            kinds: Box::default(),
        };
        if let Some(mut tls) = fields.map("tls")? {
            let mut certificates = Vec::new();
            for mut one in tls.maps("certificateRefs")? {
                let kind = one.text("kind")?.unwrap_or("Secret");
                if kind == "Secret" && group(&mut one, "")?.is_empty() {
                    certificates.push((text(&mut one, "namespace")?, one.required_text("name")?.into()));
                }
            }
            let passthrough = tls.text("mode")? == Some("Passthrough");
            listener.tls = Some(ListenerTls { passthrough, certificates: certificates.into() });
        }
        if let Some(mut allowed) = fields.map("allowedRoutes")? {
            if let Some(mut namespaces) = allowed.map("namespaces")? {
                listener.namespaces = match namespaces.text("from")? {
                    Some("All") => AllowedNamespaces::All,
                    Some("Selector") => match namespaces.map("selector")? {
                        Some(mut selector) => AllowedNamespaces::Selected(LabelSelector::decode(&mut selector)?),
                        None => AllowedNamespaces::Same,
                    },
                    _ => AllowedNamespaces::Same,
                };
            }
            let mut kinds = Vec::new();
            for mut kind in allowed.maps("kinds")? {
                kinds.push((group(&mut kind, super::GROUP)?, kind.required_text("kind")?.into()));
            }
            listener.kinds = kinds.into();
        }
        Ok(listener)
    }
}
