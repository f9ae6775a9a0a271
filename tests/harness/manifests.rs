//! The manifests of a run: pods as the kubelet and the API server would report them, services with their addresses,
//! and whatever a test writes. Used by the suites and by `cargo xtask demo`.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::mesh::{Mesh, NODE_NAME, Pod};

/// A directory of manifests. Files are replaced by rename, so a reader sees the old or the new one, never a part.
#[derive(Clone, Debug)]
pub struct Manifests {
    directory: PathBuf,
    staging: PathBuf,
}

impl Manifests {
    /// The directory of a mesh.
    pub fn of(mesh: &Mesh) -> Self {
        Self { directory: mesh.manifests_dir(), staging: mesh.scratch().join("staging") }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes or replaces a file.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn write(&self, file: &str, yaml: &str) -> Result<()> {
        let staged = self.staging.join(file);
        fs::write(&staged, yaml).with_context(|| format!("writing {}", staged.display()))?;
        fs::rename(&staged, self.directory.join(file)).with_context(|| format!("putting {file} in place"))
    }

    /// Replaces `from` by `to` in a file, as an editor would.
    ///
    /// # Errors
    /// When the file is not there or does not contain `from`.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(self.directory.join(file)).with_context(|| format!("reading {file}"))?;
        anyhow::ensure!(text.contains(from), "{file} has no {from:?}");
        self.write(file, &text.replace(from, to))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.directory.join(file)).with_context(|| format!("removing {file}"))
    }

    /// Writes `pods.yaml`: every pod of the mesh as it is now.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn pods(&self, mesh: &Mesh) -> Result<()> {
        self.write("pods.yaml", &mesh.pods().map(pod).collect::<Vec<_>>().join("---\n"))
    }

    /// Writes `namespaces.yaml` with each namespace and whether it takes part.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn namespaces(&self, namespaces: &[(&str, bool)]) -> Result<()> {
        let mut yaml = String::new();
        for (name, enabled) in namespaces {
            let label = if *enabled { "\n  labels: {weir.mesh/mode: enabled}" } else { "" };
            let _infallible = writeln!(yaml, "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}{label}");
        }
        self.write("namespaces.yaml", &yaml)
    }

    /// Writes a service to `service-NAME.yaml`.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn service(&self, service: &Service) -> Result<()> {
        self.write(&format!("service-{}.yaml", service.name), &service.yaml())
    }
}

/// A Service with an address of each family.
#[derive(Clone, Debug)]
pub struct Service {
    /// `metadata.name`
    pub name: String,
    /// `metadata.namespace`
    pub namespace: String,
    /// Its number: the last part of both addresses.
    pub host: u8,
    /// `spec.selector`
    pub selector: Vec<(String, String)>,
    /// Name (may be empty), port, target port (number or name).
    pub ports: Vec<(String, u16, String)>,
}

impl Service {
    /// A service in namespace `default` that selects the label `app` of its own name.
    pub fn new(name: &str, host: u8) -> Self {
        Self {
            name: name.into(),
            namespace: "default".into(),
            host,
            selector: vec![("app".into(), name.into())],
            ports: Vec::new(),
        }
    }

    /// In another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Selecting another `app`.
    #[must_use]
    pub fn selects(mut self, app: &str) -> Self {
        self.selector = vec![("app".into(), app.into())];
        self
    }

    /// With a port.
    #[must_use]
    pub fn port(mut self, name: &str, port: u16, target: &str) -> Self {
        self.ports.push((name.into(), port, target.into()));
        self
    }

    /// Its IPv4 cluster address.
    pub fn ipv4(&self) -> Ipv4Addr {
        cluster_ips(self.host).0
    }

    /// Its IPv6 cluster address.
    pub fn ipv6(&self) -> Ipv6Addr {
        cluster_ips(self.host).1
    }

    /// Where clients dial.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ipv4(), port).into()
    }

    /// Where clients dial, IPv6.
    pub fn at6(&self, port: u16) -> SocketAddr {
        (self.ipv6(), port).into()
    }

    fn yaml(&self) -> String {
        let (v4, v6) = cluster_ips(self.host);
        let mut yaml = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {}\n  namespace: {}\nspec:\n  type: ClusterIP\n  \
             clusterIP: {v4}\n  clusterIPs: [\"{v4}\", \"{v6}\"]\n  ipFamilies: [IPv4, IPv6]\n  \
             ipFamilyPolicy: RequireDualStack\n  selector: {}\n  ports:\n",
            self.name,
            self.namespace,
            flow(self.selector.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
        );
        for (name, port, target) in &self.ports {
            let _infallible = writeln!(yaml, "  - port: {port}\n    targetPort: {target}\n    protocol: TCP");
            if !name.is_empty() {
                let _infallible = writeln!(yaml, "    name: {name}");
            }
        }
        yaml
    }
}

/// The addresses of the service with that number.
pub fn cluster_ips(host: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 96, 0, host), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, u16::from(host)))
}

/// Gives the Services of a file their addresses, as the API server does on admission; `first` is the first one's
/// number. Everything else stays as it is written.
pub fn admit(yaml: &str, first: u8) -> String {
    let mut host = first;
    let documents: Vec<String> = yaml
        .split("---\n")
        .map(|document| {
            if !document.lines().any(|l| l.trim_end() == "kind: Service") || document.contains("clusterIP") {
                return document.to_owned();
            }
            let (v4, v6) = cluster_ips(host);
            host += 1;
            document.replacen(
                "\nspec:\n",
                &format!("\nspec:\n  clusterIP: {v4}\n  clusterIPs: [\"{v4}\", \"{v6}\"]\n"),
                1,
            )
        })
        .collect();
    documents.join("---\n")
}

/// `{a: "b"}`: values in quotes, so that `"true"` and `"1"` stay text.
fn flow<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let parts: Vec<String> = pairs.map(|(k, v)| format!("{k}: \"{v}\"")).collect();
    format!("{{{}}}", parts.join(", "))
}

fn pod(pod: &Pod) -> String {
    let ports: Vec<String> = pod
        .spec
        .ports
        .iter()
        .map(|(name, number)| {
            let name = if name.is_empty() { String::new() } else { format!("name: {name}, ") };
            format!("{{{name}containerPort: {number}, protocol: TCP}}")
        })
        .collect();
    let place = if pod.spec.uid.is_empty() {
        let (netns, cgroup) = (pod.place.netns.path(), &pod.place.cgroup);
        format!("annotations:\n    weir.mesh/netns: {}\n    weir.mesh/cgroup: {}\n", netns.display(), cgroup.display())
    } else {
        format!("uid: {}\n", pod.spec.uid)
    };
    // The kubelet reports the addresses of a sandbox some time after it has made it.
    let addresses = if pod.spec.uid.is_empty() || pod.ready {
        format!("  podIP: {ipv4}\n  podIPs:\n  - ip: {ipv4}\n  - ip: \"{}\"\n", pod.ipv6, ipv4 = pod.ipv4)
    } else {
        String::new()
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  labels: {labels}\n  \
         {place}spec:\n  nodeName: {NODE_NAME}\n  \
         containers:\n  - name: app\n    image: example.invalid/app\n    ports: [{ports}]\nstatus:\n  phase: Running\n  \
         conditions:\n  - type: Ready\n    status: \"{ready}\"\n{addresses}",
        name = pod.spec.name,
        namespace = pod.spec.namespace,
        labels = flow(pod.spec.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()))),
        ports = ports.join(", "),
        ready = if pod.ready { "True" } else { "False" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_gives_each_service_its_own_address_and_leaves_the_rest_alone() {
        let yaml = "kind: Deployment\nspec:\n  replicas: 1\n---\nkind: Service\nspec:\n  selector: {app: a}\n---\n\
                    kind: Service\nspec:\n  selector: {app: b}\n";
        let admitted = admit(yaml, 4);
        assert!(admitted.contains("spec:\n  replicas: 1\n"));
        assert!(
            admitted.contains(
                "clusterIP: 10.96.0.4\n  clusterIPs: [\"10.96.0.4\", \"fd00:10:96::4\"]\n  selector: {app: a}"
            )
        );
        assert!(admitted.contains("clusterIP: 10.96.0.5\n"));
        assert_eq!(admitted.matches("clusterIP:").count(), 2);
    }
}
