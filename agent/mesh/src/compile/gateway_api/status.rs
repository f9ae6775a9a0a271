//! Conditions of Gateways and routes, as the Gateway API has them: values, which whoever talks to the API server may
//! write back.

use std::sync::Arc;

use super::attach::Attachment;
use super::{Snapshot, api, backends, server_protocol};
use crate::crd::gateway_api::{ParentRef, Route};
use crate::source::ObjectRef;

/// A condition; its type is the name of the field that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `True` or `False`.
    pub status: bool,
    /// One of the Gateway API's reasons.
    pub reason: &'static str,
    /// For people; empty when all is well.
    pub message: String,
}

impl Condition {
    pub(super) fn yes(reason: &'static str) -> Self {
        Self { status: true, reason, message: String::new() }
    }

    pub(super) fn no(reason: &'static str, message: String) -> Self {
        Self { status: false, reason, message }
    }
}

/// All that there is to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses {
    /// Of the routes with a parent that is weir's, the oldest first.
    pub routes: Vec<RouteStatus>,
    /// Of the Gateways of weir's classes, the oldest first.
    pub gateways: Vec<GatewayStatus>,
}

/// Of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteStatus {
    /// Which one.
    pub object: ObjectRef,
    /// One for each parent that is weir's.
    pub parents: Vec<ParentStatus>,
}

/// Of a route, at one of its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// Which parent.
    pub parent: ParentRef,
    /// `Accepted`
    pub accepted: Condition,
    /// `ResolvedRefs`
    pub resolved_refs: Condition,
}

/// Of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayStatus {
    /// Which one.
    pub object: ObjectRef,
    /// `Accepted`
    pub accepted: Condition,
    /// `Programmed`: never, as no port is opened.
    pub programmed: Condition,
    /// One for each listener, in their order.
    pub listeners: Vec<ListenerStatus>,
}

/// Of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Routes that are attached to it.
    pub attached_routes: usize,
    /// `Accepted`
    pub accepted: Condition,
    /// `ResolvedRefs`
    pub resolved_refs: Condition,
}

pub(super) fn gateway(
    gateway: &api::Gateway,
    attached: &[(&Route, Vec<Attachment>)],
    snapshot: &Snapshot,
) -> GatewayStatus {
    let own = (Arc::clone(gateway.meta.namespace()), Arc::clone(gateway.meta.name()));
    let listeners: Vec<ListenerStatus> = gateway
        .listeners
        .iter()
        .map(|listener| {
            let at = |attachment: &Attachment| {
                attachment.listener.as_ref().is_some_and(|(place, name)| *place == own && *name == listener.name)
            };
            ListenerStatus {
                name: Arc::clone(&listener.name),
                attached_routes: attached.iter().filter(|(_, attachments)| attachments.iter().any(at)).count(),
                accepted: match server_protocol(listener) {
                    Some(_) => Condition::yes("Accepted"),
                    None => Condition::no("UnsupportedProtocol", format!("{} is not served", listener.protocol)),
                },
                resolved_refs: match backends::certificates(gateway, listener, snapshot) {
                    Ok(()) => Condition::yes("ResolvedRefs"),
                    Err(why) => why,
                },
            }
        })
        .collect();
    let accepted = if listeners.iter().all(|listener| listener.accepted.status) {
        Condition::yes("Accepted")
    } else {
        Condition::no("ListenersNotValid", "not every listener is accepted".to_owned())
    };
    let programmed = Condition::no("AddressNotAssigned", "no port is opened for it".to_owned());
    GatewayStatus { object: gateway.meta.object.clone(), accepted, programmed, listeners }
}
