//! Which pod of which installation this process is. The manifests are the user's to change (another namespace, a prefix
//! on every name), so nothing is taken from what weir calls it by default: the kubelet tells the pod's own names, and
//! the pod's owner is the DaemonSet. Made by `cli`, used by `app` and by [`super::installation`].

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ObjectMeta};
use kube::{Client, Error};

use super::in_time;

/// The agent's own names. The DaemonSet passes them in by the downward API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPod {
    /// The installation's namespace.
    pub namespace: String,
    /// The pod.
    pub name: String,
    /// Its ServiceAccount, which is in the same namespace.
    pub account: String,
}

impl OwnPod {
    /// Reads `POD_NAMESPACE`, `POD_NAME` and `SERVICE_ACCOUNT`. `None` for an agent that somebody started by hand.
    pub fn from_environment() -> Option<Self> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        Some(Self {
            namespace: variable("POD_NAMESPACE")?,
            name: variable("POD_NAME")?,
            account: variable("SERVICE_ACCOUNT")?,
        })
    }

    /// The name of the DaemonSet that the pod belongs to; `None` when it belongs to none.
    ///
    /// # Errors
    /// When the pod cannot be read.
    pub async fn daemon_set(&self, client: &Client) -> Result<Option<String>, Error> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let pod = in_time(pods.get_metadata(&self.name)).await?;
        Ok(owner(&pod.metadata))
    }
}

fn owner(pod: &ObjectMeta) -> Option<String> {
    let owners = pod.owner_references.iter().flatten();
    owners.clone().find(|o| o.kind == "DaemonSet" && o.controller == Some(true)).map(|o| o.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pod_knows_its_names() {
        let read = |account: &str| {
            OwnPod::read(|name| match name {
                "POD_NAMESPACE" => Some("mesh".into()),
                "POD_NAME" => Some("x-weir-abcde".into()),
                "SERVICE_ACCOUNT" => Some(account.into()),
                _ => None,
            })
        };
        let own = OwnPod { namespace: "mesh".into(), name: "x-weir-abcde".into(), account: "x-weir".into() };
        assert_eq!(read("x-weir"), Some(own));
        assert_eq!(read(""), None);
        assert_eq!(OwnPod::read(|_| None), None);
    }

    #[test]
    fn the_owner_is_the_daemon_set_that_controls_the_pod() {
        let meta = |kind: &str, controller: bool| -> ObjectMeta {
            let owner = serde_json::json!({
                "apiVersion": "apps/v1", "kind": kind, "name": "x-weir", "uid": "1", "controller": controller,
            });
            serde_json::from_value(serde_json::json!({"ownerReferences": [owner]})).expect("metadata")
        };
        assert_eq!(owner(&meta("DaemonSet", true)).as_deref(), Some("x-weir"));
        assert_eq!(owner(&meta("DaemonSet", false)), None);
        assert_eq!(owner(&meta("Node", true)), None);
        assert_eq!(owner(&ObjectMeta::default()), None);
    }
}
