//! The Gateway API: Gateway, GatewayClass, the four kinds of routes and ReferenceGrant. Compiled by
//! `compile/gateway_api` into the same rules as VirtualServices.

use std::sync::Arc;

use super::Notes;
use super::fields::{Fault, Fields};
use super::meta::{Metadata, labels};
use super::node::Mark;

mod filter;
mod gateway;
mod grant;
mod matches;
mod route;

pub use filter::{Filter, HeaderModifier, PathModifier, RedirectFilter};
pub use gateway::{AllowedNamespaces, Gateway, GatewayClass, Listener, ListenerTls};
pub use grant::{GrantFrom, GrantTo, ReferenceGrant};
pub use matches::{PathMatch, RouteMatch, RouteMatchText};
pub use route::{BackendRef, ParentRef, Route, RouteKind, RouteRule};

/// The group of all of them.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// A condition on labels: `matchLabels` and `matchExpressions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// All of them.
    pub labels: super::Labels,
    /// All of them.
    pub expressions: Box<[LabelExpression]>,
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelExpression {
    /// `key`
    pub key: Arc<str>,
    /// `operator`: `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: Arc<str>,
    /// `values`
    pub values: Box<[Arc<str>]>,
}

impl LabelSelector {
    fn decode(fields: &mut Fields<'_>) -> Result<Self, Fault> {
        let labels = labels(fields, "matchLabels")?;
        let mut expressions = Vec::new();
        for mut one in fields.maps("matchExpressions")? {
            let values = one.texts("values")?.into_iter().map(|(value, _)| Arc::from(value)).collect();
            let (key, operator) = (one.required_text("key")?.into(), one.required_text("operator")?.into());
            expressions.push(LabelExpression { key, operator, values });
        }
        Ok(Self { labels, expressions: expressions.into() })
    }

    /// Whether an object is selected. An operator that is not known selects nothing.
    pub fn selects(&self, meta: &Metadata) -> bool {
        self.labels.iter().all(|(key, value)| meta.labels.get(key) == Some(value))
            && self.expressions.iter().all(|LabelExpression { key, operator, values }| {
                let value = meta.labels.get(key);
                match &**operator {
                    "In" => value.is_some_and(|value| values.contains(value)),
                    "NotIn" => value.is_none_or(|value| !values.contains(value)),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}

/// A text that may be absent, as empty.
fn text(fields: &mut Fields<'_>, key: &str) -> Result<Arc<str>, Fault> {
    Ok(fields.text(key)?.unwrap_or_default().into())
}

/// A hostname, in lower case; empty when it is not given.
fn hostname(fields: &mut Fields<'_>, key: &str) -> Result<Arc<str>, Fault> {
    Ok(fields.text(key)?.unwrap_or_default().to_ascii_lowercase().into())
}

/// A group that is not given is the Gateway API's own.
fn group(fields: &mut Fields<'_>, otherwise: &str) -> Result<Arc<str>, Fault> {
    Ok(fields.text("group")?.unwrap_or(otherwise).into())
}
