//! The CustomResourceDefinitions of the Istio kinds that weir reads, for clusters in which Istio never was. Used by
//! `weir crds` and by the elected agent.
//!
//! They belong to Istio: what is there already is never changed, and nothing is ever deleted. Ours keep every field,
//! known or not, so that an object goes through weir's definition and through Istio's with the same bytes. Kinds that
//! weir does not serve (EnvoyFilter, WasmPlugin, ProxyConfig, WorkloadGroup) are left out: applying one fails loudly
//! instead of doing nothing quietly.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::{Client, Error, ResourceExt};
use serde_json::{Value, json};

use super::in_time;

/// A kind of Istio's.
struct Kind {
    group: &'static str,
    name: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    /// The newest first; that one is stored.
    versions: &'static [&'static str],
    /// Name, type, path.
    columns: &'static [(&'static str, &'static str, &'static str)],
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const NETWORKING_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];
const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");

/// Names, versions and columns as `kubectl get` shows them with Istio's own definitions.
const KINDS: &[Kind] = &[
    Kind {
        group: NETWORKING,
        name: "VirtualService",
        plural: "virtualservices",
        short: &["vs"],
        versions: NETWORKING_VERSIONS,
        columns: &[("Gateways", "string", ".spec.gateways"), ("Hosts", "string", ".spec.hosts"), AGE],
    },
    Kind {
        group: NETWORKING,
        name: "DestinationRule",
        plural: "destinationrules",
        short: &["dr"],
        versions: NETWORKING_VERSIONS,
        columns: &[("Host", "string", ".spec.host"), AGE],
    },
    Kind {
        group: NETWORKING,
        name: "Gateway",
        plural: "gateways",
        short: &["gw"],
        versions: NETWORKING_VERSIONS,
        columns: &[],
    },
    Kind {
        group: NETWORKING,
        name: "ServiceEntry",
        plural: "serviceentries",
        short: &["se"],
        versions: NETWORKING_VERSIONS,
        columns: &[
            ("Hosts", "string", ".spec.hosts"),
            ("Location", "string", ".spec.location"),
            ("Resolution", "string", ".spec.resolution"),
            AGE,
        ],
    },
    Kind {
        group: NETWORKING,
        name: "Sidecar",
        plural: "sidecars",
        short: &[],
        versions: NETWORKING_VERSIONS,
        columns: &[],
    },
    Kind {
        group: NETWORKING,
        name: "WorkloadEntry",
        plural: "workloadentries",
        short: &["we"],
        versions: NETWORKING_VERSIONS,
        columns: &[AGE, ("Address", "string", ".spec.address")],
    },
    Kind {
        group: SECURITY,
        name: "AuthorizationPolicy",
        plural: "authorizationpolicies",
        short: &["ap"],
        versions: SECURITY_VERSIONS,
        columns: &[("Action", "string", ".spec.action"), AGE],
    },
    Kind {
        group: SECURITY,
        name: "PeerAuthentication",
        plural: "peerauthentications",
        short: &["pa"],
        versions: SECURITY_VERSIONS,
        columns: &[("Mode", "string", ".spec.mtls.mode"), AGE],
    },
    Kind {
        group: SECURITY,
        name: "RequestAuthentication",
        plural: "requestauthentications",
        short: &["ra"],
        versions: SECURITY_VERSIONS,
        columns: &[],
    },
    Kind {
        group: "telemetry.istio.io",
        name: "Telemetry",
        plural: "telemetries",
        short: &["telemetry"],
        versions: &["v1", "v1alpha1"],
        columns: &[AGE],
    },
];

impl Kind {
    fn definition(&self) -> Value {
        let versions: Vec<Value> = self.versions.iter().enumerate().map(|(at, v)| self.version(v, at == 0)).collect();
        let group_category = self.group.trim_end_matches(".io").replace('.', "-");
        // `networking.istio.io` is in the category `networking-istio-io`.
        let categories = ["istio-io".to_owned(), format!("{group_category}-io")];
        let mut names = json!({
            "kind": self.name,
            "listKind": format!("{}List", self.name),
            "plural": self.plural,
            "singular": self.name.to_lowercase(),
            "categories": categories,
        });
        if !self.short.is_empty() {
            names["shortNames"] = json!(self.short);
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{}.{}", self.plural, self.group),
                "labels": { "app.kubernetes.io/managed-by": "weir" },
            },
            "spec": { "group": self.group, "names": names, "scope": "Namespaced", "versions": versions },
        })
    }

    fn version(&self, name: &str, stored: bool) -> Value {
        let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let mut version = json!({
            "name": name,
            "served": true,
            "storage": stored,
            "subresources": { "status": {} },
            "schema": { "openAPIV3Schema": {
                "type": "object",
                "properties": { "spec": anything, "status": anything },
            } },
        });
        let column = |(name, kind, path): &(&str, &str, &str)| json!({"name": name, "type": kind, "jsonPath": path});
        if !self.columns.is_empty() {
            version["additionalPrinterColumns"] = self.columns.iter().map(column).collect();
        }
        version
    }
}

/// Every definition, in a fixed order.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let typed = |kind: &Kind| serde_json::from_value(kind.definition()).expect("the tests decode every definition");
    KINDS.iter().map(typed).collect()
}

/// What became of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was absent.
    Created,
    /// It was there, and is as it was.
    Present,
}

/// Creates what is absent, by get and create alone. Returns each name with what became of it.
///
/// # Errors
/// With the first answer that is neither; those before it are done, and a repetition finds them present.
pub async fn create_absent(client: &Client) -> Result<Vec<(String, Outcome)>, Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut outcomes = Vec::new();
    for definition in definitions() {
        let name = definition.name_any();
        let outcome = match in_time(api.get_metadata_opt(&name)).await? {
            Some(_) => Outcome::Present,
            None => match in_time(api.create(&PostParams::default(), &definition)).await {
                Ok(_) => Outcome::Created,
                // Somebody was faster: theirs it is.
                Err(Error::Api(status)) if status.code == http::StatusCode::CONFLICT => Outcome::Present,
                Err(error) => return Err(error),
            },
        };
        outcomes.push((name, outcome));
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_one_that_the_api_server_takes() {
        let all = definitions();
        assert_eq!(all.len(), KINDS.len());
        for definition in &all {
            let spec = &definition.spec;
            assert_eq!(definition.name_any(), format!("{}.{}", spec.names.plural, spec.group));
            assert_eq!(spec.versions.iter().filter(|v| v.storage).count(), 1, "{}", spec.names.kind);
            assert_eq!((spec.versions[0].name.as_str(), spec.versions[0].storage), ("v1", true));
            assert!(spec.versions.iter().all(|v| v.served && v.subresources.is_some()));
        }
    }

    #[test]
    fn nothing_of_spec_and_status_is_pruned() {
        for definition in definitions() {
            for version in &definition.spec.versions {
                let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()).expect("a schema");
                let properties = schema.properties.as_ref().expect("properties");
                for part in ["spec", "status"] {
                    assert_eq!(properties[part].x_kubernetes_preserve_unknown_fields, Some(true));
                    assert!(properties[part].properties.is_none(), "a listed field could refuse an Istio object");
                }
            }
        }
    }

    #[test]
    fn what_istio_calls_them_is_what_we_call_them() {
        let all = definitions();
        let names = &all.iter().find(|d| d.spec.names.kind == "VirtualService").expect("it is read").spec.names;
        assert_eq!(names.categories.as_deref(), Some(&["istio-io".to_owned(), "networking-istio-io".to_owned()][..]));
        assert_eq!(names.short_names.as_deref(), Some(&["vs".to_owned()][..]));
        assert_eq!(names.singular.as_deref(), Some("virtualservice"));
    }
}
