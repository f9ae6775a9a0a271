//! HTTPRoute, GRPCRoute, TLSRoute and TCPRoute: where they are attached, and their rules.

use std::time::Duration;

use super::filter::Filter;
use super::matches::RouteMatch;
use super::{Arc, Fault, Fields, GROUP, Mark, Metadata, Notes, group, text};
use crate::crd::duration_or_zero;
use crate::crd::fields::Marked;
use crate::crd::regex::shared_regexes;
use crate::finding::Severity;
use crate::matching::Pattern;

/// A route of any of the four kinds.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its kind is in `meta.object.kind`, too.
    pub meta: Metadata,
    /// Which of the four it is.
    pub kind: RouteKind,
    /// `spec.parentRefs`
    pub parents: Box<[ParentRef]>,
    /// `spec.hostnames`, in lower case; empty = those of the listener.
    pub hostnames: Box<[Arc<str>]>,
    /// `spec.rules`
    pub rules: Box<[RouteRule]>,
    /// The regular expressions of its rules, each once.
    pub regexes: Box<[Pattern]>,
}

/// The kinds of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// HTTPRoute
    Http,
    /// GRPCRoute
    Grpc,
    /// TLSRoute
    Tls,
    /// TCPRoute
    Tcp,
}

impl RouteKind {
    /// The kind of this name.
    pub fn named(kind: &str) -> Option<Self> {
        Some(match kind {
            "HTTPRoute" => Self::Http,
            "GRPCRoute" => Self::Grpc,
            "TLSRoute" => Self::Tls,
            "TCPRoute" => Self::Tcp,
            _ => return None,
        })
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }

    /// True for HTTPRoute and GRPCRoute.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Grpc)
    }
}

/// To what a route is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// Where it stands.
    pub mark: Mark,
    /// `group`
    pub group: Arc<str>,
    /// `kind`
    pub kind: Arc<str>,
    /// `namespace`; the route's own where it is not given.
    pub namespace: Arc<str>,
    /// `name`
    pub name: Arc<str>,
    /// `sectionName`; empty = all.
    pub section: Arc<str>,
    /// `port`; `None` = all.
    pub port: Option<u16>,
}

impl ParentRef {
    /// True when it is a Gateway of the Gateway API.
    pub fn is_gateway(&self) -> bool {
        *self.group == *GROUP && *self.kind == *"Gateway"
    }

    /// True when it is a Service: its clients are those in the mesh.
    pub fn is_service(&self) -> bool {
        matches!(&*self.group, "" | "core") && *self.kind == *"Service"
    }
}

/// One entry of `rules[]`.
#[derive(Clone, Debug)]
pub struct RouteRule {
    /// Where it stands.
    pub mark: Mark,
    /// `name`, or empty.
    pub name: Arc<str>,
    /// `matches`; empty = takes everything.
    pub matches: Box<[RouteMatch]>,
    /// `filters`
    pub filters: Box<[Filter]>,
    /// `backendRefs`
    pub backends: Box<[BackendRef]>,
    /// `timeouts`
    pub timeouts: Timeouts,
}

/// How long a rule waits. None of them is zero, which asks for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// `request`: for everything, retries included.
    pub request: Option<Marked<Duration>>,
    /// `backendRequest`: for one try.
    pub backend_request: Option<Marked<Duration>>,
}

/// Where a rule sends.
#[derive(Clone, Debug)]
pub struct BackendRef {
    /// Where it stands.
    pub mark: Mark,
    /// `group`; empty = Kubernetes' own.
    pub group: Arc<str>,
    /// `kind`
    pub kind: Arc<str>,
    /// `namespace`; empty = the route's.
    pub namespace: Arc<str>,
    /// `name`
    pub name: Arc<str>,
    /// `port`
    pub port: Option<u16>,
    /// `weight`; 1 when it is not given.
    pub weight: u32,
    /// `filters` of this backend alone.
    pub filters: Box<[Filter]>,
}

impl Route {
    pub(in crate::crd) fn decode(
        meta: Metadata,
        kind: RouteKind,
        root: &mut Fields<'_>,
        notes: &mut Notes<'_>,
    ) -> Result<Self, Fault> {
        let mut spec = root.required_map("spec")?;
        let mut parents = Vec::new();
        for parent in spec.maps("parentRefs")? {
            parents.push(ParentRef::decode(parent, &meta)?);
        }
        let hostnames = spec.texts("hostnames")?.into_iter().map(|(name, _)| name.to_ascii_lowercase().into());
        let hostnames = hostnames.collect();
        let mut rules = Vec::new();
        for rule in spec.maps("rules")? {
            rules.push(RouteRule::decode(rule, kind, notes)?);
        }
        // An HTTPRoute without rules has one that takes everything, and leads nowhere.
        if rules.is_empty() && kind.is_http() {
            rules.push(RouteRule {
                mark: spec.mark,
                name: Arc::default(),
                matches: Box::default(),
                filters: Box::default(),
                backends: Box::default(),
                timeouts: Timeouts::default(),
            });
        }
        let (parents, rules) = (parents.into(), rules.into());
        let mut decoded = Self { meta, kind, parents, hostnames, rules, regexes: Box::default() };
        let regexes = shared_regexes(|share| decoded.each_regex(share));
        decoded.regexes = regexes.map_err(|why| Fault::new(spec.mark, "spec.rules", why))?;
        Ok(decoded)
    }

    /// All its regular expressions, wherever they stand.
    pub(in crate::crd) fn each_regex(&mut self, see: &mut dyn FnMut(&mut Pattern)) {
        self.regexes.iter_mut().for_each(&mut *see);
        let matches = self.rules.iter_mut().flat_map(|rule| &mut rule.matches);
        matches.for_each(|one| one.each_regex(see));
    }
}

impl ParentRef {
    fn decode(mut fields: Fields<'_>, route: &Metadata) -> Result<Self, Fault> {
        Ok(Self {
            mark: fields.mark,
            group: group(&mut fields, GROUP)?,
            kind: fields.text("kind")?.unwrap_or("Gateway").into(),
            namespace: fields.text("namespace")?.map_or_else(|| Arc::clone(route.namespace()), Arc::from),
            name: fields.required_text("name")?.into(),
            section: text(&mut fields, "sectionName")?,
            port: fields.port("port")?,
        })
    }
}

impl RouteRule {
    fn decode(mut fields: Fields<'_>, kind: RouteKind, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let mut matches = Vec::new();
        if kind.is_http() {
            for one in fields.maps("matches")? {
                matches.push(if kind == RouteKind::Grpc { RouteMatch::grpc(one)? } else { RouteMatch::http(one)? });
            }
        }
        let filters = filters(&mut fields, notes)?;
        let mut backends = Vec::new();
        for backend in fields.maps("backendRefs")? {
            let backend = BackendRef::decode(backend)?;
            note_others(&backend.filters, notes);
            backends.push(backend);
        }
        let timeouts = match fields.map("timeouts")? {
            Some(mut given) if kind == RouteKind::Http => Timeouts::decode(&mut given)?,
            _ => Timeouts::default(),
        };
        for key in ["retry", "sessionPersistence"] {
            if let Some(entry) = fields.entry(key) {
                let path = fields.path_of(key);
                notes.unsupported(Severity::Warning, entry.mark, &path, "requests are forwarded without it");
            }
        }
        let name = text(&mut fields, "name")?;
        Ok(Self { mark: fields.mark, name, matches: matches.into(), filters, backends: backends.into(), timeouts })
    }
}

impl Timeouts {
    fn decode(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let mut given = |key| Ok::<_, Fault>(duration_or_zero(fields, key)?.filter(|limit| !limit.is_zero()));
        Ok(Self { request: given("request")?, backend_request: given("backendRequest")? })
    }
}

impl BackendRef {
    pub(super) fn decode(mut fields: Fields<'_>) -> Result<Self, Fault> {
        Ok(Self {
            mark: fields.mark,
            group: group(&mut fields, "")?,
            kind: fields.text("kind")?.unwrap_or("Service").into(),
            namespace: text(&mut fields, "namespace")?,
            name: fields.required_text("name")?.into(),
            port: fields.port("port")?,
            weight: fields.integer("weight", 0..=1_000_000)?.map_or(1, |weight| weight as u32),
            filters: fields.maps("filters")?.into_iter().map(Filter::decode).collect::<Result<_, _>>()?,
        })
    }

    /// True for a Service.
    pub fn is_service(&self) -> bool {
        matches!(&*self.group, "" | "core") && *self.kind == *"Service"
    }
}

fn filters(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Box<[Filter]>, Fault> {
    let filters: Box<[Filter]> = fields.maps("filters")?.into_iter().map(Filter::decode).collect::<Result<_, _>>()?;
    note_others(&filters, notes);
    Ok(filters)
}

fn note_others(filters: &[Filter], notes: &mut Notes<'_>) {
    for filter in filters {
        if let Filter::Other(mark, kind) = filter {
            notes.unsupported(Severity::Error, *mark, &format!("filter {kind}"), "its rule answers with 500");
        }
    }
}
