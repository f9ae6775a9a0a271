//! What the server itself writes into objects: identity, times, generations, and the defaults that consumers read.
//! Called by `write` before something is stored.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::object::Fields;
use super::resources::{CRDS, Resource};
use super::status::Status;
use super::store::{Store, Table};

/// Service addresses are given out from 10.96.128.0 and fd00:10:96::8000 on, so that tests can write lower ones.
const FIRST_SERVICE: u32 = 0x0a60_8000;
const FIRST_SERVICE_V6: u128 = 0xfd00_0010_0096_0000_0000_0000_0000_8000;

/// How many addresses there are.
const SERVICES: u32 = 0x7fff;

/// The present time as the API writes it.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A number that was never given out before by this process.
pub(super) fn serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn uid() -> String {
    let (process, n) = (std::process::id(), serial());
    format!("{process:08x}-{:04x}-4{:03x}-8000-{:012x}", n >> 28 & 0xffff, n >> 16 & 0xfff, n)
}

/// The metadata of an object, made where it is missing.
pub(super) fn metadata(value: &mut Fields) -> &mut Fields {
    let metadata = value.entry("metadata").or_insert_with(|| json!({}));
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("it was made an object")
}

/// Text in the metadata, empty where it is missing.
pub(super) fn meta<'v>(value: &'v Fields, field: &str) -> &'v str {
    value.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// Completes an object that is about to be created.
pub(super) fn create(resource: &Resource, value: &mut Fields) {
    let counted = resource.generation;
    let metadata = metadata(value);
    metadata.entry("uid").or_insert_with(|| uid().into());
    metadata.entry("creationTimestamp").or_insert_with(|| now().into());
    if counted {
        metadata.insert("generation".into(), 1.into());
    }
}

/// Carries over what an update may not change, and counts the generation.
pub(super) fn update(resource: &Resource, old: &Fields, new: &mut Fields) {
    let kept = ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"];
    let changed = {
        let outside = |v: &Fields| -> Vec<(String, Value)> {
            let inner = |k: &str| matches!(k, "metadata" | "status" | "apiVersion" | "kind");
            v.iter().filter(|(k, _)| !inner(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        resource.generation && outside(old) != outside(new)
    };
    let metadata = metadata(new);
    for field in kept {
        match old.get("metadata").and_then(|m| m.get(field)) {
            Some(was) => metadata.insert(field.into(), was.clone()),
            None => metadata.remove(field),
        };
    }
    if changed {
        let was = metadata.get("generation").and_then(Value::as_u64).unwrap_or_default();
        metadata.insert("generation".into(), (was + 1).into());
    }
}

/// Writes the defaults of a kind.
///
/// # Errors
/// 422 for a CustomResourceDefinition that cannot be served, 500 when no service address is left.
pub(super) fn defaults(store: &Store, resource: &Resource, value: &mut Fields) -> Result<(), Status> {
    match &*resource.id {
        "namespaces" => {
            let name = meta(value, "name").to_owned();
            let labels = metadata(value).entry("labels").or_insert_with(|| json!({}));
            if labels.is_object() {
                labels["kubernetes.io/metadata.name"] = name.into();
            }
            fill(value, "spec", &json!({"finalizers": ["kubernetes"]}));
            fill(value, "status", &json!({"phase": "Active"}));
        }
        "pods" => {
            let spec = json!({"serviceAccountName": "default", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                              "schedulerName": "default-scheduler"});
            fill(value, "spec", &spec);
            fill(value, "status", &json!({"phase": "Pending"}));
        }
        "services" => service(store, value)?,
        CRDS => definition(value)?,
        _ => {}
    }
    Ok(())
}

/// Adds what is missing below `field`.
fn fill(value: &mut Fields, field: &str, defaults: &Value) {
    let at = value.entry(field).or_insert_with(|| json!({}));
    if let (Some(at), Some(defaults)) = (at.as_object_mut(), defaults.as_object()) {
        for (k, v) in defaults {
            at.entry(k.as_str()).or_insert_with(|| v.clone());
        }
    }
}

fn service(store: &Store, value: &mut Fields) -> Result<(), Status> {
    fill(value, "spec", &json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}));
    fill(value, "status", &json!({"loadBalancer": {}}));
    let Some(spec) = value.get_mut("spec").filter(|s| s.is_object()) else { return Ok(()) };
    for port in spec["ports"].as_array_mut().into_iter().flatten().filter(|p| p.is_object()) {
        if port["protocol"].is_null() {
            port["protocol"] = "TCP".into();
        }
        if port["targetPort"].is_null() {
            port["targetPort"] = port["port"].clone();
        }
    }
    if spec["type"] == "ExternalName" {
        return Ok(());
    }
    if spec["clusterIP"].as_str().is_none_or(str::is_empty) {
        let taken = |address: &str| {
            let mut services = store.table("services").into_iter().flat_map(Table::objects);
            // The first selectable field of a service.
            services.any(|s| &*s.fields[0] == address)
        };
        let free = (0..SERVICES).map(|_| serial() as u32 % SERVICES).find(|n| !taken(&v4(*n)));
        let number = free.ok_or_else(|| Status::new(500, "the range of service addresses is full"))?;
        let dual = matches!(spec["ipFamilyPolicy"].as_str(), Some("PreferDualStack" | "RequireDualStack"));
        spec["clusterIP"] = v4(number).into();
        spec["clusterIPs"] = if dual { json!([v4(number), v6(number)]) } else { json!([v4(number)]) };
        spec["ipFamilies"] = if dual { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) };
    } else if spec["clusterIPs"].is_null() {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    Ok(())
}

fn v4(number: u32) -> String {
    Ipv4Addr::from(FIRST_SERVICE + number).to_string()
}

fn v6(number: u32) -> String {
    Ipv6Addr::from(FIRST_SERVICE_V6 + u128::from(number)).to_string()
}

fn definition(value: &mut Fields) -> Result<(), Status> {
    let whole = Value::Object(value.clone());
    let resource = super::resources::custom(&whole)?;
    let accepted = json!({"kind": &*resource.kind, "plural": &*resource.plural, "singular": &*resource.singular,
                          "listKind": format!("{}List", resource.kind)});
    let stored: Vec<&str> = resource.versions.iter().filter(|v| v.storage).map(|v| &*v.name).collect();
    let since = whole.pointer("/status/conditions/0/lastTransitionTime").cloned().unwrap_or_else(|| now().into());
    let condition = |kind: &str, reason: &str| {
        json!({"type": kind, "status": "True", "reason": reason,
                                                      "message": "", "lastTransitionTime": since})
    };
    let conditions = [condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")];
    let status = json!({"acceptedNames": accepted, "storedVersions": stored, "conditions": conditions});
    value.insert("status".into(), status);
    fill(value, "spec", &json!({"conversion": {"strategy": "None"}}));
    Ok(())
}
