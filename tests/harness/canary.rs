//! The scene that most suites play in, and the YAML of its rules: a client, and service-b with two pods of v1 and one
//! of v2, over HTTP on port 80 and over plain TCP on port 9000.

use anyhow::Result;

use crate::manifests::{Manifests, Service};
use crate::mesh::{Mesh, Pod, PodSpec};

/// The service port of the HTTP canary, as `/status` names it.
pub const HTTP_PORT: &str = "default/service-b:80";
/// The service port of the TCP canary.
pub const TCP_PORT: &str = "default/service-b-tcp:9000";
/// Pods of service-b and their versions.
pub const BACKENDS: [(&str, &str); 3] = [("b-v1-0", "v1"), ("b-v1-1", "v1"), ("b-v2-0", "v2")];

/// A mesh with the scene in it; no rules yet.
#[derive(Debug)]
pub struct Canary {
    /// The pods.
    pub mesh: Mesh,
    /// Their manifests.
    pub manifests: Manifests,
    /// service-b, port 80, no name: to be detected.
    pub http: Service,
    /// service-b-tcp, port 9000, declared as TCP.
    pub tcp: Service,
}

impl Canary {
    /// Pods, origins and the manifests of pods, services and namespace (`enabled` = it takes part).
    ///
    /// # Errors
    /// When the kernel says no, or an origin does not start.
    pub fn new(enabled: bool) -> Result<Self> {
        let mut mesh = Mesh::new()?;
        furnish(&mut mesh)?;
        let manifests = Manifests::of(&mesh);
        let http = Service::new("service-b", 2).port("", 80, "80");
        let tcp = Service::new("service-b-tcp", 3).selects("service-b").port("tcp-orders", 9000, "9000");
        manifests.namespaces(&[("default", enabled)])?;
        manifests.pods(&mesh)?;
        manifests.service(&http)?;
        manifests.service(&tcp)?;
        Ok(Self { mesh, manifests, http, tcp })
    }

    /// The client.
    pub fn client(&self) -> &Pod {
        self.mesh.pod("client")
    }

    /// Writes subsets and an HTTP split for service-b.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn split_http(&self, v1: u32, v2: u32) -> Result<()> {
        self.manifests.write("canary.yaml", &format!("{}---\n{}", subsets("service-b"), http_split(v1, v2)))
    }

    /// Writes subsets and a TCP split for service-b-tcp.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn split_tcp(&self, v1: u32, v2: u32) -> Result<()> {
        let (subsets, split) = (subsets("service-b-tcp"), tcp_split(v1, v2));
        self.manifests.write("tcp-canary.yaml", &format!("{subsets}---\n{split}"))
    }
}

/// Makes the pods of the scene and starts their origins.
///
/// # Errors
/// When the kernel says no, or an origin does not start.
pub fn furnish(mesh: &mut Mesh) -> Result<()> {
    mesh.add_pod(PodSpec::new("client").label("app", "client"))?;
    for (pod, version) in BACKENDS {
        mesh.add_pod(PodSpec::new(pod).label("app", "service-b").label("version", version).port("", 80))?;
        mesh.serve(pod, "--http 80 --tcp 9000 --tcp-first 9001")?;
    }
    Ok(())
}

/// A DestinationRule with the subsets v1 and v2.
pub fn subsets(host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}, namespace: default}}\n\
         spec:\n  host: {host}\n  subsets:\n  - {{name: v1, labels: {{version: v1}}}}\n  \
         - {{name: v2, labels: {{version: v2}}}}\n"
    )
}

/// A VirtualService that splits service-b's HTTP.
pub fn http_split(v1: u32, v2: u32) -> String {
    virtual_service("service-b", &format!("  http:\n  - route:\n{}", split("service-b", 80, v1, v2)))
}

/// A VirtualService that splits service-b-tcp's connections.
pub fn tcp_split(v1: u32, v2: u32) -> String {
    let routes = split("service-b-tcp", 9000, v1, v2);
    virtual_service("service-b-tcp", &format!("  tcp:\n  - match: [{{port: 9000}}]\n    route:\n{routes}"))
}

/// A VirtualService for one host with the given rules (the YAML of `http:` and `tcp:`, indented by two).
pub fn virtual_service(host: &str, rules: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}, namespace: default}}\n\
         spec:\n  hosts: [{host}]\n{rules}"
    )
}

/// Weighted destinations, as the list under `route:`.
pub fn split(host: &str, port: u16, v1: u32, v2: u32) -> String {
    let one = |subset: &str, weight: u32| {
        format!(
            "    - destination: {{host: {host}, subset: {subset}, port: {{number: {port}}}}}\n      weight: {weight}\n"
        )
    };
    one("v1", v1) + &one("v2", v2)
}
