//! Entries of `http[]`: what they match and what they do.

use std::sync::Arc;

use super::headers::operations;
use super::matches::HttpMatchItem;
use super::rewrite::{direct_response, redirect, rewrite};
use super::settings::{cors, fault, mirrors, retries};
use super::{all, is_host};
use crate::crd::fields::{Fault, Fields, Marked};
use crate::crd::node::Mark;
use crate::crd::{Notes, duration};
use crate::program::{
    CorsPolicy, DirectResponse, FaultInjection, HeaderOperations, Redirect, RetryPolicy, Rewrite, Share,
};

/// A weight is an int32 in Istio's schema.
const MAX_WEIGHT: i64 = i32::MAX as i64;

/// One entry of `http[]`.
#[derive(Clone, Debug)]
pub struct HttpRoute {
    /// Where it stands.
    pub mark: Mark,
    /// `name`, or empty.
    pub name: Arc<str>,
    /// Alternatives; empty = takes everything.
    pub items: Box<[HttpMatchItem]>,
    /// What is done with what it takes.
    pub action: Action,
    /// What else is asked for; `None` = nothing.
    pub settings: Option<Box<HttpSettings>>,
}

/// What an HTTP rule does.
#[derive(Clone, Debug)]
pub enum Action {
    /// `route`
    Forward(Box<[RouteDestination]>),
    /// `redirect`
    Redirect(Marked<Arc<Redirect>>),
    /// `directResponse`
    DirectResponse(Marked<Arc<DirectResponse>>),
    /// `delegate`
    Delegate(Box<Delegate>),
}

/// `delegate`: the rules of another VirtualService, within the matches of this rule.
#[derive(Clone, Debug)]
pub struct Delegate {
    /// Where it stands.
    pub mark: Mark,
    /// `name`
    pub name: Arc<str>,
    /// `namespace`; empty = the VirtualService's own.
    pub namespace: Arc<str>,
}

/// What an HTTP rule asks for beside its matches and destinations.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each field is Istio's of the same name")]
pub struct HttpSettings {
    pub rewrite: Option<Marked<Arc<Rewrite>>>,
    pub timeout: Option<Marked<std::time::Duration>>,
    pub retries: Option<Marked<Arc<RetryPolicy>>>,
    pub fault: Option<Marked<Arc<FaultInjection>>>,
    /// `mirror`, or all of `mirrors`.
    pub mirrors: Box<[Mirror]>,
    pub cors: Option<Marked<Arc<CorsPolicy>>>,
    pub headers: Option<Marked<Arc<HeaderOperations>>>,
}

/// Where copies of requests go.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// To whom; its weight means nothing.
    pub destination: RouteDestination,
    /// Which share of the requests.
    pub share: Share,
}

/// A weighted destination.
#[derive(Clone, Debug)]
pub struct RouteDestination {
    /// Where it stands.
    pub mark: Mark,
    /// As written, in lower case.
    pub host: Arc<str>,
    /// Empty = the plain service.
    pub subset: Arc<str>,
    /// `port.number`
    pub port: Option<u16>,
    /// `weight`; `None` when not given.
    pub weight: Option<u32>,
    /// `headers`, of an HTTP rule.
    pub headers: Option<Marked<Arc<HeaderOperations>>>,
}

impl HttpRoute {
    pub(super) fn decode(mut fields: Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let name = fields.text("name")?.unwrap_or_default().into();
        let items = all(fields.maps("match")?, |item| HttpMatchItem::decode(item, notes))?;
        let action = Action::decode(&mut fields, notes)?;
        let settings = HttpSettings::decode(&mut fields, notes)?;
        Ok(Self { mark: fields.mark, name, items, action, settings })
    }

    /// Everywhere that it sends, mirrors included.
    pub fn all_destinations(&self) -> impl Iterator<Item = &RouteDestination> {
        let mirrors = self.settings.iter().flat_map(|settings| &settings.mirrors);
        self.forwards_to().iter().chain(mirrors.map(|mirror| &mirror.destination))
    }

    /// Where it forwards; empty for other actions.
    pub fn forwards_to(&self) -> &[RouteDestination] {
        match &self.action {
            Action::Forward(destinations) => destinations,
            Action::Redirect(_) | Action::DirectResponse(_) | Action::Delegate(_) => &[],
        }
    }
}

impl Action {
    fn decode(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Self, Fault> {
        let destinations = destinations(fields, notes)?;
        let mut action = (!destinations.is_empty()).then_some(Self::Forward(destinations));
        for field in ["redirect", "directResponse", "delegate"] {
            let Some(entry) = fields.entry(field) else {
                continue;
            };
            if action.is_some() {
                let message = "excludes `route` and every other of redirect, directResponse and delegate";
                return Err(Fault::new(entry.mark, fields.path_of(field), message));
            }
            let mut block = Fields::of(&entry.node, fields.path_of(field))?;
            action = Some(match field {
                "redirect" => Self::Redirect(Marked::new(entry.mark, Arc::new(redirect(&mut block)?))),
                "directResponse" => {
                    Self::DirectResponse(Marked::new(entry.mark, Arc::new(direct_response(&mut block)?)))
                }
                _ => Self::Delegate(Box::new(Delegate {
                    mark: entry.mark,
                    name: block.text("name")?.unwrap_or_default().into(),
                    namespace: block.text("namespace")?.unwrap_or_default().into(),
                })),
            });
        }
        action.ok_or_else(|| {
            let message = "one of `route`, `redirect`, `directResponse` and `delegate` must be given";
            Fault::new(fields.mark, fields.path.clone(), message)
        })
    }
}

impl HttpSettings {
    fn decode(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Option<Box<Self>>, Fault> {
        let settings = Self {
            rewrite: block(fields, "rewrite", notes, |block, _| rewrite(block))?,
            timeout: duration(fields, "timeout")?,
            retries: block(fields, "retries", notes, |block, _| retries(block))?,
            fault: block(fields, "fault", notes, |block, _| fault(block))?,
            mirrors: mirrors(fields)?,
            cors: block(fields, "corsPolicy", notes, |block, _| cors(block))?,
            headers: block(fields, "headers", notes, operations)?,
        };
        let empty = settings.rewrite.is_none()
            && settings.timeout.is_none()
            && settings.retries.is_none()
            && settings.fault.is_none()
            && settings.mirrors.is_empty()
            && settings.cors.is_none()
            && settings.headers.is_none();
        Ok((!empty).then(|| Box::new(settings)))
    }
}

/// A block that is there, and where; what it has beyond what is decoded is noted.
pub(super) fn block<T>(
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

pub(super) fn destinations(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<Box<[RouteDestination]>, Fault> {
    let mut destinations = Vec::new();
    for mut route in fields.maps("route")? {
        let mut target = route.required_map("destination")?;
        let mut destination = RouteDestination::decode(&mut target)?;
        destination.weight = route.integer("weight", 0..=MAX_WEIGHT)?.map(|w| w as u32);
        destination.headers = block(&mut route, "headers", notes, operations)?;
        destinations.push(destination);
    }
    if destinations.len() > 1 && destinations.iter().all(|d| d.weight.unwrap_or(0) == 0) {
        let message = "all weights are 0: nothing could be sent anywhere";
        return Err(Fault::new(fields.mark, fields.path_of("route"), message));
    }
    Ok(destinations.into())
}

impl RouteDestination {
    /// A destination by itself, without weight and headers.
    pub(super) fn decode(target: &mut Fields<'_>) -> Result<Self, Fault> {
        let host = target.required_text("host")?.to_ascii_lowercase();
        if !is_host(&host) {
            return Err(Fault::new(target.mark, target.path_of("host"), format!("`{host}` is no host name")));
        }
        let port = match target.map("port")? {
            Some(mut port) => port.port("number")?,
            None => None,
        };
        let subset = target.text("subset")?.unwrap_or_default().into();
        Ok(Self { mark: target.mark, host: host.into(), subset, port, weight: None, headers: None })
    }
}
