//! Many objects at once, for tests of scale: services with their endpoints and pods, and VirtualServices. Objects have
//! the size that those of a real cluster have. Called by `command`.

use std::net::Ipv4Addr;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::server::Server;
use super::write;

/// Endpoints of one slice: what the real controller puts into one.
const SLICE: u64 = 100;

/// How many of what. Endpoint `i` of a service is its pod `i`; the pods that are left over belong to no service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Population {
    /// Namespaces `scale-0` …; services are spread over them.
    pub namespaces: u64,
    /// Services `service-0` …, each with two ports.
    pub services: u64,
    /// Endpoints, spread evenly over the services.
    pub endpoints: u64,
    /// Pods; at least as many as endpoints.
    pub pods: u64,
    /// Nodes `node-0` …, over which the pods are spread.
    pub nodes: u64,
    /// VirtualServices, one for each of the first services, with two weighted subsets; each with a DestinationRule.
    pub virtual_services: u64,
}

impl Default for Population {
    fn default() -> Self {
        Self { namespaces: 100, services: 100, endpoints: 500, pods: 1000, nodes: 10, virtual_services: 50 }
    }
}

impl Population {
    /// 10,000 services, 50,000 endpoints, 100,000 pods on 1,000 nodes, 5,000 VirtualServices.
    pub const LARGE: Self = Self {
        namespaces: 200,
        services: 10_000,
        endpoints: 50_000,
        pods: 100_000,
        nodes: 1_000,
        virtual_services: 5_000,
    };

    /// The namespace of a service.
    pub fn namespace(&self, service: u64) -> String {
        format!("scale-{}", service % self.namespaces.max(1))
    }

    /// The address of a pod.
    pub fn pod_address(pod: u64) -> Ipv4Addr {
        Ipv4Addr::from(0x0a80_0000 + pod as u32)
    }

    /// The address of a service.
    pub fn service_address(service: u64) -> Ipv4Addr {
        Ipv4Addr::from(0x0a64_0000 + service as u32)
    }

    /// The pods that stand behind a service: a range of their numbers.
    pub fn pods_of(&self, service: u64) -> std::ops::Range<u64> {
        let (all, services) = (self.endpoints, self.services.max(1));
        service * all / services..(service + 1) * all / services
    }

    /// Stores everything, and gives the number of bytes.
    pub(super) fn create(&self, server: &Server) -> Result<Value> {
        let put = |object: Value| -> Result<()> {
            write::put_whole(&mut server.store(), object).map_err(|s| anyhow!("{}", s.json()["message"])).map(drop)
        };
        for n in 0..self.namespaces {
            let labels = json!({"weir.mesh/mode": "enabled"});
            put(json!({"apiVersion": "v1", "kind": "Namespace",
                       "metadata": {"name": format!("scale-{n}"), "labels": labels}}))?;
        }
        for n in 0..self.nodes {
            put(node(n))?;
        }
        for service in 0..self.services {
            put(self.service(service))?;
            for pod in self.pods_of(service) {
                put(self.pod(pod, service, &format!("service-{service}")))?;
            }
            let pods: Vec<u64> = self.pods_of(service).collect();
            for (part, pods) in pods.chunks(SLICE as usize).enumerate() {
                put(self.slice(service, part, pods))?;
            }
        }
        for pod in self.endpoints..self.pods {
            put(self.pod(pod, pod, "alone"))?;
        }
        for service in 0..self.virtual_services {
            put(self.virtual_service(service))?;
            put(self.destination_rule(service))?;
        }
        Ok(server.store().bytes().into())
    }

    fn service(&self, service: u64) -> Value {
        let address = Self::service_address(service).to_string();
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": format!("service-{service}"), "namespace": self.namespace(service),
                "labels": {"app": format!("service-{service}"), "team": format!("team-{}", service % 50)},
            },
            "spec": {
                "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "selector": {"app": format!("service-{service}")},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
                          {"name": "tcp-admin", "port": 9000, "targetPort": 9000, "protocol": "TCP"}],
            },
        })
    }

    fn slice(&self, service: u64, part: usize, pods: &[u64]) -> Value {
        let endpoints: Vec<Value> = pods
            .iter()
            .map(|pod| {
                json!({
                    "addresses": [Self::pod_address(*pod).to_string()],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "nodeName": self.node_of(*pod), "zone": format!("zone-{}", pod % 3),
                    "targetRef": {"kind": "Pod", "name": format!("pod-{pod}"), "namespace": self.namespace(service)},
                })
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("service-{service}-{part}"), "namespace": self.namespace(service),
                "labels": {"kubernetes.io/service-name": format!("service-{service}"),
                           "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
            },
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"},
                      {"name": "tcp-admin", "port": 9000, "protocol": "TCP"}],
        })
    }

    fn node_of(&self, pod: u64) -> String {
        format!("node-{}", pod % self.nodes.max(1))
    }

    /// A pod about as large as one with two containers in a real cluster.
    fn pod(&self, pod: u64, service: u64, app: &str) -> Value {
        let address = Self::pod_address(pod).to_string();
        let container = |name: &str, port: u16| {
            json!({
                "name": name, "image": format!("registry.example.invalid/{app}:1.{}", pod % 9),
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": port, "protocol": "TCP"}],
                "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": port, "scheme": "HTTP"}, "periodSeconds": 5},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
            })
        };
        let status = |name: &str| {
            json!({"name": name, "ready": true, "restartCount": 0, "started": true,
                   "containerID": format!("containerd://{pod:064x}"),
                   "state": {"running": {"startedAt": "2025-01-01T00:00:00Z"}}})
        };
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z", "lastProbeTime": null});
        let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("pod-{pod}"), "namespace": self.namespace(service),
                "generateName": format!("{app}-"),
                "labels": {"app": app, "version": format!("v{}", 1 + pod % 2), "pod-template-hash": "5d4f8c7b9"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-5d4f8c7b9"),
                                     "uid": format!("{service:08x}-0000-4000-8000-000000000000"), "controller": true}],
                "managedFields": [managed("kube-controller-manager"), managed("kubelet")],
            },
            "spec": {
                "nodeName": self.node_of(pod), "serviceAccountName": app,
                "containers": [container("app", 8080), container("admin", 9000)],
                "volumes": [{"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}}],
                "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
            },
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "192.0.2.1",
                "conditions": conditions,
                "containerStatuses": [status("app"), status("admin")],
                "startTime": "2025-01-01T00:00:00Z", "qosClass": "Burstable",
            },
        })
    }

    fn virtual_service(&self, service: u64) -> Value {
        let host = format!("service-{service}");
        let to = |subset: &str, weight: u64| json!({"destination": {"host": host, "subset": subset, "port": {"number": 80}}, "weight": weight});
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": host, "namespace": self.namespace(service)},
            "spec": {"hosts": [host], "http": [
                {"match": [{"uri": {"prefix": "/admin"}}], "route": [to("v1", 100)]},
                {"route": [to("v1", 90), to("v2", 10)]},
            ]},
        })
    }

    fn destination_rule(&self, service: u64) -> Value {
        let host = format!("service-{service}");
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": host, "namespace": self.namespace(service)},
            "spec": {"host": host, "subsets": [
                {"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}},
            ]},
        })
    }
}

fn node(n: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{n}"),
                     "labels": {"kubernetes.io/hostname": format!("node-{n}"),
                                "topology.kubernetes.io/zone": format!("zone-{}", n % 3)}},
        "spec": {"podCIDR": "10.128.0.0/24"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}],
                   "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    })
}

fn managed(manager: &str) -> Value {
    let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:version": {}}},
                        "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {".": {}, "f:image": {}, "f:ports": {}}},
                                   "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}}});
    json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2025-01-01T00:00:00Z",
           "fieldsType": "FieldsV1", "fieldsV1": fields})
}
